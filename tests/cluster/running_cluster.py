"""A real cluster of separate processes, as `curve up` makes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curve_py.client import Cluster


class RunningCluster:
    """One cluster directory, worked with by the command line."""

    store_size = "512MiB"
    command_seconds = 150.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def curve(self, *arguments: str) -> dict[str, Any]:
        """The JSON of one command, which must not fail."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def run(
        self, *arguments: str, json: bool = True, prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """`prefix` is a command to run it with."""
        options = ["--json"] if json else []
        return subprocess.run(
            [*prefix, sys.executable, "-m", "curve_py.cli.main", *arguments, *options],
            env={**os.environ, "CURVE_DIR": str(self.directory)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=self.command_seconds,
            check=False,
        )

    def up(self, *arguments: str) -> dict[str, Any]:
        return self.curve("up", "--store-size", self.store_size, *arguments)

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
