"""For tests with devices: shell commands, mounts, agents of other nodes, and the end of all that.

Needs root, /dev/fuse and /dev/loop-control, and fails without them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from curve_py.client.agent import AgentClient
from curve_py.errors import CurveError
from curve_py.proto import agent_pb2 as pb
from curve_py.types import uuid_bytes

WAIT_SECONDS = 60.0


def shell(command: str) -> str:
    """Must not fail."""
    done = subprocess.run(
        ["bash", "-ec", command], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def fails(command: str) -> bool:
    done = subprocess.run(["bash", "-ec", command], capture_output=True, timeout=200, check=False)
    return done.returncode != 0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def fio() -> str:
    """The project's own, or the machine's."""
    built = Path(os.environ.get("CURVE_BUILD", "build")) / "fio" / "fio"
    found = str(built) if built.exists() else shutil.which("fio")
    assert found, "no fio: run tools/fetch-fio"
    return found


class Node:
    """An agent of its own, as if of another machine."""

    def __init__(self, cluster_directory: Path, name: str) -> None:
        # Short: the path of a unix socket is.
        self.directory = Path(tempfile.mkdtemp(prefix="curve-agent-"))
        description = json.loads((cluster_directory / "cluster.json").read_text())
        addresses = [server["grpc_address"] for server in description["metaservers"]]
        config = self.directory / "agent.toml"
        config.write_text(
            f"secret_file = {json.dumps(str(cluster_directory / 'secret'))}\n"
            f"directory = {json.dumps(str(self.directory))}\n"
            f"metaservers = {json.dumps(addresses)}\nnode_id = {json.dumps(name)}\n"
        )
        self.log = open(self.directory / "log", "ab")  # noqa: SIM115
        self.cluster_id = uuid_bytes(description["cluster_id"])
        self.mounts: list[Path] = []
        self.uuids: list[str] = []  # of volumes that `loops` looks for
        self.start()

    def start(self) -> None:
        program = Path(sys.executable).parent / "curve-agent"
        self.holder = subprocess.Popen(
            [program, "--config", str(self.directory / "agent.toml")], stderr=self.log, cwd="/"
        )
        self.agent = AgentClient(self.directory / "agent.sock")
        until(self.answers, "the agent does not start: " + self._said())

    def answers(self) -> bool:
        try:
            self.agent.list()
        except CurveError:
            return False
        return True

    def _said(self) -> str:
        return (self.directory / "log").read_text()[-2000:]

    @property
    def worker(self) -> int:
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text()
        return int(children.split()[0]) if children.split() else 0

    def kill_worker(self) -> None:
        """SIGKILL; returns when the successor has taken up every device."""
        before = self.worker
        os.kill(before, signal.SIGKILL)
        until(lambda: self.worker not in (0, before) and self._serves(), self._said())

    def _serves(self) -> bool:
        try:
            devices = self.agent.list(seconds=1).devices
        except CurveError:
            return False
        return all(device.state == pb.DEVICE_STATE_SERVING for device in devices)

    def state(self, volume: str) -> int:
        (device,) = (d for d in self.agent.list().devices if d.volume_name == volume)
        return device.state

    def loops(self) -> list[str]:
        """Loop devices of these volumes, of whichever agent."""
        found = []
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                found.append(path.read_text().strip().removeprefix("/curve:"))
        return [uuid for uuid in found if uuid in self.uuids]

    def mount(self, device: str, options: str = "") -> Path:
        point = Path(tempfile.mkdtemp(prefix="curve-mount-"))
        shell(f"mount {options} {device} {point}")
        self.mounts.append(point)
        return point

    def unmount(self, point: Path) -> None:
        shell(f"umount {point}")
        self.mounts.remove(point)
        point.rmdir()

    def clean(self) -> None:
        """Ends what a test that failed has left."""
        while self.mounts:
            point = self.mounts.pop()
            subprocess.run(["umount", "--lazy", point], check=False)
            point.rmdir()
        with contextlib.suppress(CurveError):
            for device in self.agent.list().devices:
                self.agent.detach(volume_id=device.volume_id, force=True)

    def close(self) -> None:
        """Leaves nothing behind."""
        self.clean()
        if self.holder.poll() is None:
            self.holder.terminate()
            try:
                self.holder.wait(30)
            except subprocess.TimeoutExpired:
                self.holder.kill()
                self.holder.wait()
        self.agent.close()
        self.log.close()
        shutil.rmtree(self.directory)
