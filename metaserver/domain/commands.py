"""What can be asked of the state machine: one frozen record per command.

Invariant (R16): time, randomness and placement are decided before a command is proposed, so each
command carries them; none holds an unordered map. `request_id` (16 bytes) is set on what a client
asks, and empty on what the metaserver tells itself, which is idempotent by nature. Encoding:
docs/formats/metaserver-log.md. Any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from metaserver.domain.entities import (
    AttachMode,
    FailureDomain,
    MoveReason,
    MoveStep,
    VolumeContent,
)


@dataclass(frozen=True, slots=True)
class InitCluster:
    """The first command of a cluster; later ones change nothing."""

    cluster_id: bytes
    name: str
    at_ms: int
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class RegisterChunkserver:
    store_id: bytes
    data_address: str
    admin_address: str
    http_address: str
    zone: str
    server: str
    capacity_bytes: int
    at_ms: int
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class CreatePool:
    """With its placement: `placements[i]` is copyset i, positions in `stores`, the preferred leader
    first.
    """

    request_id: bytes
    at_ms: int
    name: str
    replica_count: int
    failure_domain: FailureDomain
    stores: tuple[bytes, ...]
    placements: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ConfirmFormed:
    """The store has all its copysets of the pool durable (R1)."""

    pool_id: int
    store_id: bytes
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class CreateVolume:
    request_id: bytes
    at_ms: int
    name: str
    pool_name: str
    size_bytes: int
    stripe_unit_bytes: int
    stripe_count: int
    labels: tuple[tuple[str, str], ...] = ()  # sorted
    content: VolumeContent = VolumeContent.UNKNOWN  # of a log from before it was kept


@dataclass(frozen=True, slots=True)
class ResizeVolume:
    request_id: bytes
    name: str  # either
    volume_id: int  # or
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DeleteVolume:
    request_id: bytes
    name: str
    volume_id: int
    force: bool


@dataclass(frozen=True, slots=True)
class ConfirmDeleted:
    """Every copyset of the pool has the volume's fence at infinity."""

    volume_id: int
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class AttachVolume:
    request_id: bytes
    at_ms: int
    name: str
    volume_id: int
    mode: AttachMode
    holder: str
    refuse_when_attached: bool
    node_id: str = ""
    published: bool = False  # only by virtue of the node's publication
    # Opened again by whoever has this attachment, or of its node a newer one, which ends. Refused
    # if there is none: somebody else may have the volume.
    continues: int = 0


@dataclass(frozen=True, slots=True)
class RegisterNode:
    """New, or another than before."""

    request_id: bytes
    at_ms: int
    node_id: str
    zone: str
    volumes_max: int = 0


@dataclass(frozen=True, slots=True)
class PublishVolume:
    """Permits a node to attach it."""

    request_id: bytes
    at_ms: int
    volume_id: int
    node_id: str
    mode: AttachMode
    single_node: bool


@dataclass(frozen=True, slots=True)
class UnpublishVolume:
    """Takes the permission back and puts the node's attachments out (R12)."""

    request_id: bytes
    volume_id: int
    node_id: str  # empty: all nodes that have one


@dataclass(frozen=True, slots=True)
class SetVolumeContent:
    request_id: bytes
    volume_id: int
    content: VolumeContent


@dataclass(frozen=True, slots=True)
class ConfirmFenced:
    """Every copyset of the pool has applied the volume's fence number `fence_seq` (R12)."""

    volume_id: int
    fence_seq: int
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class DetachVolume:
    request_id: bytes
    volume_id: int
    attachment_id: int


@dataclass(frozen=True, slots=True)
class DrainChunkserver:
    """Begins to empty it, or with `drain` false takes that back."""

    request_id: bytes
    store_id: bytes
    drain: bool


@dataclass(frozen=True, slots=True)
class RemoveChunkserver:
    """For good. Refused while it holds or is to get a replica."""

    request_id: bytes
    store_id: bytes


@dataclass(frozen=True, slots=True)
class StartMove:
    copyset_id: int
    source: bytes
    target: bytes
    reason: MoveReason
    why: str
    size_bytes: int
    at_ms: int
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class AdvanceMove:
    """To FILL once the target is a committed learner, to REMOVE once it votes."""

    copyset_id: int
    move_id: int
    step: MoveStep
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class CancelMove:
    """Gives it up; only before the target votes."""

    copyset_id: int
    move_id: int
    why: str
    request_id: bytes = b""
    stalled: bool = False  # the target, though alive, is not filled


@dataclass(frozen=True, slots=True)
class EndMove:
    """The source, or of a cancelled move the target, is out of the committed configuration.

    `preferred_leader` follows when it was the source; empty leaves it.
    """

    copyset_id: int
    move_id: int
    preferred_leader: bytes
    size_bytes: int
    at_ms: int
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class PreferLeader:
    copyset_id: int
    store_id: bytes
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class ConfirmPreferred:
    """The copyset's committed configuration has this preferred leader."""

    copyset_id: int
    store_id: bytes
    request_id: bytes = b""


Command = (
    InitCluster
    | RegisterChunkserver
    | CreatePool
    | ConfirmFormed
    | CreateVolume
    | ResizeVolume
    | DeleteVolume
    | ConfirmDeleted
    | AttachVolume
    | ConfirmFenced
    | DetachVolume
    | RegisterNode
    | PublishVolume
    | UnpublishVolume
    | SetVolumeContent
    | DrainChunkserver
    | RemoveChunkserver
    | StartMove
    | AdvanceMove
    | CancelMove
    | EndMove
    | PreferLeader
    | ConfirmPreferred
)
