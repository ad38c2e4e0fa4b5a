"""From a device to a mounted file system, and back.

Owns: whether a file system is made. Invariants: mkfs only on a volume whose content the metaservers
know to be NEW (nobody has ever mounted it), asked once the attachment keeps all others out (R12),
whose device has proved its identity (devices.py), and on which a probe that succeeded found
nothing, or only what an earlier mkfs of ours left (a file system with the volume's own UUID, which
may be half made and is made anew); the content is marked before the first mount; a file system is
checked before it is mounted for writing; mounts are never stacked, and none is taken away but the
volume's own and dead ones. Thread: the asyncio loop; one volume at a time (in_flight.py).
"""

from __future__ import annotations

import logging

from csi_driver.capabilities import Access
from csi_driver.devices import Devices, Owner
from csi_driver.failures import CsiError, already_exists, failed_precondition, not_found
from csi_driver.handle import Handle
from csi_driver.mounter.client import Mounter, MountError
from csi_driver.mounter.mount_table import mounts_at
from curve_py.client.records import AttachMode
from curve_py.proto import agent_pb2
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient

_log = logging.getLogger(__name__)
_CONTENT_OF = {"ext4": pb.VOLUME_CONTENT_EXT4, "xfs": pb.VOLUME_CONTENT_XFS}
_KIND_OF = {content: kind for kind, content in _CONTENT_OF.items()}
_UNTOUCHED = (pb.VOLUME_CONTENT_NEW, pb.VOLUME_CONTENT_UNSPECIFIED)
# A read-only device cannot replay a journal.
_READ_ONLY_OPTIONS = {"ext4": ["ro", "noload"], "xfs": ["ro", "norecovery", "nouuid"]}


class Staging:
    def __init__(self, client: AsyncMetaClient, devices: Devices, mounter: Mounter) -> None:
        self._client = client
        self._devices = devices
        self._mounter = mounter

    # --- Stage ----------------------------------------------------------------------------------

    async def stage(self, handle: Handle, access: Access, mode: AttachMode, path: str) -> None:
        """The volume attached; with a file system also mounted at `path`. Raises CsiError."""
        await self.volume(handle)
        await self._clear_lost(handle)
        device = await self._devices.attach(handle, mode)
        if device.state == agent_pb2.DEVICE_STATE_LOST:
            raise failed_precondition(f"Volume {handle} was taken away: {device.lost_reason}")
        # Only now: until the attachment another node may have written to it. From here on its epoch
        # fails whatever is written after somebody else has it.
        volume = await self.volume(handle)
        if access.is_block:
            await self._mark_raw(volume, mode)
            return
        if await self._is_staged(handle, access, mode, path):
            await self._grow(device, access, path, mode)
            return
        kind, _, _ = await self._mounter.look(path, follow=False)
        if kind != "directory":
            raise failed_precondition(f"The staging path {path} is not a directory.")
        elsewhere = await self._devices.mounted(await self._mounter.mounts(), device)
        if elsewhere:
            raise failed_precondition(f"Volume {handle} is mounted at {elsewhere[0].target}.")
        reads_only = mode is AttachMode.READ_ONLY
        uuid = await self._prepare(volume, device, access.file_system, reads_only)
        options = list(access.mount_flags)
        if reads_only:
            options += _READ_ONLY_OPTIONS[access.file_system]
        elif access.file_system == "xfs" and uuid != handle.uuid:
            options.append("nouuid")  # a copy, whose original may be mounted here too
        await self._mounter.mount(device.device, path, access.file_system, options)
        await self._grow(device, access, path, mode)

    async def volume(self, handle: Handle) -> pb.Volume:
        """Raises CsiError, CurveError."""
        volume: pb.Volume = await self._client.call(
            "GetVolume", pb.GetVolumeRequest(volume_id=handle.volume_id)
        )
        if volume.uuid != handle.uuid:
            raise not_found(f"There is no volume {handle} in this cluster.")
        return volume

    async def _clear_lost(self, handle: Handle) -> None:
        """The remains of a device whose attachment was taken away, or whose agent died."""
        device = await self._devices.find(handle)
        if device is None or device.state != agent_pb2.DEVICE_STATE_LOST:
            return
        _log.warning("a dead device is replaced", extra={"volume": str(handle)})
        for mount in await self._devices.mounted(await self._mounter.mounts(), device):
            await self._mounter.unmount(mount.target, lazily=True)
        await self._devices.detach(handle, force=True)

    async def _mark_raw(self, volume: pb.Volume, mode: AttachMode) -> None:
        """From now on nobody can tell what is on it."""
        if mode is not AttachMode.READ_ONLY and volume.content in _UNTOUCHED:
            await self._mark(volume, pb.VOLUME_CONTENT_RAW)

    async def _mark(self, volume: pb.Volume, content: pb.VolumeContent) -> None:
        await self._client.call(
            "SetVolumeContent", pb.SetVolumeContentRequest(volume_id=volume.id, content=content)
        )

    async def _is_staged(self, handle: Handle, access: Access, mode: AttachMode, path: str) -> bool:
        """What is mounted at `path` is the volume, and alive. Others' mounts are an error."""
        while found := mounts_at(await self._mounter.mounts(), path):
            mount = found[-1]
            owner = await self._devices.owner(mount, path, handle)
            if owner is Owner.ANOTHER:
                raise failed_precondition(f"{path} has {mount.source} mounted, not this volume.")
            if owner is Owner.VOLUME:
                reads_only = mode is AttachMode.READ_ONLY or access.mounts_read_only
                if mount.file_system != access.file_system or mount.read_only != reads_only:
                    raise already_exists(f"{path} has the volume mounted in another way.")
                return True
            await self._mounter.unmount(path, lazily=True)
        return False

    async def _prepare(
        self, volume: pb.Volume, device: agent_pb2.Device, wanted: str, reads_only: bool
    ) -> str:
        """A file system of the kind that is wanted, checked. Returns its UUID."""
        known = _KIND_OF.get(volume.content)
        if volume.content == pb.VOLUME_CONTENT_RAW or known not in (None, wanted):
            held = known or "data of a raw block device"
            raise failed_precondition(f"Volume '{volume.name}' holds {held}, not {wanted}.")
        found, uuid = await self._mounter.probe(device.device)
        # With our UUID: made by us and not marked, so never mounted. Nobody can tell whether it is
        # whole: a check takes some that were cut off for good.
        is_free = not found or (found in _CONTENT_OF and uuid == volume.uuid)
        if volume.content == pb.VOLUME_CONTENT_NEW and not reads_only and is_free:
            await self._mounter.make_file_system(device.device, wanted, volume.uuid)
            found, uuid = wanted, volume.uuid
        if found != wanted:
            raise failed_precondition(
                f"Volume '{volume.name}' has {found or 'nothing that is known'} on it, not "
                f"{wanted}, and is not known to be new: no file system is made on it."
            )
        if reads_only:
            return uuid
        await self._mounter.check(device.device, wanted)
        if wanted == "ext4":
            await self._grow_unmounted(device.device)
        if known is None:
            await self._mark(volume, _CONTENT_OF[wanted])
        return uuid

    async def _grow_unmounted(self, device: str) -> None:
        """Where an ext4 does not grow while it is mounted."""
        try:
            await self._mounter.grow_unmounted(device)
        except CsiError as error:
            _log.warning("it does not grow", extra={"device": device, "error": str(error)})
            await self._mounter.check(device, "ext4")

    async def _grow(
        self, device: agent_pb2.Device, access: Access, path: str, mode: AttachMode
    ) -> None:
        """The other half of an expansion, however long ago the first one was. What keeps it from
        growing keeps nobody from using it; NodeExpandVolume says so.
        """
        if mode is AttachMode.READ_ONLY or access.mounts_read_only:
            return
        try:
            await self._mounter.grow(device.device, access.file_system, path)
        except CsiError as error:
            _log.warning("it does not grow", extra={"device": device.device, "error": str(error)})

    # --- Unstage --------------------------------------------------------------------------------

    async def unstage(self, handle: Handle, path: str) -> None:
        """Raises CsiError (FAILED_PRECONDITION) while anything holds the device. It is not staged
        where something else is mounted: that stays.
        """
        device = await self._devices.find(handle)
        lost = device is not None and device.state == agent_pb2.DEVICE_STATE_LOST
        mounts = await self._mounter.mounts()
        of_device = await self._devices.mounted(mounts, device) if device else []
        held = [mount for mount in of_device if mount.target != path]
        if held and not lost:
            raise failed_precondition(f"Volume {handle} is still mounted at {held[0].target}.")
        await self.unmount(handle, path, leave_others=True)
        for mount in held:
            await self._mounter.unmount(mount.target, lazily=True)
        if device is not None:
            await self._devices.detach(handle, force=lost)

    async def unmount(self, handle: Handle, path: str, *, leave_others: bool = False) -> None:
        """Whatever of the volume is mounted there, and remains of devices that are gone.

        Raises CsiError (FAILED_PRECONDITION) when it is in use, or another's.
        """
        while found := mounts_at(await self._mounter.mounts(), path):
            owner = await self._devices.owner(found[-1], path, handle)
            if owner is Owner.ANOTHER and leave_others:
                return
            if owner is Owner.ANOTHER:
                raise failed_precondition(
                    f"{path} has {found[-1].source} mounted, not volume {handle}."
                )
            try:
                await self._mounter.unmount(path, lazily=owner is Owner.NOBODY)
            except MountError as error:
                if error.kind == "missing":  # somebody was quicker
                    return
                raise
