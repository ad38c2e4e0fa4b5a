"""curve task list: replicas on their way, and what the scheduler decided and why."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.cli.task.words import format_seconds, progress_sentence, task_sentence
from curve_py.client import Cluster
from curve_py.client.records import TaskInfo, TaskList
from curve_py.errors import UnavailableError
from curve_py.sizes import format_size

_SHOWN_MAX = 10  # of decisions and of ended moves, for people; JSON has all
_FOLLOW_SECONDS = 1.0


def run(
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Go on and print what is new, until interrupted."),
    ] = False,
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """List replicas on their way, and what was decided and why."""
    output = Output(json)
    with Cluster.connect(dir) as cluster:
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                _follow(cluster, output)
            return
        tasks = cluster.tasks()
    if tasks.running or json:
        output.table(
            asdict(tasks),
            ("copyset", "from", "to", "step", "#filled", "#of", "#left", "why"),
            [_row(task) for task in tasks.running],
        )
    if not json:
        _tell(tasks, output)


def _row(task: TaskInfo) -> tuple[str, ...]:
    left = format_seconds(task.seconds_left) if task.step == "fill" else ""
    return (
        task.copyset,
        task.source_address,
        task.target_address,
        task.step,
        format_size(task.done_bytes),
        format_size(task.size_bytes),
        left,
        _why(task),
    )


def _why(task: TaskInfo) -> str:
    why = task.cancelled or task.why
    held_up = task.waits_for and task.step != "fill"  # filling is waited for anyway
    return f"{why} (waits: {task.waits_for})" if held_up else why


def _tell(tasks: TaskList, output: Output) -> None:
    output.result({}, f"now        {progress_sentence(tasks.progress)}")
    for note in tasks.progress.notes:
        output.result({}, f"waits      {note}")
    for task in tasks.ended[-_SHOWN_MAX:]:
        output.result({}, f"{_clock(task.ended_at_ms)}   {task_sentence(task)}")
    decisions = [(p.at_ms, decision) for p in tasks.passes for decision in p.decisions]
    for at_ms, decision in decisions[-_SHOWN_MAX:]:
        output.result({}, f"{_clock(at_ms)}   decided: {decision}")


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).strftime("%H:%M:%S")


def _follow(cluster: Cluster, output: Output) -> None:
    """With JSON one object per line, whenever it has changed."""
    before: TaskList | None = None
    while True:
        try:
            tasks = cluster.tasks()
        except UnavailableError as error:  # the metaservers elect: it goes on with the next one
            output.note(str(error))
            time.sleep(_FOLLOW_SECONDS)
            continue
        if tasks != before:
            lines = list(_news(before, tasks))
            output.result(asdict(tasks), *lines)
            before = tasks
        time.sleep(_FOLLOW_SECONDS)


def _news(before: TaskList | None, tasks: TaskList) -> Iterator[str]:
    """What `tasks` says that `before` did not, oldest first."""
    known_ended = {task.task_id for task in before.ended} if before else set()
    known_passes = {record.at_ms for record in before.passes} if before else set()
    lines = [
        (task.ended_at_ms, task_sentence(task))
        for task in tasks.ended
        if task.task_id not in known_ended
    ]
    for record in tasks.passes:
        if record.at_ms not in known_passes:
            lines += [(record.at_ms, f"decided: {decision}") for decision in record.decisions]
            lines += [(record.at_ms, f"waits: {note}") for note in record.notes]
    for at_ms, line in sorted(lines, key=lambda each: each[0]):
        yield f"{_clock(at_ms)}   {line}"
    if before is None or tasks.progress != before.progress:
        yield f"now        {progress_sentence(tasks.progress)}"
