"""A store on block devices: loop devices over files, which only root may make."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults_harness import (
    MIB,
    Servers,
    checked_load,
    eventually,
    more,
    refused_start,
    script,
)

from curve_py.service.secret import create_secret
from curve_py.types import new_uuid, uuid_text

WAL_BYTES, DATA_BYTES = 96 * MIB, 384 * MIB
MakeDevice = Callable[[str, int], Path]


def run(*command: str) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[MakeDevice]:
    """Makes loop devices that go with this process, however it ends: detached at once, each stays
    as long as somebody has it open."""
    held: list[int] = []

    def make(name: str, size: int) -> Path:
        backing = tmp_path / f"{name}.img"
        with open(backing, "wb") as file:
            file.truncate(size)
        path = run("losetup", "--find", "--show", str(backing))
        held.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        run("losetup", "--detach", path)
        return Path(path)

    try:
        make("probe", MIB)
    except (AssertionError, OSError) as error:
        pytest.skip(f"no right to make a loop device: {error}")
    yield make
    for descriptor in held:
        os.close(descriptor)


def config_of(folder: Path, **settings: str) -> str:
    """A chunkserver by itself, with no metaserver up."""
    secret = folder / "secret"
    if not secret.exists():
        create_secret(secret)
    values = {
        "secret_file": str(secret),
        "store_path": str(folder / "store"),
        "cluster_id": uuid_text(new_uuid()),
        "data_listen": "127.0.0.1:0",
        "data_advertise": "127.0.0.1:1",
        "admin_listen": "127.0.0.1:0",
        **settings,
    }
    path = folder / "chunkserver.toml"
    lines = [f'{key} = "{value}"' for key, value in values.items()]
    path.write_text("\n".join(lines) + '\nmetaservers = ["127.0.0.1:1"]\n')
    return str(path)


def start(config: str, log: Path, *flags: str) -> subprocess.Popen[bytes]:
    with open(log, "ab") as file:
        return subprocess.Popen(
            [script("curve-chunkserver"), "--config", config, *flags], stdout=file, stderr=file
        )


def serve_once(config: str, log: Path, *flags: str) -> None:
    """It starts, serves and ends in order."""
    before = log.read_text().count('"message": "serving"') if log.exists() else 0
    process = start(config, log, *flags)
    try:
        eventually(
            lambda: (
                log.read_text().count('"message": "serving"') > before or process.poll() is not None
            ),
            "it serves",
        )
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_chunkserver_on_devices_in_a_cluster(tmp_path: Path, device: MakeDevice) -> None:
    """Formatted to the devices' sizes, killed under load, started again; nobody else gets in."""
    wal, data = device("wal", WAL_BYTES), device("data", DATA_BYTES)
    servers = Servers(tmp_path / "cluster")
    try:
        servers.local.directory.make()
        description = servers.local.describe(3, 3, servers.store_bytes)
        name = description.chunkservers[2].name
        file = servers.local.directory.config_file(name)
        lines = [line for line in file.read_text().splitlines() if "data_bytes" not in line]
        lines += [f'wal_device = "{wal}"', f'data_device = "{data}"']
        file.write_text("\n".join(lines) + "\n")
        servers.up()
        with servers.connect() as cluster:
            with checked_load(cluster, "device") as (writer, _, _):
                more(writer, 200)
                servers.kill(name)
                more(writer, 100)
                servers.restart()
                more(writer, 200)
            servers.caught_up()
            address = next(c.data_address for c in servers.chunkservers if c.name == name)
            store = next(c for c in cluster.chunkservers() if c.data_address == address)
        assert DATA_BYTES * 0.9 < store.capacity_bytes <= DATA_BYTES
        assert WAL_BYTES * 0.8 < store.wal_capacity_bytes <= WAL_BYTES
        words = refused_start("curve-chunkserver", "--config", str(file))
        assert "another process" in words, words
        words = refused_start("curve-chunkserver", "--config", str(file), "--format", "--force")
        assert "another process" in words, words
        servers.all_run()
        servers.local.processes.stop([name])
        words = refused_start("curve-chunkserver", "--config", str(file), "--format")
        assert "holds store" in words, words
        servers.restart()
    finally:
        servers.remove()


def test_what_is_on_a_device_is_not_destroyed(tmp_path: Path, device: MakeDevice) -> None:
    wal, data = device("wal", WAL_BYTES), device("data", DATA_BYTES)
    config = config_of(tmp_path, wal_device=str(wal), data_device=str(data))
    log = tmp_path / "log"
    mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert mkfs is not None
    for target in (wal, data):
        run(mkfs, "-q", "-L", "precious", str(target))
        words = refused_start("curve-chunkserver", "--config", config, "--format")
        assert "ext4" in words, words
        assert "precious" in words, words
        assert "--force" in words, words
        run("e2fsck", "-fn", str(target))
        if target == wal:
            run("dd", "if=/dev/zero", f"of={wal}", "bs=1M", "count=4", "status=none")
    serve_once(config, log, "--format", "--force")
    serve_once(config, log)
    words = refused_start("curve-chunkserver", "--config", config, "--format")
    assert "holds store" in words, words
    serve_once(config, log, "--format", "--force")
    stores = {line for line in log.read_text().splitlines() if '"message": "formatted"' in line}
    assert len(stores) == 2


def test_a_device_that_is_mounted_or_none_is_refused(tmp_path: Path, device: MakeDevice) -> None:
    wal, data = device("wal", WAL_BYTES), device("data", DATA_BYTES)
    mount = tmp_path / "mount"
    mount.mkdir()
    run("mkfs.ext4", "-q", str(data))
    try:
        run("mount", str(data), str(mount))
    except AssertionError as error:
        pytest.skip(f"no right to mount: {error}")
    try:
        config = config_of(tmp_path, wal_device=str(wal), data_device=str(data))
        words = refused_start("curve-chunkserver", "--config", config, "--format", "--force")
        assert "mounted" in words, words
    finally:
        run("umount", str(mount))
    config = config_of(tmp_path, wal_device=str(tmp_path / "wal.img"), data_device=str(data))
    words = refused_start("curve-chunkserver", "--config", config, "--format")
    assert "not a block device" in words, words
    config = config_of(tmp_path, wal_device=str(wal), data_device="/dev/no-such-device")
    words = refused_start("curve-chunkserver", "--config", config, "--format")
    assert "/dev/no-such-device" in words, words
    assert not Path("/dev/no-such-device").exists()
    config = config_of(
        tmp_path, wal_device=str(wal), data_device=str(data), data_bytes=str(2 * DATA_BYTES)
    )
    words = refused_start("curve-chunkserver", "--config", config, "--format", "--force")
    assert "space" in words, words


def format_and_kill(config: str, log: Path, wal: Path, delay_ms: int) -> None:
    """SIGKILL so long after the first write to the log; `wal` is the file behind it."""

    def first_bytes() -> bytes:
        with open(wal, "rb") as file:
            return file.read(16)

    mark = os.urandom(16)
    with open(wal, "r+b") as file:
        file.write(mark)
        os.fsync(file.fileno())
    process = start(config, log, "--format")
    try:
        eventually(lambda: first_bytes() != mark or process.poll() is not None, "it formats")
        time.sleep(delay_ms / 1000)
    finally:
        process.kill()
        process.wait()


def test_killed_while_devices_are_formatted(tmp_path: Path, device: MakeDevice) -> None:
    """Without --force: what a cut formatting leaves is ours, and no store."""
    wal, data = device("wal", WAL_BYTES), device("data", DATA_BYTES)
    config = config_of(tmp_path, wal_device=str(wal), data_device=str(data))
    log = tmp_path / "log"
    native: Any = importlib.import_module("curve_py._native.store")
    # Where a kill hits is chance; store_format_test cuts at every step.
    for delay_ms in (0, 0, 1, 2, 5, 10, 20, 50):
        format_and_kill(config, log, tmp_path / "wal.img", delay_ms)
        if native.StoreServer.exists(str(data)):
            break
    serve_once(config, log, *([] if native.StoreServer.exists(str(data)) else ["--format"]))
