"""A node of a real cluster: its agent and its CSI driver as separate processes, and their clients.

Everything that is mounted or attached below a node's directory is taken away by `remove`, also
after a failed test.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from csi_driver.proto import csi_pb2 as csi
from csi_driver.proto.csi_pb2_grpc import ControllerStub, IdentityStub, NodeStub
from curve_py.client.agent import AgentClient
from curve_py.proto import agent_pb2

GIB = 1 << 30
MIB = 1 << 20
CALL_SECONDS = 120.0
Mode = csi.VolumeCapability.AccessMode


def mount_capability(
    file_system: str = "ext4",
    mode: int = Mode.SINGLE_NODE_WRITER,
    mount_flags: tuple[str, ...] = (),
) -> csi.VolumeCapability:
    return csi.VolumeCapability(
        mount=csi.VolumeCapability.MountVolume(fs_type=file_system, mount_flags=mount_flags),
        access_mode=Mode(mode=mode),  # type: ignore[arg-type]
    )


def block_capability(mode: int = Mode.SINGLE_NODE_WRITER) -> csi.VolumeCapability:
    return csi.VolumeCapability(
        block=csi.VolumeCapability.BlockVolume(),
        access_mode=Mode(mode=mode),  # type: ignore[arg-type]
    )


def eventually(what: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


class CsiNode:
    """One node. `prefix` is a command to run its processes with, such as one that enters another
    namespace.
    """

    def __init__(
        self, directory: Path, cluster: Path, node_id: str, prefix: tuple[str, ...] = ()
    ) -> None:
        self.directory = directory
        self.node_id = node_id
        self.staging = directory / "staging"
        self.pods = directory / "pods"
        for each in (directory / "agent", self.staging, self.pods):
            each.mkdir(parents=True, exist_ok=True)
        self._prefix = prefix
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stubs: list[Any] = []
        self.uuids: set[str] = set()  # of volumes that were ever staged here
        description = json.loads((cluster / "cluster.json").read_text())
        addresses = [member["grpc_address"] for member in description["metaservers"]]
        shared = f"secret_file = {json.dumps(str(cluster / 'secret'))}\n"
        shared += f"metaservers = {json.dumps(addresses)}\nnode_id = {json.dumps(node_id)}\n"
        (directory / "agent.toml").write_text(
            shared + f"directory = {json.dumps(str(directory / 'agent'))}\n"
        )
        (directory / "csi.toml").write_text(
            shared
            + f'endpoint = "unix://{self.socket}"\n'
            + f"agent_socket = {json.dumps(str(self.agent_socket))}\n"
            + "volumes_max = 24\nwatch_seconds = 0.5\n"
        )

    @property
    def socket(self) -> Path:
        return self.directory / "csi.sock"

    @property
    def agent_socket(self) -> Path:
        return self.directory / "agent" / "agent.sock"

    def start(self) -> None:
        self.start_agent()
        self.start_driver()

    def start_agent(self) -> None:
        self._start("agent", "curve-agent")
        eventually(self._agent_answers)

    def start_driver(self) -> None:
        self._start("csi", "curve-csi")
        eventually(self._driver_answers)

    def _start(self, name: str, program: str) -> None:
        path = Path(sys.executable).parent / program
        with open(self.directory / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self._prefix, str(path), "--config", str(self.directory / f"{name}.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _agent_answers(self) -> bool:
        assert self._processes["agent"].poll() is None, self.log("agent")
        try:
            with AgentClient(self.agent_socket) as agent:
                agent.list(1.0)
        except Exception:
            return False
        return True

    def _driver_answers(self) -> bool:
        assert self._processes["csi"].poll() is None, self.log("csi")
        options = (("grpc.enable_http_proxy", 0),)
        channel = grpc.insecure_channel(f"unix:{self.socket}", options=options)
        self._stubs = [NodeStub(channel), ControllerStub(channel), IdentityStub(channel)]
        try:
            return bool(self.call("Probe", csi.ProbeRequest(), 1.0).ready.value)
        except grpc.RpcError:
            channel.close()
            return False

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()[-4000:]

    def kill_driver(self) -> None:
        self._processes["csi"].kill()
        self._processes["csi"].wait()

    @property
    def agent_worker(self) -> int:
        """The process that serves the devices, a child of what keeps them alive; 0: none."""
        holder = self._processes["agent"].pid
        children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
        return int(children[0]) if children else 0

    def restart_agent(self) -> None:
        """SIGKILL to its worker; returns when the successor serves every device."""
        before = self.agent_worker
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.agent_worker not in (0, before) and self._agent_answers())
        eventually(lambda: all(d.state == agent_pb2.DEVICE_STATE_SERVING for d in self.devices()))

    def kill_agent(self) -> None:
        """With what keeps its devices alive: they are dead."""
        worker = self.agent_worker
        self._processes["agent"].kill()
        self._processes["agent"].wait()
        os.kill(worker, signal.SIGKILL)

    def call(self, method: str, request: Any, seconds: float = CALL_SECONDS) -> Any:
        """One call of any service. Raises grpc.RpcError."""
        assert self._stubs
        for stub in self._stubs:
            found = getattr(stub, method, None)
            if found is not None:
                return found(request, timeout=seconds)
        raise AssertionError(method)

    # --- A volume's life --------------------------------------------------------------------

    def create(
        self,
        name: str,
        capability: csi.VolumeCapability,
        size_bytes: int = GIB,
        **parameters: str,
    ) -> str:
        answer = self.call(
            "CreateVolume",
            csi.CreateVolumeRequest(
                name=name,
                capacity_range=csi.CapacityRange(required_bytes=size_bytes),
                volume_capabilities=[capability],
                parameters=parameters,
            ),
        )
        volume_id: str = answer.volume.volume_id
        return volume_id

    def publish(
        self, volume_id: str, capability: csi.VolumeCapability, readonly: bool = False
    ) -> dict[str, str]:
        """To this node, by its controller service."""
        self.call("NodeGetInfo", csi.NodeGetInfoRequest())
        answer = self.call(
            "ControllerPublishVolume",
            csi.ControllerPublishVolumeRequest(
                volume_id=volume_id,
                node_id=self.node_id,
                volume_capability=capability,
                readonly=readonly,
            ),
        )
        return dict(answer.publish_context)

    def unpublish(self, volume_id: str, node_id: str = "") -> None:
        self.call(
            "ControllerUnpublishVolume",
            csi.ControllerUnpublishVolumeRequest(
                volume_id=volume_id, node_id=node_id or self.node_id
            ),
        )

    def staging_path(self, volume_id: str) -> Path:
        path = self.staging / volume_id
        with contextlib.suppress(FileExistsError):  # not looked at: its device may be gone
            path.mkdir()  # the kubelet's part
        return path

    def target(self, volume_id: str, pod: str = "pod") -> Path:
        return self.pods / pod / volume_id

    def stage(
        self,
        volume_id: str,
        capability: csi.VolumeCapability,
        context: dict[str, str],
        path: Path | None = None,
    ) -> Path:
        """At its staging path, which is made, or at another."""
        path = path or self.staging_path(volume_id)
        self.uuids.add(volume_id.split("-", 2)[2])
        self.call(
            "NodeStageVolume",
            csi.NodeStageVolumeRequest(
                volume_id=volume_id,
                publish_context=context,
                staging_target_path=str(path),
                volume_capability=capability,
            ),
        )
        return path

    def unstage(self, volume_id: str) -> None:
        path = self.staging_path(volume_id)
        self.call(
            "NodeUnstageVolume",
            csi.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(path)),
        )
        path.rmdir()

    def mount(
        self,
        volume_id: str,
        capability: csi.VolumeCapability,
        pod: str = "pod",
        readonly: bool = False,
    ) -> Path:
        target = self.target(volume_id, pod)
        request = self.publish_request(volume_id, capability, target, readonly)
        self.call("NodePublishVolume", request)
        return target

    def publish_request(
        self,
        volume_id: str,
        capability: csi.VolumeCapability,
        target: Path,
        readonly: bool = False,
    ) -> csi.NodePublishVolumeRequest:
        return csi.NodePublishVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(self.staging_path(volume_id)),
            target_path=str(target),
            volume_capability=capability,
            readonly=readonly,
        )

    def unmount(self, volume_id: str, pod: str = "pod") -> None:
        self.call(
            "NodeUnpublishVolume",
            csi.NodeUnpublishVolumeRequest(
                volume_id=volume_id, target_path=str(self.target(volume_id, pod))
            ),
        )

    def use(self, volume_id: str, capability: csi.VolumeCapability) -> Path:
        """From publish to the pod."""
        self.stage(volume_id, capability, self.publish(volume_id, capability))
        return self.mount(volume_id, capability)

    def end_use(self, volume_id: str) -> None:
        self.unmount(volume_id)
        self.unstage(volume_id)
        self.unpublish(volume_id)

    def delete(self, volume_id: str) -> None:
        self.call("DeleteVolume", csi.DeleteVolumeRequest(volume_id=volume_id))

    # --- What is left -----------------------------------------------------------------------

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", "--mount", f"--target={self._processes['csi'].pid}", *command]

    def read(self, path: Path) -> bytes:
        """A file as the node sees it, in its namespace."""
        command = self._inside("cat", str(path))
        return subprocess.run(command, check=True, capture_output=True).stdout

    def shell(self, script: str) -> None:
        """In its namespace; must not fail."""
        subprocess.run(self._inside("sh", "-ec", script), check=True, timeout=60)

    def start_shell(self, script: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._inside("sh", "-ec", script), stderr=subprocess.DEVNULL)

    def run(self, *command: str) -> int:
        """Exit code of a command in its namespace."""
        return subprocess.run(self._inside(*command), check=False).returncode

    def mounts(self) -> list[str]:
        """Below the node's directory, but for the agent's own; the last one first."""
        driver = self._processes.get("csi")
        running = driver is not None and driver.poll() is None
        table = f"/proc/{driver.pid if driver and running else 'self'}/mounts"
        lines = Path(table).read_text().splitlines()
        targets = [line.split()[1] for line in lines]
        agents = str(self.directory / "agent")
        mine = [t for t in targets if t.startswith(f"{self.directory}/")]
        return [t for t in reversed(mine) if not t.startswith(agents)]

    def loops(self) -> list[str]:
        """Loop devices of volumes that were staged here, whosever they are now."""
        found = []
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if path.read_text().strip().removeprefix("/curve:") in self.uuids:
                    found.append(path.parts[3])
        return found

    def devices(self) -> list[Any]:
        with AgentClient(self.agent_socket) as agent:
            return list(agent.list().devices)

    def stop(self) -> None:
        """In order: the driver, then the agent with its devices."""
        for name in ("csi", "agent"):
            process = self._processes.get(name)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def remove(self) -> None:
        """However far a test has come."""
        for target in self.mounts():
            subprocess.run(["umount", "--lazy", target], check=False)
        with contextlib.suppress(Exception), AgentClient(self.agent_socket) as agent:
            for device in agent.list(5.0).devices:
                with contextlib.suppress(Exception):
                    agent.detach(volume_id=device.volume_id, force=True, seconds=10.0)
        self.stop()
        end_processes_of(self.directory)
        for target in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            path = target.split()[1]
            if path.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", path], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def end_processes_of(directory: Path) -> None:
    """Whoever has the directory in its command line: what an agent leaves to its successor."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if (
                int(entry.parent.name) != os.getpid()
                and os.fsencode(directory) in entry.read_bytes()
            ):
                os.kill(int(entry.parent.name), signal.SIGKILL)
