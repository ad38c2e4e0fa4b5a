"""gRPC: calls of curve.v1.NodeAgent become calls of Devices; errors are mapped by the guard.

Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
from typing import Any

from curve_py.client.doctor import examine
from curve_py.proto import agent_pb2 as pb
from curve_py.proto.agent_pb2_grpc import NodeAgentServicer
from node_agent.devices import Devices
from node_agent.handover import Holder
from node_agent.settings import AgentSettings

_TYPES = {"fuse": pb.DEVICE_TYPE_FUSE, "nbd": pb.DEVICE_TYPE_NBD}


class AgentServicer(NodeAgentServicer):
    """One per process."""

    def __init__(self, devices: Devices, settings: AgentSettings, holder: Holder) -> None:
        self._devices, self._node_id = devices, settings.node_id
        self._device_type = settings.device_type
        self._holder = holder

    async def Attach(self, request: pb.AttachDeviceRequest, _: Any) -> pb.Device:
        # What was begun ends, also when the caller has gone: asked again, it has the device.
        return await asyncio.shield(self._devices.attach(request))

    async def Detach(self, request: pb.DetachDeviceRequest, _: Any) -> pb.DetachDeviceResponse:
        return pb.DetachDeviceResponse(found=await asyncio.shield(self._devices.detach(request)))

    async def List(self, _request: pb.ListDevicesRequest, _: Any) -> pb.ListDevicesResponse:
        return pb.ListDevicesResponse(node_id=self._node_id, devices=self._devices.messages())

    async def Refresh(self, request: pb.RefreshDeviceRequest, _: Any) -> pb.Device:
        return await asyncio.shield(self._devices.refresh(request))

    async def Doctor(self, _request: pb.DoctorRequest, _: Any) -> pb.DoctorReport:
        found = await asyncio.to_thread(examine, self._device_type)
        replaceable, detail = found.replaceable, found.replaceable_detail
        if replaceable and not self._holder.is_there:
            replaceable = False
            detail = "This agent has no holder (any more) that would start another one."
        return pb.DoctorReport(
            node_id=self._node_id,
            chosen=_TYPES.get(found.chosen, pb.DEVICE_TYPE_UNSPECIFIED),
            reason=found.reason,
            replaceable=replaceable,
            replaceable_detail=detail,
            findings=[
                pb.DoctorFinding(name=f.name, ok=f.ok, detail=f.detail, remedy=f.remedy)
                for f in found.findings
            ],
            version=found.version,
        )
