"""What is done to mounted volumes without anybody asking: growing and trimming.

Owns: the look at all mounted volumes of the node every so often. A volume whose maker has opted in
(autoGrow..., trimInterval: parameters.py) grows by a step when its file system is fuller than its
threshold, up to its limit; its free space is given back at its interval. Invariants: one volume at
a time, and never beside another call for it (in_flight.py): what is busy has its turn next time;
nothing here is needed for correctness, so failures are logged and tried again. Thread: the asyncio
loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter

from csi_driver.controller import context_of
from csi_driver.devices import Devices, number_of
from csi_driver.failures import CsiError
from csi_driver.handle import Handle
from csi_driver.in_flight import InFlight
from csi_driver.mounter.client import Mounter
from csi_driver.mounter.mount_table import Mount
from csi_driver.parameters import AutoGrow, parse_auto_grow, parse_interval
from curve_py.errors import ConflictError, CurveError
from curve_py.proto import agent_pb2
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Care:
    """What one volume wants; it never changes."""

    auto_grow: AutoGrow | None
    trim_interval_seconds: int
    trimmed_at: float = 0.0  # monotonic seconds
    filled_bytes: int = 0  # size of the device that the file system is known to fill


class Upkeep:
    """Runs until cancelled."""

    def __init__(
        self,
        client: AsyncMetaClient,
        devices: Devices,
        mounter: Mounter,
        in_flight: InFlight,
        seconds: float,
        registry: CollectorRegistry,
    ) -> None:
        self._client = client
        self._devices = devices
        self._mounter = mounter
        self._in_flight = in_flight
        self._seconds = seconds
        self._cares: dict[int, _Care] = {}
        self._grown = Counter(
            "curve_csi_volumes_grown", "times that a volume grew by itself", registry=registry
        )
        self._trimmed = Counter(
            "curve_csi_trimmed_bytes", "space that file systems gave back", registry=registry
        )

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.look()
            except (CurveError, CsiError) as error:
                _log.debug("volumes are looked at later", extra={"error": str(error)})

    async def look(self) -> None:
        """Once at every volume. Raises when the agent or the mount helper does not answer."""
        devices = await self._devices.all()
        mounts = await self._mounter.mounts()
        self._cares = {d.volume_id: c for d in devices if (c := self._cares.get(d.volume_id))}
        for device in devices:
            mount = next((m for m in mounts if m.device == number_of(device)), None)
            serving = device.state == agent_pb2.DEVICE_STATE_SERVING
            if mount is None or not serving or device.read_only or mount.read_only:
                continue
            handle = Handle(device.volume_id, device.volume_uuid)
            try:
                care = await self._care(handle)
                with self._in_flight.holding(str(handle)):
                    await self._tend(handle, device, mount, care)
            except (CurveError, CsiError) as error:
                _log.info("not tended", extra={"volume": str(handle), "error": str(error)})

    async def _care(self, handle: Handle) -> _Care:
        care = self._cares.get(handle.volume_id)
        if care is None:
            volume = await self._client.call(
                "GetVolume", pb.GetVolumeRequest(volume_id=handle.volume_id)
            )
            context = context_of(volume)
            interval = parse_interval("trimInterval", context.get("trimInterval", "0s"))
            care = _Care(parse_auto_grow(context), interval)
            # Not all volumes at once, also when the driver has just been started.
            care.trimmed_at = time.monotonic() - interval * random.random()
            self._cares[handle.volume_id] = care
        return care

    async def _tend(
        self, handle: Handle, device: agent_pb2.Device, mount: Mount, care: _Care
    ) -> None:
        if care.auto_grow is not None:
            await self._grow(handle, device, mount, care, care.auto_grow)
        due = care.trimmed_at + care.trim_interval_seconds
        if care.trim_interval_seconds and time.monotonic() >= due:
            care.trimmed_at = time.monotonic()
            trimmed = await self._mounter.trim(mount.target)
            self._trimmed.inc(trimmed)
            _log.info("trimmed", extra={"volume": str(handle), "bytes": trimmed})

    async def _grow(
        self,
        handle: Handle,
        device: agent_pb2.Device,
        mount: Mount,
        care: _Care,
        rule: AutoGrow,
    ) -> None:
        if not await self._is_full(mount, rule):
            return
        if care.filled_bytes != device.size_bytes:  # a growth that was cut off, or another's
            await self._fill(device, mount, care)
            if not await self._is_full(mount, rule):
                return
        size = rule.next_size(device.size_bytes)
        if size == device.size_bytes:
            return
        # A resize never shrinks: where somebody was quicker, the larger size stays.
        with contextlib.suppress(ConflictError):
            await self._client.call(
                "ResizeVolume",
                pb.ResizeVolumeRequest(volume_id=handle.volume_id, size_bytes=size),
            )
        device = await self._devices.refresh(handle)
        await self._fill(device, mount, care)
        self._grown.inc()
        _log.info("grown", extra={"volume": str(handle), "size_bytes": device.size_bytes})

    async def _is_full(self, mount: Mount, rule: AutoGrow) -> bool:
        usage = await self._mounter.usage(mount.target)
        used, free = usage["used_bytes"], usage["available_bytes"]
        return used * 100 >= (used + free) * rule.threshold_percent

    async def _fill(self, device: agent_pb2.Device, mount: Mount, care: _Care) -> None:
        await self._mounter.grow(device.device, mount.file_system, mount.target)
        care.filled_bytes = device.size_bytes
