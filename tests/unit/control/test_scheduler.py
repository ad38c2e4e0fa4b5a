"""The scheduler on a model cluster: what it decides, that it keeps its limits, and that it ends."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_model import GIB, LIMITS, Model, cluster, starts

from metaserver.domain import commands as cmd
from metaserver.domain.codec import encode_command
from metaserver.domain.entities import (
    ChunkserverLife,
    FailureDomain,
    MoveReason,
)
from metaserver.domain.health_view import HealthView, StoreState, StoreView
from metaserver.domain.recovery_plan import CancelMove, Limits, Plan
from metaserver.domain.scheduler import Tables, plan
from metaserver.domain.snapshot import Capture, restore


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
    made = plan(Tables.of(state), HealthView(stores, view.copysets), LIMITS, 1, 0)
    assert made.decisions == ()


def given_up(model: Model) -> set[tuple[int, bytes]]:
    return {(f.copyset_id, f.target) for f in model.state.finished_moves.values() if f.stalled}


def test_a_target_that_is_not_filled_is_given_up_for_another() -> None:
    model = cluster(6)
    lost, lazy = bytes([1]) * 16, bytes([2]) * 16
    kept = {c.copyset_id for c in model.state.copysets.values() if lazy in c.replicas}
    model.lazy.add(lazy)
    model.lose(lost)
    model.settle()
    assert given_up(model)
    assert {target for _, target in given_up(model)} == {lazy}
    for move in model.state.finished_moves.values():
        if move.stalled:
            assert move.cancelled.startswith(
                "chunkserver 10.0.0.2:1 has got nothing more for 360 s, 0 B of 1 GiB are there"
            )
    # Whole again; what the lazy one had it keeps, and it got nothing else.
    assert model.load()[lost] == 0
    assert {c.copyset_id for c in model.state.copysets.values() if lazy in c.replicas} <= kept


def test_the_only_target_is_tried_again_after_a_while() -> None:
    model = cluster(4, copysets=1)
    copyset = next(iter(model.state.copysets.values()))
    spare = next(s for s in model.state.chunkservers if s not in copyset.replicas)
    model.lose(copyset.replicas[0])
    model.lazy.add(spare)
    rest = model.settle()
    assert given_up(model) == {(copyset.copyset_id, spare)}
    assert rest.notes == (
        "Copyset 1.0: chunkserver 10.0.0.1:1 is gone, and chunkserver "
        f"{model.state.chunkservers[spare].data_address} was given up because it was not filled, "
        "and no other can take it: it is tried again later; add one.",
    )
    model.lazy.clear()
    given_up_ms = next(iter(model.state.finished_moves.values())).ended_at_ms
    while not starts(made := model.plan()):
        assert model.now_ms < given_up_ms + 1000 * model.limits.bar_seconds
    assert model.now_ms >= given_up_ms + 1000 * model.limits.bar_seconds
    model.apply(made)
    assert model.settle().notes == ()
    assert spare in model.state.copysets[copyset.copyset_id].replicas


def test_a_clock_that_was_set_back_bars_nobody() -> None:
    model = cluster(4, copysets=1)
    copyset = next(iter(model.state.copysets.values()))
    model.lose(copyset.replicas[0])
    model.lazy.update(s for s in model.state.chunkservers if s not in copyset.replicas)
    model.settle()
    assert not starts(model.plan())
    model.now_ms = 0
    assert starts(model.plan())


def test_what_can_wait_does_not_go_where_something_was_not_filled() -> None:
    model = cluster(3, copysets=64)
    lazy, other = model.add(), model.add()
    model.lazy.add(lazy)
    model.settle()
    assert given_up(model)
    assert model.load()[lazy] == 0
    load = model.load()
    left = [load[store] for store in load if store != lazy]
    assert load[other] >= 40
    assert max(left) - min(left) <= 1


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
        st.sampled_from(["lose", "back", "drain", "undrain", "add", "grow", "lazy"]),
        st.integers(0, 20),
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
        case "lazy":
            model.lazy.add(store)
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
    lives = {s: c.life for s, c in model.state.chunkservers.items()}
    usable = [
        s
        for s, condition in model.conditions.items()
        if condition is StoreState.UP and lives[s] is ChunkserverLife.IN_SERVICE
    ]
    pool = model.state.pools[1]
    enough = len(set(usable) - model.lazy) >= pool.replica_count
    if model.lazy and not enough:
        return  # it tries those that are not filled again and again
    last = model.settle(rng)
    assert b"".join(Capture(restore(Capture(model.state).slices())).slices()) == b"".join(
        Capture(model.state).slices()
    )
    if not enough:
        return
    board = model.board()
    for copyset in model.state.copysets.values():
        members, healthy = set(copyset.replicas), model.healthy(copyset.copyset_id)
        if len(healthy) <= pool.replica_count // 2:
            assert any("nobody leads" in note for note in last.notes)
            continue
        # Full replication, on chunkservers that are to stay, as far apart as can be.
        assert members <= set(usable)
        if not model.lazy:
            assert board.spread_of(members) >= board.widest_spread(pool.replica_count)
