"""An open volume: blocking reads and writes.

Owns: one attachment, its watcher and its handle in the native node. All I/O is done by the native
client with the GIL released. Offsets and sizes are multiples of 512 bytes; anything larger than a
chunk is split by the native client. Any thread may use a volume, several at once; close waits for
what is in flight.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from curve_py.client.attachment import Attached, MapWatcher
from curve_py.client.native import DISCARD, FLUSH, READ, WRITE, WRITE_ZEROES, Buffer, VolumeNode
from curve_py.client.records import AttachMode
from curve_py.errors import ClosedError, FencedError, InvalidError


class Volume:
    """Made by Volumes.open; a context manager."""

    def __init__(
        self,
        node: VolumeNode,
        name: str,
        mode: AttachMode,
        attachment: Attached,
        watch: Callable[[Callable[[bytes], None], Callable[[str], None]], MapWatcher],
        detach: Callable[[], None],
        resize: Callable[[int], None],
    ) -> None:
        self.name, self.mode = name, mode
        self._node, self._attachment = node, attachment
        self._detach, self._resize = detach, resize
        self._lost = ""
        self._closed = False
        self._lock = threading.Lock()
        self._users = 0
        self._idle = threading.Condition(self._lock)
        self._handle = node.open_volume(attachment.encoded_map)
        self._watcher = watch(self._take_map, self._take_loss)

    # --- I/O ------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. Blocks. Raises CurveError."""
        buffer = bytearray(size)
        self.readinto(offset, buffer)
        return bytes(buffer)

    def readinto(self, offset: int, buffer: Buffer) -> int:
        """Fills the writable buffer from `offset`, without a copy; returns its size. Blocks."""
        size = memoryview(buffer).nbytes
        self._transfer(READ, offset, size, buffer)
        return size

    def write(self, offset: int, buffer: Buffer) -> int:
        """Writes the buffer at `offset`, without a copy; returns its size.

        When it returns, the data is durable on a majority of the replicas. Blocks.
        """
        size = memoryview(buffer).nbytes
        self._transfer(WRITE, offset, size, buffer)
        return size

    def flush(self) -> None:
        """All writes that were answered are durable (they are already). Blocks."""
        self._transfer(FLUSH, 0, 0)

    def discard(self, offset: int, size: int) -> None:
        """The range reads as zeros afterwards; whole 64 KiB blocks give their space back."""
        self._transfer(DISCARD, offset, size)

    def write_zeroes(self, offset: int, size: int, *, keep_space: bool = False) -> None:
        """Zeros the range; with `keep_space` its blocks stay allocated."""
        self._transfer(WRITE_ZEROES, offset, size, no_unmap=keep_space)

    def _transfer(
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
        self._enter()
        try:
            self._node.transfer(self._handle, operation, offset, size, memory, no_unmap)
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            if self._closed:
                raise ClosedError(f"Volume '{self.name}' is closed.")
            if self._lost:
                raise FencedError(self._lost)
            self._users += 1

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._idle.notify_all()

    # --- What it is -----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes, now: it follows a resize by whomever."""
        self._enter()
        try:
            return self._node.size_bytes(self._handle)
        finally:
            self._leave()

    def __len__(self) -> int:
        return self.size

    def resize(self, size_bytes: int) -> None:
        """Grows the volume; afterwards the new size is in force here. Raises CurveError."""
        self._resize(size_bytes)

    @property
    def epoch(self) -> int:
        """Of the attachment (R12)."""
        return self._attachment.epoch

    @property
    def fenced(self) -> bool:
        """Whether the attachment was lost, as far as is known here."""
        with self._lock:
            return bool(self._lost) or (not self._closed and self._node.fenced(self._handle))

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def handle(self) -> int:
        """In the native node, for exports."""
        return self._handle

    def stats(self) -> dict[str, int]:
        """Counters of the native client."""
        self._enter()
        try:
            return self._node.stats(self._handle)
        finally:
            self._leave()

    # --- Its life -------------------------------------------------------------------------------

    def take_map(self, encoded_map: bytes) -> None:
        """A newer map, from wherever. Older ones are ignored by the native client."""
        self._take_map(encoded_map)

    def _take_map(self, encoded_map: bytes) -> None:
        with self._lock:
            if self._closed:
                return
            self._users += 1
        try:
            self._node.update_map(self._handle, encoded_map)
        finally:
            self._leave()

    def _take_loss(self, reason: str) -> None:
        with self._lock:
            self._lost = reason or "Another attachment of this volume has taken over."

    def close(self) -> None:
        """Waits for what is in flight and detaches. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            while self._users:
                self._idle.wait()
        self._watcher.close()
        self._node.close_volume(self._handle)
        if not self._lost:
            self._detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._lost else "open"
        return f"<Volume {self.name!r} {self.mode} {state}>"
