"""The chunkserver's settings.

Every key is a TOML key, CURVE_<KEY> and --<key>; docs/operations.md.
"""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field, model_validator

from curve_py.config import Address, OptionalAddress, ServiceSettings, SizeBytes, Uuid

_MIB = 1024**2
_MIB = 1024**2
_GIB = 1024**3


class ChunkserverSettings(ServiceSettings):
    """Of one process, which owns one store."""

    store_path: Path = Field(description="directory or block device of the store")
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
    cluster_id: Uuid = Field(b"", description="UUID of the cluster, for --format")
    data_bytes: SizeBytes = Field(10 * _GIB, description="size of the new store's data")
    wal_bytes: SizeBytes = Field(
        0, description="size of the new store's log; 0: a tenth of the data, at most 16 GiB"
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
        return self

    @property
    def wal_bytes_wanted(self) -> int:
        """DESIGN.md section 6: a tenth of the store, up to 16 GiB."""
        wanted = self.wal_bytes or min(max(self.data_bytes // 10, 256 * 1024**2), 16 * _GIB)
        return max(wanted // _MIB, 1) * _MIB  # files are made of aligned blocks
