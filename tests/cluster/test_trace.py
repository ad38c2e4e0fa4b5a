"""`curve volume trace`: where the writes of a volume spend their time, over a real cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from running_cluster import RunningCluster

SECONDS = "3"
SEQUENCE = ("client", "network", "queue", "commit", "answer")


@contextmanager
def written(cluster: RunningCluster, name: str) -> Iterator[None]:
    """The volume is written to meanwhile, by the client library."""
    enough = threading.Event()
    with cluster.connect() as connected, connected.volumes().open(name) as volume:

        def write() -> None:
            number = 0
            while not enough.is_set():
                volume.write(number % 200 * 1048576, bytes(8192))
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield
        finally:
            enough.set()
            writer.join()


def test_every_stage_of_the_writes_is_there(cluster: RunningCluster) -> None:
    cluster.curve("volume", "create", "traced", "256MiB")
    with written(cluster, "traced"):
        found = cluster.curve("volume", "trace", "traced", "--seconds", SECONDS)
        shown = cluster.run("volume", "trace", "traced", "--seconds", SECONDS, json=False)
    assert found["unreachable"] == []
    assert found["writes"] > 0
    assert sum(found["writes_by_store"].values()) == found["writes"]
    assert len(found["writes_by_store"]) == 3
    stages = found["stages"]
    assert 0 < found["whole"] <= found["writes"]
    for name in ("queue", "commit", "answer"):
        assert stages[name]["count"] == found["writes"]
    for name in ("client", "network", "total"):
        assert stages[name]["count"] == found["whole"]
    for stage in stages.values():
        assert sum(count for _, count in stage["histogram_ns"]) == stage["count"]
        assert stage["p50_ns"] <= stage["p99_ns"] <= stage["max_ns"]
    assert stages["total"]["mean_ns"] > stages["commit"]["mean_ns"] > 0
    assert shown.returncode == 0
    assert "Traceback" not in shown.stderr
    for name in (*SEQUENCE, "log", "follower", "total"):
        assert f" {name} " in shown.stdout
    cluster.curve("volume", "delete", "traced")


def test_nothing_written_and_mistakes_are_said(cluster: RunningCluster) -> None:
    cluster.curve("volume", "create", "untouched", "256MiB")
    still = cluster.run("volume", "trace", "untouched", "--seconds", "0.2", json=False)
    assert still.returncode == 0
    assert "Nothing was written to untouched" in still.stdout
    for seconds in ("0", "-1", "601"):
        wrong = cluster.run("volume", "trace", "untouched", "--seconds", seconds)
        assert wrong.returncode == 1
        assert "at most 600 seconds" in wrong.stderr
    unknown = cluster.run("volume", "trace", "nobody", "--seconds", "1")
    assert unknown.returncode == 1
    assert '"kind": "not_found"' in unknown.stdout
    cluster.curve("volume", "delete", "untouched")


def test_a_second_trace_is_told_that_one_runs(cluster: RunningCluster) -> None:
    names = ("traced-first", "traced-second")
    with cluster.connect() as connected:
        volumes = connected.volumes()
        for name in names:
            volumes.create(name, "256MiB")
        first = threading.Thread(target=lambda: volumes.trace(names[0], 8))
        first.start()
        time.sleep(2)  # it has begun everywhere
        second = cluster.curve("volume", "trace", names[1], "--seconds", "0.2")
        first.join()
        assert len(second["unreachable"]) == 3
        assert "Another trace runs" in second["unreachable"][0]["message"]
        assert volumes.trace(names[1], 0.2).unreachable == ()
        for name in names:
            volumes.delete(name)
