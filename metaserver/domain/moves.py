"""What the commands about chunkservers' lives and about moves of replicas do to the state.

Part of the state machine (state.py); must not know time, randomness, the network (R16).
Invariants: a copyset has always as many replicas in its table as its pool has; at most one move per
copyset; a target gets into the table of clients before it can lead, and a source leaves it only
after it is out of the committed configuration; a removed chunkserver holds nothing and never comes
back (R1). Thread: the asyncio loop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from curve_py.types import copyset_text, uuid_text
from metaserver.domain import commands as cmd
from metaserver.domain.entities import (
    Chunkserver,
    ChunkserverLife,
    Copyset,
    Done,
    FinishedMove,
    Move,
    MoveStep,
    Reason,
    RefusedError,
    Result,
)

if TYPE_CHECKING:
    from metaserver.domain.state import MetaState

# Ended moves that are remembered for people; as many again of those whose target was not filled,
# which the scheduler does not choose again at once.
FINISHED_MAX = 256

# --- Lives of chunkservers ----------------------------------------------------------------------


def drain_chunkserver(state: MetaState, command: cmd.DrainChunkserver) -> Result:
    chunkserver = _need_chunkserver(state, command.store_id)
    life = ChunkserverLife.DRAINING if command.drain else ChunkserverLife.IN_SERVICE
    if chunkserver.life is life:
        return chunkserver
    if command.drain:
        _check_others_suffice(state, chunkserver)
    return _set_life(state, chunkserver, life)


def _check_others_suffice(state: MetaState, chunkserver: Chunkserver) -> None:
    """Without it there must be a chunkserver for each replica of a copyset."""
    held = {c.copyset_id >> 32 for c in state.copysets.values() if _holds(state, chunkserver, c)}
    wanted = max((state.pools[pool_id].replica_count for pool_id in held), default=0)
    others = sum(
        c.life is ChunkserverLife.IN_SERVICE and c.store_id != chunkserver.store_id
        for c in state.chunkservers.values()
    )
    if others < wanted:
        raise RefusedError(
            Reason.CONFLICT,
            f"Copysets have {wanted} replicas, and without this chunkserver only {others} "
            "are in service.",
            "Add a chunkserver first.",
        )


def remove_chunkserver(state: MetaState, command: cmd.RemoveChunkserver) -> Result:
    chunkserver = state.chunkservers.get(command.store_id)
    if chunkserver is not None and chunkserver.life is ChunkserverLife.REMOVED:
        return chunkserver
    chunkserver = _need_chunkserver(state, command.store_id)
    held = sum(_holds(state, chunkserver, copyset) for copyset in state.copysets.values())
    if held:
        raise RefusedError(
            Reason.CONFLICT,
            f"The chunkserver still holds replicas of {held} copysets.",
            "Drain it first and wait until it is empty: curve chunkserver drain, curve task list.",
        )
    removed = _set_life(state, chunkserver, ChunkserverLife.REMOVED)
    state.counters.topology_version = state.counters.version  # it leaves the tables of peers
    return removed


def _holds(state: MetaState, chunkserver: Chunkserver, copyset: Copyset) -> bool:
    move = state.moves.get(copyset.copyset_id)
    return chunkserver.store_id in copyset.replicas or (
        move is not None and move.target == chunkserver.store_id
    )


def _need_chunkserver(state: MetaState, store_id: bytes) -> Chunkserver:
    chunkserver = state.chunkservers.get(store_id)
    if chunkserver is None:
        raise RefusedError(
            Reason.NOT_FOUND,
            f"There is no chunkserver {uuid_text(store_id) if len(store_id) == 16 else ''}.",
            "See: curve chunkserver list",
        )
    if chunkserver.life is ChunkserverLife.REMOVED:
        raise RefusedError(
            Reason.CONFLICT, f"The chunkserver {uuid_text(store_id)} was removed from the cluster."
        )
    return chunkserver


def _set_life(state: MetaState, chunkserver: Chunkserver, life: ChunkserverLife) -> Chunkserver:
    changed = replace(chunkserver, life=life)
    state.chunkservers[chunkserver.store_id] = changed
    state.next_version()
    state.changes.topology = True
    return changed


# --- Moves --------------------------------------------------------------------------------------


def start_move(state: MetaState, command: cmd.StartMove) -> Result:
    copyset = _need_copyset(state, command.copyset_id)
    name = copyset_text(copyset.copyset_id)
    target = state.chunkservers.get(command.target)
    if state.pools[copyset.copyset_id >> 32].unformed:
        raise RefusedError(Reason.CONFLICT, f"Copyset {name} is not formed yet.")
    if copyset.copyset_id in state.moves:
        raise RefusedError(Reason.CONFLICT, f"A replica of copyset {name} is on its way already.")
    if command.source not in copyset.replicas or command.target in copyset.replicas:
        raise RefusedError(Reason.CONFLICT, f"The replicas of copyset {name} are others by now.")
    if target is None or target.life is not ChunkserverLife.IN_SERVICE:
        raise RefusedError(Reason.CONFLICT, "The target is not in service.")
    move = Move(
        move_id=state.next_version(),
        copyset_id=copyset.copyset_id,
        source=command.source,
        target=command.target,
        reason=command.reason,
        why=command.why,
        size_bytes=command.size_bytes,
        started_at_ms=command.at_ms,
    )
    state.moves[copyset.copyset_id] = move
    state.changes.moves = True
    return move


def advance_move(state: MetaState, command: cmd.AdvanceMove) -> Result:
    move = _move(state, command.copyset_id, command.move_id)
    before = {MoveStep.FILL: MoveStep.JOIN, MoveStep.REMOVE: MoveStep.FILL}.get(command.step)
    if move is None or before is None or move.step is not before:
        return Done(changed=False)
    state.moves[move.copyset_id] = replace(move, step=command.step, listed=True)
    if command.step is MoveStep.FILL:
        _put_copyset(state, state.copysets[move.copyset_id])
    else:
        state.next_version()
        state.changes.moves = True
    return Done(changed=True)


def cancel_move(state: MetaState, command: cmd.CancelMove) -> Result:
    move = _move(state, command.copyset_id, command.move_id)
    if move is None or move.step not in (MoveStep.JOIN, MoveStep.FILL):
        return Done(changed=False)
    state.moves[move.copyset_id] = replace(
        move, step=MoveStep.CANCEL, cancelled=command.why, stalled=command.stalled
    )
    state.next_version()
    state.changes.moves = True
    return Done(changed=True)


def end_move(state: MetaState, command: cmd.EndMove) -> Result:
    move = _move(state, command.copyset_id, command.move_id)
    if move is None or move.step not in (MoveStep.REMOVE, MoveStep.CANCEL):
        return Done(changed=False)
    copyset = state.copysets[move.copyset_id]
    del state.moves[move.copyset_id]
    if move.step is MoveStep.REMOVE:
        kept = [store for store in copyset.replicas if store != move.source]
        copyset = replace(copyset, replicas=tuple(sorted((*kept, move.target))))
        if copyset.preferred_leader not in copyset.replicas:
            wanted = command.preferred_leader
            copyset = replace(
                copyset,
                preferred_leader=wanted if wanted in copyset.replicas else move.target,
                preference_told=False,
            )
    _put_copyset(state, copyset)
    state.finished_moves[move.move_id] = FinishedMove(
        move_id=move.move_id,
        copyset_id=move.copyset_id,
        source=move.source,
        target=move.target,
        reason=move.reason,
        why=move.why,
        size_bytes=command.size_bytes,
        started_at_ms=move.started_at_ms,
        ended_at_ms=command.at_ms,
        cancelled=move.cancelled,
        stalled=move.stalled,
    )
    alike = [f.move_id for f in state.finished_moves.values() if f.stalled is move.stalled]
    for move_id in alike[:-FINISHED_MAX]:
        del state.finished_moves[move_id]
    return Done(changed=True)


def prefer_leader(state: MetaState, command: cmd.PreferLeader) -> Result:
    copyset = _need_copyset(state, command.copyset_id)
    if command.store_id not in copyset.replicas or copyset.copyset_id in state.moves:
        name = copyset_text(copyset.copyset_id)
        raise RefusedError(Reason.CONFLICT, f"The replicas of copyset {name} are others by now.")
    if copyset.preferred_leader == command.store_id:
        return Done(changed=False)
    _put_copyset(state, replace(copyset, preferred_leader=command.store_id, preference_told=False))
    return Done(changed=True)


def confirm_preferred(state: MetaState, command: cmd.ConfirmPreferred) -> Result:
    copyset = _need_copyset(state, command.copyset_id)
    if copyset.preference_told or copyset.preferred_leader != command.store_id:
        return Done(changed=False)
    # No part of the table of clients, so its version stays.
    state.copysets[copyset.copyset_id] = replace(copyset, preference_told=True)
    state.next_version()
    return Done(changed=True)


def _move(state: MetaState, copyset_id: int, move_id: int) -> Move | None:
    """The move that is meant; None when it has ended."""
    move = state.moves.get(copyset_id)
    return move if move is not None and move.move_id == move_id else None


def _need_copyset(state: MetaState, copyset_id: int) -> Copyset:
    copyset = state.copysets.get(copyset_id)
    if copyset is None:
        raise RefusedError(Reason.NOT_FOUND, f"There is no copyset {copyset_text(copyset_id)}.")
    return copyset


def _put_copyset(state: MetaState, copyset: Copyset) -> None:
    """With a new version, so that clients get the table."""
    version = state.next_version()
    state.copysets[copyset.copyset_id] = replace(copyset, version=version)
    pool = state.pools[copyset.copyset_id >> 32]
    state.pools[pool.pool_id] = replace(pool, version=version)
    state.changes.topology = True
