"""The chunkserver's settings.

Every key is a TOML key, CURVE_<KEY> and --<key>; docs/operations.md.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from curve_py.config import Address, OptionalAddress, ServiceSettings, SizeBytes, Uuid

_MIB = 1024**2
_GIB = 1024**3
_DATA_BYTES = 10 * _GIB


class ChunkserverSettings(ServiceSettings):
    """Of one process, which owns one store."""

    store_path: Path = Field(description="directory of the store")
    wal_device: Path | None = Field(None, description="block device for the store's log")
    data_device: Path | None = Field(None, description="block device for the store's data")
    data_listen: Address = Field(description="HOST:PORT of the data port")
    data_advertise: OptionalAddress = Field("", description="IP:PORT that others use")
    admin_listen: Address = Field(description="HOST:PORT of the gRPC port for the metaservers")
    admin_advertise: OptionalAddress = Field("", description="HOST:PORT that metaservers use")
    metaservers: list[Address] = Field(description="gRPC addresses of all metaservers")
    zone: str = Field("default", description="failure domain: power, room or building")
    server: str = Field(
        default_factory=socket.gethostname, description="failure domain: the machine"
    )
    heartbeat_interval_ms: int = Field(1000, ge=50, le=60_000)
    format: bool = Field(False, description="make a new store first; there must be none")
    force: bool = Field(False, description="format over a store or a device that is not empty")
    cluster_id: Uuid = Field(b"", description="UUID of the cluster, for --format")
    data_bytes: SizeBytes = Field(
        0, description="size of the new store's data; 0: 10 GiB, or all of data_device"
    )
    wal_bytes: SizeBytes = Field(
        0,
        description="size of the new store's log; 0: a tenth of the data, at most 16 GiB, or all "
        "of wal_device",
    )
    preallocation: Literal["falloc", "full"] = Field(
        "falloc",
        description="of the new store's data: only the space, or also zeros written over all of it",
    )
    options: dict[str, int] = Field(
        default_factory=dict, description="tuning of the native store, see docs/operations.md"
    )

    @model_validator(mode="after")
    def _check(self) -> ChunkserverSettings:
        if not self.metaservers:
            raise ValueError("The list of metaservers is empty.")
        if self.format and not self.cluster_id:
            raise ValueError("Formatting needs the cluster_id that the store will belong to.")
        if self.force and not self.format:
            raise ValueError("force is for formatting; give format too, or leave it away.")
        if self.wal_device is not None and self.wal_device == self.data_device:
            raise ValueError("wal_device and data_device are one device; use two partitions.")
        return self

    @property
    def devices(self) -> list[Path]:
        return [device for device in (self.wal_device, self.data_device) if device is not None]

    @property
    def wal(self) -> Path:
        return self.wal_device or self.store_path / "wal"

    @property
    def data(self) -> Path:
        return self.data_device or self.store_path / "data"

    def sizes(self, data_device_bytes: int) -> tuple[int, int]:
        """Of data and log when formatting; 0: all that the device has."""
        data = self.data_bytes or (0 if self.data_device else _DATA_BYTES)
        if self.wal_device:
            return data, self.wal_bytes
        # DESIGN.md section 6: a tenth of the store, up to 16 GiB.
        tenth = (data or data_device_bytes) // 10
        log = self.wal_bytes or min(max(tenth, 256 * _MIB), 16 * _GIB)
        return data, max(log // _MIB, 1) * _MIB  # files are made of aligned blocks
