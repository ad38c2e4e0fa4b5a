"""Full stores: ENOSPC, overwrites go on, and space comes back on all replicas."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from faults_harness import MIB, Servers, eventually

from curve_py.client import Cluster, Volume
from curve_py.errors import NoSpaceError

BLOCK = 65536
# What the issue promises; generous for what it takes.
SPACE_BACK_SECONDS = 60.0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(tmp_path_factory.mktemp("small"), store_bytes=96 * MIB)
    try:
        made.up()
        yield made
    finally:
        made.remove()


def content(number: int, generation: int) -> bytes:
    return bytes([number % 251, generation]) * (BLOCK // 2)


def fill(volume: Volume) -> int:
    """Writes blocks until there is no space; returns how many are there."""
    blocks = volume.size // BLOCK
    for number in range(blocks):
        try:
            volume.write(number * BLOCK, content(number, 1))
        except NoSpaceError:
            return number
    pytest.fail("the volume is larger than the store and was filled")


def used(cluster: Cluster) -> list[int]:
    return [chunkserver.used_bytes for chunkserver in cluster.chunkservers()]


def allocated(cluster: Cluster, name: str) -> list[int | None]:
    return [store.allocated_bytes for store in cluster.volumes().usage(name).stores]


def test_full_overwritten_discarded_filled_again(small: Servers) -> None:
    with small.connect() as cluster:
        cluster.volumes().create("full", 256 * MIB)
        with cluster.volumes().open("full") as volume:
            count = fill(volume)
            assert count * BLOCK > 32 * MIB
            # Overwrites of what is allocated go on, more of them than the store has room for.
            for generation in (2, 3):
                for number in range(count):
                    volume.write(number * BLOCK, content(number, generation))
            with pytest.raises(NoSpaceError):
                fill_from(volume, count)
            for number in range(0, count, 7):
                assert volume.read(number * BLOCK, BLOCK) == content(number, 3)

            # One replica is down while the space is given back, and gives it back later.
            victim = small.chunkservers[1].name
            small.kill(victim)
            kept = 16
            volume.discard(kept * BLOCK, volume.size - kept * BLOCK)
            small.restart()
            eventually(
                lambda: all(
                    space is not None and space <= kept * BLOCK
                    for space in allocated(cluster, "full")
                ),
                "every replica has given the discarded blocks back",
                SPACE_BACK_SECONDS,
            )
            for number in range(kept):
                assert volume.read(number * BLOCK, BLOCK) == content(number, 3)
            assert volume.read(kept * BLOCK, BLOCK) == bytes(BLOCK)
            # What came back can be used.
            for number in range(count // 2):
                volume.write(number * BLOCK, content(number, 4))
            for number in range(0, count // 2, 5):
                assert volume.read(number * BLOCK, BLOCK) == content(number, 4)
        cluster.volumes().delete("full")
        eventually(
            lambda: max(used(cluster)) <= BLOCK, "deletion gives all back", SPACE_BACK_SECONDS
        )


def fill_from(volume: Volume, first: int) -> None:
    for number in range(first, volume.size // BLOCK):
        volume.write(number * BLOCK, content(number, 1))


def test_every_write_ends_when_many_writers_fill_the_stores_together(small: Servers) -> None:
    writers, area = 64, 256 * MIB

    def write_until_full(volume: Volume, seed: int) -> int:
        places = random.Random(seed)
        for written in range(area // BLOCK):
            try:
                volume.write(places.randrange(area // BLOCK) * BLOCK, content(written, 5))
            except NoSpaceError:
                return written
        pytest.fail("the volume is larger than the store and was filled")

    with small.connect() as cluster:
        cluster.volumes().create("crowded", area)
        with cluster.volumes().open("crowded") as volume, ThreadPoolExecutor(writers) as pool:
            ends = [pool.submit(write_until_full, volume, seed) for seed in range(writers)]
            done, waiting = wait(ends, timeout=120)
            if waiting:
                volume.close()  # ends them, so that the pool can be left
            assert not waiting, f"{len(waiting)} of {writers} writers still wait"
            assert sum(end.result() for end in done) * BLOCK > 32 * MIB
        cluster.volumes().delete("crowded")
        eventually(
            lambda: max(used(cluster)) <= BLOCK, "deletion gives all back", SPACE_BACK_SECONDS
        )


def test_a_volume_is_deleted_while_a_replica_is_down(small: Servers) -> None:
    with small.connect() as cluster:
        cluster.volumes().create("doomed", 64 * MIB)
        with cluster.volumes().open("doomed") as volume:
            for number in range(400):
                volume.write(number * BLOCK, os.urandom(BLOCK))
        eventually(lambda: min(used(cluster)) >= 300 * BLOCK, "the stores report the space")
        victim = small.chunkservers[2].name
        small.kill(victim)
        cluster.volumes().delete("doomed")
        small.restart()
        eventually(
            lambda: max(used(cluster)) <= BLOCK, "every replica is empty", SPACE_BACK_SECONDS
        )
