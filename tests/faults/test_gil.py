"""No Python on the I/O path: I/O goes on while chunkservers and exporter hold the GIL."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_harness import Nbd, Servers, curve, eventually

HOLD_SECONDS = 10
# Installed into every Python process by PYTHONPATH. PyDLL keeps the GIL while usleep runs.
HOLDER = f"""
import ctypes, os, signal

def _hold(*_):
    mark = os.path.join(os.environ["GIL_MARKS"], str(os.getpid()))
    open(mark + ".begin", "w").close()
    ctypes.PyDLL(None).usleep({HOLD_SECONDS} * 1000 * 1000)
    open(mark + ".end", "w").close()

signal.signal(signal.SIGUSR2, _hold)
"""


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HOLDER)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{site}:{before}" if before else str(site))
    monkeypatch.setenv("GIL_MARKS", str(tmp_path))
    return tmp_path


@pytest.fixture
def holding(marks: Path) -> Iterator[Servers]:
    servers = Servers(marks / "cluster")
    try:
        servers.up()
        yield servers
    finally:
        servers.remove()


def test_io_goes_on_while_the_gil_is_held(holding: Servers, marks: Path) -> None:
    with holding.connect() as cluster:
        cluster.volumes().create("gil", "1GiB")
        address = f"unix:{holding.path}/gil.sock"
        try:
            export = json.loads(curve(holding, "volume", "export", "gil", "--nbd", address))
            client = Nbd(address, "gil")
            step = 16 * 1024**2  # a chunk: every copyset, every leader
            for number in range(64):
                client.write(number * step, bytes([number]) * 4096)
            pids = [holding.pid(c.name) for c in holding.chunkservers]
            pids.append(export["export"]["pid"])
            for pid in pids:
                os.kill(pid, signal.SIGUSR2)
            eventually(
                lambda: all((marks / f"{pid}.begin").exists() for pid in pids), "the GILs are held"
            )
            for number in range(64):
                assert client.read(number * step, 4096) == bytes([number]) * 4096
                client.write(number * step, bytes([number + 1]) * 4096)
            ended = [pid for pid in pids if (marks / f"{pid}.end").exists()]
            assert ended == [], "the I/O was not over before the GIL was given back"
            eventually(lambda: all((marks / f"{pid}.end").exists() for pid in pids), "it ends")
            for number in range(64):
                assert client.read(number * step, 4096) == bytes([number + 1]) * 4096
            client.close()
        finally:
            curve(holding, "volume", "unexport", "gil")
