"""What is known of chunkservers and replicas at one moment, as the scheduler sees it.

Frozen records, made by service/health.py from heartbeats. Must not know: protobuf, clocks. Pure,
any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class StoreState(StrEnum):
    UNKNOWN = "unknown"  # this leader is new and has not heard from it
    UP = "up"
    DOWN = "down"  # silent; may come back
    GONE = "gone"  # silent for so long that its replicas are rebuilt elsewhere
    FAILED = "failed"  # it says itself that it serves nothing any more

    @property
    def is_lost(self) -> bool:
        """What it holds is to be rebuilt elsewhere."""
        return self in (StoreState.GONE, StoreState.FAILED)


@dataclass(frozen=True, slots=True)
class StoreView:
    state: StoreState
    why: str = ""  # of any state but up, in words that follow the chunkserver's name
    stalled: bool = False  # silent for longer than a target of a move may be
    capacity_bytes: int = 0
    used_bytes: int = 0  # also what is set aside for writes on their way (R8)
    # Copysets of which it holds a replica, as it reports itself.
    reported: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class CopysetView:
    leader: bytes | None = None  # None: nobody has reported to lead it lately
    # Members that serve: their chunkserver is up and the replica is neither damaged nor being
    # filled.
    healthy: frozenset[bytes] = frozenset()
    size_bytes: int = 0  # of one replica


NO_STORE = StoreView(StoreState.UNKNOWN)
NO_COPYSET = CopysetView()


@dataclass(frozen=True, slots=True)
class HealthView:
    stores: Mapping[bytes, StoreView] = field(default_factory=dict)
    copysets: Mapping[int, CopysetView] = field(default_factory=dict)
    # Bytes that the target of a move has, by copyset.
    filled_bytes: Mapping[int, int] = field(default_factory=dict)
    # For how long the target of a move, and nobody else, has held it up; by copyset.
    still_seconds: Mapping[int, float] = field(default_factory=dict)

    def store(self, store_id: bytes) -> StoreView:
        return self.stores.get(store_id, NO_STORE)

    def copyset(self, copyset_id: int) -> CopysetView:
        return self.copysets.get(copyset_id, NO_COPYSET)
