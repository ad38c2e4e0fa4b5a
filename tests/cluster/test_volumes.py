"""Volumes of a real cluster, through the library and the command line, without faults."""

from __future__ import annotations

import asyncio
import os
import re
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable

import pytest

from curve_py.client import AsyncCluster, AttachMode
from curve_py.errors import (
    ClosedError,
    ConflictError,
    CurveError,
    FencedError,
    InvalidError,
    NotFoundError,
    ReadOnlyError,
)
from curve_py.volume_map import decode

MIB = 1 << 20


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_up_again_starts_nothing_and_status_shows_everything(cluster) -> None:  # type: ignore[no-untyped-def]
    assert cluster.up()["started"] == []
    # While a leadership is handed over, nobody is known to have it for a moment.
    wait_for(lambda: cluster.curve("status")["copysets_with_leader"] == 64)
    status = cluster.curve("status")
    assert status["copysets_total"] == 64
    # (An agent of the node is there when other tests have started it.)
    services = {s["name"]: s["pid"] for s in status["services"] if s["role"] != "agent"}
    assert services == {name: pid for name, pid in cluster.pids().items() if name != "agent"}
    assert sorted(s["role"] for s in status["services"] if "meta" in s["name"]) == [
        "follower",
        "follower",
        "leader",
    ]
    copysets = cluster.curve("copyset", "list")["copysets"]
    assert len(copysets) == 64
    assert all(len({r["store_id"] for r in c["replicas"]}) == 3 for c in copysets)
    shown = cluster.curve("copyset", "show", copysets[5]["name"])["copyset"]
    assert shown["copyset_id"] == copysets[5]["copyset_id"]
    chunkservers = cluster.curve("chunkserver", "list")["chunkservers"]
    assert [c["state"] for c in chunkservers] == ["up"] * 3
    assert os.stat(cluster.directory / "secret").st_mode & 0o777 == 0o600


def test_life_of_a_volume_on_the_command_line(cluster) -> None:  # type: ignore[no-untyped-def]
    made = cluster.curve("volume", "create", "life", "10GiB")["volume"]
    assert made["size_bytes"] == 10 << 30
    names = [v["name"] for v in cluster.curve("volume", "list")["volumes"]]
    assert "life" in names
    assert cluster.curve("volume", "resize", "life", "1T")["volume"]["size_bytes"] == 1 << 40
    shrunk = cluster.run("volume", "resize", "life", "1GiB")
    assert shrunk.returncode == 1
    assert "cannot shrink" in shrunk.stderr
    assert "Traceback" not in shrunk.stderr
    assert cluster.run("volume", "create", "life", "1GiB").returncode == 1
    cluster.curve("volume", "delete", "life")
    gone = cluster.run("volume", "show", "life")
    assert gone.returncode == 1
    assert '"kind": "not_found"' in gone.stdout


def test_what_is_written_is_read(cluster) -> None:  # type: ignore[no-untyped-def]
    with cluster.connect() as connected:
        connected.volumes().create("data", "1GiB")
        with connected.volumes().open("data") as volume:
            assert volume.read(0, 8192) == bytes(8192)
            data = os.urandom(3 * MIB)
            volume.write(15 * MIB - 512, data)  # over a chunk's end, in parts of sectors
            buffer = bytearray(3 * MIB)
            assert volume.readinto(15 * MIB - 512, buffer) == 3 * MIB
            assert buffer == data
            volume.flush()
            volume.discard(15 * MIB, MIB)
            assert volume.read(15 * MIB, MIB) == bytes(MIB)
            volume.write_zeroes(16 * MIB, 4096, keep_space=True)
            assert volume.read(16 * MIB, 8192) == bytes(4096) + data[MIB + 4608 : MIB + 8704]
            volume.write((1 << 30) - 512, b"e" * 512)
            with pytest.raises(InvalidError):
                volume.write(1 << 30, bytes(512))
            with pytest.raises(InvalidError):
                volume.read(1, 512)
            with pytest.raises((TypeError, BufferError)):
                volume.readinto(0, bytes(512))
        with pytest.raises(ClosedError):
            volume.read(0, 512)
        with connected.volumes().open("data", AttachMode.READ_ONLY) as volume:
            assert volume.read((1 << 30) - 512, 512) == b"e" * 512
            with pytest.raises(ReadOnlyError):
                volume.write(0, bytes(512))
        connected.volumes().delete("data")
        with pytest.raises(NotFoundError):
            connected.volumes().open("data")


async def test_asyncio(cluster) -> None:  # type: ignore[no-untyped-def]
    async with AsyncCluster.connect(cluster.directory) as connected:
        await connected.volumes().create("async", "256MiB")
        async with await connected.volumes().open("async") as volume:
            blocks = {n * MIB: os.urandom(8192) for n in range(64)}
            await asyncio.gather(*(volume.write(at, data) for at, data in blocks.items()))
            read = await asyncio.gather(*(volume.read(at, 8192) for at in blocks))
            assert read == list(blocks.values())
            await volume.discard(0, MIB)
            await volume.flush()
            assert await volume.read(0, 4096) == bytes(4096)
            await volume.resize(512 * MIB)
            assert volume.size == 512 * MIB
            await volume.write(512 * MIB - 512, b"z" * 512)
        await connected.volumes().delete("async")


def test_a_volume_in_use_grows_at_once(cluster) -> None:  # type: ignore[no-untyped-def]
    with cluster.connect() as connected:
        connected.volumes().create("grows", "64MiB")
        with connected.volumes().open("grows") as volume:
            cluster.curve("volume", "resize", "grows", "128MiB")
            wait_for(lambda: volume.size == 128 * MIB)
            volume.write(100 * MIB, b"n" * 4096)
            assert volume.read(100 * MIB, 4096) == b"n" * 4096
            volume.resize(256 * MIB)
            assert volume.size == 256 * MIB
            with pytest.raises(ConflictError):
                volume.resize(64 * MIB)


def test_shared_attachments_keep_both_halves_of_a_sector(cluster) -> None:  # type: ignore[no-untyped-def]
    """R14, with two clients."""
    with cluster.connect() as one, cluster.connect() as two:
        one.volumes().create("shared", "64MiB")
        with (
            one.volumes().open("shared", AttachMode.SHARED) as left,
            two.volumes().open("shared", AttachMode.SHARED) as right,
        ):
            for round_ in range(20):
                left.write(0, bytes([round_]) * 2048)
                right.write(2048, bytes([100 + round_]) * 2048)
                expected = bytes([round_]) * 2048 + bytes([100 + round_]) * 2048
                assert left.read(0, 4096) == right.read(0, 4096) == expected
            with pytest.raises(CurveError), two.volumes().open("shared", refuse_when_attached=True):
                pass
            with two.volumes().open("shared"):
                wait_for(lambda: left.fenced)
                with pytest.raises(FencedError):
                    left.read(0, 4096)


def test_map_feed_attaches_for_a_native_program(cluster) -> None:  # type: ignore[no-untyped-def]
    cluster.curve("volume", "create", "fed", "64MiB")
    command = [sys.executable, "-m", "curve_py.cli.main", "internal", "map-feed", "fed"]
    feed = subprocess.Popen(
        [*command, "--cluster", str(cluster.directory), "--shared"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    assert feed.stdin is not None
    assert feed.stdout is not None
    try:
        first = decode(feed.stdout.read(*struct.unpack("<I", feed.stdout.read(4))))
        assert first.size_bytes == 64 * MIB
        cluster.curve("volume", "resize", "fed", "128MiB")
        second = decode(feed.stdout.read(*struct.unpack("<I", feed.stdout.read(4))))
        assert second.size_bytes == 128 * MIB
        assert second.map_version > first.map_version
        assert len(cluster.curve("volume", "show", "fed")["volume"]["attachments"]) == 1
        feed.stdin.close()
        assert feed.wait(60) == 0
        assert cluster.curve("volume", "show", "fed")["volume"]["attachments"] == []
    finally:
        feed.kill()
        feed.wait()
        feed.stdout.close()


def test_physical_space_is_that_of_the_data(cluster) -> None:  # type: ignore[no-untyped-def]
    cluster.curve("volume", "create", "space", "256MiB")

    def on_each_store() -> set[int | None]:
        show = cluster.curve("volume", "show", "space")
        assert show["allocated_bytes"] == sum(s["allocated_bytes"] or 0 for s in show["stores"])
        return {store["allocated_bytes"] for store in show["stores"]}

    assert on_each_store() == {0}
    with cluster.connect() as connected, connected.volumes().open("space") as volume:
        for at in (0, 40 * MIB, 100 * MIB):
            volume.write(at, os.urandom(8 * MIB))
        volume.write(200 * MIB + 512, b"x" * 512)
        wait_for(lambda: on_each_store() == {24 * MIB + 65536})
        volume.discard(40 * MIB, 8 * MIB)
        wait_for(lambda: on_each_store() == {16 * MIB + 65536})
    cluster.curve("volume", "delete", "space")


def test_latencies_are_counted(cluster) -> None:  # type: ignore[no-untyped-def]
    cluster.curve("volume", "create", "latency", "64MiB")
    with cluster.connect() as connected, connected.volumes().open("latency") as volume:
        for chunk in range(4):
            volume.write(chunk * 16 * MIB, b"y" * 4096)
            assert volume.read(chunk * 16 * MIB, 4096) == b"y" * 4096
    counts: Counter[str] = Counter()
    for server in cluster.curve("chunkserver", "list")["chunkservers"]:
        with urllib.request.urlopen(f"http://{server['http_address']}/metrics") as answer:
            text = answer.read().decode()
        for operation, count in re.findall(
            r'curve_chunkserver_latency_seconds_count{operation="(\w+)"} (\S+)', text
        ):
            counts[operation] += int(float(count))
    assert set(counts) == {"read", "write", "replicate", "wal_append"}
    assert counts["read"] >= 4
    assert counts["write"] == counts["replicate"] >= 4
    assert counts["wal_append"] >= 4
    cluster.curve("volume", "delete", "latency")
