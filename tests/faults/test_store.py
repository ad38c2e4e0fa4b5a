"""A store belongs to one process, and a damaged one is refused with its structure and offset."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_harness import MIB, Servers, checked_load, eventually, more, refused_start

from curve_py.service.secret import create_secret


@pytest.fixture
def stopped(healthy: Servers) -> Iterator[tuple[Servers, str]]:
    """A chunkserver that was stopped in order, and a copy of its files to put back."""
    name = healthy.chunkservers[2].name
    healthy.local.processes.stop([name])
    store = healthy.local.directory.data_dir(name)
    saved = store.with_name("saved")
    shutil.copytree(store, saved)
    yield healthy, name
    shutil.rmtree(store)
    saved.rename(store)
    healthy.restart()


def damage(path: Path, magic: bytes, within: int, at: int = 100) -> list[int]:
    """Flips a byte in each structure that begins with `magic`; returns the structures' offsets."""
    found = []
    with open(path, "r+b") as file:
        head = file.read(within)
        for offset in range(0, len(head), 4096):
            if head.startswith(magic, offset):
                file.seek(offset + at)
                byte = file.read(1)
                file.seek(offset + at)
                file.write(bytes([byte[0] ^ 0x40]))
                found.append(offset)
    return found


def test_another_process_cannot_have_the_store(healthy: Servers) -> None:
    for program, name in (
        ("curve-chunkserver", healthy.chunkservers[0].name),
        ("curve-metaserver", healthy.metaservers[0].name),
    ):
        config = str(healthy.local.directory.config_file(name))
        words = refused_start(program, "--config", config)
        assert "another process" in words, words
    healthy.all_run()


def test_a_store_is_not_formatted_twice(healthy: Servers) -> None:
    name = healthy.chunkservers[0].name
    healthy.local.processes.stop([name])
    config = str(healthy.local.directory.config_file(name))
    words = refused_start("curve-chunkserver", "--config", config, "--format")
    assert "store" in words, words
    healthy.restart()


@pytest.mark.parametrize(
    ("file", "magic", "structure"),
    [("data", b"CVSTORE1", "superblock"), ("data", b"CVROOT01", "checkpoint root")],
)
def test_a_damaged_store_is_refused(
    stopped: tuple[Servers, str], file: str, magic: bytes, structure: str
) -> None:
    servers, name = stopped
    path = servers.local.directory.data_dir(name) / file
    offsets = damage(path, magic, 64 * MIB)
    assert len(offsets) >= 2
    config = str(servers.local.directory.config_file(name))
    words = refused_start("curve-chunkserver", "--config", config)
    assert structure in words, words
    assert any(f"offset {offset}" in words for offset in offsets), words
    check_lost(servers, name, structure)


def check_lost(servers: Servers, name: str, structure: str) -> None:
    """The metaservers know at once that it is lost, and would rebuild it if there were a fourth."""
    address = next(c.data_address for c in servers.chunkservers if c.name == name)
    with servers.connect() as cluster:
        found = next(c for c in cluster.chunkservers() if c.data_address == address)
        assert found.state == "failed"
        assert structure in found.failure
        eventually(
            lambda: any(
                f"chunkserver {address} has failed" in note
                for note in cluster.tasks().progress.notes
            ),
            "the scheduler takes it as lost",
        )


def test_a_store_that_serves_is_not_lost_because_another_process_says_so(healthy: Servers) -> None:
    """A copy of its directory, damaged, at the same metaservers."""
    name = healthy.chunkservers[1].name
    config = healthy.local.directory.config_file(name)
    store = healthy.local.directory.data_dir(name)
    copy = store.with_name("copy")
    healthy.local.processes.stop([name])
    shutil.copytree(store, copy)
    healthy.restart()
    try:
        assert damage(copy / "data", b"CVROOT01", 64 * MIB)
        words = refused_start(
            "curve-chunkserver", "--config", str(config), "--store-path", str(copy)
        )
        assert "checkpoint root" in words, words
        with healthy.connect() as cluster:
            assert {c.state for c in cluster.chunkservers()} == {"up"}
            address = next(c.data_address for c in healthy.chunkservers if c.name == name)
            notes = [note for record in cluster.tasks().passes for note in record.notes]
            assert not any(f"chunkserver {address} has failed" in note for note in notes)
    finally:
        shutil.rmtree(copy)


def test_damaged_anchors_of_the_log_are_refused(stopped: tuple[Servers, str]) -> None:
    servers, name = stopped
    path = servers.local.directory.data_dir(name) / "wal"
    with open(path, "r+b") as file:
        for offset in (0, 64 * 1024):
            file.seek(offset + 64)
            file.write(b"\xa5" * 64)
    config = str(servers.local.directory.config_file(name))
    words = refused_start("curve-chunkserver", "--config", config)
    assert "anchor" in words, words
    assert "offset" in words, words
    check_lost(servers, name, "anchor")


def test_a_chunkserver_with_another_secret_gets_nowhere(stopped: tuple[Servers, str]) -> None:
    """It starts, and nobody talks to it; with the right secret it is welcome again."""
    servers, name = stopped
    config = servers.local.directory.config_file(name)
    text = config.read_text()
    other = servers.path / "other-secret"
    create_secret(other)
    try:
        config.write_text(text.replace(str(servers.local.directory.secret_file), str(other)))
        servers.local.start_missing(servers.local.directory.load())
        log = servers.local.directory.log_file(name)
        with servers.connect() as cluster:
            before = log.stat().st_size
            with checked_load(cluster, "one-stranger") as (writer, _, _):
                more(writer, 100)
            eventually(
                lambda: b"secret" in log.read_bytes()[max(0, before - 65536) :], "it says why"
            )
            address = next(c.data_address for c in servers.chunkservers if c.name == name)
            eventually(
                lambda: any(
                    c.data_address == address and c.state == "down" for c in cluster.chunkservers()
                ),
                "it counts as down",
            )
    finally:
        servers.local.processes.stop([name])
        config.write_text(text)
        other.unlink()
