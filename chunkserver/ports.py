"""The contract of the native store server (`curve_py._native.store.StoreServer`).

Owns: the protocol and the events. The native class hands events out as tuples whose first item is
the name of the class here, followed by its fields in order, e.g. ("FenceDone", 3, [1, 2], [(3,
b"...")]). Thread: the asyncio loop; no call blocks, except `format` and the constructor, which use
the disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class CopysetsDone:
    """Answer to `fence` and `delete_volume` (event names FenceDone, DeleteDone).

    `applied`: copysets led here where it is applied; `not_leader`: those led elsewhere; `no_space`:
    refused for good, because checkpoints have no room for fences of more volumes.
    """

    ticket: int
    applied: list[int]
    not_leader: list[int]
    no_space: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FormDone:
    """Answer to `form_copysets` and `join_copysets`: those that are durable here now."""

    ticket: int
    formed: list[int]


@dataclass(frozen=True, slots=True)
class MembersDone:
    """Answer to `change_members`.

    Not applied: `leader` says who leads, None when unknown; where this store leads, `busy` says why
    not now. The configuration is the one in force.
    """

    ticket: int
    applied: bool
    leader: bytes | None
    busy: str
    config_index: int
    voters: list[bytes]
    learners: list[bytes]


@dataclass(frozen=True, slots=True)
class RemoveDone:
    """Answer to `remove_replica`. False: it may be a member by a later configuration."""

    ticket: int
    removed: bool


@dataclass(frozen=True, slots=True)
class TransferDone:
    """Answer to `transfer`. Not started: `leader` as in MembersDone."""

    ticket: int
    started: bool
    leader: bytes | None


@dataclass(frozen=True, slots=True)
class CheckDone:
    """Answer to `check`.

    `report`: code, leader, chunks, replicas, differences [{store_id, chunk, missing, blocks,
    damaged_blocks}].
    """

    ticket: int
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TraceDone:
    """Answer to `trace`.

    `report`: code ("busy": another trace runs), writes, whole (of those, the client's part is
    known), stages {name: [count, sum, maximum, then lower bound and count of each bucket]}, in ns.
    """

    ticket: int
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stopped:
    """With `error`, a sentence: the store is out of service, its thread goes on and says so.

    None: the native thread has ended, after `stop`.
    """

    error: str | None


StoreAnswer = (
    CopysetsDone | FormDone | MembersDone | RemoveDone | TransferDone | CheckDone | TraceDone
)
StoreEvent = StoreAnswer | Stopped


class NativeStatus(Protocol):
    """A store at one moment. Does not change."""

    def summary(self) -> dict[str, Any]:
        """Everything but the copysets: see chunkserver/report.py."""
        ...

    def copysets(self, since: Any) -> list[dict[str, Any]]:
        """Those that are not as they were in `since`, an earlier one of the same store, or all for
        None.
        """
        ...

    def is_like(self, since: Any) -> bool:
        """No copyset differs, and it is in service or not as it was then."""
        ...

    def gone(self, since: Any) -> list[int]:
        """Those of `since` that the store has no more."""
        ...


class NativeStore(Protocol):
    """One store, one native event-loop thread."""

    @property
    def store_id(self) -> bytes: ...

    @property
    def cluster_id(self) -> bytes: ...

    @property
    def incarnation(self) -> int: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def fileno(self) -> int: ...

    def poll(self, max_events: int) -> list[tuple[Any, ...]]: ...

    def set_peers(self, peers: list[tuple[bytes, str]]) -> None:
        """(store id, "HOST:PORT"); kept durably; replaces the earlier table."""
        ...

    def form_copysets(self, copysets: list[tuple[int, list[tuple[bytes, str]], bytes]]) -> int:
        """[(copyset id, [(store id, "voter")], preferred store id)] -> ticket, then FormDone."""
        ...

    def fence(
        self, volume_id: int, floor: int, ceiling: int, revoked: list[int], copysets: list[int]
    ) -> int:
        """Ticket, then FenceDone once applied where this store leads (R12)."""
        ...

    def delete_volume(self, volume_id: int, copysets: list[int]) -> int:
        """Ticket, then DeleteDone."""
        ...

    def join_copysets(self, copysets: list[int]) -> int:
        """R1: replicas without configuration and vote. Ticket, then FormDone."""
        ...

    def change_members(self, copyset: int, change: str, store_id: bytes, voters_min: int) -> int:
        """`change`: add_learner, promote, remove, prefer. Ticket, then MembersDone."""
        ...

    def remove_replica(self, copyset: int, config_index: int, leader_term: int) -> int:
        """Ticket, then RemoveDone once durable."""
        ...

    def transfer(self, copyset: int, store_id: bytes) -> int:
        """Ticket, then TransferDone."""
        ...

    def set_limits(self, sync_bytes_per_second: int, syncs_at_once: int) -> None:
        """Of being filled; 0: no limit. In force until the process ends."""
        ...

    def mapped_bytes(self, volume_id: int) -> int:
        """Space that the volume takes on this store."""
        ...

    def scrub(self, bytes_per_second: int) -> None:
        """Begins a pass, or goes on; 0: at the rate that it has."""
        ...

    def check(
        self, volume_id: int, placement_id: int, chunks: int, copysets: int, copyset_id: int
    ) -> int:
        """Ticket, then CheckDone."""
        ...

    def trace(self, volume_id: int, duration_ms: int) -> int:
        """Of the volume's writes that are led here. Ticket, then TraceDone when it is over."""
        ...

    def look(self) -> NativeStatus: ...

    def status(self) -> dict[str, Any]:
        """The summary with all `copysets`."""
        ...
