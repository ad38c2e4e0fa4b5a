"""A real cluster of separate processes for these tests; always stopped at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "curve_py.cli.main", *arguments, "--json"],
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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three metaservers and three chunkservers."""
    running = RunningCluster(tmp_path_factory.mktemp("cluster"))
    try:
        running.up()
        yield running
    finally:
        running.run("down")
        for pid in running.pids().values():  # only if `down` failed
            subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
