"""The node agent's control interface, for whoever wants volumes as devices (docs/agent.md).

Owns: the calls, and their errors as CurveErrors. AgentClient blocks and may be used by any thread;
AsyncAgentClient belongs to one asyncio loop.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from curve_py.errors import UnavailableError
from curve_py.proto import agent_pb2 as pb
from curve_py.proto.agent_pb2_grpc import NodeAgentStub
from curve_py.service.rpc_errors import from_rpc_error

# An attach waits for the fence on every copyset (R12), and for the device.
ATTACH_SECONDS = 60.0
CALL_SECONDS = 30.0
# An agent that is being replaced is back by then; every call may be made twice.
REPLACED_SECONDS = 5.0
_PAUSE_SECONDS = 0.05
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)


def _attach_request(
    volume_name: str,
    volume_id: int,
    device_type: pb.DeviceType,
    read_only: bool,
    shared: bool,
    steal: bool,
    volume_uuid: str,
    published: bool,
) -> pb.AttachDeviceRequest:
    return pb.AttachDeviceRequest(
        volume_name=volume_name,
        volume_id=volume_id,
        device_type=device_type,
        read_only=read_only,
        shared=shared,
        steal=steal,
        volume_uuid=volume_uuid,
        published=published,
    )


class AgentClient:
    """Blocking. A context manager."""

    def __init__(self, socket: Path | str) -> None:
        self.socket = Path(socket).absolute()
        self._channel = grpc.insecure_channel(f"unix:{self.socket}", options=_OPTIONS)
        self._stub = NodeAgentStub(self._channel)

    def _call(self, method: str, request: Any, seconds: float) -> Any:
        patience = time.monotonic() + min(seconds, REPLACED_SECONDS)
        while True:
            try:
                return getattr(self._stub, method)(request, timeout=seconds)
            except grpc.RpcError as error:
                failure = from_rpc_error(error, f"The node agent at {self.socket}")
            if not isinstance(failure, UnavailableError) or time.monotonic() > patience:
                raise failure
            time.sleep(_PAUSE_SECONDS)

    def attach(
        self,
        *,
        volume_name: str = "",
        volume_id: int = 0,
        device_type: pb.DeviceType = pb.DEVICE_TYPE_UNSPECIFIED,
        read_only: bool = False,
        shared: bool = False,
        steal: bool = False,
        volume_uuid: str = "",
        published: bool = False,
        seconds: float = ATTACH_SECONDS,
    ) -> pb.Device:
        """The device, usable. Raises CurveError."""
        request = _attach_request(
            volume_name,
            volume_id,
            device_type,
            read_only,
            shared,
            steal,
            volume_uuid,
            published,
        )
        device: pb.Device = self._call("Attach", request, seconds)
        return device

    def detach(
        self,
        *,
        volume_name: str = "",
        volume_id: int = 0,
        force: bool = False,
        seconds: float = CALL_SECONDS,
    ) -> bool:
        """Whether there was a device. Raises ConflictError while it is open, unless `force`."""
        request = pb.DetachDeviceRequest(volume_name=volume_name, volume_id=volume_id, force=force)
        answer: pb.DetachDeviceResponse = self._call("Detach", request, seconds)
        return answer.found

    def list(self, seconds: float = CALL_SECONDS) -> pb.ListDevicesResponse:
        answer: pb.ListDevicesResponse = self._call("List", pb.ListDevicesRequest(), seconds)
        return answer

    def refresh(
        self, *, volume_name: str = "", volume_id: int = 0, seconds: float = CALL_SECONDS
    ) -> pb.Device:
        """The device, with the size that the volume has now. Raises NotFoundError."""
        request = pb.RefreshDeviceRequest(volume_name=volume_name, volume_id=volume_id)
        device: pb.Device = self._call("Refresh", request, seconds)
        return device

    def doctor(self, seconds: float = CALL_SECONDS) -> pb.DoctorReport:
        report: pb.DoctorReport = self._call("Doctor", pb.DoctorRequest(), seconds)
        return report

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncAgentClient:
    """The same for asyncio. An async context manager."""

    def __init__(self, socket: Path | str) -> None:
        self.socket = Path(socket).absolute()
        self._channel = grpc.aio.insecure_channel(f"unix:{self.socket}", options=_OPTIONS)
        self._stub = NodeAgentStub(self._channel)

    async def _call(self, method: str, request: Any, seconds: float) -> Any:
        patience = time.monotonic() + min(seconds, REPLACED_SECONDS)
        while True:
            try:
                return await getattr(self._stub, method)(request, timeout=seconds)
            except grpc.RpcError as error:
                failure = from_rpc_error(error, f"The node agent at {self.socket}")
            if not isinstance(failure, UnavailableError) or time.monotonic() > patience:
                raise failure
            await asyncio.sleep(_PAUSE_SECONDS)

    async def attach(
        self,
        *,
        volume_name: str = "",
        volume_id: int = 0,
        device_type: pb.DeviceType = pb.DEVICE_TYPE_UNSPECIFIED,
        read_only: bool = False,
        shared: bool = False,
        steal: bool = False,
        volume_uuid: str = "",
        published: bool = False,
        seconds: float = ATTACH_SECONDS,
    ) -> pb.Device:
        """As AgentClient.attach."""
        request = _attach_request(
            volume_name,
            volume_id,
            device_type,
            read_only,
            shared,
            steal,
            volume_uuid,
            published,
        )
        device: pb.Device = await self._call("Attach", request, seconds)
        return device

    async def detach(
        self,
        *,
        volume_name: str = "",
        volume_id: int = 0,
        force: bool = False,
        seconds: float = CALL_SECONDS,
    ) -> bool:
        """As AgentClient.detach."""
        request = pb.DetachDeviceRequest(volume_name=volume_name, volume_id=volume_id, force=force)
        answer: pb.DetachDeviceResponse = await self._call("Detach", request, seconds)
        return answer.found

    async def list(self, seconds: float = CALL_SECONDS) -> pb.ListDevicesResponse:
        answer: pb.ListDevicesResponse = await self._call("List", pb.ListDevicesRequest(), seconds)
        return answer

    async def refresh(
        self, *, volume_name: str = "", volume_id: int = 0, seconds: float = CALL_SECONDS
    ) -> pb.Device:
        """As AgentClient.refresh."""
        request = pb.RefreshDeviceRequest(volume_name=volume_name, volume_id=volume_id)
        device: pb.Device = await self._call("Refresh", request, seconds)
        return device

    async def doctor(self, seconds: float = CALL_SECONDS) -> pb.DoctorReport:
        report: pb.DoctorReport = await self._call("Doctor", pb.DoctorRequest(), seconds)
        return report

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
