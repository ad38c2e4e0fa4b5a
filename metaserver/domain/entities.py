"""What the metaserver remembers: frozen records (DESIGN.md section 3).

Must not know: protobuf, gRPC, time. Invariant: records are never changed, only replaced, so that a
shallow copy of a table is a consistent view (snapshots). Their encoding is
docs/formats/metaserver-log.md. Any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AttachMode(StrEnum):
    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    READ_ONLY = "read_only"


class FailureDomain(StrEnum):
    ZONE = "zone"
    SERVER = "server"
    CHUNKSERVER = "chunkserver"


class ChunkserverLife(StrEnum):
    """What the operator wants of it; whether it answers is soft and not in the state."""

    IN_SERVICE = "in_service"
    DRAINING = "draining"  # to be emptied; nothing new goes there
    REMOVED = "removed"  # for good: its store id is never let in again (R1)


@dataclass(frozen=True, slots=True)
class Cluster:
    cluster_id: bytes
    name: str
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Chunkserver:
    store_id: bytes
    data_address: str  # IP:PORT
    admin_address: str
    http_address: str
    zone: str
    server: str
    capacity_bytes: int
    registered_at_ms: int
    life: ChunkserverLife = ChunkserverLife.IN_SERVICE


@dataclass(frozen=True, slots=True)
class Pool:
    pool_id: int
    name: str
    copyset_count: int  # power of two
    replica_count: int
    failure_domain: FailureDomain
    created_at_ms: int
    version: int
    # Stores that have not confirmed the genesis of their copysets yet (R1); empty when the pool is
    # ready.
    unformed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Copyset:
    copyset_id: int  # pool id << 32 | index
    replicas: tuple[bytes, ...]  # store ids: full members, as many as the pool has replicas
    preferred_leader: bytes
    version: int
    preference_told: bool = True  # its configuration has `preferred_leader`


class MoveReason(StrEnum):
    """Why a replica goes elsewhere; the most urgent first."""

    REPLACE = "replace"  # its chunkserver is gone or has failed
    DRAIN = "drain"
    SPACE = "space"  # its store gets full
    DOMAIN = "domain"  # two replicas are in one failure domain, and need not be
    BALANCE = "balance"


class MoveStep(StrEnum):
    """How far a move is. Each step is done by idempotent orders, and ended by a command."""

    JOIN = "join"  # the target gets a replica without a vote, and is added as a learner
    FILL = "fill"  # a learner that is being filled, until it votes; in the table of clients
    REMOVE = "remove"  # the target votes; the source is taken out
    CANCEL = "cancel"  # the target is taken out again


@dataclass(frozen=True, slots=True)
class Move:
    """A replica on its way from one chunkserver to another; one at a time per copyset.

    Invariant: the source counts as a replica until the target votes and the source is out of the
    committed configuration, so that there are never fewer voters than the pool has replicas.
    """

    move_id: int  # never used twice
    copyset_id: int
    source: bytes
    target: bytes
    reason: MoveReason
    why: str  # one sentence, for people
    size_bytes: int  # expected
    started_at_ms: int
    step: MoveStep = MoveStep.JOIN
    listed: bool = False  # the target is in the table of clients
    cancelled: str = ""  # why it is given up
    stalled: bool = False  # because the target, though alive, was not filled


@dataclass(frozen=True, slots=True)
class FinishedMove:
    """A move that has ended, for `curve task list`."""

    move_id: int
    copyset_id: int
    source: bytes
    target: bytes
    reason: MoveReason
    why: str
    size_bytes: int
    started_at_ms: int
    ended_at_ms: int
    cancelled: str  # why it was given up; empty: it was done
    stalled: bool = False  # because the target, though alive, was not filled


@dataclass(frozen=True, slots=True)
class Fence:
    """Epochs in [floor, ceiling] that are not revoked are valid.

    Only rises (R12): what was invalid stays so.
    """

    floor: int
    ceiling: int
    revoked: tuple[int, ...]  # sorted, within [floor, ceiling]

    def admits(self, epoch: int) -> bool:
        return self.floor <= epoch <= self.ceiling and epoch not in self.revoked


NO_EPOCHS = Fence(floor=1, ceiling=0, revoked=())


@dataclass(frozen=True, slots=True)
class Attachment:
    attachment_id: int
    volume_id: int
    epoch: int
    mode: AttachMode
    holder: str
    attached_at_ms: int
    fence_seq: int  # active once the volume's fenced_seq has reached it
    node_id: str = ""  # whose agent it is; a node has one attachment of a volume at most


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that volumes can be published to."""

    node_id: str
    zone: str
    registered_at_ms: int
    volumes_max: int = 0  # published to it at once; 0: no limit


@dataclass(frozen=True, slots=True)
class Publication:
    """The permission of a node to attach the volume."""

    node_id: str
    mode: AttachMode  # the most that it may attach
    single_node: bool  # no other node may have one beside it
    published_at_ms: int


class VolumeContent(StrEnum):
    """What is known of what was written: decides whether a file system may be made on it."""

    UNKNOWN = "unknown"  # somebody may have written to it
    NEW = "new"  # nobody has, but perhaps a mkfs that was cut off
    RAW = "raw"  # used as a raw block device
    EXT4 = "ext4"
    XFS = "xfs"


@dataclass(frozen=True, slots=True)
class Volume:
    volume_id: int  # never used twice
    name: str
    pool_id: int
    size_bytes: int
    stripe_unit_bytes: int
    stripe_count: int
    placement_id: int
    created_at_ms: int
    version: int
    next_epoch: int
    fence: Fence
    fence_seq: int  # of `fence`: raised with each change of it
    fenced_seq: int  # every copyset of the pool has applied the fence of this number
    attachments: tuple[Attachment, ...]  # by epoch
    labels: tuple[tuple[str, str], ...] = ()  # sorted; what its maker wants remembered with it
    content: VolumeContent = VolumeContent.UNKNOWN
    publications: tuple[Publication, ...] = ()  # sorted by node

    def publication(self, node_id: str) -> Publication | None:
        return next((p for p in self.publications if p.node_id == node_id), None)

    def attachment(self, attachment_id: int) -> Attachment | None:
        return next((a for a in self.attachments if a.attachment_id == attachment_id), None)

    def is_active(self, attachment: Attachment) -> bool:
        return attachment.fence_seq <= self.fenced_seq


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deleted volume of which some copyset has not yet confirmed the fence at infinity."""

    volume_id: int
    pool_id: int
    name: str


class Reason(StrEnum):
    """Why a command was refused.

    A refusal is a result like any other: same log, same refusal (R16).
    """

    NOT_FOUND = "not_found"
    EXISTS = "exists"
    INVALID = "invalid"
    CONFLICT = "conflict"
    NO_PLACEMENT = "no_placement"
    FENCED = "fenced"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    message: str
    remedy: str = ""


class RefusedError(Exception):
    """Ends a command without a change."""

    def __init__(self, reason: Reason, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.refusal = Refusal(reason, message, remedy)


@dataclass(frozen=True, slots=True)
class Attached:
    attachment: Attachment
    fenced: tuple[Attachment, ...]  # whom it put out


@dataclass(frozen=True, slots=True)
class Detached:
    volume_id: int
    was_attached: bool


@dataclass(frozen=True, slots=True)
class Published:
    volume_id: int
    publication: Publication


@dataclass(frozen=True, slots=True)
class Unpublished:
    volume_id: int
    was_published: bool
    fence_seq: int  # once this one is everywhere the node can do nothing more


@dataclass(frozen=True, slots=True)
class Deleted:
    volume_id: int


@dataclass(frozen=True, slots=True)
class Done:
    """Of commands that have nothing to tell."""

    changed: bool


Result = (
    Refusal
    | Volume
    | Pool
    | Chunkserver
    | Cluster
    | Attached
    | Detached
    | Published
    | Unpublished
    | Node
    | Deleted
    | Done
    | Move
)
