"""Processes killed at many points of their very first start: `curve up` makes the rest."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from faults_harness import Servers, checked_load, eventually, more, refused_start

# After the first write to any log: while it is zeroed, while the rest is written, behind it.
DELAYS_MS = (0, 0, 1, 2, 5, 10, 20, 40, 80, 150, 250, 400)


def store_exists(data: Path) -> bool:
    """Whether the store was ever complete."""
    native: Any = importlib.import_module("curve_py._native.store")
    return bool(native.StoreServer.exists(str(data)))


def kill_during_first_start(servers: Servers, delay_ms: int) -> None:
    """Starts what is missing, waits for the first write to any log and then kills everybody."""
    local = servers.local

    def written() -> dict[Path, int]:
        times = {}
        for name in servers.names:
            for path in local.directory.data_dir(name).glob("wal*"):
                with contextlib.suppress(FileNotFoundError):  # renamed
                    times[path] = path.stat().st_mtime_ns
        return times

    def someone_ended() -> bool:
        return any(local.processes.pid(name) is None for name in servers.names)

    before = written()
    local.start_missing(local.directory.load())
    eventually(lambda: written() != before or someone_ended(), "a log is made")
    time.sleep(delay_ms / 1000)
    for name in servers.names:
        pid = local.processes.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: all(local.processes.pid(name) is None for name in servers.names), "all are dead"
    )


def test_killed_in_their_first_start(tmp_path: Path) -> None:
    servers = Servers(tmp_path / "cluster")
    local = servers.local
    local.directory.make()
    unfinished = 0
    try:
        local.describe(3, 3, servers.store_bytes)
        for delay_ms in DELAYS_MS:
            complete = {
                c.name: store_exists(local.directory.data_dir(c.name) / "data")
                for c in servers.chunkservers
            }
            kill_during_first_start(servers, delay_ms)
            for name in complete:
                folder = local.directory.data_dir(name)
                there = store_exists(folder / "data")
                assert there or not complete[name], f"{name} lost its store"
                unfinished += not there and (folder / "wal").exists()
        servers.up()
        for name in servers.names:
            log = local.directory.log_file(name).read_text()
            assert "Traceback" not in log, log
            assert log.count('"message": "formatted"') <= 1, log
        with servers.connect() as cluster, checked_load(cluster, "after") as (writer, _, _):
            more(writer, 50)
    finally:
        servers.remove()
    if unfinished == 0:
        pytest.skip("no kill hit a store that was being formatted, so nothing was shown")


@pytest.mark.parametrize("emptied", ["data", "wal", "everything"])
def test_an_emptied_store_is_not_made_anew_by_itself(healthy: Servers, emptied: str) -> None:
    """R1: it was in the cluster, so what is missing is an accident."""
    name = healthy.chunkservers[1].name
    healthy.local.processes.stop([name])
    folder = healthy.local.directory.data_dir(name)
    away = folder.with_name("away")
    away.mkdir()
    taken = ["wal", "data"] if emptied == "everything" else [emptied]
    for file in taken:
        (folder / file).rename(away / file)
    try:
        config = str(healthy.local.directory.config_file(name))
        words = refused_start("curve-chunkserver", "--config", config)
        assert "no such file" in words.lower(), words
        if emptied == "data":  # the log was in use: formatting would destroy the only trace
            words = refused_start("curve-chunkserver", "--config", config, "--format")
            assert "in use" in words, words
        assert not any((folder / file).exists() for file in taken)
        description = healthy.local.directory.load()
        healthy.local.start_missing(description)
        eventually(lambda: healthy.local.processes.pid(name) is None, f"{name} refuses to start")
    finally:
        for file in taken:
            (away / file).rename(folder / file)
        away.rmdir()
    healthy.restart()
