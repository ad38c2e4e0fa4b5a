"""Metaserver and chunkserver as the chart's containers have them: under its seccomp profile and
without new privileges; with no privilege, or with those of a chunkserver beside its clients.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_cluster import RunningCluster

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "deploy/helm/curve/files/seccomp-io-uring.json"
UNDER = [str(ROOT / "tools/seccomp-run"), str(PROFILE)]
_CAP_IPC_LOCK, _CAP_SYS_RESOURCE = 14, 24

pytestmark = pytest.mark.skipif(
    not shutil.which("setpriv")
    or subprocess.run([*UNDER, "true"], capture_output=True, check=False).returncode != 0,
    reason="no libseccomp.so.2 or no setpriv here",
)


class ConfinedCluster(RunningCluster):
    """What it starts has these privileges at most, and the profile."""

    privileges = ""

    def up(self, *arguments: str) -> dict[str, Any]:
        confined = ["setpriv", "--no-new-privs"]
        if os.geteuid() == 0:
            confined.append(f"--bounding-set=-all{self.privileges}")
        done = self.run("up", *arguments, json=False, prefix=[*confined, *UNDER])
        assert done.returncode == 0, done.stderr
        return {}


@pytest.fixture
def confined() -> Iterator[ConfinedCluster]:
    running = ConfinedCluster(Path(tempfile.mkdtemp(prefix="curve-test-")))
    try:
        yield running
    finally:
        running.run("down")
        shutil.rmtree(running.directory, ignore_errors=True)


def status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{key}:"))


@pytest.mark.parametrize("privileges", ["", ",+ipc_lock,+sys_resource"])
def test_services_run_under_the_profile_of_the_chart(
    confined: ConfinedCluster, privileges: str
) -> None:
    confined.privileges = privileges
    confined.up("--metaservers", "1", "--chunkservers", "1", "--store-size", "512MiB")
    pids = confined.pids()
    assert set(pids) == {"metaserver-1", "chunkserver-1"}
    for pid in pids.values():
        assert status(pid, "Seccomp") == "2"  # a filter
        assert status(pid, "NoNewPrivs") == "1"
    with confined.connect() as cluster:
        cluster.volumes().create("data", 64 << 20)
        with cluster.volumes().open("data") as volume:
            volume.write(4096, b"confined" * 512)
            volume.flush()
            assert volume.read(4096, 4096) == b"confined" * 512

    if os.geteuid() == 0:
        pid = pids["chunkserver-1"]
        may = int(status(os.getpid(), "CapBnd"), 16)
        has = int(status(pid, "CapEff"), 16)
        beside = 1 << _CAP_IPC_LOCK | 1 << _CAP_SYS_RESOURCE
        assert has == (may & beside if privileges else 0)
        if has >> _CAP_IPC_LOCK & 1:
            assert int(status(pid, "VmLck").split()[0]) > 0
        if has >> _CAP_SYS_RESOURCE & 1:
            assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) < 0


def test_what_is_not_in_the_profile_is_not_there() -> None:
    code = "import ctypes, os; l = ctypes.CDLL(None, use_errno=True); l.unshare(0x20000); "
    code += "print(os.strerror(ctypes.get_errno()))"
    done = subprocess.run(
        [*UNDER, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "Function not implemented"
