"""The node's devices, as the agent has them, and the proof that a device is the volume's.

Invariants: no path of a device goes from here to mkfs, fsck or mount unless the agent says the
volume's UUID, the node under /dev has the agent's device number, the link of that UUID leads to the
same number, and a loop or nbd device names that UUID as what is behind it. A number alone says
nothing: those of devices that are gone are used again, for other volumes. So no mount is taken for
a volume's unless its device names the volume now; one that is mounted cannot change hands. Thread:
the asyncio loop.
"""

from __future__ import annotations

from enum import Enum, auto

from csi_driver.failures import CsiError, failed_precondition
from csi_driver.handle import Handle
from csi_driver.mounter.client import Mounter
from csi_driver.mounter.mount_table import Mount
from curve_py.client.agent import AsyncAgentClient
from curve_py.client.records import AttachMode
from curve_py.proto import agent_pb2 as pb

_MAJORS = (7, 43)  # loop, nbd


class Owner(Enum):
    """Of a mount."""

    VOLUME = auto()
    ANOTHER = auto()  # not to be touched
    NOBODY = auto()  # the remains of a device that is gone


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
            await self.check_identity(device, handle)
        return device

    async def check_identity(self, device: pb.Device, handle: Handle) -> None:
        """Raises CsiError when the device is not proved to be the volume's."""
        number = number_of(device)
        for path in (device.device, device.link):
            kind, found, _ = await self._mounter.look(path)
            if kind != "device" or found != number:
                raise failed_precondition(
                    f"{path} is not the device {number[0]}:{number[1]} of volume {handle}."
                )
        if device.volume_uuid != handle.uuid:
            raise failed_precondition(f"{device.device} is not the device of volume {handle}.")
        backing = await self.behind(number)
        if handle.uuid not in backing:
            raise failed_precondition(
                f"{device.device} is a device of '{backing}', not of volume {handle}."
            )

    async def behind(self, number: tuple[int, int]) -> str:
        """What a loop or nbd device says it is a device of, with the UUID where it is a volume;
        empty for one that is not in use, and for other devices.
        """
        return await self._mounter.backing_file(number) if number[0] in _MAJORS else ""

    async def mounted(self, mounts: list[Mount], device: pb.Device) -> list[Mount]:
        """File systems on the device, and the device itself mounted over a file (raw block).

        Nothing where its number belongs to something else by now.
        """
        number = number_of(device)
        if number[0] not in _MAJORS or not device.device:
            return []
        backing = await self.behind(number)
        if backing and device.volume_uuid not in backing:
            return []
        node = "/" + device.device.rpartition("/")[2]
        return [
            mount
            for mount in mounts
            if mount.device == number or (mount.file_system == "devtmpfs" and mount.root == node)
        ]

    async def owner(self, mount: Mount, path: str, handle: Handle) -> Owner:
        """Whose it is that is mounted at `path`, uppermost. Raises CsiError when that hangs."""
        mine = await self.find(handle)
        lost = mine is not None and mine.state == pb.DEVICE_STATE_LOST
        try:
            kind, node, _ = await self._mounter.look(path)
            is_node = kind == "device"
            number = node if is_node else mount.device
            backing = await self.behind(number)
            if handle.uuid in backing:
                if lost or (mine is not None and number_of(mine) != number):
                    return Owner.NOBODY  # an earlier device of the volume
                if not is_node:
                    await self._mounter.usage(path)
                return Owner.VOLUME
            if not is_node:
                await self._mounter.usage(path)
                return Owner.ANOTHER
        except CsiError as error:
            if not is_dead(error):
                raise
            return Owner.NOBODY
        if number[0] in _MAJORS and not backing:
            return Owner.NOBODY
        # A node that is mounted over a file keeps no number from being used again. This is what is
        # left of a lost device of ours, or of one that was replaced if who has the number now has
        # a file system on it: that one is not in use as a node.
        in_use = any(each.device == number for each in await self._mounter.mounts())
        return Owner.NOBODY if lost or (mine is not None and in_use) else Owner.ANOTHER

    async def refresh(self, handle: Handle) -> pb.Device:
        """With the volume's size as of now."""
        return await self._agent.refresh(volume_id=handle.volume_id)

    async def detach(self, handle: Handle, *, force: bool = False) -> None:
        """Raises CsiError (FAILED_PRECONDITION) while something has it open."""
        await self._agent.detach(volume_id=handle.volume_id, force=force)


def number_of(device: pb.Device) -> tuple[int, int]:
    return device.major, device.minor


def is_dead(error: CsiError) -> bool:
    """Whether it is the remains of a device that is gone."""
    return getattr(error, "kind", "") == "dead"
