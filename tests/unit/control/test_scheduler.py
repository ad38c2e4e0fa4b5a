"""The scheduler on a model cluster: what it decides, that it keeps its limits, and that it ends.

The model applies decisions by the real commands of the state machine, step by step.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaserver.domain import commands as cmd
from metaserver.domain.board import Board
from metaserver.domain.codec import encode_command
from metaserver.domain.entities import (
    Chunkserver,
    ChunkserverLife,
    Done,
    FailureDomain,
    Move,
    MoveReason,
    MoveStep,
    Refusal,
)
from metaserver.domain.health_view import CopysetView, HealthView, StoreState, StoreView
from metaserver.domain.placement import place
from metaserver.domain.recovery_plan import CancelMove, Limits, Plan, PreferLeader, StartMove
from metaserver.domain.scheduler import Tables, plan
from metaserver.domain.snapshot import Capture, restore
from metaserver.domain.state import MetaState

GIB = 1 << 30
LIMITS = Limits(syncs_per_store_max=2, moves_max=6)
NEXT_STEP = {MoveStep.JOIN: MoveStep.FILL, MoveStep.FILL: MoveStep.REMOVE}


@dataclass
class Model:
    """A cluster whose chunkservers do what they are told, at once and without fail."""

    state: MetaState = field(default_factory=MetaState)
    sizes: dict[int, int] = field(default_factory=dict)
    conditions: dict[bytes, StoreState] = field(default_factory=dict)
    limits: Limits = LIMITS
    passes: int = 0

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
        return HealthView(stores, copysets, filled or {})

    def plan(self, filled: dict[int, int] | None = None) -> Plan:
        self.passes += 1
        state = self.state
        tables = Tables(state.chunkservers, state.pools, state.copysets, state.moves)
        made = plan(tables, self.view(filled), self.limits, self.passes)
        again = plan(tables, self.view(filled), self.limits, self.passes)
        assert made == again, "the same input gives the same plan"
        return made

    def apply(self, made: Plan) -> None:
        for decision in made.decisions:
            match decision:
                case StartMove():
                    self.run(
                        cmd.StartMove(
                            decision.copyset_id,
                            decision.source,
                            decision.target,
                            decision.reason,
                            decision.why,
                            decision.size_bytes,
                            1,
                        )
                    )
                case CancelMove():
                    self.run(cmd.CancelMove(decision.copyset_id, decision.move_id, decision.why))
                case PreferLeader():
                    self.run(cmd.PreferLeader(decision.copyset_id, decision.store_id))

    def advance(self, move: Move) -> None:
        if (step := NEXT_STEP.get(move.step)) is not None:
            self.run(cmd.AdvanceMove(move.copyset_id, move.move_id, step))
        else:
            self.run(cmd.EndMove(move.copyset_id, move.move_id, b"", 0, 2))

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
        return Board(state.chunkservers, state.copysets, self.view(), random.Random(1))

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


def test_a_new_cluster_is_left_alone() -> None:
    for count in (3, 4, 5, 7):
        made = cluster(count).plan()
        assert made == Plan((), (), 0, 0)


def test_a_lost_store_is_rebuilt_elsewhere_and_leaders_are_even_again() -> None:
    model = cluster(5)
    lost = bytes([2]) * 16
    model.lose(lost)
    first = model.plan()
    assert {move.source for move in starts(first)} == {lost}
    assert all("10.0.0.2:1 is gone" in move.why for move in starts(first))
    assert first.queued_moves == model.load()[lost] - len(starts(first))
    assert first.queued_bytes == first.queued_moves * GIB
    assert model.settle().notes == ()
    load, wishes = model.load(), model.wishes()
    assert load[lost] == wishes[lost] == 0
    left = [store for store in load if store != lost]
    assert max(load[s] for s in left) - min(load[s] for s in left) <= 1
    assert max(wishes[s] for s in left) - min(wishes[s] for s in left) <= 2


def test_the_copysets_at_most_risk_come_first() -> None:
    model = cluster(7, copysets=64, replicas=5)
    one, two = bytes([1]) * 16, bytes([2]) * 16
    model.lose(one)
    model.lose(two, StoreState.FAILED)
    both = {c.copyset_id for c in model.state.copysets.values() if {one, two} <= set(c.replicas)}
    assert both
    first = [move.copyset_id for move in starts(model.plan())]
    assert set(first) <= both
    model.settle()
    assert model.load()[one] == model.load()[two] == 0


def test_a_store_that_is_only_silent_is_waited_for() -> None:
    model = cluster(5)
    model.lose(bytes([1]) * 16, StoreState.DOWN)
    assert model.plan() == Plan((), (), 0, 0)


def test_three_of_three_cannot_be_replaced_and_it_says_so() -> None:
    model = cluster(3)
    model.lose(bytes([1]) * 16)
    made = model.plan()
    assert made.decisions == ()
    assert made.notes == (
        "Copysets 1.0, 1.1, 1.2, 1.3 and 12 more: chunkserver 10.0.0.1:1 is gone, and there is no "
        "other chunkserver for one of 3 replicas: add one.",
    )
    model.add()
    model.settle()
    assert model.load()[bytes([1]) * 16] == 0


def test_without_a_majority_nothing_is_moved() -> None:
    model = cluster(4)
    model.lose(bytes([1]) * 16)
    model.lose(bytes([2]) * 16)
    made = model.plan()
    for move in starts(made):
        assert len(model.healthy(move.copyset_id)) == 2
    assert any("nobody leads" in note for note in made.notes)


def test_a_store_that_comes_back_early_is_kept() -> None:
    model = cluster(5)
    lost = bytes([1]) * 16
    model.lose(lost)
    model.apply(model.plan())
    moves = list(model.state.moves.values())
    for move in moves[:-1]:
        model.advance(move)
    model.conditions[lost] = StoreState.UP
    nearly = moves[0].copyset_id  # almost filled: goes on
    made = model.plan({nearly: GIB - 1, moves[1].copyset_id: GIB // 4})
    cancelled = {d.copyset_id for d in made.decisions if isinstance(d, CancelMove)}
    assert cancelled == {move.copyset_id for move in moves} - {nearly}
    assert not starts(made)
    model.apply(made)
    model.advance(model.state.moves[nearly])
    model.settle()
    ended = model.state.finished_moves.values()
    assert {f.copyset_id for f in ended if "has come back" in f.cancelled} == cancelled


def test_a_lost_target_is_replaced_by_another() -> None:
    model = cluster(6)
    model.lose(bytes([1]) * 16)
    model.apply(model.plan())
    target = next(iter(model.state.moves.values())).target
    target_name = model.state.chunkservers[target].data_address
    model.lose(target, StoreState.FAILED)
    model.settle()
    for copyset in model.state.copysets.values():
        lost = {target, bytes([1]) * 16} & set(copyset.replicas)
        assert not lost or len(lost) == 2  # those have no majority
    assert any(target_name in f.cancelled for f in model.state.finished_moves.values())


def test_a_repair_is_not_kept_waiting_by_a_move_for_balance() -> None:
    model = cluster(4)
    model.add()
    model.apply(model.plan())
    move = next(iter(model.state.moves.values()))
    assert move.reason is MoveReason.BALANCE
    other = next(s for s in model.state.copysets[move.copyset_id].replicas if s != move.source)
    model.lose(other)
    made = model.plan()
    cancelled = [d for d in made.decisions if isinstance(d, CancelMove)]
    assert move.copyset_id in {d.copyset_id for d in cancelled}
    assert all("makes way" in d.why for d in cancelled)


def test_draining_empties_and_undraining_fills_again() -> None:
    model = cluster(5)
    store = bytes([3]) * 16
    model.run(cmd.DrainChunkserver(b"d" * 16, store, True))
    made = model.plan()
    assert {move.reason for move in starts(made)} == {MoveReason.DRAIN}
    model.settle()
    assert model.load()[store] == 0
    model.run(cmd.DrainChunkserver(b"u" * 16, store, False))
    model.settle()
    assert model.load()[store] >= 9
    assert model.wishes()[store] >= 2


def test_a_drain_waits_for_full_replication() -> None:
    """Never below it: a copyset with a silent replica stays where it is."""
    model = cluster(5)
    model.run(cmd.DrainChunkserver(b"d" * 16, bytes([3]) * 16, True))
    model.lose(bytes([1]) * 16, StoreState.DOWN)
    made = model.plan()
    for move in starts(made):
        assert bytes([1]) * 16 not in model.state.copysets[move.copyset_id].replicas
    assert any("waits until all replicas serve" in note for note in made.notes)


def test_a_new_store_is_filled_with_replicas_and_leaders() -> None:
    model = cluster(3, copysets=64)
    new = [model.add(), model.add()]
    model.settle()
    load, wishes = model.load(), model.wishes()
    assert max(load.values()) - min(load.values()) <= 1
    assert max(wishes.values()) - min(wishes.values()) <= 2
    assert all(wishes[store] >= 11 for store in new)


def test_a_larger_store_gets_more() -> None:
    model = cluster(3, copysets=64)
    big = model.add(capacity=200 * GIB)
    model.settle()
    load = model.load()
    assert load[big] in (64, 63)
    model = Model()
    for _ in range(5):
        model.add()
    model.pool(copysets=64)
    big = model.add(capacity=200 * GIB)
    model.settle()
    assert abs(model.load()[big] - 2 * 192 / 7) <= 2


def test_full_stores_give_their_largest_copysets_away() -> None:
    model = Model()
    for _ in range(3):
        model.add(capacity=100 * GIB)
    model.pool(copysets=8, size=10 * GIB)  # 80 GiB on each
    roomy = model.add(capacity=100 * GIB)
    model.settle()
    assert model.view().stores[roomy].used_bytes == 60 * GIB
    held = [c for c in model.state.copysets.values() if bytes([1]) * 16 in c.replicas]
    largest = held[0].copyset_id
    model.sizes[largest] = 50 * GIB
    made = model.plan()
    space = [move for move in starts(made) if move.reason is MoveReason.SPACE]
    assert space
    assert "% full" in space[0].why
    model.settle()


def test_no_room_anywhere_is_said() -> None:
    model = Model()
    for _ in range(3):
        model.add(capacity=10 * GIB)
    model.pool(copysets=8, size=GIB + GIB // 8)
    made = model.plan()
    assert made.decisions == ()
    assert all("no other has room" in note for note in made.notes)
    assert len(made.notes) == 3


def test_rebalancing_does_not_fill_a_store_above_its_limit() -> None:
    model = Model()
    for _ in range(3):
        model.add(capacity=100 * GIB)
    model.pool(copysets=16, size=5 * GIB)
    small = model.add(capacity=100 * GIB)
    model.limits = Limits(fill_percent=20, full_percent=90)
    model.settle()
    assert model.view().stores[small].used_bytes <= 20 * GIB


@pytest.mark.parametrize("level", ["zone", "server"])
def test_replicas_keep_to_different_places_when_one_is_lost(level: str) -> None:
    model = Model()
    for number in range(8):
        where = f"d{number % 4}"
        model.add(zone=where if level == "zone" else "z", server=where)
    model.pool(copysets=32)
    model.lose(bytes([1]) * 16)
    model.lose(bytes([2]) * 16)
    model.settle()
    board = model.board()
    for copyset in model.state.copysets.values():
        zones, servers = board.spread_of(copyset.replicas)
        assert (zones if level == "zone" else servers) == 3


def test_a_shared_place_is_said_and_mended_when_it_can_be() -> None:
    model = Model()
    for number in range(6):
        model.add(server=f"s{number % 3}")
    model.pool(copysets=16)
    assert model.state.pools[1].failure_domain is FailureDomain.SERVER
    for number in (3, 6):  # the whole server s2
        model.lose(bytes([number]) * 16)
    made = model.plan()
    assert starts(made)
    assert all("in one server, because" in move.why for move in starts(made))
    last = model.settle()
    assert any("two replicas are in one server" in note for note in last.notes)
    model.add(server="s9")
    assert model.settle().notes == ()
    board = model.board()
    assert all(board.spread_of(c.replicas)[1] == 3 for c in model.state.copysets.values())


def test_a_single_replica_is_moved_too() -> None:
    model = cluster(2, copysets=8, replicas=1)
    model.add()
    model.settle()
    assert max(model.load().values()) <= 3


def test_nothing_goes_where_something_is_left_over() -> None:
    model = cluster(4)
    model.lose(bytes([1]) * 16)
    view = model.view()
    stores = {
        store: StoreView(
            v.state,
            v.why,
            False,
            v.capacity_bytes,
            v.used_bytes,
            frozenset(model.state.copysets),
        )
        for store, v in view.stores.items()
    }
    state = model.state
    tables = Tables(state.chunkservers, state.pools, state.copysets, state.moves)
    made = plan(tables, HealthView(stores, view.copysets), LIMITS, 1)
    assert made.decisions == ()


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Model, list[tuple[str, int]], int]:
    model = Model()
    model.limits = Limits(
        syncs_per_store_max=draw(st.integers(1, 4)), moves_max=draw(st.integers(1, 12))
    )
    place_of = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))
    for zone, server in draw(st.lists(place_of, min_size=3, max_size=9)):
        model.add(zone, server, draw(st.sampled_from([50, 100, 100, 200])) * GIB)
    model.pool(copysets=draw(st.sampled_from([1, 8, 16])), replicas=draw(st.sampled_from([1, 3])))
    for copyset_id in model.sizes:
        model.sizes[copyset_id] = draw(st.integers(0, 2)) * GIB
    event = st.tuples(
        st.sampled_from(["lose", "back", "drain", "undrain", "add", "grow"]), st.integers(0, 20)
    )
    return model, draw(st.lists(event, max_size=6)), draw(st.integers(0, 1 << 20))


def happen(model: Model, what: str, number: int, request: int) -> None:
    stores = list(model.state.chunkservers)
    store = stores[number % len(stores)]
    request_id = request.to_bytes(16, "big")
    match what:
        case "lose":
            model.lose(store)
        case "back":
            model.conditions[store] = StoreState.UP
        case "drain" | "undrain":
            model.state.apply(  # may be refused
                encode_command(cmd.DrainChunkserver(request_id, store, what == "drain"))
            )
        case "add":
            model.add("abcd"[number % 4], "xyz"[number % 3])
        case "grow":
            copysets = list(model.sizes)
            model.sizes[copysets[number % len(copysets)]] += 3 * GIB


@given(clusters())
@settings(max_examples=120)
def test_it_always_comes_to_rest(drawn: tuple[Model, list[tuple[str, int]], int]) -> None:
    """Whatever happens while moves run: it ends, and then all that can be done is done."""
    model, events, seed = drawn
    rng = random.Random(seed)
    for number, (what, which) in enumerate(events, 1):
        happen(model, what, which, number)
        for _ in range(rng.randrange(4)):  # in the middle of it
            model.apply(model.plan())
            for move in list(model.state.moves.values()):
                if rng.random() < 0.5:
                    model.advance(model.state.moves[move.copyset_id])
            model.check()
    last = model.settle(rng)
    assert b"".join(Capture(restore(Capture(model.state).slices())).slices()) == b"".join(
        Capture(model.state).slices()
    )
    lives = {s: c.life for s, c in model.state.chunkservers.items()}
    usable = [
        s
        for s, condition in model.conditions.items()
        if condition is StoreState.UP and lives[s] is ChunkserverLife.IN_SERVICE
    ]
    pool = model.state.pools[1]
    if len(usable) < pool.replica_count:
        return
    board = model.board()
    for copyset in model.state.copysets.values():
        members, healthy = set(copyset.replicas), model.healthy(copyset.copyset_id)
        if len(healthy) <= pool.replica_count // 2:
            assert any("nobody leads" in note for note in last.notes)
            continue
        # Full replication, on chunkservers that are to stay, as far apart as can be.
        assert members <= set(usable)
        assert board.spread_of(members) >= board.widest_spread(pool.replica_count)


# --- The commands --------------------------------------------------------------------------------


def a_move(model: Model) -> Move:
    copyset = next(iter(model.state.copysets.values()))
    target = next(s for s in model.state.chunkservers if s not in copyset.replicas)
    command = cmd.StartMove(
        copyset.copyset_id, copyset.preferred_leader, target, MoveReason.DRAIN, "why", 5, 7
    )
    started = model.run(command)
    assert isinstance(started, Move)
    assert model.state.execute(command) != started  # one at a time
    return started


def test_a_move_changes_the_table_of_clients_step_by_step() -> None:
    model = cluster(4)
    move = a_move(model)
    state = model.state

    def table() -> tuple[bytes, ...]:
        return state.members_of(state.copysets[move.copyset_id])

    before = table()
    version = state.pools[1].version
    assert move.target not in before
    assert model.run(cmd.AdvanceMove(move.copyset_id, move.move_id, MoveStep.REMOVE)) == Done(False)
    model.run(cmd.AdvanceMove(move.copyset_id, move.move_id, MoveStep.FILL))
    assert set(table()) == {*before, move.target}
    assert state.pools[1].version > version
    assert state.copysets[move.copyset_id].version == state.pools[1].version
    model.run(cmd.AdvanceMove(move.copyset_id, move.move_id, MoveStep.REMOVE))
    assert model.run(cmd.CancelMove(move.copyset_id, move.move_id, "no")) == Done(False)
    assert set(table()) == {*before, move.target}
    model.run(cmd.EndMove(move.copyset_id, move.move_id, move.target, 5, 9))
    assert set(table()) == {*before, move.target} - {move.source}
    copyset = state.copysets[move.copyset_id]
    assert copyset.preferred_leader == move.target
    assert not copyset.preference_told
    version = copyset.version
    model.run(cmd.ConfirmPreferred(move.copyset_id, move.target))
    assert state.copysets[move.copyset_id].preference_told
    assert state.copysets[move.copyset_id].version == version
    # What comes late changes nothing.
    assert model.run(cmd.EndMove(move.copyset_id, move.move_id, b"", 5, 9)) == Done(False)
    assert [f.why for f in state.finished_moves.values()] == ["why"]


def test_a_cancelled_move_leaves_everything_as_it_was() -> None:
    model = cluster(4)
    move = a_move(model)
    before = model.state.copysets[move.copyset_id]
    model.run(cmd.AdvanceMove(move.copyset_id, move.move_id, MoveStep.FILL))
    model.run(cmd.CancelMove(move.copyset_id, move.move_id, "because"))
    assert model.run(cmd.AdvanceMove(move.copyset_id, move.move_id, MoveStep.REMOVE)) == Done(False)
    assert move.target in model.state.members_of(before)  # until it is out of the configuration
    model.run(cmd.EndMove(move.copyset_id, move.move_id, b"", 0, 9))
    after = model.state.copysets[move.copyset_id]
    assert (after.replicas, after.preferred_leader) == (before.replicas, before.preferred_leader)
    assert [f.cancelled for f in model.state.finished_moves.values()] == ["because"]


def test_a_chunkserver_is_removed_only_empty_and_for_good() -> None:
    model = cluster(4)
    store = bytes([4]) * 16
    refused = model.state.execute(cmd.RemoveChunkserver(b"1" * 16, store))
    assert isinstance(refused, Refusal)
    assert "still holds replicas" in refused.message
    model.run(cmd.DrainChunkserver(b"2" * 16, store, True))
    model.settle()
    topology = model.state.counters.topology_version
    model.run(cmd.RemoveChunkserver(b"3" * 16, store))
    assert model.state.counters.topology_version > topology
    known = model.state.chunkservers[store]
    for command in (
        cmd.RegisterChunkserver(store, "10.0.0.4:1", "a:1", "", "z", "s", GIB, 1),
        cmd.DrainChunkserver(b"4" * 16, store, False),
    ):
        again = model.state.execute(command)
        assert isinstance(again, Refusal)
        assert "was removed" in again.message
    assert model.state.chunkservers[store] == known


def test_a_drain_that_cannot_succeed_is_refused() -> None:
    model = cluster(3)
    refused = model.state.execute(cmd.DrainChunkserver(b"1" * 16, bytes([1]) * 16, True))
    assert isinstance(refused, Refusal)
    assert refused.message == (
        "Copysets have 3 replicas, and without this chunkserver only 2 are in service."
    )
    unknown = model.state.execute(cmd.DrainChunkserver(b"2" * 16, b"?" * 16, True))
    assert isinstance(unknown, Refusal)


def test_a_registration_keeps_the_drain() -> None:
    model = cluster(4)
    model.run(cmd.DrainChunkserver(b"1" * 16, bytes([1]) * 16, True))
    moved = cmd.RegisterChunkserver(bytes([1]) * 16, "10.0.0.9:1", "a:1", "", "z", "s1", GIB, 9)
    registered = model.run(moved)
    assert isinstance(registered, Chunkserver)
    assert registered.life is ChunkserverLife.DRAINING
