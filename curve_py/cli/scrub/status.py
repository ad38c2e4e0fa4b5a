"""curve scrub status."""

from __future__ import annotations

import time
from dataclasses import asdict

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.client.inspections import ScrubReport
from curve_py.sizes import format_size


def show_scrub(output: Output, report: ScrubReport) -> None:
    """A table of those that have answered, and a sentence for each that has not."""
    for silent in report.unreachable:
        output.note(f"Store {silent.store_id} ({silent.data_address}): {silent.message}")
    output.table(
        asdict(report),
        ("store", "state", "#rate", "last pass", "#damaged", "#repaired", "#failed", "#differ"),
        [
            (
                info.store_id,
                f"{info.blocks_done} of {info.blocks_total} blocks" if info.running else "idle",
                f"{format_size(info.bytes_per_second)}/s",
                _time(info.finished_at_ms),
                info.damaged_sectors,
                info.repaired_sectors,
                info.repairs_failed,
                info.chunks_differ,
            )
            for info in report.stores
        ],
        empty="" if report.unreachable else "No chunkserver has registered yet.",
    )


def _time(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_ms / 1000)) if at_ms else "never"


def run(dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """How scrub goes on each store: progress, last whole pass, what was found and repaired."""
    with Cluster.connect(dir) as cluster:
        report = cluster.scrub()
    show_scrub(Output(json), report)
