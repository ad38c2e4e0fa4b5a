"""The metaserver's settings.

Every key is a TOML key, CURVE_<KEY> and --<key>; docs/operations.md.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, model_validator

from curve_py.config import Address, OptionalAddress, ServiceSettings, SizeBytes, Uuid
from metaserver.domain.recovery_plan import Limits
from metaserver.service.recovery import RecoverySettings


class MemberSettings(BaseModel):
    """One metaserver of the cluster; a table [[members]] in the file."""

    node_id: Uuid
    peer_address: Address
    grpc_address: Address


class MetaserverSettings(ServiceSettings):
    """Of one process."""

    data_dir: Path = Field(description="directory of the log and the snapshots")
    node_id: Uuid = Field(description="UUID of this metaserver, one of the members")
    members: list[MemberSettings] = Field(description="all metaservers, this one included")
    grpc_listen: Address = Field(description="HOST:PORT of the gRPC port")
    peer_listen: Address = Field(description="HOST:PORT for the other metaservers")
    grpc_advertise: OptionalAddress = Field(
        "", description="gRPC address that others use; by default the member's grpc_address"
    )
    bootstrap: bool = Field(
        False, description="form the cluster now, in an empty directory: once, never again"
    )
    cluster_id: Uuid = Field(b"", description="UUID of the cluster; by default a new one")
    cluster_name: str = Field("curve", description="name of the cluster, for people")
    wal_bytes: SizeBytes = Field(256 * 1024 * 1024, description="size of the log on disk")

    gone_after_seconds: float = Field(
        600.0,
        gt=0,
        description="silence after which a chunkserver's replicas are rebuilt elsewhere",
    )
    sync_bytes_per_second: SizeBytes = Field(
        64 * 1024 * 1024,
        description="how much each chunkserver takes in for replicas being filled; 0: no limit",
    )
    syncs_per_store: int = Field(
        4, ge=1, le=64, description="replicas being filled on, and from, one chunkserver at once"
    )
    moves_max: int = Field(64, ge=1, le=4096, description="replicas on their way at once, in all")
    fill_patience_seconds: float = Field(
        300.0,
        gt=0,
        description="how long a replica may get nothing more before it is filled elsewhere",
    )
    full_percent: int = Field(
        85, ge=10, le=99, description="share of a store above which copysets move away from it"
    )

    @property
    def recovery(self) -> RecoverySettings:
        """What the scheduler keeps to."""
        limits = Limits(
            syncs_per_store_max=self.syncs_per_store,
            moves_max=self.moves_max,
            full_percent=self.full_percent,
            fill_percent=max(self.full_percent - 10, 1),
            replace_percent=min(self.full_percent + 10, 99),
            fill_patience_seconds=self.fill_patience_seconds,
            bar_seconds=4 * self.fill_patience_seconds,
        )
        return RecoverySettings(limits, self.sync_bytes_per_second)

    @model_validator(mode="after")
    def _is_member(self) -> MetaserverSettings:
        if len(self.members) not in (1, 3, 5):
            raise ValueError("There are 1, 3 or 5 metaservers.")
        ids = [member.node_id for member in self.members]
        if len(set(ids)) != len(ids):
            raise ValueError("Two members have the same node_id.")
        if self.node_id not in ids:
            raise ValueError("The node_id is not among the members.")
        return self

    @property
    def advertised(self) -> str:
        """The gRPC address that others use."""
        me = next(member for member in self.members if member.node_id == self.node_id)
        return self.grpc_advertise or me.grpc_address
