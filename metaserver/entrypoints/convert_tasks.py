"""Moves and what the scheduler decided, as published messages. Pure. Any thread."""

from __future__ import annotations

import math

from curve_py.proto import meta_pb2 as pb
from metaserver.domain.entities import FinishedMove, Move, MoveReason, MoveStep
from metaserver.domain.state import MetaState
from metaserver.service.journal import Journal, Progress

_REASONS = {
    MoveReason.REPLACE: pb.MOVE_REASON_REPLACE,
    MoveReason.DRAIN: pb.MOVE_REASON_DRAIN,
    MoveReason.SPACE: pb.MOVE_REASON_SPACE,
    MoveReason.DOMAIN: pb.MOVE_REASON_DOMAIN,
    MoveReason.BALANCE: pb.MOVE_REASON_BALANCE,
}
_STEPS = {
    MoveStep.JOIN: pb.MOVE_STEP_JOIN,
    MoveStep.FILL: pb.MOVE_STEP_FILL,
    MoveStep.REMOVE: pb.MOVE_STEP_REMOVE,
    MoveStep.CANCEL: pb.MOVE_STEP_CANCEL,
}


def tasks_message(state: MetaState, journal: Journal) -> pb.ListTasksResponse:
    answer = pb.ListTasksResponse(
        ended=[_ended(state, move) for move in state.finished_moves.values()],
        passes=[
            pb.SchedulerPass(at_ms=record.at_ms, decisions=record.decisions, notes=record.notes)
            for record in journal.passes
        ],
        progress=progress_message(journal.progress()),
    )
    for move in state.moves.values():
        task = _task(state, move)
        task.step = _STEPS[move.step]
        task.done_bytes = journal.filled.get(move.copyset_id, 0)
        task.waits_for = journal.waits.get(move.copyset_id, "")
        seconds = journal.seconds_left(move)
        if seconds is not None:
            task.seconds_left = math.ceil(seconds)
        answer.running.append(task)
    return answer


def progress_message(progress: Progress) -> pb.RecoveryProgress:
    message = pb.RecoveryProgress(
        running=progress.running,
        queued=progress.queued,
        left_bytes=progress.left_bytes,
        bytes_per_second=round(progress.bytes_per_second),
        notes=progress.notes,
    )
    if progress.seconds_left is not None:
        message.seconds_left = math.ceil(progress.seconds_left)
    return message


def _task(state: MetaState, move: Move | FinishedMove) -> pb.Task:
    addresses = [state.chunkservers[store].data_address for store in (move.source, move.target)]
    return pb.Task(
        id=move.move_id,
        copyset_id=move.copyset_id,
        source=move.source,
        target=move.target,
        source_address=addresses[0],
        target_address=addresses[1],
        reason=_REASONS[move.reason],
        why=move.why,
        size_bytes=move.size_bytes,
        started_at_ms=move.started_at_ms,
        cancelled=move.cancelled,
    )


def _ended(state: MetaState, move: FinishedMove) -> pb.Task:
    task = _task(state, move)
    task.done_bytes = move.size_bytes
    task.ended_at_ms = move.ended_at_ms
    return task
