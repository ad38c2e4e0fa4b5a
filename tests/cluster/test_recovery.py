"""Four real chunkservers under a checked load: one is killed for good, drained, added, removed.

No time is asserted; bounds only end a test that would hang. The tests of this file go from one to
the next on one cluster, each of them leaves it whole.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running_cluster import RunningCluster

from curve_py.cli.bench.load import Ledger, Reader, Writer
from curve_py.client import AttachMode, ChunkserverInfo, Cluster, Volume
from curve_py.placement import CHUNK_BYTES, copyset_index

MIB = 1 << 20
BOUND_SECONDS = 200.0
VOLUME_BYTES = 384 * MIB
PATTERN_BYTES = 96 * MIB  # the first part of the volume: written once, compared at the end
PIECE_BYTES = MIB


class Four(RunningCluster):
    """A cluster directory of its own."""

    store_size = "768MiB"
    command_seconds = BOUND_SECONDS

    def chunkserver(self, cluster: Cluster, name: str) -> ChunkserverInfo:
        services = {s["name"]: s["address"] for s in self.curve("status")["services"]}
        return next(c for c in cluster.chunkservers() if c.data_address == services[name])


@pytest.fixture(scope="module")
def four() -> Iterator[Four]:
    made = Four(Path(tempfile.mkdtemp(prefix="curve-four-")))
    try:
        made.up("--chunkservers", "4")
        yield made
    finally:
        made.run("down")
        shutil.rmtree(made.directory, ignore_errors=True)


@pytest.fixture
def uneven() -> Iterator[Four]:
    """Three chunkservers and a small one."""
    made = Four(Path(tempfile.mkdtemp(prefix="curve-uneven-")))
    try:
        made.curve("up", "--chunkservers", "3", "--store-size", "384MiB")
        made.curve("up", "--chunkservers", "4", "--store-size", "128MiB")
        yield made
    finally:
        made.run("down")
        shutil.rmtree(made.directory, ignore_errors=True)


def eventually(condition: Callable[[], bool], what: str, cluster: Cluster) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not {what}: {cluster.tasks()}"
        time.sleep(0.2)


def is_whole(cluster: Cluster, without: str = "") -> bool:
    """Every copyset has three replicas that serve, none of them on `without`; nothing moves."""
    status = cluster.status()
    still = not status.recovery.running and not status.recovery.queued
    return (
        still
        and status.copysets_degraded == 0
        and all(
            len(copyset.replicas) == 3
            and all(r.store_id != without and r.state == "up" for r in copyset.replicas)
            for copyset in cluster.copysets()
        )
    )


def is_even(cluster: Cluster) -> bool:
    """Replicas and leaders are spread, and nobody holds what is not his."""
    servers = [c for c in cluster.chunkservers() if c.life == "in_service" and c.state == "up"]
    replicas = [c.replica_count for c in servers]
    leaders = [c.leader_count for c in servers]
    return (
        is_whole(cluster)
        and all(c.replica_count == c.assigned_count for c in servers)
        and max(replicas) - min(replicas) <= 1
        and max(leaders) - min(leaders) <= 3
        and sum(leaders) == 64
    )


def pieces(seed: int) -> Iterator[tuple[int, bytes]]:
    source = random.Random(seed)
    for offset in range(0, PATTERN_BYTES, PIECE_BYTES):
        yield offset, source.randbytes(PIECE_BYTES)


@contextlib.contextmanager
def checked_load(cluster: Cluster, name: str) -> Iterator[tuple[Writer, Volume]]:
    """Writes and reads while the body runs. At its end: no error, nothing stale, nothing lost."""
    cluster.volumes().create(name, VOLUME_BYTES)
    slots = 256
    step = (VOLUME_BYTES - PATTERN_BYTES) // slots
    ledger = Ledger([PATTERN_BYTES + slot * step for slot in range(slots)])
    with cluster.volumes().open(name, AttachMode.EXCLUSIVE) as volume:
        for offset, data in pieces(len(name)):
            volume.write(offset, data)
        writer, reader = Writer(volume, ledger, 1), Reader(volume, ledger, 2)
        writer.start()
        reader.start()
        try:
            yield writer, volume
        finally:
            writer.end(BOUND_SECONDS)
            reader.end(BOUND_SECONDS)
        assert writer.error is None
        assert reader.error is None
        assert writer.latencies.samples
        ledger.check_all(volume)
        assert ledger.stale == []
        for offset, data in pieces(len(name)):
            assert volume.read(offset, PIECE_BYTES) == data, f"at {offset}"
    cluster.volumes().delete(name)


def test_a_killed_chunkserver_is_replaced_without_an_operator(four: Four) -> None:
    """And when it comes back after all, what it has left is taken off it and it is filled anew."""
    with Cluster.connect(four.directory) as cluster, checked_load(cluster, "killed"):
        # A metaserver that has just begun to lead has not heard of everybody yet.
        eventually(
            lambda: four.chunkserver(cluster, "chunkserver-2").replica_count == 48, "full", cluster
        )
        victim = four.chunkserver(cluster, "chunkserver-2")
        four.kill("chunkserver-2")
        eventually(lambda: is_whole(cluster, victim.store_id), "replaced", cluster)
        tasks = cluster.tasks()
        assert any(task.reason == "replace" for task in tasks.ended)
        assert any("is gone" in line for p in tasks.passes for line in p.decisions)
        states = {c.store_id: c.state for c in cluster.chunkservers()}
        assert states[victim.store_id] == "gone"
        assert four.up()["started"] == ["chunkserver-2"]
        eventually(lambda: is_even(cluster), "even again", cluster)


def test_a_drained_chunkserver_is_empty_and_is_filled_when_it_is_undrained(four: Four) -> None:
    with Cluster.connect(four.directory) as cluster, checked_load(cluster, "drained"):
        four.curve("chunkserver", "drain", "chunkserver-1")
        drained = four.chunkserver(cluster, "chunkserver-1").store_id

        def is_empty() -> bool:
            found = four.chunkserver(cluster, "chunkserver-1")
            return not found.assigned_count and not found.replica_count

        eventually(is_empty, "drained", cluster)
        eventually(lambda: is_whole(cluster, drained), "whole without it", cluster)
        assert four.chunkserver(cluster, "chunkserver-1").condition == "drained"
        refused = four.run("chunkserver", "drain", "chunkserver-3")
        assert refused.returncode == 1
        assert "only 2 are in service" in refused.stderr
        four.curve("chunkserver", "undrain", drained[:8])
        eventually(lambda: is_even(cluster), "filled again", cluster)


def test_a_chunkserver_that_is_added_is_filled_and_one_that_is_gone_is_removed(four: Four) -> None:
    with Cluster.connect(four.directory) as cluster, checked_load(cluster, "added"):
        assert four.up("--chunkservers", "5")["started"] == ["chunkserver-5"]
        eventually(lambda: is_even(cluster), "filled", cluster)
        added = four.chunkserver(cluster, "chunkserver-5")
        assert added.replica_count >= 38
        assert added.used_bytes > 5 * MIB
        gone = four.chunkserver(cluster, "chunkserver-3")
        refused = four.run("chunkserver", "remove", "chunkserver-3")
        assert "still holds replicas" in refused.stderr
        four.kill("chunkserver-3")
        eventually(lambda: is_whole(cluster, gone.store_id), "replaced", cluster)
        removed = four.curve("chunkserver", "remove", "chunkserver-3")
        assert removed["chunkserver"]["life"] == "removed"
        assert four.up()["started"] == []  # nobody misses it
        names = [s["name"] for s in four.curve("status")["services"]]
        assert "chunkserver-3" not in names
        eventually(lambda: is_even(cluster), "even", cluster)


def test_copysets_leave_a_store_before_it_is_full(uneven: Four) -> None:
    """All that is written goes to copysets of the small store, in all more than it can hold."""
    with Cluster.connect(uneven.directory) as cluster:
        eventually(lambda: is_filled(cluster), "filled", cluster)
        volume_id = cluster.volumes().create("wide", 64 * CHUNK_BYTES).volume_id
        small = min(cluster.chunkservers(), key=lambda c: c.capacity_bytes)
        there = {
            copyset.copyset_id & 0xFFFFFFFF
            for copyset in cluster.copysets()
            if any(replica.store_id == small.store_id for replica in copyset.replicas)
        }
        chunks = [c for c in range(64) if copyset_index(volume_id, c, 64) in there]
        assert len(chunks) >= 4
        piece = random.Random(1).randbytes(PIECE_BYTES)
        written = 0
        with cluster.volumes().open("wide") as volume:
            for offset in range(0, CHUNK_BYTES, PIECE_BYTES):
                for chunk in chunks:
                    if written == 136:
                        break
                    volume.write(chunk * CHUNK_BYTES + offset, piece)
                    written += 1
                    if written > 80 and written % 4 == 0:  # from here on it must make room
                        now = time.monotonic()
                        eventually(lambda now=now: has_room(cluster, now), "room", cluster)
            for chunk in chunks:
                assert volume.read(chunk * CHUNK_BYTES, PIECE_BYTES) == piece
        moved = [task for task in cluster.tasks().ended if task.reason == "space"]
        assert moved
        assert all("% full" in task.why for task in moved)


def is_filled(cluster: Cluster) -> bool:
    """The small one has got its share of replicas."""
    small = min(cluster.chunkservers(), key=lambda c: c.capacity_bytes)
    return is_whole(cluster) and small.replica_count == small.assigned_count >= 10


def has_room(cluster: Cluster, since: float) -> bool:
    """The small one said after `since` that it is less than 85 % full."""
    small = min(cluster.chunkservers(), key=lambda c: c.capacity_bytes)
    is_fresh = small.heartbeat_age_ms / 1000 < time.monotonic() - since
    return is_fresh and small.used_bytes + small.reserved_bytes <= 0.85 * small.capacity_bytes
