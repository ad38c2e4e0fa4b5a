"""The same for asyncio: requests are submitted, completions come back by one descriptor.

Owns: a native node of its own whose completions this loop takes. All of one AsyncCluster is of one
loop. A cancelled await leaves its request running; its memory is kept until it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from curve_py.client.attachment import (
    ATTACH_SECONDS,
    DETACH_SECONDS,
    Attached,
    attach_request,
    attached,
)
from curve_py.client.cluster import resolve
from curve_py.client.native import (
    DISCARD,
    FLUSH,
    READ,
    WRITE,
    WRITE_ZEROES,
    Buffer,
    VolumeNode,
    start_node,
)
from curve_py.client.records import AttachMode, VolumeInfo, volume_info
from curve_py.errors import ClosedError, CurveError, FencedError, InvalidError, NotFoundError
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient
from curve_py.sizes import parse_size

_COMPLETIONS_PER_TURN = 256
_RETRY_SECONDS = 0.2
_RETRY_SECONDS_MAX = 2.0


class AsyncCluster:
    """Made by `connect` inside a running loop; an async context manager."""

    def __init__(self, metaservers: Sequence[str], secret: bytes) -> None:
        self._secret = secret
        self.client = AsyncMetaClient(metaservers, secret)
        self._node: VolumeNode | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._open: set[AsyncVolume] = set()

    @classmethod
    def connect(
        cls,
        dir: Path | str | None = None,  # noqa: A002
        *,
        metaservers: Sequence[str] | None = None,
        secret: bytes | Path | str | None = None,
    ) -> AsyncCluster:
        """As Cluster.connect."""
        return cls(*resolve(dir, metaservers, secret))

    def volumes(self) -> AsyncVolumes:
        return AsyncVolumes(self)

    def node(self) -> VolumeNode:
        """The native node, started when first asked for."""
        if self._node is None:
            self._node = start_node(self._secret)
            asyncio.get_running_loop().add_reader(self._node.fileno(), self._take_completions)
        return self._node

    def _take_completions(self) -> None:
        assert self._node is not None
        for ticket, error in self._node.poll(_COMPLETIONS_PER_TURN):
            future = self._waiting.pop(ticket, None)
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    async def submit(
        self,
        volume: int,
        operation: int,
        offset: int,
        size: int,
        memory: Buffer | None = None,
        no_unmap: bool = False,
    ) -> None:
        """One operation of an open volume, by its native handle. Raises CurveError."""
        ticket = self.node().submit(volume, operation, offset, size, memory, no_unmap)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        await future

    def remember(self, volume: AsyncVolume) -> None:
        self._open.add(volume)

    def forget(self, volume: AsyncVolume) -> None:
        self._open.discard(volume)

    async def close(self) -> None:
        """Closes the volumes that are open. Idempotent."""
        for volume in list(self._open):
            await volume.close()
        node, self._node = self._node, None
        if node is not None:
            asyncio.get_running_loop().remove_reader(node.fileno())
            await asyncio.to_thread(node.close)
        await self.client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncVolumes:
    """The volumes of a cluster. Every method raises CurveError."""

    def __init__(self, cluster: AsyncCluster) -> None:
        self._cluster = cluster
        self._client = cluster.client

    async def create(
        self, name: str, size: int | str, *, stripe_unit_bytes: int = 0, stripe_count: int = 0
    ) -> VolumeInfo:
        request = pb.CreateVolumeRequest(
            name=name,
            size_bytes=parse_size(size),
            stripe_unit_bytes=stripe_unit_bytes,
            stripe_count=stripe_count,
        )
        return volume_info(await self._client.call("CreateVolume", request))

    async def get(self, name: str) -> VolumeInfo:
        return volume_info(await self._client.call("GetVolume", pb.GetVolumeRequest(name=name)))

    async def list(self) -> AsyncIterator[VolumeInfo]:
        """In order of creation."""
        after = 0
        while True:
            request = pb.ListVolumesRequest(after_volume_id=after)
            page = await self._client.call("ListVolumes", request)
            for message in page.volumes:
                yield volume_info(message)
            after = page.next_after_volume_id
            if not after:
                return

    async def resize(self, name: str, size: int | str) -> VolumeInfo:
        request = pb.ResizeVolumeRequest(name=name, size_bytes=parse_size(size))
        return volume_info(await self._client.call("ResizeVolume", request))

    async def delete(self, name: str, *, force: bool = False) -> None:
        await self._client.call("DeleteVolume", pb.DeleteVolumeRequest(name=name, force=force))

    async def open(
        self,
        name: str,
        mode: AttachMode = AttachMode.EXCLUSIVE,
        *,
        refuse_when_attached: bool = False,
        holder: str | None = None,
    ) -> AsyncVolume:
        """As Volumes.open."""
        request = attach_request(name, mode, holder, refuse_when_attached)
        return await self.attach(request, mode)

    async def attach(
        self,
        request: pb.AttachVolumeRequest,
        mode: AttachMode,
        on_change: Callable[[], None] = lambda: None,
    ) -> AsyncVolume:
        """`open` for those who ask for more; `on_change` is called after a new map, and after the
        attachment was lost. The volume is called as the request calls it.
        """
        answer = await self._client.call("AttachVolume", request, ATTACH_SECONDS)
        volume = AsyncVolume(self._cluster, request.name, mode, attached(answer), on_change)
        self._cluster.remember(volume)
        return volume


class AsyncVolume:
    """Made by AsyncVolumes.open; an async context manager. As Volume, with awaits."""

    def __init__(
        self,
        cluster: AsyncCluster,
        name: str,
        mode: AttachMode,
        attachment: Attached,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.mode, self.attachment = name, mode, attachment
        self._cluster = cluster
        self._on_change = on_change
        self._lost = ""
        self._closed = False
        self._users = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._handle = cluster.node().open_volume(attachment.encoded_map)
        self._watching = asyncio.create_task(self._watch())

    async def read(self, offset: int, size: int) -> bytes:
        buffer = bytearray(size)
        await self.readinto(offset, buffer)
        return bytes(buffer)

    async def readinto(self, offset: int, buffer: Buffer) -> int:
        size = memoryview(buffer).nbytes
        await self._submit(READ, offset, size, buffer)
        return size

    async def write(self, offset: int, buffer: Buffer) -> int:
        """The buffer must not be changed before this has returned."""
        size = memoryview(buffer).nbytes
        await self._submit(WRITE, offset, size, buffer)
        return size

    async def flush(self) -> None:
        await self._submit(FLUSH, 0, 0)

    async def discard(self, offset: int, size: int) -> None:
        await self._submit(DISCARD, offset, size)

    async def write_zeroes(self, offset: int, size: int, *, keep_space: bool = False) -> None:
        await self._submit(WRITE_ZEROES, offset, size, no_unmap=keep_space)

    async def _submit(
        self,
        operation: int,
        offset: int,
        size: int,
        memory: Buffer | None = None,
        no_unmap: bool = False,
    ) -> None:
        if offset < 0 or size < 0:
            raise InvalidError(f"Offset {offset} and size {size} cannot be negative.")
        if size == 0 and operation != FLUSH:
            return
        self._check()
        self._users += 1
        self._idle.clear()
        try:
            await self._cluster.submit(self._handle, operation, offset, size, memory, no_unmap)
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"Volume '{self.name}' is closed.")
        if self._lost:
            raise FencedError(self._lost)

    @property
    def size(self) -> int:
        """Bytes, now."""
        self._check()
        return self._cluster.node().size_bytes(self._handle)

    @property
    def epoch(self) -> int:
        return self.attachment.epoch

    @property
    def fenced(self) -> bool:
        return bool(self._lost) or (not self._closed and self._cluster.node().fenced(self._handle))

    @property
    def lost_reason(self) -> str:
        """Why the attachment was lost; "" while it is not."""
        return self._lost

    @property
    def handle(self) -> int:
        """In the native node, for exports."""
        return self._handle

    def stats(self) -> dict[str, int]:
        """Counters of the native client."""
        return self._cluster.node().stats(self._handle)

    async def resize(self, size_bytes: int) -> None:
        """Grows the volume; afterwards the new size is in force here."""
        await self._cluster.client.call(
            "ResizeVolume",
            pb.ResizeVolumeRequest(volume_id=self.attachment.volume_id, size_bytes=size_bytes),
        )
        await self.refresh()

    async def refresh(self) -> None:
        """What the metaservers say of the volume now, its size for one, is in force afterwards."""
        message = await self._cluster.client.call(
            "GetVolumeMap",
            pb.GetVolumeMapRequest(
                volume_id=self.attachment.volume_id,
                attachment_id=self.attachment.attachment_id,
            ),
        )
        self._check()
        self._cluster.node().update_map(self._handle, message.encoded)

    async def _watch(self) -> None:
        """Follows the map until closed; see MapWatcher."""
        known, pause = self.attachment.map_version, _RETRY_SECONDS
        while True:
            request = pb.WatchVolumeMapRequest(
                volume_id=self.attachment.volume_id,
                attachment_id=self.attachment.attachment_id,
                known_map_version=known,
            )
            try:
                async for event in self._cluster.client.stream("WatchVolumeMap", request):
                    if event.HasField("lost"):
                        return self._lose(event.lost.reason)
                    if event.map.map_version > known and not self._closed:
                        self._cluster.node().update_map(self._handle, event.map.encoded)
                        known = event.map.map_version
                        self._on_change()
                    pause = _RETRY_SECONDS
            except (FencedError, NotFoundError) as error:
                return self._lose(error.message)
            except CurveError:
                pass  # no metaserver serves now: the map that is there stays in use
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_SECONDS_MAX)

    def _lose(self, reason: str) -> None:
        self._lost = reason or "Another attachment has taken over."
        self._on_change()

    async def close(self) -> None:
        """Waits for what is in flight and detaches. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await asyncio.to_thread(self._cluster.node().close_volume, self._handle)
        self._cluster.forget(self)
        if not self._lost:
            request = pb.DetachVolumeRequest(
                volume_id=self.attachment.volume_id,
                attachment_id=self.attachment.attachment_id,
            )
            with contextlib.suppress(CurveError):
                await self._cluster.client.call("DetachVolume", request, DETACH_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
