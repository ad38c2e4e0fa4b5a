"""What the metaserver needs from the outside world, as protocols that adapters implement.

Owns: the contract of the native raft node (`RaftNode`, events) and of the way to chunkservers
(`ChunkserverGateway`). Invariant: `Committed` events come in index order, each index exactly once
per run, except after `InstallSnapshot`, which replaces the whole state. Nothing here blocks the
event loop. Thread: the asyncio loop of the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from curve_py.proto.common_pb2 import ReplicaDifference, ScrubStatus, StoreTrace

COMMAND_BYTES_MAX = 1024 * 1024


# --- Events of the raft node ------------------------------------------------------------------
# The native class hands them out as plain tuples whose first item is the name of the class here,
# followed by the fields in order, e.g. ("Committed", 7, 2, b"...", 0).
# metaserver.adapters.raft_node turns them into these classes.


@dataclass(frozen=True, slots=True)
class Committed:
    """An entry is committed.

    `ticket` is the one of `propose` when it was proposed here in this run, else 0.
    """

    index: int
    term: int
    command: bytes
    ticket: int


@dataclass(frozen=True, slots=True)
class ProposalFailed:
    """`not_leader`: it certainly did not happen.

    `lost`: it may or may not have happened (or will yet).
    """

    ticket: int
    reason: str


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """Who leads as far as this node knows. It says nothing yet of what has been applied here."""

    term: int
    leader_id: bytes | None
    is_leader: bool


@dataclass(frozen=True, slots=True)
class ReadReady:
    """Everything that was committed when `read_index` was called has been delivered before this
    event.
    """

    ticket: int


@dataclass(frozen=True, slots=True)
class ReadFailed:
    ticket: int


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """Replace the whole state by the file at `path`: exactly the bytes once given to
    `snapshot_write`.
    """

    index: int
    term: int
    path: str


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """The log has grown: a snapshot at or above `index` lets it be cut."""

    index: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The native thread has ended. `error` is a sentence, or None after `stop`."""

    error: str | None


RaftEvent = (
    Committed
    | ProposalFailed
    | LeaderChanged
    | ReadReady
    | ReadFailed
    | InstallSnapshot
    | SnapshotWanted
    | Stopped
)


class QueueFullError(Exception):
    """The raft node takes no more proposals for now."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """What the raft node says of itself."""

    role: str  # follower, candidate, leader, learner
    term: int
    leader_id: bytes | None
    commit_index: int
    applied_index: int
    first_index: int
    last_index: int
    wal_bytes: int
    lag_entries: tuple[tuple[bytes, int], ...]  # by member, known by the leader


class RaftNode(Protocol):
    """A replica of group 0 of the metaservers. No call blocks but `stop` and the snapshot's."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def fileno(self) -> int:
        """An eventfd that is readable while events wait; `poll` clears it."""
        ...

    def poll(self, max_events: int) -> list[RaftEvent]: ...

    def propose(self, command: bytes) -> int:
        """A ticket above 0. Raises QueueFullError. At most COMMAND_BYTES_MAX."""
        ...

    def read_index(self) -> int:
        """A ticket above 0; answered by ReadReady or ReadFailed. Raises QueueFullError."""
        ...

    def transfer(self, node_id: bytes) -> None:
        """The leader begins to hand over to another member; LeaderChanged says that it has."""
        ...

    # The three of a snapshot may block (disk): off the loop, one after the other, not after `stop`.

    def snapshot_begin(self, index: int, term: int) -> None: ...

    def snapshot_write(self, data: bytes) -> None: ...

    def snapshot_commit(self) -> None:
        """Durable when it returns; the log behind it may go."""
        ...

    def status(self) -> NodeView: ...


# --- Chunkservers -----------------------------------------------------------------------------


class UnreachableError(Exception):
    """The chunkserver did not answer, or answered with an error; the sentence says which."""


@dataclass(frozen=True, slots=True)
class CopysetOutcome:
    """Of a fence or a deletion: where it is applied, who is said to lead the rest (None: unknown),
    and who refuses it because a replica has no room for fences of more volumes.
    """

    applied: tuple[int, ...]
    not_leader: tuple[tuple[int, bytes | None], ...]
    no_space: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Genesis:
    """The first configuration of a copyset, as the metaserver has committed it (R1)."""

    copyset_id: int
    voters: tuple[bytes, ...]
    preferred_leader: bytes


class MemberChange(StrEnum):
    ADD_LEARNER = "add_learner"
    PROMOTE = "promote"
    REMOVE = "remove"
    PREFER = "prefer"


@dataclass(frozen=True, slots=True)
class ChangeOutcome:
    """Of a change of members: not applied either because another leads, or because of `busy`."""

    applied: bool
    leader: bytes | None = None
    busy: str = ""


@dataclass(frozen=True, slots=True)
class VolumeExtent:
    """Where a volume's chunks are, as far as a chunkserver must know it to find them."""

    volume_id: int
    placement_id: int
    chunks: int
    copysets: int  # of its pool


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """Of the check of a volume in one copyset: `error` says why not, `leader` who is to be asked.

    What was found is passed on to people as it is.
    """

    led: bool
    leader: bytes | None = None
    error: str = ""
    chunks: int = 0
    replicas: int = 0
    differences: tuple[ReplicaDifference, ...] = ()


class ChunkserverGateway(Protocol):
    """Commands to one chunkserver, found by its admin address.

    All idempotent; all raise UnreachableError.
    """

    async def set_peers(
        self, address: str, store_id: bytes, version: int, peers: list[tuple[bytes, str]]
    ) -> None: ...

    async def form_copysets(
        self, address: str, store_id: bytes, copysets: list[Genesis]
    ) -> set[int]:
        """The copysets of `copysets` that are durable there now."""
        ...

    async def fence_volume(
        self,
        address: str,
        store_id: bytes,
        volume_id: int,
        fence: tuple[int, int, tuple[int, ...]],
        copyset_ids: list[int],
    ) -> CopysetOutcome:
        """`fence` is (floor, ceiling, revoked). Answered once applied (R12)."""
        ...

    async def delete_volume(
        self, address: str, store_id: bytes, volume_id: int, copyset_ids: list[int]
    ) -> CopysetOutcome: ...

    async def join_copysets(self, address: str, store_id: bytes, copyset_ids: list[int]) -> None:
        """The store has a replica of each, without configuration and without a vote (R1)."""
        ...

    async def change_members(
        self,
        address: str,
        store_id: bytes,
        copyset_id: int,
        change: tuple[MemberChange, bytes],
        voters_min: int,
    ) -> ChangeOutcome:
        """Asked of the leader; answered once committed."""
        ...

    async def remove_replica(
        self, address: str, store_id: bytes, copyset_id: int, config_index: int, leader_term: int
    ) -> None:
        """`config_index`: of what the leader of that term has committed without the store."""
        ...

    async def transfer_leader(
        self, address: str, store_id: bytes, copyset_id: int, to_store_id: bytes
    ) -> tuple[bool, bytes | None]:
        """Whether it has begun; if not, who leads."""
        ...

    async def set_limits(
        self, address: str, store_id: bytes, sync_bytes_per_second: int, syncs_at_once: int
    ) -> None: ...

    async def volume_bytes(self, address: str, store_id: bytes, volume_id: int) -> int:
        """Space that the volume takes there."""
        ...

    async def scrub(
        self, address: str, store_id: bytes, start: bool, bytes_per_second: int
    ) -> ScrubStatus:
        """Begins a pass (`start`), and says how it goes."""
        ...

    async def check_volume(
        self, address: str, store_id: bytes, volume: VolumeExtent, copyset_id: int
    ) -> CheckOutcome:
        """Asked of the leader. Takes as long as reading takes."""
        ...

    async def trace_writes(
        self, address: str, store_id: bytes, volume_id: int, duration_ms: int
    ) -> StoreTrace:
        """Takes so long."""
        ...
