"""From a device to a mounted file system, and back.

Owns: whether a file system is made. Invariants: mkfs only on a volume whose content the metaservers
know to be NEW (nobody has ever mounted it), whose device has proved its identity (devices.py), and
on which a probe that succeeded found nothing, or only what an earlier mkfs of ours left (a file
system with the volume's own UUID); the content is marked before the first mount; a file system is
checked before it is mounted for writing; mounts are never stacked. Thread: the asyncio loop; one
volume at a time (in_flight.py).
"""

from __future__ import annotations

import logging

from csi_driver.capabilities import Access
from csi_driver.devices import Devices, is_dead, mounted_from, number_of
from csi_driver.failures import CsiError, already_exists, failed_precondition, not_found
from csi_driver.handle import Handle
from csi_driver.mounter.client import Mounter, MountError
from csi_driver.mounter.mount_table import Mount, mounts_at
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
        volume = await self.volume(handle)
        await self._clear_lost(handle)
        device = await self._devices.attach(handle, mode)
        if device.state == agent_pb2.DEVICE_STATE_LOST:
            raise failed_precondition(f"Volume {handle} was taken away: {device.lost_reason}")
        if access.is_block:
            await self._mark_raw(volume, mode)
            return
        if await self._is_staged(device, access, mode, path):
            await self._grow(device, access.file_system, path, mode)
            return
        kind, _, _ = await self._mounter.look(path)
        if kind != "directory":
            raise failed_precondition(f"The staging path {path} is not a directory.")
        reads_only = mode is AttachMode.READ_ONLY
        uuid = await self._prepare(volume, device, access.file_system, reads_only)
        options = list(access.mount_flags)
        if reads_only:
            options += _READ_ONLY_OPTIONS[access.file_system]
        elif access.file_system == "xfs" and uuid != handle.uuid:
            options.append("nouuid")  # a copy, whose original may be mounted here too
        await self._mounter.mount(device.device, path, access.file_system, options)
        await self._grow(device, access.file_system, path, mode)

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
        for mount in mounted_from(await self._mounter.mounts(), device):
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

    async def _is_staged(
        self, device: agent_pb2.Device, access: Access, mode: AttachMode, path: str
    ) -> bool:
        """What is mounted at `path` is the volume, and alive. Others' mounts are an error."""
        found = mounts_at(await self._mounter.mounts(), path)
        if not found:
            return False
        mount = found[-1]
        if mount.device == number_of(device):
            try:
                await self._mounter.usage(path)
            except CsiError as error:
                if not is_dead(error):
                    raise
            else:
                if mount.file_system != access.file_system or mount.read_only != (
                    mode is AttachMode.READ_ONLY or "ro" in access.mount_flags
                ):
                    raise already_exists(f"{path} has the volume mounted in another way.")
                return True
        elif not await self._is_gone(mount):
            raise failed_precondition(f"{path} has {mount.source} mounted, not this volume.")
        for _ in found:
            await self._mounter.unmount(path, lazily=True)
        return False

    async def _is_gone(self, mount: Mount) -> bool:
        """The device of an earlier staging, which the agent does not have any more."""
        return mount.device not in {number_of(d) for d in await self._devices.all()} and (
            mount.source.startswith(("/dev/loop", "/dev/nbd"))
        )

    async def _prepare(
        self, volume: pb.Volume, device: agent_pb2.Device, wanted: str, reads_only: bool
    ) -> str:
        """A file system of the kind that is wanted, checked. Returns its UUID."""
        known = _KIND_OF.get(volume.content)
        if volume.content == pb.VOLUME_CONTENT_RAW or known not in (None, wanted):
            held = known or "data of a raw block device"
            raise failed_precondition(f"Volume '{volume.name}' holds {held}, not {wanted}.")
        found, uuid = await self._mounter.probe(device.device)
        if volume.content == pb.VOLUME_CONTENT_NEW and not reads_only:
            if found == wanted and uuid == volume.uuid and await self._is_whole(device, wanted):
                pass  # made by us, and cut off before it was marked
            elif not found or uuid == volume.uuid:
                await self._mounter.make_file_system(
                    device.device, wanted, volume.uuid, clear=bool(found)
                )
                found, uuid = wanted, volume.uuid
        if found != wanted:
            raise failed_precondition(
                f"Volume '{volume.name}' has {found or 'nothing that is known'} on it, not "
                f"{wanted}, and is not known to be new: no file system is made on it."
            )
        if reads_only:
            return uuid
        await self._mounter.check(device.device, wanted)
        if known is None:
            await self._mark(volume, _CONTENT_OF[wanted])
        return uuid

    async def _is_whole(self, device: agent_pb2.Device, kind: str) -> bool:
        try:
            await self._mounter.check(device.device, kind)
        except CsiError:
            return False
        return True

    async def _grow(self, device: agent_pb2.Device, kind: str, path: str, mode: AttachMode) -> None:
        """The other half of an expansion, however long ago the first one was. What keeps it from
        growing keeps nobody from using it; NodeExpandVolume says so.
        """
        if mode is AttachMode.READ_ONLY:
            return
        try:
            await self._mounter.grow(device.device, kind, path)
        except CsiError as error:
            _log.warning("it does not grow", extra={"device": device.device, "error": str(error)})

    # --- Unstage --------------------------------------------------------------------------------

    async def unstage(self, handle: Handle, path: str) -> None:
        """Raises CsiError (FAILED_PRECONDITION) while anything holds the device."""
        device = await self._devices.find(handle)
        lost = device is not None and device.state == agent_pb2.DEVICE_STATE_LOST
        mounts = await self._mounter.mounts()
        held = [m for m in mounted_from(mounts, device) if m.target != path] if device else []
        if held and not lost:
            raise failed_precondition(f"Volume {handle} is still mounted at {held[0].target}.")
        for _ in mounts_at(mounts, path):
            await self.unmount(path, lazily=lost)
        for mount in held:
            await self._mounter.unmount(mount.target, lazily=True)
        if device is not None:
            await self._devices.detach(handle, force=lost)

    async def unmount(self, path: str, *, lazily: bool = False) -> None:
        """One mount; lazily where its device is dead. Raises CsiError when it is in use."""
        if not lazily:
            try:
                await self._mounter.usage(path)
            except CsiError as error:
                lazily = is_dead(error)
        try:
            await self._mounter.unmount(path, lazily=lazily)
        except MountError as error:
            if error.kind != "missing":
                raise
