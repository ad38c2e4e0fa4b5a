"""A real cluster of separate processes for these tests; always stopped at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curve_py.client import Cluster


class RunningCluster:
    """One cluster directory, worked with by the command line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def curve(self, *arguments: str) -> dict[str, Any]:
        """The JSON of one command, which must not fail."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def run(self, *arguments: str, json: bool = True) -> subprocess.CompletedProcess[str]:
        options = ["--json"] if json else []
        return subprocess.run(
            [sys.executable, "-m", "curve_py.cli.main", *arguments, *options],
            env={**os.environ, "CURVE_DIR": str(self.directory)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    def up(self) -> dict[str, Any]:
        return self.curve("up", "--store-size", "512MiB")

    def pids(self, prefix: str = "") -> dict[str, int]:
        """Name -> pid of what runs, by the records that `curve up` wrote."""
        found = {}
        for record in (self.directory / "run").glob(f"{prefix}*.pid"):
            found[record.stem] = int(json.loads(record.read_text())["pid"])
        return found

    def kill(self, *names: str) -> None:
        """SIGKILL to all of them, as near to at once as can be."""
        pids = self.pids()
        for name in names:
            os.kill(pids[name], signal.SIGKILL)

    def connect(self) -> Cluster:
        return Cluster.connect(self.directory)


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    """Three metaservers and three chunkservers; every test leaves them running."""
    directory = Path(tempfile.mkdtemp(prefix="curve-test-"))
    running = RunningCluster(directory)
    try:
        running.up()
        yield running
    finally:
        running.run("down")
        for pid in processes_of(directory):  # none, unless `down` failed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


def processes_of(directory: Path) -> list[int]:
    """Whoever has the directory in its command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(directory) in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found
