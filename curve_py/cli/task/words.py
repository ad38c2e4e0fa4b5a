"""Replicas on their way, in words: shared by `curve task list` and `curve status`. Pure."""

from __future__ import annotations

from curve_py.client.records import RecoveryInfo, TaskInfo
from curve_py.sizes import format_size


def format_seconds(seconds: int | None) -> str:
    """Like 45 s, 12 min, 3.5 h; "?" when not known."""
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def progress_sentence(progress: RecoveryInfo) -> str:
    if not progress.running and not progress.queued:
        return "no replica moves"
    parts = [f"{progress.running} replicas move, {progress.queued} wait"]
    if progress.left_bytes:
        parts.append(
            f"{format_size(progress.left_bytes)} to go at "
            f"{format_size(progress.bytes_per_second)}/s"
        )
    if progress.seconds_left is None:
        parts.append("time left not known yet")
    else:
        parts.append(f"about {format_seconds(progress.seconds_left)} left")
    return ", ".join(parts)


def task_sentence(task: TaskInfo) -> str:
    """An ended one."""
    what = f"copyset {task.copyset}: {task.source_address} to {task.target_address}"
    if task.cancelled:
        return f"{what} given up: {task.cancelled}"
    seconds = max(0, task.ended_at_ms - task.started_at_ms) / 1000
    return f"{what} done, {format_size(task.size_bytes)} in {seconds:.1f} s"
