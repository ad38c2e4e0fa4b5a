"""A real cluster of separate processes for these tests; always stopped at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from running_cluster import RunningCluster


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
