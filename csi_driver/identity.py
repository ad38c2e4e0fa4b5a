"""csi.v1.Identity: who this is and what it can do. Thread: the asyncio loop."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from csi_driver.proto import csi_pb2 as csi
from csi_driver.proto.csi_pb2_grpc import IdentityServicer

_Service = csi.PluginCapability.Service
_Expansion = csi.PluginCapability.VolumeExpansion


class Identity(IdentityServicer):
    def __init__(self, name: str, has_controller: bool) -> None:
        self._name = name
        self._has_controller = has_controller

    async def GetPluginInfo(
        self, request: csi.GetPluginInfoRequest, _: Any
    ) -> csi.GetPluginInfoResponse:
        return csi.GetPluginInfoResponse(
            name=self._name, vendor_version=importlib.metadata.version("curve")
        )

    async def GetPluginCapabilities(
        self, request: csi.GetPluginCapabilitiesRequest, _: Any
    ) -> csi.GetPluginCapabilitiesResponse:
        services = [_Service.VOLUME_ACCESSIBILITY_CONSTRAINTS]
        if self._has_controller:
            services.append(_Service.CONTROLLER_SERVICE)
        capabilities = [
            csi.PluginCapability(service=_Service(type=service)) for service in services
        ]
        capabilities.append(
            csi.PluginCapability(volume_expansion=_Expansion(type=_Expansion.ONLINE))
        )
        return csi.GetPluginCapabilitiesResponse(capabilities=capabilities)

    async def Probe(self, request: csi.ProbeRequest, _: Any) -> csi.ProbeResponse:
        """It serves, so it is ready. Not whether a metaserver answers: Kubernetes restarts what is
        not ready, and that would help nobody.
        """
        response = csi.ProbeResponse()
        response.ready.value = True
        return response
