"""Real processes to be hit: a cluster as `curve up` starts it, checked load, tiny protocol clients.

Nothing here asserts a time: bounds only end a test that would hang.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from curve_py.cli.bench.failover import wait_caught_up
from curve_py.cli.bench.load import Ledger, Reader, Writer
from curve_py.cli.local.cluster import LocalCluster, service_names
from curve_py.client import AttachMode, Cluster, Volume
from curve_py.client.directory import ClusterDirectory, LocalChunkserver, LocalMetaserver

MIB = 1024**2
BOUND_SECONDS = 90.0


def eventually(condition: Callable[[], bool], what: str, seconds: float = BOUND_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"within {seconds:g} s not: {what}"
        time.sleep(0.05)


class Servers:
    """A cluster in a directory, and the faults that can be done to it."""

    def __init__(self, directory: Path, store_bytes: int = 512 * MIB) -> None:
        self.local = LocalCluster(ClusterDirectory(directory))
        self.store_bytes = store_bytes

    @property
    def path(self) -> Path:
        return self.local.directory.path

    def up(self) -> None:
        self.local.directory.make()
        with self.local.locked():
            if not self.local.directory.exists:
                self.local.describe(3, 3, self.store_bytes)
            description = self.local.directory.load()
            self.local.start_missing(description)
            self.local.wait_ready(description, lambda step, done, total: None)

    def down(self) -> None:
        if self.local.directory.exists:
            self.local.stop(self.local.directory.load())

    def remove(self) -> None:
        """Stops everything and gives the space back."""
        self.down()
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def metaservers(self) -> list[LocalMetaserver]:
        return self.local.directory.load().metaservers

    @property
    def chunkservers(self) -> list[LocalChunkserver]:
        return self.local.directory.load().chunkservers

    @property
    def names(self) -> list[str]:
        return service_names(self.local.directory.load())

    def pid(self, name: str) -> int:
        pid = self.local.processes.pid(name)
        assert pid is not None, f"{name} does not run: {self.local.processes.last_words(name)}"
        return pid

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.pid(name), number)

    def kill(self, name: str) -> None:
        self.signal(name, signal.SIGKILL)
        eventually(lambda: self.local.processes.pid(name) is None, f"{name} ends")

    def restart(self) -> None:
        """Starts what is missing; returns when it serves."""
        self.up()

    def connect(self) -> Cluster:
        return Cluster.connect(self.path)

    def caught_up(self) -> None:
        with self.connect() as cluster:
            wait_caught_up(cluster.client, reports=1)

    def metaserver_leader(self) -> str:
        with self.connect() as cluster:
            address = cluster.status().leader_address
        return next(m.name for m in self.metaservers if m.grpc_address == address)

    def all_run(self) -> None:
        for name in self.names:
            self.pid(name)


@contextlib.contextmanager
def checked_load(
    cluster: Cluster, name: str, slots: int = 256, size: int = 512 * MIB
) -> Iterator[tuple[Writer, Reader, Volume]]:
    """Writes and reads while the body runs; at its end no error, nothing stale, nothing lost."""
    cluster.volumes().create(name, size)
    step = size // slots
    ledger = Ledger([slot * step for slot in range(slots)])
    with cluster.volumes().open(name, AttachMode.EXCLUSIVE) as volume:
        writer, reader = Writer(volume, ledger, 1), Reader(volume, ledger, 2)
        writer.start()
        reader.start()
        try:
            yield writer, reader, volume
        finally:
            writer.end(BOUND_SECONDS)
            reader.end(BOUND_SECONDS)
        assert writer.error is None
        assert reader.error is None
        ledger.check_all(volume)
        assert ledger.stale == []
    cluster.volumes().delete(name)


def more(load: Writer | Reader, count: int) -> None:
    """Returns when the load has done so many more I/Os."""
    target = len(load.latencies.samples) + count

    def reached() -> bool:
        assert load.error is None
        return len(load.latencies.samples) >= target

    eventually(reached, f"{count} more I/Os")


# --- Programs -------------------------------------------------------------------------------------


def script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def curve(servers: Servers, *arguments: str) -> str:
    done = subprocess.run(
        [script("curve"), *arguments, "--dir", str(servers.path), "--json"],
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused_start(program: str, *arguments: str) -> str:
    """Runs a service that must not start; its sentence and its remedy."""
    done = subprocess.run(
        [script(program), *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith(f"{program}: ")]
    return "\n".join(said)


# --- Sockets --------------------------------------------------------------------------------------


def connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(BOUND_SECONDS)
        client.connect(address.removeprefix("unix:"))
        return client
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=BOUND_SECONDS)


def send_and_drain(address: str, parts: Sequence[bytes], finish: bool = False) -> bytes:
    """Sends and reads until the server closes (or resets); `finish` ends our side first."""
    answer = b""
    with connect(address) as client:
        try:
            for part in parts:
                client.sendall(part)
            if finish:
                with contextlib.suppress(OSError):  # the server may have reset it by now
                    client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                answer += data
        except (ConnectionError, BrokenPipeError):
            pass
    return answer


class Nbd:
    """The least of an NBD client: fixed newstyle, EXPORT_NAME, simple or structured replies off."""

    def __init__(self, address: str, export: str) -> None:
        self.socket = connect(address)
        assert self._receive(16) == b"NBDMAGICIHAVEOPT"
        self._receive(2)
        name = export.encode()
        self.socket.sendall(struct.pack(">I", 3))  # FIXED_NEWSTYLE, NO_ZEROES
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
        self.size, self.flags = struct.unpack(">QH", self._receive(10))
        self._cookie = 0

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data

    def send(self, command: int, offset: int, size: int, data: bytes = b"") -> None:
        self._cookie += 1
        head = struct.pack(">IHHQQI", 0x25609513, 0, command, self._cookie, offset, size)
        self.socket.sendall(head + data)

    def _reply(self) -> None:
        magic, error, cookie = struct.unpack(">IIQ", self._receive(16))
        assert (magic, error, cookie) == (0x67446698, 0, self._cookie)

    def write(self, offset: int, data: bytes) -> int:
        self.send(1, offset, len(data), data)
        self._reply()
        return len(data)

    def read(self, offset: int, size: int) -> bytes:
        self.send(0, offset, size)
        self._reply()
        return self._receive(size)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.send(2, 0, 0)
        self.socket.close()
