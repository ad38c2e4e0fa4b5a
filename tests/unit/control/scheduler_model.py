"""A model cluster for the scheduler: applies decisions by the real commands of the state machine,
step by step.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from metaserver.domain import commands as cmd
from metaserver.domain.board import Board
from metaserver.domain.codec import encode_command
from metaserver.domain.entities import (
    Move,
    MoveStep,
    Refusal,
)
from metaserver.domain.health_view import CopysetView, HealthView, StoreState, StoreView
from metaserver.domain.placement import place
from metaserver.domain.recovery_plan import Limits, Plan, StartMove, command_of
from metaserver.domain.scheduler import Tables, plan
from metaserver.domain.state import MetaState

GIB = 1 << 30
LIMITS = Limits(syncs_per_store_max=2, moves_max=6)
PASS_SECONDS = 60
NEXT_STEP = {MoveStep.JOIN: MoveStep.FILL, MoveStep.FILL: MoveStep.REMOVE}


@dataclass
class Model:
    """A cluster whose chunkservers do what they are told, at once and without fail, except that
    those that are `lazy` are not filled. Between two passes lies PASS_SECONDS.
    """

    state: MetaState = field(default_factory=MetaState)
    sizes: dict[int, int] = field(default_factory=dict)
    conditions: dict[bytes, StoreState] = field(default_factory=dict)
    lazy: set[bytes] = field(default_factory=set)  # alive, and never filled
    limits: Limits = LIMITS
    passes: int = 0
    now_ms: int = 0
    filling_since: dict[int, int] = field(default_factory=dict)  # by move of a lazy target

    def add(
        self, zone: str = "z", server: str = "", capacity: int = 100 * GIB, number: int = 0
    ) -> bytes:
        number = number or len(self.state.chunkservers) + 1
        store_id = bytes([number]) * 16
        address = f"10.0.0.{number}:1"
        self.run(
            cmd.RegisterChunkserver(
                store_id, address, address, "", zone, server or f"s{number}", capacity, 1
            )
        )
        self.conditions[store_id] = StoreState.UP
        return store_id

    def pool(self, copysets: int = 16, replicas: int = 3, size: int = GIB) -> None:
        chunkservers = list(self.state.chunkservers.values())
        placement = place(chunkservers, copysets, replicas, None, 1)
        self.run(
            cmd.CreatePool(
                b"p" * 16,
                1,
                "default",
                replicas,
                placement.failure_domain,
                placement.stores,
                placement.copysets,
            )
        )
        for store_id in self.state.chunkservers:
            self.run(cmd.ConfirmFormed(1, store_id))
        self.sizes = dict.fromkeys(self.state.copysets, size)

    def run(self, command: cmd.Command) -> Any:
        result = self.state.apply(encode_command(command))
        assert not isinstance(result, Refusal), result
        return result

    def healthy(self, copyset_id: int) -> frozenset[bytes]:
        replicas = self.state.copysets[copyset_id].replicas
        return frozenset(r for r in replicas if self.conditions[r] is StoreState.UP)

    def view(self, filled: dict[int, int] | None = None) -> HealthView:
        copysets = {}
        used: Counter[bytes] = Counter()
        for copyset in self.state.copysets.values():
            healthy = self.healthy(copyset.copyset_id)
            majority = len(healthy) > len(copyset.replicas) // 2
            copysets[copyset.copyset_id] = CopysetView(
                leader=min(healthy) if majority else None,
                healthy=healthy,
                size_bytes=self.sizes[copyset.copyset_id],
            )
            for store in copyset.replicas:
                used[store] += self.sizes[copyset.copyset_id]
        stores = {
            store: StoreView(
                state,
                "" if state is StoreState.UP else f"is {state.value}",
                capacity_bytes=self.state.chunkservers[store].capacity_bytes,
                used_bytes=used[store],
            )
            for store, state in self.conditions.items()
        }
        return HealthView(stores, copysets, filled or {}, self._still())

    def _still(self) -> dict[int, float]:
        stuck = {m.move_id: m for m in self.state.moves.values() if self.is_stuck(m)}
        self.filling_since = {m: self.filling_since.get(m, self.now_ms) for m in stuck}
        return {
            move.copyset_id: (self.now_ms - self.filling_since[move_id]) / 1000
            for move_id, move in stuck.items()
        }

    def is_stuck(self, move: Move) -> bool:
        return move.target in self.lazy and move.step is MoveStep.FILL

    def plan(self, filled: dict[int, int] | None = None) -> Plan:
        self.passes += 1
        self.now_ms += 1000 * PASS_SECONDS
        tables = Tables.of(self.state)
        made = plan(tables, self.view(filled), self.limits, self.passes, self.now_ms)
        again = plan(tables, self.view(filled), self.limits, self.passes, self.now_ms)
        assert made == again, "the same input gives the same plan"
        return made

    def apply(self, made: Plan) -> None:
        for decision in made.decisions:
            self.run(command_of(decision, self.now_ms))

    def advance(self, move: Move) -> None:
        if self.is_stuck(move):
            return
        if (step := NEXT_STEP.get(move.step)) is not None:
            self.run(cmd.AdvanceMove(move.copyset_id, move.move_id, step))
        else:
            self.run(cmd.EndMove(move.copyset_id, move.move_id, b"", 0, self.now_ms))

    def settle(self, rng: random.Random | None = None, passes_max: int = 600) -> Plan:
        """Passes until nothing is decided and nothing moves; the last plan. Checks each pass."""
        for _ in range(passes_max):
            made = self.plan()
            self.apply(made)
            self.check()
            if not made.decisions and not self.state.moves:
                return made
            for move in list(self.state.moves.values()):
                if rng is None or rng.random() < 0.6:
                    self.advance(self.state.moves[move.copyset_id])
            self.check()
        raise AssertionError(f"still {self.plan().decisions[:3]} after {passes_max} passes")

    def check(self) -> None:
        """What must hold at any time."""
        filling: Counter[bytes] = Counter()
        sending: Counter[bytes] = Counter()
        for copyset in self.state.copysets.values():
            pool = self.state.pools[copyset.copyset_id >> 32]
            assert len(set(copyset.replicas)) == len(copyset.replicas) == pool.replica_count
            assert copyset.preferred_leader in copyset.replicas
            assert set(copyset.replicas) <= set(self.state.members_of(copyset))
        for move in self.state.moves.values():
            assert move.source in self.state.copysets[move.copyset_id].replicas
            if move.step in NEXT_STEP:
                filling[move.target] += 1
                healthy = self.healthy(move.copyset_id)
                sending[min(healthy) if healthy else b""] += 1
        assert max(filling.values(), default=0) <= self.limits.syncs_per_store_max
        assert sum(filling.values()) <= self.limits.moves_max

    def load(self) -> Counter[bytes]:
        held = Counter(s for c in self.state.copysets.values() for s in c.replicas)
        return Counter({store: held[store] for store in self.state.chunkservers})

    def wishes(self) -> Counter[bytes]:
        return Counter(c.preferred_leader for c in self.state.copysets.values())

    def board(self) -> Board:
        state = self.state
        return Board(state.chunkservers, state.copysets, self.view(), random.Random(1), {})

    def lose(self, store: bytes, state: StoreState = StoreState.GONE) -> None:
        self.conditions[store] = state


def cluster(count: int = 4, **options: Any) -> Model:
    model = Model()
    for _ in range(count):
        model.add()
    model.pool(**options)
    return model


def starts(made: Plan) -> list[StartMove]:
    return [decision for decision in made.decisions if isinstance(decision, StartMove)]
