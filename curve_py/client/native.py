"""The native volume node, typed (curve_py/_native/volume.pyx)."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from curve_py.errors import ConfigError, CurveError

READ, WRITE, DISCARD, WRITE_ZEROES, FLUSH, BLOCK_STATUS = range(6)

# Whatever has the buffer protocol and is contiguous: bytes, bytearray, memoryview, numpy arrays.
Buffer = Any


class VolumeNode(Protocol):
    """One native thread with open volumes and NBD servers."""

    def open_volume(self, volume_map: bytes) -> int: ...
    def update_map(self, volume: int, volume_map: bytes) -> None: ...
    def close_volume(self, volume: int) -> None: ...
    def fenced(self, volume: int) -> bool: ...
    def size_bytes(self, volume: int) -> int: ...
    def stats(self, volume: int) -> dict[str, int]: ...
    def transfer(
        self,
        volume: int,
        operation: int,
        offset: int,
        size: int,
        memory: Buffer | None = None,
        no_unmap: bool = False,
    ) -> None: ...
    def submit(
        self,
        volume: int,
        operation: int,
        offset: int,
        size: int,
        memory: Buffer | None = None,
        no_unmap: bool = False,
    ) -> int: ...
    def fileno(self) -> int: ...
    def poll(self, max_events: int) -> list[tuple[int, CurveError | None]]: ...
    def nbd_listen(self, address: str) -> tuple[int, str]: ...
    def nbd_add(
        self, server: int, name: str, description: str, volume: int, read_only: bool
    ) -> None: ...
    def nbd_remove(self, server: int, name: str) -> None: ...
    def nbd_close(self, server: int) -> None: ...
    def nbd_stats(self, server: int) -> dict[str, int]: ...
    def close(self) -> None: ...


def start_node(secret: bytes) -> VolumeNode:
    """A new native thread. Raises CurveError."""
    try:
        node: VolumeNode = importlib.import_module("curve_py._native.volume").VolumeNode(secret)
    except ImportError as error:
        raise ConfigError(
            f"The native part of the client cannot be loaded: {error}.",
            "Install the package again: pip install .",
        ) from None
    return node
