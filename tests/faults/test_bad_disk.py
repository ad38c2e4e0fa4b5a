"""A chunkserver whose disk is slow, fails, or loses what was not synced, under verified load.

The disk is a FUSE file system (fault_fs.py), which only root may mount.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults_harness import MIB, Servers, checked_load, eventually, more

POWER_CUTS, ALL_CUTS = 4, 3


class BadDisk:
    """A mounted fault_fs, over a directory beside it."""

    def __init__(self, mount: Path, work: Path) -> None:
        self.mount, self._control = mount, work / "control"
        backing = work / "backing"
        backing.mkdir(parents=True)
        mount.mkdir(parents=True, exist_ok=True)
        program = [sys.executable, str(Path(__file__).with_name("fault_fs.py"))]
        with open(work / "log", "wb") as log:
            self._process = subprocess.Popen(
                [*program, str(backing), str(mount), str(self._control)], stdout=log, stderr=log
            )
        eventually(
            lambda: os.path.ismount(mount) or self._process.poll() is not None, "it is mounted"
        )
        if self._process.poll() is not None:
            raise OSError((work / "log").read_text())

    def order(self, **what: Any) -> dict[str, int]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._control))
            with connection.makefile("rwb") as file:
                file.write(json.dumps(what).encode() + b"\n")
                file.flush()
                answer: dict[str, int] = json.loads(file.readline())
                return answer

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.mount)], check=False)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Bad:
    """The cluster, and the disks of its chunkservers; the third one is `disk`, of `name`."""

    def __init__(self, servers: Servers, disks: dict[str, BadDisk]) -> None:
        self.servers, self.disks = servers, disks
        self.name = servers.chunkservers[2].name
        self.disk = disks[self.name]

    def cut(self, names: list[str], seed: int) -> dict[str, int]:
        """The power of these disks, then of their processes."""
        sums = {"dirty": 0, "lost": 0, "torn": 0}
        for name in names:
            for key, count in self.disks[name].order(cut=seed).items():
                sums[key] += count
        for name in names:
            if self.servers.local.processes.pid(name) is not None:  # it may have noticed
                with contextlib.suppress(AssertionError, ProcessLookupError):
                    self.servers.kill(name)
        return sums

    def heal(self) -> None:
        for disk in self.disks.values():
            disk.order(heal=True)

    def whole_again(self) -> None:
        self.heal()
        self.servers.restart()
        self.servers.caught_up()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bad]:
    folder = tmp_path_factory.mktemp("bad-disk")
    servers = Servers(folder / "cluster", 256 * MIB)
    disks: dict[str, BadDisk] = {}
    try:
        servers.local.directory.make()
        for chunkserver in servers.local.describe(3, 3, servers.store_bytes).chunkservers:
            name = chunkserver.name
            config = servers.local.directory.config_file(name)
            # A sync is what a checkpoint does: one that may be a minute away is no test of it.
            options = 'wal_bytes = "64MiB"\noptions = { checkpoint_interval_ms = 5000 }\n'
            config.write_text(config.read_text() + options)
            try:
                disks[name] = BadDisk(servers.local.directory.data_dir(name), folder / name)
            except OSError as error:
                pytest.skip(f"no right to mount a FUSE file system, or no libfuse3: {error}")
        servers.up()
        yield Bad(servers, disks)
    finally:
        servers.down()
        for disk in disks.values():
            disk.close()
        servers.remove()


@pytest.fixture
def bad(made: Bad) -> Iterator[Bad]:
    made.whole_again()
    yield made
    made.heal()


def test_a_slow_disk_is_waited_for_by_nobody_for_ever(bad: Bad) -> None:
    with bad.servers.connect() as cluster, checked_load(cluster, "slow") as (writer, reader, _):
        more(writer, 100)
        bad.disk.order(delay_ms=20)
        more(writer, 100)
        more(reader, 100)
        bad.disk.order(heal=True)
        more(writer, 100)
    bad.servers.all_run()


def test_what_was_not_synced_is_lost_and_nothing_else(bad: Bad) -> None:
    """Power cuts of one disk; then its machine is one of the two that answer."""
    servers, other = bad.servers, bad.servers.chunkservers[0].name
    lost = torn = 0
    with servers.connect() as cluster:
        with checked_load(cluster, "cuts") as (writer, reader, _):
            for seed in range(POWER_CUTS):
                more(writer, 150)
                counts = bad.cut([bad.name], seed)
                lost, torn = lost + counts["lost"], torn + counts["torn"]
                more(writer, 20)
                bad.whole_again()
            servers.local.processes.stop([other])
            more(writer, 100)
            more(reader, 100)
        servers.restart()
        servers.caught_up()
    if lost == 0 or torn == 0:
        pytest.skip("the cuts lost or tore nothing this time, so nothing was shown")


def test_power_cut_of_all_disks_at_once(bad: Bad) -> None:
    """Promise 1: everything that was acknowledged is there, and it comes back by itself."""
    lost = 0
    with bad.servers.connect() as cluster, checked_load(cluster, "all") as (writer, reader, _):
        for seed in range(ALL_CUTS):
            more(writer, 200)
            lost += bad.cut(list(bad.disks), seed)["lost"]
            bad.whole_again()
            more(writer, 20)
            more(reader, 20)
    if lost == 0:
        pytest.skip("the cuts lost nothing this time, so nothing was shown")


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_disk_that_cannot_write_takes_its_store_out_of_service(bad: Bad, operation: str) -> None:
    servers = bad.servers
    with servers.connect() as cluster, checked_load(cluster, f"no-{operation}") as (writer, _, _):
        more(writer, 100)
        log_file = servers.local.directory.log_file(bad.name)
        before = log_file.stat().st_size
        bad.disk.order(fail=[operation])

        def given_up() -> bool:
            return b"store_failed" in log_file.read_bytes()[before:]

        eventually(given_up, "the store takes itself out of service")
        more(writer, 100)
        servers.pid(
            bad.name
        )  # the process goes on, to say why; a disk that works again is too late
        bad.heal()
        more(writer, 100)
        servers.kill(bad.name)
        bad.whole_again()
        more(writer, 100)
    log = log_file.read_text()
    assert "Traceback" not in log, log[-2000:]


def test_reads_that_fail_are_answered_by_others(bad: Bad) -> None:
    with bad.servers.connect() as cluster, checked_load(cluster, "no-read") as (writer, reader, _):
        more(writer, 100)
        bad.disk.order(fail=["read"])
        more(reader, 200)
        more(writer, 100)
        bad.whole_again()
        more(writer, 100)
