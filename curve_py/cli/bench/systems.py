"""What is measured: a cluster of this machine, or another system that a file describes. May block.

Owns: volumes for a benchmark (made, and removed at the end), how fio reaches them, which processes
do the work, and what a store still has to drain.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from curve_py.cli.bench.fio import Fio
from curve_py.cli.local.cluster import LocalCluster, service_names
from curve_py.cli.local.exports import Exports
from curve_py.cli.local.processes import console_script
from curve_py.client import AttachMode, Cluster
from curve_py.errors import ConfigError, CurveError, CurveTimeoutError, InvalidError, NotFoundError
from curve_py.volume_map import split_address

_DRAIN_SECONDS = 600.0
_POLL_SECONDS = 0.5


class System(Protocol):
    name: str

    @property
    def directory(self) -> Path:
        """On the disk that the stores are on."""

    def processes(self) -> dict[str, list[int]]:
        """Role -> pids."""

    @contextlib.contextmanager
    def volumes(self, count: int, size_bytes: int) -> Iterator[list[str]]:
        """Makes them, removes them afterwards."""

    @contextlib.contextmanager
    def reach(self, volumes: Sequence[str], export: str) -> Iterator[Fio]:
        """How fio gets to them; export: "" the system's own engine, or nbd."""

    def undrained_bytes(self) -> float | None:
        """What waits in the logs of all stores; None: not known."""

    def wait_drained(self) -> None: ...


def find_program(variable: str, candidates: Sequence[Path | str], what: str) -> Path:
    """From the environment, else the first candidate that is there. Raises ConfigError."""
    given = os.environ.get(variable)
    for candidate in [given] if given else candidates:
        found = shutil.which(str(candidate)) or (
            str(candidate) if Path(candidate).exists() else None
        )
        if found:
            return Path(found).absolute()
    raise ConfigError(
        f"There is no {what}{f' at {given}' if given else ''}.",
        f"Start with tools/bench/run, which builds it, or set {variable}.",
    )


@dataclass(slots=True)
class CurveSystem:
    """A cluster that runs on this machine."""

    local: LocalCluster
    name: str = "curve"
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1_000_000)))

    @property
    def directory(self) -> Path:
        return self.local.directory.path

    def processes(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for name in service_names(self.local.directory.load()):
            pid = self.local.processes.pid(name)
            if pid is not None:
                found.setdefault(name.rpartition("-")[0], []).append(pid)
        return found

    @contextlib.contextmanager
    def volumes(self, count: int, size_bytes: int) -> Iterator[list[str]]:
        with Cluster.connect(self.directory) as cluster:
            names = [f"bench-{os.getpid()}-{next(self._numbers)}" for _ in range(count)]
            try:
                for name in names:
                    cluster.volumes().create(name, size_bytes)
                yield names
            finally:
                for name in names:
                    with contextlib.suppress(NotFoundError):
                        cluster.volumes().delete(name, force=True)

    @contextlib.contextmanager
    def reach(self, volumes: Sequence[str], export: str) -> Iterator[Fio]:
        if export == "nbd":
            with self._exported(volumes) as uris:
                program = find_program("CURVE_FIO_NBD", ("/usr/bin/fio", "fio"), "fio with NBD")
                yield Fio(program, [["ioengine=nbd", f"uri={uri}"] for uri in uris])
            return
        program = find_program("CURVE_FIO", ("build/fio/fio",), "fio of the pinned version")
        engine = find_program(
            "CURVE_FIO_ENGINE", ("build/native/fio/fio-curve.so",), "fio engine of curve"
        )
        options = [f"ioengine=external:{engine}", f"cluster={self.directory}"]
        environment = {"CURVE": os.environ.get("CURVE") or console_script("curve")}
        yield Fio(program, [[*options, f"volume={name}"] for name in volumes], environment)

    @contextlib.contextmanager
    def _exported(self, volumes: Sequence[str]) -> Iterator[list[str]]:
        exports = Exports(self.local.directory)
        address = f"unix:{self.directory / 'run' / 'bench.sock'}"
        try:
            yield [
                exports.add(name, address, str(AttachMode.EXCLUSIVE), "", False).uri
                for name in volumes
            ]
        finally:
            for name in volumes:
                with contextlib.suppress(CurveError):
                    exports.remove(name)

    def exporter_pids(self) -> list[int]:
        return sorted({export.pid for export in Exports(self.local.directory).list()})

    def metrics(self, name: str) -> list[float]:
        """One figure of every chunkserver. Raises OSError: one does not answer."""
        found = []
        for chunkserver in self.local.directory.load().chunkservers:
            host, port = split_address(chunkserver.http_address)
            with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            prefix = f"curve_chunkserver_{name} "
            found.append(
                next(
                    (float(x.split()[1]) for x in text.splitlines() if x.startswith(prefix)),
                    0.0,
                )
            )
        return found

    def undrained_bytes(self) -> float | None:
        return sum(self.metrics("wal_undrained_bytes"))

    def wait_drained(self) -> None:
        """Every store moves what it has in its log to its place by itself, soon after the last
        write. Raises CurveTimeoutError.
        """
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.undrained_bytes():
            if time.monotonic() > deadline:
                raise CurveTimeoutError(f"The logs did not drain within {_DRAIN_SECONDS:g} s.")
            time.sleep(_POLL_SECONDS)


class OtherSystem:
    """A system that a file describes (tools/bench/peers): volumes are made by commands, fio's
    options for one are given, and which processes do the work.
    """

    def __init__(self, file: Path) -> None:
        try:
            content: dict[str, Any] = json.loads(file.read_text())
            self.name = str(content["name"])
            self._directory = Path(content["directory"])
            self._fio = Path(content["fio"])
            self._options = [str(option) for option in content["options"]]
            self._create = [str(word) for word in content["create"]]
            self._remove = [str(word) for word in content["remove"]]
            self._environment = {str(k): str(v) for k, v in content["environment"].items()}
            self._processes = {
                str(role): [int(pid) for pid in pids] for role, pids in content["processes"].items()
            }
        except OSError as error:
            raise NotFoundError(f"{file} cannot be read: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidError(f"{file} does not describe a system: {error!r}.") from None

    @property
    def directory(self) -> Path:
        return self._directory

    def processes(self) -> dict[str, list[int]]:
        return {role: list(pids) for role, pids in self._processes.items()}

    @contextlib.contextmanager
    def volumes(self, count: int, size_bytes: int) -> Iterator[list[str]]:
        names = [f"bench-{number}" for number in range(count)]
        made = []
        try:
            for name in names:
                self._command(self._create, name, size_bytes)
                made.append(name)
            yield names
        finally:
            for name in made:
                self._command(self._remove, name, size_bytes)

    def _command(self, words: list[str], volume: str, size_bytes: int) -> None:
        filled = [word.format(volume=volume, mib=-(-size_bytes // 1024**2)) for word in words]
        done = subprocess.run(
            filled,
            env=os.environ | self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode != 0:
            words_said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-2:]
            raise CurveError(f"{filled[0]} ended with {done.returncode}: {' | '.join(words_said)}")

    @contextlib.contextmanager
    def reach(self, volumes: Sequence[str], export: str) -> Iterator[Fio]:
        if export:
            raise InvalidError(f"{self.name} is not measured through {export}.")
        options = [[o.format(volume=name) for o in self._options] for name in volumes]
        yield Fio(self._fio, options, self._environment)

    def undrained_bytes(self) -> float | None:
        return None

    def wait_drained(self) -> None:
        time.sleep(1.0)  # nothing tells when it has
