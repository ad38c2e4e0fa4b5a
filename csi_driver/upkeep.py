"""What is done to mounted volumes without anybody asking: growing and trimming.

Owns: the look at all mounted volumes of the node every so often. A volume whose maker has opted in
(autoGrow..., trimInterval: parameters.py) grows by a step when its file system is fuller than its
threshold, up to its limit; its free space is given back at its interval. Who is close to its
threshold, or has grown lately, is looked at more often. Invariants: each volume has tasks of its
own, so that none waits for another's; never beside another call for a volume (in_flight.py): what
is busy has its turn later, and a trim, which may take long, gives the volume back after each slice;
nothing here is needed for correctness, so failures are logged and tried again. Thread: the asyncio
loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

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


_QUICK_SECONDS = 1.0  # between two looks at a volume that may be full soon
_NEAR_PERCENT = 10  # so close to its threshold
_LATELY_SECONDS = 60.0
_TURN_SECONDS = 0.2


@dataclass(slots=True)
class _Care:
    """What one volume wants, which never changes, and what was done."""

    auto_grow: AutoGrow | None
    trim_interval_seconds: int
    look_at: float = 0.0  # monotonic seconds, as the others
    grown_at: float = -math.inf
    trimmed_at: float = 0.0
    trim_from_bytes: int = 0  # where the last trim had to end
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
        self._quick_seconds = min(seconds, _QUICK_SECONDS)
        self._cares: dict[int, _Care] = {}
        self._growing: dict[int, asyncio.Task[None]] = {}
        self._trims: dict[int, asyncio.Task[None]] = {}
        self._one_trim = asyncio.Semaphore()  # at a time, of all volumes
        self._grown = Counter(
            "curve_csi_volumes_grown", "times that a volume grew by itself", registry=registry
        )
        self._trimmed = Counter(
            "curve_csi_trimmed_bytes", "space that file systems gave back", registry=registry
        )

    async def run(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._pause_seconds())
                try:
                    await self.look()
                except (CurveError, CsiError) as error:
                    _log.debug("volumes are looked at later", extra={"error": str(error)})
        finally:
            tasks = self.tasks()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def tasks(self) -> list[asyncio.Task[None]]:
        """What is being done."""
        found = [*self._growing.values(), *self._trims.values()]
        return [task for task in found if not task.done()]

    def _pause_seconds(self) -> float:
        now = time.monotonic()
        soonest = min((care.look_at - now for care in self._cares.values()), default=math.inf)
        return max(self._quick_seconds, min(self._seconds, soonest))

    async def look(self) -> None:
        """Once at every volume that is due, each in a task. Raises when the agent or the mount
        helper does not answer.
        """
        devices = await self._devices.all()
        mounts = await self._mounter.mounts()
        held = {device.volume_id for device in devices}
        self._cares = {number: care for number, care in self._cares.items() if number in held}
        now = time.monotonic()
        for device in devices:
            care = self._cares.get(device.volume_id)
            serving = device.state == agent_pb2.DEVICE_STATE_SERVING
            is_due = care is None or care.look_at <= now
            if not serving or device.read_only or not is_due:
                continue
            ours = await self._devices.mounted(mounts, device)
            mount = next(
                (m for m in ours if m.device == number_of(device) and not m.read_only), None
            )
            if mount is not None:
                self._start(self._growing, device, self._tend(device, mount))

    def _start(
        self,
        tasks: dict[int, asyncio.Task[None]],
        device: agent_pb2.Device,
        work: Coroutine[Any, Any, None],
    ) -> None:
        """Unless the same is being done for the volume. Failures are logged."""

        async def logged() -> None:
            try:
                await work
            except (CurveError, CsiError) as error:
                extra = {"volume": str(_handle_of(device)), "error": str(error)}
                _log.info("not tended", extra=extra)

        before = tasks.get(device.volume_id)
        if before is not None and not before.done():
            work.close()
            return
        tasks[device.volume_id] = asyncio.create_task(logged())

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

    async def _tend(self, device: agent_pb2.Device, mount: Mount) -> None:
        handle = _handle_of(device)
        care = await self._care(handle)
        care.look_at = time.monotonic() + self._quick_seconds  # when it is busy, or fails
        due = care.trimmed_at + care.trim_interval_seconds
        if care.trim_interval_seconds and time.monotonic() >= due:
            self._start(self._trims, device, self._trim(handle, mount, care))
        is_near = False
        rule, size = care.auto_grow, device.size_bytes
        if rule is not None and not (care.filled_bytes == size == rule.next_size(size)):
            if await self._is_full(mount, rule.threshold_percent):
                with self._in_flight.holding(str(handle)):
                    if mount in await self._mounter.mounts():
                        await self._grow(handle, device, mount, care, rule)
            is_near = await self._is_full(mount, max(1, rule.threshold_percent - _NEAR_PERCENT))
        now = time.monotonic()
        lately = now - care.grown_at < _LATELY_SECONDS
        care.look_at = now + (self._quick_seconds if is_near or lately else self._seconds)

    # --- Trimming -------------------------------------------------------------------------------

    async def _trim(self, handle: Handle, mount: Mount, care: _Care) -> None:
        """From where the last one had to end, slice by slice."""
        async with self._one_trim:
            care.trimmed_at = time.monotonic()
            step = await self._mounter.trim_step(mount.target, mount.file_system)
            total = (await self._mounter.usage(mount.target))["total_bytes"]
            trimmed = 0
            while True:
                offset = care.trim_from_bytes if care.trim_from_bytes < total else 0
                is_last = offset + step >= total
                await self._in_flight.released(str(handle))
                began = time.monotonic()
                with self._in_flight.holding(str(handle)):
                    if mount not in await self._mounter.mounts():
                        return
                    trimmed += await self._mounter.trim(
                        mount.target, offset, None if is_last else step
                    )
                care.trim_from_bytes = 0 if is_last else offset + step
                if is_last:
                    break
                # Calls that were told ABORTED meanwhile have as long to get in.
                await asyncio.sleep(max(_TURN_SECONDS, time.monotonic() - began))
        self._trimmed.inc(trimmed)
        _log.info("trimmed", extra={"volume": str(handle), "bytes": trimmed})

    # --- Growing --------------------------------------------------------------------------------

    async def _grow(
        self,
        handle: Handle,
        device: agent_pb2.Device,
        mount: Mount,
        care: _Care,
        rule: AutoGrow,
    ) -> None:
        if care.filled_bytes != device.size_bytes:  # a growth that was cut off, or another's
            await self._fill(device, mount, care)
            if not await self._is_full(mount, rule.threshold_percent):
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
        care.grown_at = time.monotonic()
        self._grown.inc()
        _log.info("grown", extra={"volume": str(handle), "size_bytes": device.size_bytes})

    async def _is_full(self, mount: Mount, percent: int) -> bool:
        usage = await self._mounter.usage(mount.target)
        used, free = usage["used_bytes"], usage["available_bytes"]
        return used * 100 >= (used + free) * percent

    async def _fill(self, device: agent_pb2.Device, mount: Mount, care: _Care) -> None:
        await self._mounter.grow(device.device, mount.file_system, mount.target)
        care.filled_bytes = device.size_bytes


def _handle_of(device: agent_pb2.Device) -> Handle:
    return Handle(device.volume_id, device.volume_uuid)
