"""The commands of the state machine for moves, drains and removals of chunkservers."""

from __future__ import annotations

from scheduler_model import GIB, Model, cluster

from metaserver.domain import commands as cmd
from metaserver.domain.entities import (
    Chunkserver,
    ChunkserverLife,
    Done,
    Move,
    MoveReason,
    MoveStep,
    Refusal,
)


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
