"""What the scheduler decided and why, and how fast replicas are being filled: for people.

Owns: the last passes (only those that say something new), and the measurements behind the estimate
of the time left. Kept by the leader only. Must not decide anything. Thread: the asyncio loop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from curve_py.types import copyset_text
from metaserver.domain.entities import Chunkserver, Move, MoveStep
from metaserver.domain.health_view import HealthView
from metaserver.domain.recovery_plan import CancelMove, Decision, Plan, PreferLeader, StartMove

PASSES_MAX = 200
_WINDOW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class PassRecord:
    at_ms: int
    decisions: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """Of everything that moves. `seconds_left` is None while nothing was measured."""

    running: int = 0
    queued: int = 0
    left_bytes: int = 0
    bytes_per_second: float = 0.0
    seconds_left: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    done_bytes: int  # ever, by this leader
    done_moves: int


class Journal:
    """One per process; `reset` when this node begins to lead."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.reset()

    def reset(self) -> None:
        self.passes: deque[PassRecord] = deque(maxlen=PASSES_MAX)
        self.filled: dict[int, int] = {}  # bytes there, by copyset that moves
        self.waits: dict[int, str] = {}  # what its step is held up by, by copyset
        self._plan = Plan((), (), 0, 0)
        self._moves: dict[int, Move] = {}
        self._began: dict[int, tuple[float, int]] = {}  # move -> when first seen, bytes there then
        self._gained_bytes = 0
        self._ended_moves = 0
        self._samples: deque[_Sample] = deque()

    def note(
        self,
        at_ms: int,
        made: Plan,
        chunkservers: Mapping[bytes, Chunkserver],
        moves: Mapping[int, Move],
        health: HealthView,
    ) -> None:
        """After each pass."""
        news = made.notes != (self.passes[-1].notes if self.passes else ())
        if made.decisions or news:
            decisions = tuple(describe(decision, chunkservers) for decision in made.decisions)
            self.passes.append(PassRecord(at_ms, decisions, made.notes))
        self._measure(moves, health)
        self._plan = made

    def _measure(self, moves: Mapping[int, Move], health: HealthView) -> None:
        now = self._now()
        current = {move.move_id: move for move in moves.values()}
        for move_id, move in self._moves.items():
            if move_id not in current and move.step is not MoveStep.CANCEL:
                self._ended_moves += 1
                before = self.filled.get(move.copyset_id, 0)
                self._gained_bytes += max(0, move.size_bytes - before)
        filled = {}
        for move in moves.values():
            there = health.filled_bytes.get(move.copyset_id, 0)
            filled[move.copyset_id] = there
            if move.move_id in self._began:
                self._gained_bytes += max(0, there - self.filled.get(move.copyset_id, 0))
        self._began = {
            move_id: self._began.get(move_id, (now, filled[move.copyset_id]))
            for move_id, move in current.items()
        }
        self._moves, self.filled = current, filled
        if not current:
            self._samples.clear()
        self._samples.append(_Sample(now, self._gained_bytes, self._ended_moves))
        while self._samples[0].at < now - _WINDOW_SECONDS:
            self._samples.popleft()

    def progress(self) -> Progress:
        """As of the last pass."""
        running = [move for move in self._moves.values() if move.step is not MoveStep.CANCEL]
        left_bytes = self._plan.queued_bytes + sum(self._left_bytes(move) for move in running)
        left_moves = self._plan.queued_moves + len(running)
        rate, moves_rate = self._rates()
        seconds = None
        if left_moves and (moves_rate or rate):
            by_bytes = left_bytes / rate if rate else 0.0
            # Without any data the moves themselves are what takes time.
            by_moves = left_moves / moves_rate if moves_rate else 0.0
            known = (rate or not left_bytes) and (moves_rate or left_bytes)
            seconds = max(by_bytes, by_moves) if known else None
        return Progress(
            len(running), self._plan.queued_moves, left_bytes, rate, seconds, self._plan.notes
        )

    def _left_bytes(self, move: Move) -> int:
        if move.step is MoveStep.REMOVE:
            return 0
        return max(0, move.size_bytes - self.filled.get(move.copyset_id, 0))

    def _rates(self) -> tuple[float, float]:
        """Bytes and moves per second over the window."""
        if len(self._samples) < 2:
            return 0.0, 0.0
        first, last = self._samples[0], self._samples[-1]
        seconds = last.at - first.at
        if seconds <= 0:
            return 0.0, 0.0
        return (
            (last.done_bytes - first.done_bytes) / seconds,
            (last.done_moves - first.done_moves) / seconds,
        )

    def seconds_left(self, move: Move) -> float | None:
        """Of one move, by its own pace so far."""
        began = self._began.get(move.move_id)
        if began is None:
            return None
        since, first = began
        there = self.filled.get(move.copyset_id, 0)
        seconds = self._now() - since
        if there <= first or seconds <= 0:
            return None
        return self._left_bytes(move) * seconds / (there - first)


def describe(decision: Decision, chunkservers: Mapping[bytes, Chunkserver]) -> str:
    """One sentence: what and why."""

    def name(store_id: bytes) -> str:
        chunkserver = chunkservers.get(store_id)
        return chunkserver.data_address if chunkserver else store_id.hex()

    copyset = f"copyset {copyset_text(decision.copyset_id)}"
    match decision:
        case StartMove(source=source, target=target, why=why):
            return f"{copyset}: a replica goes from {name(source)} to {name(target)}: {why}."
        case CancelMove(why=why):
            return f"{copyset}: its move is given up: {why}."
        case PreferLeader(store_id=store_id, why=why):
            return f"{copyset}: {name(store_id)} is to lead it: {why}."
