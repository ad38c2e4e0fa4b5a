"""Exporter processes: one per address, with any number of volumes by name.

Owns: run/exports/ with, for each process, its control socket, on which one JSON object per line is
asked and answered: add, remove, list; and the list of its exports, which outlives a process that
was not told to end them. The directory is the owner's alone, which is the access control of the
socket. May block.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curve_py.cli.local.processes import Processes
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import (
    CurveTimeoutError,
    ErrorKind,
    InternalError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    error_of_kind,
)
from curve_py.volume_map import split_address

START_SECONDS = 30.0
CALL_SECONDS = 90.0  # an attach may wait for a majority of each copyset
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Export:
    """One volume at one address."""

    volume: str
    address: str  # unix:PATH or HOST:PORT, with the real port
    pid: int
    mode: str
    http_address: str

    @property
    def uri(self) -> str:
        if self.address.startswith("unix:"):
            return f"nbd+unix:///{self.volume}?socket={self.address.removeprefix('unix:')}"
        return f"nbd://{self.address}/{self.volume}"

    @property
    def command(self) -> str:
        """What makes it again."""
        option = {"shared": " --shared", "read_only": " --read-only"}.get(self.mode, "")
        address = self.address if self.address.startswith("unix:") else f"tcp:{self.address}"
        return f"curve volume export {self.volume} --nbd {address}{option}"


def export_fields(export: Export) -> dict[str, Any]:
    return {**asdict(export), "uri": export.uri}


def parse_nbd_address(text: str) -> str:
    """unix:/absolute/path or HOST:PORT, of unix:PATH or tcp:HOST:PORT. Raises InvalidError."""
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest:
        path = os.path.abspath(rest)
        if len(os.fsencode(path)) > 107:
            raise InvalidError(f"The socket path {path} is longer than 107 bytes.")
        return f"unix:{path}"
    if kind == "tcp" and rest:
        split_address(rest)
        return rest
    raise InvalidError(f"'{text}' is no NBD address.", "Write unix:PATH or tcp:HOST:PORT.")


class Exports:
    """The exporters of one cluster directory."""

    def __init__(self, directory: ClusterDirectory) -> None:
        self._directory = directory
        self._processes = Processes(directory)
        self.folder = directory.run_dir / "exports"

    def name_of(self, address: str) -> str:
        """The process that serves the address."""
        return "exporter-" + hashlib.sha256(address.encode()).hexdigest()[:12]

    def control_socket(self, name: str) -> Path:
        return self.folder / f"{name}.sock"

    def add(self, volume: str, address: str, mode: str, http_address: str, refuse: bool) -> Export:
        """Exports the volume at the address; starts the process if there is none."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.forget(volume)
        name = self.name_of(address)
        if self._processes.pid(name) is None:
            self._start(name, address, http_address)
        answer = self._call(
            name, {"verb": "add", "volume": volume, "mode": mode, "refuse_when_attached": refuse}
        )
        return Export(**answer["export"])

    def remove(self, volume: str) -> tuple[builtins.list[Export], int]:
        """Ends every export of the volume. Raises NotFoundError when there is none.

        Returns them, and how many requests were cut off because they did not end.
        """
        self.forget(volume)
        removed: builtins.list[Export] = []
        cut_off = 0
        for name in self._running():
            answer = self._call(name, {"verb": "remove", "volume": volume})
            removed += [Export(**export) for export in answer["removed"]]
            cut_off += answer["requests_cut_off"]
            if not answer["left"]:
                self._processes.stop([name])
        if not removed:
            raise NotFoundError(
                f"Volume '{volume}' is not exported from here.", "See: curve volume list"
            )
        return removed, cut_off

    def list(self) -> list[Export]:
        found: list[Export] = []
        for name in self._running():
            with contextlib.suppress(UnavailableError):
                found += [Export(**e) for e in self._call(name, {"verb": "list"})["exports"]]
        return found

    def record(self, name: str, exports: builtins.list[Export]) -> None:
        """Writes down what a process exports; for the process itself."""
        path = self.folder / f"{name}.json"
        if not exports:
            path.unlink(missing_ok=True)
            return
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps([asdict(export) for export in exports]))
        os.replace(temporary, path)

    def ended(self) -> builtins.list[Export]:
        """Exports whose process is gone, though nobody ended them: `curve down`, a crash."""
        return [export for exports in self._ended().values() for export in exports]

    def forget(self, volume: str) -> None:
        """Ended exports of the volume are nobody's concern any more."""
        for name, exports in self._ended().items():
            self.record(name, [export for export in exports if export.volume != volume])

    def _ended(self) -> dict[str, builtins.list[Export]]:
        found: dict[str, builtins.list[Export]] = {}
        for path in sorted(self.folder.glob("exporter-*.json")):
            if self._processes.pid(path.stem) is None:
                with contextlib.suppress(OSError, ValueError, TypeError):
                    found[path.stem] = [Export(**e) for e in json.loads(path.read_text())]
        return found

    def stop_all(self) -> builtins.list[str]:
        """Ends all exporter processes; returns who ran."""
        return self._processes.stop(self._running())

    def _running(self) -> builtins.list[str]:
        records = sorted(self._directory.run_dir.glob("exporter-*.pid"))
        return [record.stem for record in records if self._processes.pid(record.stem) is not None]

    def _start(self, name: str, address: str, http_address: str) -> None:
        self.control_socket(name).unlink(missing_ok=True)
        command = [sys.executable, "-m", "curve_py.cli.main", "internal", "exporter"]
        command += ["--dir", str(self._directory.path), "--address", address]
        if http_address:
            command += ["--metrics", http_address]
        self._processes.start(name, command)
        deadline = time.monotonic() + START_SECONDS
        while not self.control_socket(name).exists():
            words = self._processes.ended_with(name)
            if words is not None:
                raise UnavailableError(f"The export at {address} did not start: {words}")
            if time.monotonic() > deadline:
                self._processes.stop([name])
                raise CurveTimeoutError(
                    f"The export at {address} did not start within {START_SECONDS:g} s.",
                    f"See {self._directory.log_file(name)}.",
                )
            time.sleep(_POLL_SECONDS)

    def _call(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """One request to one exporter. Raises CurveError, also those that it answers."""
        try:
            with (
                short_path(self.folder) as folder,
                socket.socket(socket.AF_UNIX) as connection,
            ):
                connection.settimeout(CALL_SECONDS)
                connection.connect(f"{folder}/{name}.sock")
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as file:
                    answer: dict[str, Any] = json.loads(file.readline())
        except TimeoutError:
            raise CurveTimeoutError(f"{name} did not answer.") from None
        except OSError as error:
            raise UnavailableError(f"{name} does not answer: {error.strerror or error}.") from None
        except ValueError:
            raise InternalError(
                f"{name} ended while it was asked.", f"See {self._directory.log_file(name)}."
            ) from None
        if "error" in answer:
            told = answer["error"]
            raise error_of_kind(ErrorKind(told["kind"]), told["message"], told["remedy"])
        return answer


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """A name of the folder that is short enough for a socket's address."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
