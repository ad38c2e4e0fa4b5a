"""Bits that flip in a store: readers get what was written, and scrub leaves nothing of it."""

from __future__ import annotations

import json
import random
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_harness import BOUND_SECONDS, MIB, Servers, curve, eventually, script

from curve_py.client import AttachMode
from curve_py.client.inspections import ScrubInfo

PLACES = 100
VOLUME = "rotten"
_PAGE = 4096


@pytest.fixture
def content(healthy: Servers) -> Iterator[tuple[Servers, list[bytes]]]:
    """A volume that is written, in part twice; pieces of 1 MiB."""
    stream = random.Random(7)
    pieces = [stream.randbytes(MIB) for _ in range(48)]
    with healthy.connect() as cluster:
        cluster.volumes().create(VOLUME, 256 * MIB)
        with cluster.volumes().open(VOLUME, AttachMode.EXCLUSIVE) as volume:
            for number, piece in enumerate(pieces):
                volume.write(number * 4 * MIB, piece)
            for number in range(0, len(pieces), 3):
                part = stream.randbytes(12 * 1024)
                volume.write(number * 4 * MIB + 8192, part)
                piece = pieces[number]
                pieces[number] = piece[:8192] + part + piece[8192 + len(part) :]
            volume.flush()
        healthy.caught_up()
        data = [healthy.local.directory.data_dir(c.name) / "data" for c in healthy.chunkservers]
        eventually(lambda: all(map(first_page_slot, data)), "a checkpoint on every store")
        yield healthy, pieces
        cluster.volumes().delete(VOLUME)


def check_content(servers: Servers, pieces: list[bytes]) -> None:
    with (
        servers.connect() as cluster,
        cluster.volumes().open(VOLUME, AttachMode.EXCLUSIVE) as volume,
    ):
        for number, piece in enumerate(pieces):
            assert volume.read(number * 4 * MIB, MIB) == piece, f"piece {number}"


def used_pages(path: Path, first: int) -> list[int]:
    """Offsets of what holds something, from `first` on."""
    found = []
    with open(path, "rb") as file:
        file.seek(first)
        offset = first
        while part := file.read(MIB):
            found += [
                offset + at
                for at in range(0, len(part), _PAGE)
                if part.count(0, at, at + _PAGE) != len(part[at : at + _PAGE])
            ]
            offset += len(part)
    return found


def first_page_slot(path: Path) -> int:
    """Where the metadata pages begin: before them are superblocks and roots. 0: none is written."""
    with open(path, "rb") as file:
        head = file.read(64 * MIB)
    slots = (at for at in range(0, len(head), _PAGE) if head.startswith(b"CPG1", at))
    return next(slots, 0)


def flip(path: Path, offset: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def scrub_all(servers: Servers) -> list[ScrubInfo]:
    with servers.connect() as cluster:
        started = cluster.scrub(start=True, bytes_per_second=1 << 30)
        assert started.unreachable == ()
        before = {info.store_id: info.passes for info in started.stores}

        def done() -> bool:
            return all(info.passes > before[info.store_id] for info in cluster.scrub().stores)

        eventually(done, "a whole pass on every store")

        def repaired() -> bool:
            infos = cluster.scrub().stores
            return all(i.repaired_sectors + i.repairs_failed >= i.damaged_sectors for i in infos)

        eventually(repaired, "what was found is repaired")
        return list(cluster.scrub().stores)


def test_flipped_bits_are_repaired_and_nobody_reads_them(
    content: tuple[Servers, list[bytes]],
) -> None:
    servers, pieces = content
    name = servers.chunkservers[1].name
    servers.local.processes.stop([name])
    directory = servers.local.directory.data_dir(name)
    dice = random.Random(11)
    data = directory / "data"
    places = [(data, at) for at in used_pages(data, first_page_slot(data))]
    places += [(directory / "wal", at) for at in used_pages(directory / "wal", MIB)]
    for path, at in dice.sample(places, PLACES - 1):
        flip(path, at + dice.randrange(_PAGE), dice.randrange(8))
    flip(data, 77, 3)  # and one copy of the superblock
    servers.restart()
    check_content(servers, pieces)
    servers.caught_up()
    infos = scrub_all(servers)
    assert [info.repairs_failed for info in infos] == [0, 0, 0]
    check_content(servers, pieces)
    report = json.loads(curve(servers, "volume", "check", VOLUME))
    assert report["differences"] == []
    assert report["chunks"] > 0
    # There is nothing left for a second pass.
    again = scrub_all(servers)
    assert [info.damaged_sectors for info in again] == [info.damaged_sectors for info in infos]
    assert [info.damaged_pages for info in again] == [info.damaged_pages for info in infos]


def test_a_stopped_store_can_be_looked_at_and_a_running_one_not(
    content: tuple[Servers, list[bytes]],
) -> None:
    servers, _ = content
    name = servers.chunkservers[0].name
    directory = servers.local.directory.data_dir(name)

    def look(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script("curve"), "store", *arguments],
            capture_output=True,
            text=True,
            timeout=BOUND_SECONDS,
            check=False,
        )

    for verb in ("inspect", "dump-wal"):
        refused = look(verb, str(directory))
        assert refused.returncode == 1
        assert "in use" in refused.stderr, refused.stderr
    servers.local.processes.stop([name])
    found = json.loads(look("inspect", str(directory), "--json").stdout)
    assert uuid.UUID(found["store"])
    assert found["blocks_mapped"] > 0
    assert found["copysets"]
    assert all(len(copyset["members"]) == 3 for copyset in found["copysets"])
    lines = look("dump-wal", str(directory), "--json").stdout.splitlines()
    records = [json.loads(line) for line in lines]
    assert records[-1]["type"] == "end"
    assert records[-1]["records"] == len(records) - 1
    assert any(record.get("command") == "write" for record in records)
    assert look("dump-wal", str(directory)).stdout.count("\n") == len(records)
    assert look("inspect", str(directory)).returncode == 0
    # Nothing changed: it starts as before.
    again = json.loads(look("inspect", str(directory), "--json").stdout)
    assert again == found
    servers.restart()
