"""csi.v1.Node: volumes of this node as mounts and devices.

Keeps nothing: what is staged and published is read from the mount table and asked of the agent.
Invariants: every call can be repeated; a second call for a volume is ABORTED while one works; the
target is made and removed here, the staging directory by the kubelet. Thread: the asyncio loop.
"""

from __future__ import annotations

import os
from typing import Any

from csi_driver.capabilities import Access, parse_access
from csi_driver.controller import CONTEXT_READ_ONLY
from csi_driver.devices import Devices, Owner, is_dead, number_of
from csi_driver.failures import CsiError, failed_precondition, invalid, not_found
from csi_driver.handle import Handle, parse_handle
from csi_driver.in_flight import InFlight
from csi_driver.mounter.client import Mounter
from csi_driver.mounter.mount_table import Mount, mounts_at
from csi_driver.proto import csi_pb2 as csi
from csi_driver.proto.csi_pb2_grpc import NodeServicer
from csi_driver.settings import CsiSettings
from csi_driver.staging import Staging
from curve_py.proto import agent_pb2
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient

_Rpc = csi.NodeServiceCapability.RPC
_CAPABILITIES = (
    _Rpc.STAGE_UNSTAGE_VOLUME,
    _Rpc.GET_VOLUME_STATS,
    _Rpc.EXPAND_VOLUME,
    _Rpc.VOLUME_CONDITION,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
)


class Node(NodeServicer):
    def __init__(
        self,
        settings: CsiSettings,
        client: AsyncMetaClient,
        devices: Devices,
        mounter: Mounter,
        in_flight: InFlight,
    ) -> None:
        self._settings = settings
        self._client = client
        self._devices = devices
        self._mounter = mounter
        self._in_flight = in_flight
        self._staging = Staging(client, devices, mounter)

    # --- Stage ----------------------------------------------------------------------------------

    async def NodeStageVolume(
        self, request: csi.NodeStageVolumeRequest, _: Any
    ) -> csi.NodeStageVolumeResponse:
        access = _access_of(request)
        path = await self._path(request.staging_target_path, "staging_target_path")
        handle = _handle_of(request.volume_id)
        mode = access.attach_mode(request.publish_context.get(CONTEXT_READ_ONLY) == "true")
        with self._in_flight.holding(str(handle)):
            await self._staging.stage(handle, access, mode, path)
        return csi.NodeStageVolumeResponse()

    async def NodeUnstageVolume(
        self, request: csi.NodeUnstageVolumeRequest, _: Any
    ) -> csi.NodeUnstageVolumeResponse:
        _need(request.volume_id, "volume_id")
        path = await self._path(request.staging_target_path, "staging_target_path")
        handle = parse_handle(request.volume_id)
        if handle is not None:
            with self._in_flight.holding(str(handle)):
                await self._staging.unstage(handle, path)
        return csi.NodeUnstageVolumeResponse()

    # --- Publish --------------------------------------------------------------------------------

    async def NodePublishVolume(
        self, request: csi.NodePublishVolumeRequest, _: Any
    ) -> csi.NodePublishVolumeResponse:
        access = _access_of(request)
        target = await self._path(request.target_path, "target_path")
        staging = await self._path(request.staging_target_path, "staging_target_path")
        handle = _handle_of(request.volume_id)
        with self._in_flight.holding(str(handle)):
            device = await self._staged_device(handle)
            mounts = await self._mounter.mounts()
            if access.is_block:
                source, reads_only = device.device, False
                if request.readonly and not device.read_only:
                    raise failed_precondition(
                        "The volume is attached for writing, and a raw block device cannot be "
                        "read-only for one of its users; publish it read-only to the node."
                    )
                if any(mount.device == number_of(device) for mount in mounts):
                    raise failed_precondition(
                        f"Volume {handle} is staged as a file system, not as a raw block device."
                    )
            else:
                source = staging
                reads_only = request.readonly or device.read_only or access.mounts_read_only
                if not any(m.device == number_of(device) for m in mounts_at(mounts, staging)):
                    raise failed_precondition(f"Volume {handle} is not mounted at {staging}.")
            if await self._is_published(handle, access, target, reads_only):
                return csi.NodePublishVolumeResponse()
            await self._check_single_writer(mounts, device, access, staging, target)
            if access.is_block:
                await self._mounter.make_file(target)
            else:
                await self._mounter.make_directory(target)
            await self._mounter.bind(source, target, read_only=reads_only)
        return csi.NodePublishVolumeResponse()

    async def _staged_device(self, handle: Handle) -> agent_pb2.Device:
        device = await self._devices.find(handle)
        if device is None:
            raise failed_precondition(f"Volume {handle} is not staged on this node.")
        if device.state == agent_pb2.DEVICE_STATE_LOST:
            raise failed_precondition(f"Volume {handle} was taken away: {device.lost_reason}")
        await self._devices.check_identity(device, handle)
        return device

    async def _is_published(
        self, handle: Handle, access: Access, target: str, reads_only: bool
    ) -> bool:
        """At `target` already; dead remains are taken away. Raises CsiError for other things."""
        while found := mounts_at(await self._mounter.mounts(), target):
            owner = await self._devices.owner(found[-1], target, handle)
            if owner is Owner.ANOTHER:
                raise failed_precondition(
                    f"{target} has {found[-1].source} mounted, not this volume."
                )
            if owner is Owner.VOLUME:
                kind, _, _ = await self._mounter.look(target)
                if (kind == "device") != access.is_block or (
                    not access.is_block and found[-1].read_only != reads_only
                ):
                    raise failed_precondition(f"{target} has the volume mounted in another way.")
                return True
            await self._mounter.unmount(target, lazily=True)
        return False

    async def _check_single_writer(
        self,
        mounts: list[Mount],
        device: agent_pb2.Device,
        access: Access,
        staging: str,
        target: str,
    ) -> None:
        if not access.single_writer:
            return
        for mount in await self._devices.mounted(mounts, device):
            if mount.target not in (staging, target):
                raise failed_precondition(
                    f"The volume is for a single workload and is published at {mount.target}."
                )

    async def NodeUnpublishVolume(
        self, request: csi.NodeUnpublishVolumeRequest, _: Any
    ) -> csi.NodeUnpublishVolumeResponse:
        _need(request.volume_id, "volume_id")
        target = await self._path(request.target_path, "target_path")
        handle = parse_handle(request.volume_id)
        if handle is not None:
            with self._in_flight.holding(str(handle)):
                await self._staging.unmount(handle, target)
                await self._mounter.remove(target)
        return csi.NodeUnpublishVolumeResponse()

    # --- Stats, expansion -----------------------------------------------------------------------

    async def NodeGetVolumeStats(
        self, request: csi.NodeGetVolumeStatsRequest, _: Any
    ) -> csi.NodeGetVolumeStatsResponse:
        _need(request.volume_id, "volume_id")
        _need(request.volume_path, "volume_path")
        device, mount = await self._at_path(request.volume_id, request.volume_path)
        response = csi.NodeGetVolumeStatsResponse()
        response.volume_condition.message = "in order"
        if device.state == agent_pb2.DEVICE_STATE_LOST:
            response.volume_condition.abnormal = True
            response.volume_condition.message = f"The volume was taken away: {device.lost_reason}"
        if mount is None:
            size = device.size_bytes
            response.usage.add(unit=csi.VolumeUsage.BYTES, total=size)
            return response
        try:
            found = await self._mounter.usage(mount.target)
        except CsiError as error:
            if not is_dead(error):
                raise
            response.usage.add(unit=csi.VolumeUsage.BYTES, total=device.size_bytes)
            response.volume_condition.abnormal = True
            response.volume_condition.message = error.message
            return response
        for unit, name in ((csi.VolumeUsage.BYTES, "bytes"), (csi.VolumeUsage.INODES, "inodes")):
            response.usage.add(
                unit=unit,
                available=found[f"available_{name}"],
                total=found[f"total_{name}"],
                used=found[f"used_{name}"],
            )
        return response

    async def NodeExpandVolume(
        self, request: csi.NodeExpandVolumeRequest, _: Any
    ) -> csi.NodeExpandVolumeResponse:
        _need(request.volume_id, "volume_id")
        _need(request.volume_path, "volume_path")
        handle = parse_handle(request.volume_id)
        if handle is None:
            raise not_found(f"There is no volume {request.volume_id} on this node.")
        with self._in_flight.holding(str(handle)):
            _, mount = await self._at_path(request.volume_id, request.volume_path)
            device = await self._devices.refresh(handle)
            if request.capacity_range.required_bytes > device.size_bytes:
                raise failed_precondition(
                    f"The volume has {device.size_bytes} bytes; it is expanded by the controller "
                    "first."
                )
            # By a mount that can be written: one for a reader may be asked about.
            mounts = await self._mounter.mounts()
            here = [m for m in mounts if m.device == number_of(device) and not m.read_only]
            if mount is not None and here and not device.read_only:
                await self._mounter.grow(device.device, mount.file_system, here[0].target)
        return csi.NodeExpandVolumeResponse(capacity_bytes=device.size_bytes)

    async def _at_path(self, volume_id: str, path: str) -> tuple[agent_pb2.Device, Mount | None]:
        """The device, and its mount at `path`; None for a raw block device. Raises NOT_FOUND."""
        handle = parse_handle(volume_id)
        device = await self._devices.find(handle) if handle else None
        if device is None:
            raise not_found(f"There is no volume {volume_id} on this node.")
        target = await self._path(path, "volume_path") if path.startswith("/") else path
        mounts = await self._mounter.mounts()
        found = mounts_at(mounts, target)
        if found and found[-1].device == number_of(device):
            return device, found[-1]
        lost = device.state == agent_pb2.DEVICE_STATE_LOST
        if found and lost and handle is not None:  # perhaps its number has gone
            owner = await self._devices.owner(found[-1], target, handle)
            if owner is not Owner.ANOTHER:
                return device, None
        # As a raw block device, at whatever path leads to it.
        kind, number, _ = await self._mounter.look(target)
        if kind == "device" and number == number_of(device):
            return device, None
        raise not_found(f"Volume {volume_id} is not at {path}.")

    # --- The node -------------------------------------------------------------------------------

    async def NodeGetCapabilities(
        self, request: csi.NodeGetCapabilitiesRequest, _: Any
    ) -> csi.NodeGetCapabilitiesResponse:
        return csi.NodeGetCapabilitiesResponse(
            capabilities=[csi.NodeServiceCapability(rpc=_Rpc(type=k)) for k in _CAPABILITIES]
        )

    async def NodeGetInfo(self, request: csi.NodeGetInfoRequest, _: Any) -> csi.NodeGetInfoResponse:
        settings = self._settings
        agents = await self._devices.node_id()
        if agents != settings.node_id:
            raise failed_precondition(
                f"This driver is for node '{settings.node_id}', its agent is '{agents}'."
            )
        await self._client.call(
            "RegisterNode",
            pb.RegisterNodeRequest(
                node_id=settings.node_id, zone=settings.zone, volumes_max=settings.volumes_max
            ),
        )
        return csi.NodeGetInfoResponse(
            node_id=settings.node_id,
            max_volumes_per_node=settings.volumes_max,
            accessible_topology=csi.Topology(segments={settings.topology_key: settings.zone}),
        )

    async def _path(self, path: str, name: str) -> str:
        """As the mount table writes it."""
        _need(path, name)
        if not os.path.isabs(path) or "\0" in path:
            raise invalid(f"{name} is not an absolute path: {path!r}.")
        return await self._mounter.canonical(path)


def _need(text: str, name: str) -> None:
    if not text:
        raise invalid(f"The request has no {name}.")


def _access_of(request: csi.NodeStageVolumeRequest | csi.NodePublishVolumeRequest) -> Access:
    _need(request.volume_id, "volume_id")
    if isinstance(request, csi.NodePublishVolumeRequest):
        _need(request.target_path, "target_path")
    else:
        _need(request.staging_target_path, "staging_target_path")
    if not request.HasField("volume_capability"):
        raise invalid("The request has no volume capability.")
    return parse_access(request.volume_capability)


def _handle_of(volume_id: str) -> Handle:
    handle = parse_handle(volume_id)
    if handle is None:
        raise not_found(f"There is no volume {volume_id}.")
    return handle
