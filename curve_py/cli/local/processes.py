"""Detached processes by name: started, found again, stopped.

Owns: the pid records run/NAME.pid. Invariant: a process is ours only if its pid, its start time and
the boot agree with the record, so that a number that was used again is never signalled. May block.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from curve_py.client.directory import ClusterDirectory
from curve_py.config import ENV_PREFIX
from curve_py.errors import ConfigError, CurveTimeoutError

STOP_SECONDS = 20.0
_POLL_SECONDS = 0.05
_KEPT_VARIABLES = frozenset({"CURVE_TEST_RUN", "CURVE_BUILD", "CURVE_VENV"})


def console_script(name: str) -> str:
    """Where the console script of this installation is. Raises ConfigError."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ConfigError(f"The program {name} is not installed.", "Run: pip install .")
    return found


def clean_environment() -> Mapping[str, str]:
    """Ours without CURVE_*: a service takes its settings from its file."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(ENV_PREFIX) or key in _KEPT_VARIABLES
    }


def _started_at(pid: int) -> str:
    """When the process began, on this boot; "" if there is none (or only a zombie)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if after_name[0] in "ZX" else f"{boot}/{after_name[19]}"


class Processes:
    """The processes of one cluster directory."""

    def __init__(self, directory: ClusterDirectory) -> None:
        self._directory = directory
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def pid(self, name: str) -> int | None:
        """The running process of that name."""
        child = self._children.get(name)
        if child is not None:
            child.poll()  # reaps it
        try:
            record = json.loads(self._record(name).read_text())
            pid, started = int(record["pid"]), str(record["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if started and _started_at(pid) == started else None

    def start(self, name: str, command: Sequence[str]) -> int:
        """A session of its own; standard error goes to log/NAME.log. Returns the pid."""
        log_file = self._directory.log_file(name)
        with open(log_file, "ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env=clean_environment(),
            )
        try:
            self.record(name, child.pid)
        except OSError:  # a full disk: nobody would find it again
            child.kill()
            child.wait()
            raise
        self._children[name] = child
        return child.pid

    def record(self, name: str, pid: int) -> None:
        record = self._record(name)
        temporary = record.with_suffix(".new")
        temporary.write_text(json.dumps({"pid": pid, "started": _started_at(pid)}) + "\n")
        os.replace(temporary, record)

    def ended_with(self, name: str) -> str | None:
        """If the process is gone: the last thing that it said, else None."""
        if self.pid(name) is not None:
            return None
        return self.last_words(name)

    def last_words(self, name: str) -> str:
        """The last line of its log, or its message if that is JSON."""
        try:
            with open(self._directory.log_file(name), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 16384))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return "it left no log"
        for line in reversed(lines):
            if not line.startswith("{"):
                return line.strip()
            with contextlib.suppress(ValueError):
                return str(json.loads(line)["message"])
        return "it left no log"

    def stop(self, names: Sequence[str], seconds: float = STOP_SECONDS) -> list[str]:
        """SIGTERM to all, SIGKILL to those that do not end. Returns who ran. Raises CurveError."""
        running = {name: pid for name in names if (pid := self.pid(name)) is not None}
        for pid in running.values():
            _signal(pid, signal.SIGTERM)
            _signal(pid, signal.SIGCONT)  # one that was stopped cannot end otherwise
        if left := self._wait_gone(running, seconds):
            for name in left:
                _signal(running[name], signal.SIGKILL)
            if left := self._wait_gone(running, 10.0):
                raise CurveTimeoutError(f"{left[0]} (pid {running[left[0]]}) does not end.")
        for name in names:
            self._record(name).unlink(missing_ok=True)
        return list(running)

    def _wait_gone(self, running: Mapping[str, int], seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while left := [name for name in running if self.pid(name) is not None]:
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        return left

    def _record(self, name: str) -> Path:
        return self._directory.run_dir / f"{name}.pid"


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
