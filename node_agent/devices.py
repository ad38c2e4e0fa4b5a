"""The devices of this node: made, found again after a restart, grown, taken away.

Owns: what is served, and the order of every step, so that a kill between any two of them leaves
nothing that the next agent does not find: what a device lives by is with the holder, or its record
is written, before it exists, and the record is before anybody hears of it. How a device is made is
kinds.py's. Invariants: one device for a volume; a volume is opened again only with a new epoch, and
only by the attachment that the record names (R12); a call for a volume that another is busy with is
refused. Thread: the asyncio loop; what waits for the kernel runs on others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from curve_py.client import AsyncCluster, AsyncVolume, AttachMode
from curve_py.client.attachment import DETACH_SECONDS, attach_request
from curve_py.client.doctor import choose
from curve_py.errors import (
    BusyError,
    ConflictError,
    CurveError,
    CurveIoError,
    FencedError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from curve_py.proto import agent_pb2 as pb
from curve_py.proto import meta_pb2
from node_agent.fuse_kind import FuseKind
from node_agent.handover import Holder
from node_agent.kinds import Keep, Kind
from node_agent.nbd_kind import NbdKind
from node_agent.records import Record, Records

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 5.0  # for requests in flight when a device is taken away by force
_RETRY_SECONDS = 0.1
_RETRY_SECONDS_MAX = 2.0
_LOOK_SECONDS = 2.0
_STRAYS_SECONDS = (0.0, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class Served:
    """One device, as it is now."""

    record: Record
    kind: Kind
    state: pb.DeviceState = pb.DEVICE_STATE_STARTING
    lost_reason: str = ""
    volume: AsyncVolume | None = None
    export: int = 0  # of the native node; 0: none
    size_bytes: int = 0
    numbers: tuple[int, int] = (0, 0)  # major and minor
    growing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def device(self) -> str:
        return self.kind.path(self.record.number)


class Devices:
    """Of one agent."""

    def __init__(
        self,
        cluster: AsyncCluster,
        node_id: str,
        records: Records,
        holder: Holder,
        device_type: str = "auto",
    ) -> None:
        self._cluster, self._node_id = cluster, node_id
        self._records, self._holder = records, holder
        self._device_type = device_type  # where a request names none
        node = cluster.node()  # here, since it is of this loop
        self._kinds: tuple[Kind, ...] = (FuseKind(node, holder), NbdKind(node, holder))
        self._served: dict[int, Served] = {}
        self._busy: set[int] = set()
        self._making: set[str] = set()  # volumes whose device is being made
        self._tasks: set[asyncio.Task[None]] = set()

    # --- Asked for ------------------------------------------------------------------------------

    async def attach(self, request: pb.AttachDeviceRequest) -> pb.Device:
        """The device, usable. Raises CurveError."""
        volume = await self._look_up(request.volume_name, request.volume_id)
        if request.volume_uuid not in ("", volume.uuid):
            raise ConflictError(
                f"Volume '{volume.name}' is {volume.uuid} and not {request.volume_uuid}.",
                "It is another volume than the one that was asked for.",
            )
        with self._exclusively(volume.id):
            known = self._served.get(volume.id)
            if known is not None and known.state == pb.DEVICE_STATE_LOST:
                await self._end(known, force=False)
            elif known is not None:
                return self._same(known, request)
            return await self._make(volume, request)

    async def detach(self, request: pb.DetachDeviceRequest) -> bool:
        """Whether there was a device. Raises ConflictError while it is open, unless forced."""
        served = self._find(request.volume_name, request.volume_id)
        if served is None:
            return False
        with self._exclusively(served.record.volume_id):
            if served.state == pb.DEVICE_STATE_STARTING and not request.force:
                raise UnavailableError(
                    f"{served.device} is not served yet: no metaserver answers.", "Try again."
                )
            await self._end(served, request.force)
        return True

    async def refresh(self, request: pb.RefreshDeviceRequest) -> pb.Device:
        """The device, with the size that the volume has now. Raises CurveError."""
        served = self._find(request.volume_name, request.volume_id)
        if served is None:
            raise NotFoundError("The volume has no device on this node.", "Attach it first.")
        with self._exclusively(served.record.volume_id):
            if served.volume is None:
                raise UnavailableError(f"{served.device} is not served now.", served.lost_reason)
            await served.volume.refresh()
            await self._grow(served)
        return self.message(served)

    def messages(self) -> list[pb.Device]:
        """In order of volumes."""
        return [self.message(served) for _, served in sorted(self._served.items())]

    def served(self) -> list[Served]:
        return list(self._served.values())

    def message(self, served: Served) -> pb.Device:
        record = served.record
        # Then another device may have its number now.
        gone = served.state == pb.DEVICE_STATE_LOST and not _is_there(served)
        numbers = (0, 0) if gone else served.numbers
        return pb.Device(
            volume_id=record.volume_id,
            volume_name=record.volume_name,
            volume_uuid=record.volume_uuid,
            device_type=served.kind.type,
            device="" if gone else served.device,
            major=numbers[0],
            minor=numbers[1],
            link=str(self._records.link(record.volume_uuid)),
            size_bytes=served.size_bytes,
            read_only=record.read_only,
            shared=record.shared,
            state=served.state,
            lost_reason=served.lost_reason,
            attachment_id=record.attachment_id,
            epoch=record.epoch,
            attached_at_ms=record.attached_at_ms,
        )

    def _same(self, known: Served, request: pb.AttachDeviceRequest) -> pb.Device:
        record = known.record
        if (record.read_only, record.shared) != (request.read_only, request.shared):
            has = "read-only" if record.read_only else "shared" if record.shared else "exclusive"
            raise ConflictError(
                f"Volume '{record.volume_name}' is {known.device} on this node already, {has}.",
                "Detach it first.",
            )
        if request.device_type not in (pb.DEVICE_TYPE_UNSPECIFIED, known.kind.type):
            raise ConflictError(
                f"Volume '{record.volume_name}' is {known.device} on this node already.",
                "Detach it first.",
            )
        if known.state == pb.DEVICE_STATE_STARTING:
            raise UnavailableError(
                f"{known.device} is not served yet: no metaserver answers.", "Try again."
            )
        return self.message(known)

    async def _kind_for(self, asked: pb.DeviceType) -> Kind:
        """Raises UnsupportedError."""
        for kind in self._kinds:
            if asked == kind.type:
                return kind
        choice = await asyncio.to_thread(choose, self._device_type)
        for kind in self._kinds:
            if choice.chosen == kind.name:
                return kind
        raise UnsupportedError(choice.reason, "See `curve node doctor`.")

    async def _look_up(self, name: str, volume_id: int) -> meta_pb2.Volume:
        if not name and not volume_id:
            raise InvalidError("A volume is named by its name or its id.")
        request = meta_pb2.GetVolumeRequest(name=name, volume_id=volume_id)
        volume: meta_pb2.Volume = await self._cluster.client.call("GetVolume", request)
        return volume

    def _find(self, name: str, volume_id: int) -> Served | None:
        if not name and not volume_id:
            raise InvalidError("A volume is named by its name or its id.")
        for served in self._served.values():
            if (volume_id or served.record.volume_id) == served.record.volume_id and (
                name or served.record.volume_name
            ) == served.record.volume_name:
                return served
        return None

    @contextlib.contextmanager
    def _exclusively(self, volume_id: int) -> Iterator[None]:
        if volume_id in self._busy:
            raise BusyError("Another call works on the device of this volume.", "Try again.")
        self._busy.add(volume_id)
        try:
            yield
        finally:
            self._busy.discard(volume_id)

    # --- Made -----------------------------------------------------------------------------------

    async def _make(self, volume: meta_pb2.Volume, request: pb.AttachDeviceRequest) -> pb.Device:
        kind = await self._kind_for(request.device_type)
        record = Record(
            volume_id=volume.id,
            volume_name=volume.name,
            volume_uuid=volume.uuid,
            device_type=kind.name,
            number=0,
            read_only=request.read_only,
            shared=request.shared,
            attachment_id=0,
            epoch=0,
            attached_at_ms=time.time_ns() // 1_000_000,
        )
        opened = await self._open(record, steal=request.steal, published=request.published)
        record = _continued(record, opened)
        self._making.add(record.volume_uuid)
        try:
            export, record = await asyncio.to_thread(
                kind.make, record, opened.handle, opened.size, self._keep_for(kind)
            )
            served = await self._as_served(record, kind)
        except BaseException as error:
            await asyncio.to_thread(self._records.remove, record.volume_uuid)
            self._making.discard(record.volume_uuid)
            await self._take_strays({record.volume_uuid})
            await opened.close()
            if isinstance(error, CurveIoError):
                raise UnsupportedError(error.message, "See `curve node doctor`.") from None
            raise
        served.volume, served.export = opened, export
        served.state = pb.DEVICE_STATE_SERVING
        self._served[record.volume_id] = served
        self._making.discard(record.volume_uuid)
        self._changed(record.volume_id)  # what happened while it was not known yet
        _log.info("attached", extra={"volume": record.volume_name, "device": served.device})
        return self.message(served)

    def _keep_for(self, kind: Kind) -> Keep:
        return lambda record: self._records.save(record, kind.path(record.number))

    async def _as_served(self, record: Record, kind: Kind) -> Served:
        served = Served(record, kind)
        served.size_bytes = await asyncio.to_thread(kind.size_bytes, record.number)
        with contextlib.suppress(CurveError):  # after a restart of the machine
            served.numbers = await asyncio.to_thread(kind.device_number, record.number)
        return served

    async def _open(
        self, record: Record, *, steal: bool = False, published: bool = False
    ) -> AsyncVolume:
        """A new attachment (R12); of a record that has one it continues that one."""
        mode = AttachMode.EXCLUSIVE
        if record.read_only:
            mode = AttachMode.READ_ONLY
        elif record.shared:
            mode = AttachMode.SHARED
        holder = f"node {self._node_id} agent pid {os.getpid()}"[:128]
        request = attach_request("", mode, holder, refuse_when_attached=not steal)
        request.volume_id = record.volume_id
        request.node_id = self._node_id
        request.published = published
        request.continues_attachment_id = record.attachment_id
        volume_id = record.volume_id
        return await self._cluster.volumes().attach(request, mode, lambda: self._changed(volume_id))

    # --- Found again ----------------------------------------------------------------------------

    async def resume(self) -> None:
        """Takes up what an earlier agent has left; goes on in the background."""
        held = await asyncio.to_thread(self._holder.held)
        records = await asyncio.to_thread(self._records.load)
        for record in records:
            kind = next((kind for kind in self._kinds if kind.name == record.device_type), None)
            if kind is None:
                _log.error("a record of a type that is not known", extra={"record": record})
                continue
            served = await self._as_served(record, kind)
            self._served[record.volume_id] = served
            self._start(self._take_up(served, held.pop(record.volume_uuid, -1)))
        # Begun, and heard of by nobody.
        for uuid, descriptor in held.items():
            os.close(descriptor)
            self._holder.drop(uuid)
        self._start(self._sweep())
        self._start(self._look_after())
        if held:
            self._start(self._take_strays_later(set(held)))

    async def _look_after(self) -> None:
        """Finds devices that somebody else has ended: `losetup -d`, an aborted connection."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for served in self.served():
                serving = served.state == pb.DEVICE_STATE_SERVING and served.export
                if not serving or served.record.volume_id in self._busy:
                    continue
                ended = await asyncio.to_thread(served.kind.ended, served.export)
                if not ended or served.record.volume_id in self._busy:
                    continue
                with self._exclusively(served.record.volume_id):
                    await self._revive(served)

    async def _revive(self, served: Served) -> None:
        if served.volume is None or not served.export:
            return
        export = served.export
        served.export = await asyncio.to_thread(
            served.kind.revive, export, served.record, served.volume.handle
        )
        if served.export:
            await asyncio.to_thread(served.kind.stop, export)
        else:
            served.export = export
            self._lose(served, "The device was ended by somebody.")

    async def _sweep(self) -> None:
        """Ends attachments of this node that no device is left of, since an agent was killed while
        it made one, or took one away. They would keep other nodes out.
        """
        volumes = self._cluster.volumes()
        while True:
            try:
                async for volume in volumes.list():
                    # Listed before anything that this agent made of a volume that it does not know.
                    if volume.volume_id in self._served or volume.volume_id in self._busy:
                        continue
                    for attachment in volume.attachments:
                        if attachment.node_id == self._node_id:
                            await self._give_up(volume.volume_id, attachment.attachment_id)
                return
            except CurveError:
                await asyncio.sleep(_RETRY_SECONDS_MAX)

    async def _give_up(self, volume_id: int, attachment_id: int) -> None:
        """Not being able to is no error: the next attach of this node takes its place."""
        request = meta_pb2.DetachVolumeRequest(volume_id=volume_id, attachment_id=attachment_id)
        with contextlib.suppress(CurveError):
            await self._cluster.client.call("DetachVolume", request, DETACH_SECONDS)

    async def _take_up(self, served: Served, descriptor: int) -> None:
        record, kind = served.record, served.kind
        if not await asyncio.to_thread(_is_there, served):
            _log.warning("a device was detached by somebody", extra={"device": served.device})
            await self._forget(served, descriptor)
            return
        if reason := kind.why_lost(descriptor):
            self._lose(served, reason)
            return
        pause = _RETRY_SECONDS
        while True:
            try:
                served.volume = await self._open(record)
                break
            except (FencedError, NotFoundError) as error:
                with contextlib.suppress(CurveError):  # it has gone meanwhile
                    served.export = await asyncio.to_thread(kind.give_up, record, descriptor)
                self._lose(served, error.message)
                return
            except CurveError as error:
                _log.warning(
                    "a volume cannot be opened yet",
                    extra={"volume": record.volume_name, "error": error.message},
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RETRY_SECONDS_MAX)
        served.record = _continued(record, served.volume)
        try:
            served.export = await asyncio.to_thread(
                kind.take_up, served.record, served.volume.handle, descriptor
            )
        except CurveError as error:
            self._lose(served, error.message)
            return
        if reason := kind.cannot_continue(served.export):
            await self._stop_export(served)
            self._holder.drop(record.volume_uuid)
            self._lose(served, reason)
            return
        served.state = pb.DEVICE_STATE_SERVING
        await asyncio.to_thread(self._records.save, served.record, served.device)
        _log.info("taken up", extra={"volume": record.volume_name, "device": served.device})
        self._changed(record.volume_id)

    async def _take_strays_later(self, uuids: set[str]) -> None:
        """The kernel may still be making a device for an agent that was killed."""
        for pause in _STRAYS_SECONDS:
            await asyncio.sleep(pause)
            await self._take_strays(uuids)

    async def _take_strays(self, uuids: set[str]) -> None:
        """Devices of these volumes, which nobody was told of."""
        for kind in self._kinds:
            for number in await asyncio.to_thread(kind.numbers):
                uuid = kind.identity(number)
                known = uuid in self._making or any(
                    served.record.volume_uuid == uuid for served in self._served.values()
                )
                if uuid in uuids and not known:
                    stray = Record(0, "", uuid, kind.name, number, False, False, 0, 0, 0)
                    with contextlib.suppress(CurveError):
                        await asyncio.to_thread(kind.detach, stray, True)

    # --- Changed --------------------------------------------------------------------------------

    def _changed(self, volume_id: int) -> None:
        """A new map, or the attachment is lost."""
        served = self._served.get(volume_id)
        if served is None or served.volume is None:
            return
        if served.volume.lost_reason:
            self._lose(served, served.volume.lost_reason)
        elif served.export:
            self._start(self._grow(served))

    def _lose(self, served: Served, reason: str) -> None:
        if served.state != pb.DEVICE_STATE_LOST:
            served.state, served.lost_reason = pb.DEVICE_STATE_LOST, reason
            _log.error(
                "a device is lost",
                extra={"volume": served.record.volume_name, "device": served.device, "why": reason},
            )

    async def _grow(self, served: Served) -> None:
        async with served.growing:
            volume = served.volume
            if volume is None or volume.lost_reason or not served.export:
                return
            size_bytes = volume.size
            if size_bytes <= served.size_bytes:
                return
            kind, record = served.kind, served.record
            await asyncio.to_thread(kind.grow, served.export, record, size_bytes)
            served.size_bytes = await asyncio.to_thread(kind.size_bytes, record.number)
            extra = {"device": served.device, "bytes": served.size_bytes}
            _log.info("grown", extra=extra)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("work on a device failed", exc_info=error)

    # --- Taken away -----------------------------------------------------------------------------

    async def _end(self, served: Served, force: bool) -> None:
        record = served.record
        try:
            await asyncio.to_thread(served.kind.detach, record, force)
        except BusyError:
            raise ConflictError(
                f"{served.device} of volume '{record.volume_name}' is open: mounted, or used by a "
                "process.",
                "Unmount it; or detach it by force, and its users get errors.",
            ) from None
        async with served.growing:
            await self._forget(served, -1)
        _log.info("detached", extra={"volume": record.volume_name, "device": served.device})

    async def _forget(self, served: Served, descriptor: int) -> None:
        """After the device has gone, or has been given up."""
        record = served.record
        await asyncio.to_thread(self._records.remove, record.volume_uuid)
        if served.export:
            await self._stop_export(served)
        if descriptor >= 0:
            os.close(descriptor)
        self._holder.drop(record.volume_uuid)
        self._served.pop(record.volume_id, None)
        if served.volume is not None:
            await served.volume.close()
        elif served.state != pb.DEVICE_STATE_LOST:
            await self._give_up(record.volume_id, record.attachment_id)

    async def _stop_export(self, served: Served) -> None:
        """What no majority answers ends with an error, as its volume is closed."""
        ending = asyncio.ensure_future(asyncio.to_thread(served.kind.stop, served.export))
        served.export = 0
        done, _ = await asyncio.wait({ending}, timeout=_GRACE_SECONDS)
        if not done and served.volume is not None:
            _log.warning("requests do not end", extra={"device": served.device})
            await served.volume.close()
        await ending

    async def close(self) -> None:
        """Takes all devices away; those that are open by force."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for served in self.served():
            # One that is not served yet could not even be opened to see whether it is in use.
            force = served.state == pb.DEVICE_STATE_STARTING
            try:
                await self._end(served, force)
            except CurveError as error:
                _log.error("a device is taken away by force", extra={"error": error.message})
                with contextlib.suppress(CurveError):
                    await self._end(served, force=True)


def _is_there(served: Served) -> bool:
    """Of one that may have gone: whether its number is still its own."""
    return served.kind.identity(served.record.number) == served.record.volume_uuid


def _continued(record: Record, volume: AsyncVolume) -> Record:
    attachment = volume.attachment
    return replace(record, attachment_id=attachment.attachment_id, epoch=attachment.epoch)
