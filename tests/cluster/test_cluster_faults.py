"""A real cluster under SIGKILL, with verified load: R2, R12 and promise 3.

The record of what was acknowledged is kept here, outside of the cluster.
"""

from __future__ import annotations

import random
import struct
import threading
import time

import pytest

from curve_py.client import Volume
from curve_py.errors import FencedError
from curve_py.proto import meta_pb2 as pb

MIB = 1 << 20
BLOCK_BYTES = 4096
SERVICES = [f"{role}-{n}" for role in ("metaserver", "chunkserver") for n in (1, 2, 3)]


class Writer:
    """Writes numbered blocks in threads; knows for each what was acknowledged last."""

    THREADS = 4
    BLOCKS = 64  # of each thread, spread over chunks and so over copysets

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._stop = threading.Event()
        self.failures: list[Exception] = []
        self.acknowledged: dict[int, int] = {}
        self._attempted: dict[int, int] = {}
        self.count = 0
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(self.THREADS)]
        for thread in self._threads:
            thread.start()

    def _run(self, thread: int) -> None:
        choose = random.Random(thread)
        number = 0
        while not self._stop.is_set():
            number += 1
            block = choose.randrange(self.BLOCKS)
            offset = block * 3 * MIB + thread * BLOCK_BYTES
            self._attempted[offset] = number
            try:
                self._volume.write(offset, content(offset, number))
            except Exception as error:
                self.failures.append(error)
                return
            self.acknowledged[offset] = number
            self.count += 1

    def more(self, count: int, seconds: float = 90.0) -> None:
        """Until so many more were acknowledged."""
        target, deadline = self.count + count, time.monotonic() + seconds
        while self.count < target and not self.failures:
            assert time.monotonic() < deadline, "writes stand still"
            time.sleep(0.01)
        assert not self.failures

    def stop_and_check(self) -> None:
        """Every block has what was acknowledged last; I/O waits through failures."""
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        assert not self.failures
        for offset, number in self.acknowledged.items():
            found = self._volume.read(offset, BLOCK_BYTES)
            assert found == content(offset, number), struct.unpack("<QQ", found[:16])


def content(offset: int, number: int) -> bytes:
    return struct.pack("<QQ", offset, number) * (BLOCK_BYTES // 16)


def test_a_killed_chunkserver_is_not_missed_and_comes_back(cluster) -> None:  # type: ignore[no-untyped-def]
    with cluster.connect() as connected:
        connected.volumes().create("load", "256MiB")
        with connected.volumes().open("load") as volume:
            writer = Writer(volume)
            for number in (1, 2, 3):
                writer.more(100)
                cluster.kill(f"chunkserver-{number}")
                writer.more(100)
                assert cluster.up()["started"] == [f"chunkserver-{number}"]
            writer.more(100)
            writer.stop_and_check()


def test_up_waits_for_the_process_that_it_started(cluster) -> None:  # type: ignore[no-untyped-def]
    with cluster.connect() as connected:
        for _ in range(3):
            cluster.kill("chunkserver-1")
            cluster.up()
            listed = connected.client.call("ListChunkservers", pb.ListChunkserversRequest())
            assert {c.pid for c in listed.chunkservers} == set(cluster.pids("chunkserver").values())


def test_nothing_acknowledged_is_lost_when_all_are_killed_at_once(cluster) -> None:  # type: ignore[no-untyped-def]
    with cluster.connect() as connected:
        connected.volumes().create("all", "256MiB")
        with connected.volumes().open("all") as volume:
            for _ in range(2):
                writer = Writer(volume)
                writer.more(200)
                cluster.kill(*SERVICES)
                assert sorted(cluster.up()["started"]) == sorted(SERVICES)
                writer.more(50)
                writer.stop_and_check()


def test_io_goes_on_without_any_metaserver(cluster) -> None:  # type: ignore[no-untyped-def]
    with cluster.connect() as connected:
        connected.volumes().create("alone", "256MiB")
        with connected.volumes().open("alone") as volume:
            writer = Writer(volume)
            writer.more(50)
            cluster.kill("metaserver-1", "metaserver-2", "metaserver-3")
            writer.more(300)
            cluster.kill("chunkserver-1")
            writer.more(100)
            cluster.up()
            writer.more(50)
            writer.stop_and_check()


def test_the_second_exclusive_open_fences_the_first_for_good(cluster) -> None:  # type: ignore[no-untyped-def]
    """R12. The first one's watcher is stopped, so that only the chunkservers can refuse it."""
    with cluster.connect() as one, cluster.connect() as two:
        one.volumes().create("fenced", "64MiB")
        with one.volumes().open("fenced") as first:
            first.write(0, b"1" * 4096)
            first._watcher.close()
            with two.volumes().open("fenced") as second:
                for _ in range(2):
                    with pytest.raises(FencedError):
                        first.read(0, 4096)
                    with pytest.raises(FencedError):
                        first.write(0, b"x" * 4096)
                    assert second.read(0, 4096) == b"1" * 4096
                    cluster.kill(*SERVICES)
                    cluster.up()
                second.write(0, b"2" * 4096)
                assert second.read(0, 4096) == b"2" * 4096
