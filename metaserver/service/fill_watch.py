"""For how long the targets of moves have held their moves up: alive, and not getting filled.

Owns: what was seen of each move at the last look. Kept by the leader only, which gives every move
its whole time when it begins to lead. Must not decide anything (domain/scheduler.py).
Invariant: time counts only while it is the target that is waited for: it has no replica though it
was told to take one, or its leader has it as a learner and says that it lacks something. Thread:
whoever looks, one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from curve_py.proto import common_pb2 as pb
from metaserver.domain.entities import Move, MoveStep
from metaserver.domain.health_view import StoreState
from metaserver.domain.scheduler import Tables
from metaserver.service.health import Heard

# How often a fill may begin anew (another leader, a restart) and count as getting on.
_RESTARTS_MAX = 8


@dataclass(slots=True)
class _Seen:
    """`leader` and what the target had; `since` is when it last got on.

    `mark_bytes` is what the fill must exceed to get on: the most that there was since it began.
    """

    leader: bytes
    joined: bool
    applied_index: int
    filled_bytes: int
    mark_bytes: int
    since: float
    restarts: int = 0


class FillWatch:
    """One per process; `reset` when this node begins to lead."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}  # by move

    def reset(self) -> None:
        self._seen = {}

    def look(self, tables: Tables, heard: Heard) -> dict[int, float]:
        """Seconds since the target of each move got on, by copyset."""
        filling = [m for m in tables.moves.values() if m.step in (MoveStep.JOIN, MoveStep.FILL)]
        before = self._seen
        self._seen = {move.move_id: self._now_seen(move, heard) for move in filling}
        got_on = {
            move.target
            for move in filling
            if _has_got_on(before.get(move.move_id), self._seen[move.move_id])
        }
        still = {}
        for move in filling:
            seen, earlier = self._seen[move.move_id], before.get(move.move_id)
            waits_in_line = move.target in got_on and _has_not_begun(move, heard)
            if earlier is not None and _is_waited_for(move, seen, heard) and not waits_in_line:
                _carry_on(earlier, seen)
            still[move.copyset_id] = heard.now - seen.since
        return still

    @staticmethod
    def _now_seen(move: Move, heard: Heard) -> _Seen:
        leader = heard.leader_of(move.copyset_id)
        report = heard.report_of(move.target, move.copyset_id)
        return _Seen(
            leader=leader[1] if leader else b"",
            joined=report is not None,
            applied_index=report.applied_index if report else 0,
            filled_bytes=report.sync_bytes_done if report else 0,
            mark_bytes=report.sync_bytes_done if report else 0,
            since=heard.now,
        )


def _has_got_on(before: _Seen | None, now: _Seen) -> bool:
    return before is not None and (
        now.applied_index > before.applied_index or now.filled_bytes > before.filled_bytes
    )


def _carry_on(before: _Seen, now: _Seen) -> None:
    """Leaves `now.since` as it is if the target has got on, else takes the earlier one."""
    if now.applied_index > before.applied_index:
        return
    now.restarts = before.restarts
    if (now.leader, now.joined) != (before.leader, before.joined):
        return
    begins_anew = now.filled_bytes < before.filled_bytes and now.restarts < _RESTARTS_MAX
    if begins_anew:
        now.restarts += 1
    elif now.filled_bytes > before.mark_bytes:
        return
    else:
        now.mark_bytes = before.mark_bytes
    now.since = before.since


def _is_waited_for(move: Move, seen: _Seen, heard: Heard) -> bool:
    """The move waits for the target, and for nobody else."""
    if not seen.leader or heard.state_of(move.target) is StoreState.UNKNOWN:
        return False
    if not seen.joined:
        return True
    report = heard.report_of(seen.leader, move.copyset_id)
    peers = report.peers if report else ()
    peer = next((peer for peer in peers if peer.store_id == move.target), None)
    return peer is not None and (peer.syncing or not peer.active or peer.lag_entries > 0)


def _has_not_begun(move: Move, heard: Heard) -> bool:
    report = heard.report_of(move.target, move.copyset_id)
    return (
        report is not None
        and report.role == pb.REPLICA_ROLE_SYNCING
        and report.sync_bytes_total == 0
    )
