"""What a pass of the scheduler can decide, the command that carries each decision out, and the
limits that a pass keeps. Frozen records, pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from metaserver.domain import commands as cmd
from metaserver.domain.entities import MoveReason


@dataclass(frozen=True, slots=True)
class Limits:
    """Percentages are of a store's capacity."""

    syncs_per_store_max: int = 4  # replicas being filled on, and being read from, one store
    moves_max: int = 64  # at once, in the whole cluster
    leader_changes_max: int = 4  # in one pass
    full_percent: int = 85  # above, copysets move away
    fill_percent: int = 75  # up to which rebalancing fills a store
    replace_percent: int = 95  # up to which a store takes what has to be rebuilt
    # How long a target may get nothing more before it is given up, and how long after that the
    # copyset does not go there, and others only when nobody else can take them.
    fill_patience_seconds: float = 300.0
    bar_seconds: float = 1200.0


@dataclass(frozen=True, slots=True)
class StartMove:
    copyset_id: int
    source: bytes
    target: bytes
    reason: MoveReason
    why: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class CancelMove:
    copyset_id: int
    move_id: int
    why: str
    stalled: bool = False  # the target is alive and was not filled


@dataclass(frozen=True, slots=True)
class PreferLeader:
    copyset_id: int
    store_id: bytes
    why: str


Decision = StartMove | CancelMove | PreferLeader


def command_of(decision: Decision, now_ms: int) -> cmd.Command:
    match decision:
        case StartMove():
            return cmd.StartMove(
                decision.copyset_id,
                decision.source,
                decision.target,
                decision.reason,
                decision.why,
                decision.size_bytes,
                now_ms,
            )
        case CancelMove():
            return cmd.CancelMove(
                decision.copyset_id, decision.move_id, decision.why, stalled=decision.stalled
            )
        case PreferLeader():
            return cmd.PreferLeader(decision.copyset_id, decision.store_id)


@dataclass(frozen=True, slots=True)
class Plan:
    """`notes` say what should be done and cannot be, one sentence each."""

    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]
    queued_moves: int  # wanted too, and kept waiting by the limits
    queued_bytes: int
