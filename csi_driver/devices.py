"""The node's devices, as the agent has them, and the proof that a device is the volume's.

Invariant: no path of a device goes from here to mkfs, fsck or mount unless the agent says the
volume's UUID, the node under /dev has the agent's device number, the link of that UUID leads to the
same number, and a loop or nbd device names that UUID as what is behind it. Thread: the asyncio
loop.
"""

from __future__ import annotations

from csi_driver.failures import CsiError, failed_precondition
from csi_driver.handle import Handle
from csi_driver.mounter.client import Mounter
from csi_driver.mounter.mount_table import Mount
from curve_py.client.agent import AsyncAgentClient
from curve_py.client.records import AttachMode
from curve_py.proto import agent_pb2 as pb

_MAJORS = (7, 43)  # loop, nbd


class Devices:
    def __init__(self, agent: AsyncAgentClient, mounter: Mounter) -> None:
        self._agent = agent
        self._mounter = mounter

    async def node_id(self) -> str:
        """What the agent attaches as."""
        return (await self._agent.list()).node_id

    async def all(self) -> list[pb.Device]:
        return list((await self._agent.list()).devices)

    async def find(self, handle: Handle) -> pb.Device | None:
        """None: the volume has no device here."""
        for device in await self.all():
            if device.volume_id == handle.volume_id and device.volume_uuid == handle.uuid:
                return device
        return None

    async def attach(self, handle: Handle, mode: AttachMode) -> pb.Device:
        """By virtue of the volume's publication to this node. Raises CsiError, CurveError."""
        device = await self._agent.attach(
            volume_id=handle.volume_id,
            volume_uuid=handle.uuid,
            read_only=mode is AttachMode.READ_ONLY,
            shared=mode is AttachMode.SHARED,
            published=True,
        )
        if device.state != pb.DEVICE_STATE_LOST:
            await self._check_identity(device, handle)
        return device

    async def _check_identity(self, device: pb.Device, handle: Handle) -> None:
        number = number_of(device)
        for path in (device.device, device.link):
            kind, found, _ = await self._mounter.look(path)
            if kind != "device" or found != number:
                raise failed_precondition(
                    f"{path} is not the device {number[0]}:{number[1]} of volume {handle}."
                )
        if device.volume_uuid != handle.uuid:
            raise failed_precondition(f"{device.device} is not the device of volume {handle}.")
        if number[0] in _MAJORS:
            backing = await self._mounter.backing_file(number)
            if handle.uuid not in backing:
                raise failed_precondition(
                    f"{device.device} is a device of '{backing}', not of volume {handle}."
                )

    async def refresh(self, handle: Handle) -> pb.Device:
        """With the volume's size as of now."""
        return await self._agent.refresh(volume_id=handle.volume_id)

    async def detach(self, handle: Handle, *, force: bool = False) -> None:
        """Raises CsiError (FAILED_PRECONDITION) while something has it open."""
        await self._agent.detach(volume_id=handle.volume_id, force=force)


def number_of(device: pb.Device) -> tuple[int, int]:
    return device.major, device.minor


def mounted_from(mounts: list[Mount], device: pb.Device) -> list[Mount]:
    """File systems on the device, and the device itself mounted over a file (raw block)."""
    if not device.device:  # it has gone, and its number may be another's
        return []
    name = "/" + device.device.rpartition("/")[2]
    return [
        mount
        for mount in mounts
        if mount.device == number_of(device)
        or (mount.file_system == "devtmpfs" and mount.root == name)
    ]


def is_dead(error: CsiError) -> bool:
    """Whether it is the remains of a device that is gone."""
    return getattr(error, "kind", "") == "dead"
