"""curve volume trace NAME."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.client.tracing import StageTimes, VolumeTrace

_US = 1000
_BOUNDS_US = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 1_000_000)
_BARS = " ▁▂▃▄▅▆▇█"
_WHAT = {
    "client": "in the client, before it is sent",
    "network": "there and back, and what waits in sockets",
    "queue": "in the leader: a merge, room in the log, its turn",
    "log": "  the leader's log: until it is durable there",
    "follower": "  the first follower: until it is durable there, and known here",
    "commit": "until a majority has it (log and follower, side by side)",
    "answer": "applied and answered",
    "total": "as the client sees it",
}
# As a write meets them; the parts of commit below it.
_ORDER = ("client", "network", "queue", "commit", "log", "follower", "answer", "total")


def run(
    name: str,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="How long; at most 600.")
    ] = 10.0,
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Show where the writes of a volume spend their time, whoever writes them, for some seconds.

    Costs nothing before and after. One volume at a time on each chunkserver.
    """
    output = Output(json)
    with Cluster.connect(dir) as cluster:
        output.note(f"Tracing the writes to {name} for {seconds:g} s ...")
        found = cluster.volumes().trace(name, seconds)
    data = _data(name, seconds, found)
    for store in found.unreachable:
        output.note(f"Store {store.store_id} ({store.data_address}) is not in it: {store.message}")
    if json or found.writes == 0:
        output.result(data, f"Nothing was written to {name} in {seconds:g} s.")
        return
    total = found.stages["total"].mean_ns
    output.table(
        data,
        ("stage", "#mean us", "#p50", "#p99", "#longest", "#share", "what it is"),
        [(stage, *_numbers(found.stages[stage], stage, total), _WHAT[stage]) for stage in _ORDER],
        title=f"{found.writes} writes to {name} in {seconds:g} s",
    )
    _print_histograms(output, data, found)
    if found.whole < found.writes:
        output.note(
            f"Of {found.writes - found.whole} writes the client's part is not known: client, "
            "network and total are those of the others."
        )


def _numbers(times: StageTimes, stage: str, total_ns: float) -> tuple[str, ...]:
    if not times.count:
        return ("-",) * 5
    in_part = stage in ("log", "follower")
    share = "" if in_part or not total_ns else f"{100 * times.mean_ns / total_ns:.0f} %"
    nanoseconds = (times.mean_ns, times.percentile_ns(50), times.percentile_ns(99), times.max_ns)
    return (*(f"{value / _US:,.0f}" for value in nanoseconds), share)


def _print_histograms(output: Output, data: dict[str, Any], found: VolumeTrace) -> None:
    counts = {
        stage: found.stages[stage].per_bound([bound * _US for bound in _BOUNDS_US])
        for stage in _ORDER
    }
    shown = [i for i in range(len(_BOUNDS_US) + 1) if any(each[i] for each in counts.values())]
    columns = range(shown[0], shown[-1] + 1) if shown else range(0)
    labels = [_label(i) for i in columns]
    output.table(
        data,
        ("stage", *(f"#{label}" for label in labels)),
        [(stage, *(_cell(counts[stage], i) for i in columns)) for stage in _ORDER],
        title="% of the writes, by time",
    )


def _label(i: int) -> str:
    bound_us = _BOUNDS_US[min(i, len(_BOUNDS_US) - 1)]
    text = f"{bound_us} us" if bound_us < 1000 else f"{bound_us // 1000} ms"
    return f"< {text}" if i < len(_BOUNDS_US) else f">= {text}"


def _cell(counts: list[int], i: int) -> str:
    total = sum(counts)
    if not total or not counts[i]:
        return ""
    part = counts[i] / total
    bar = _BARS[max(1, round(part * (len(_BARS) - 1)))]
    return f"{100 * part:.1f} {bar}"


def _data(name: str, seconds: float, found: VolumeTrace) -> dict[str, Any]:
    return {
        "volume": name,
        "seconds": seconds,
        "writes": found.writes,
        "whole": found.whole,
        "writes_by_store": found.writes_by_store,
        "stages": {
            stage: {
                "count": times.count,
                "mean_ns": round(times.mean_ns),
                "p50_ns": times.percentile_ns(50),
                "p99_ns": times.percentile_ns(99),
                "max_ns": times.max_ns,
                "histogram_ns": sorted(times.buckets.items()),
            }
            for stage, times in found.stages.items()
        },
        "unreachable": [
            {"store_id": each.store_id, "message": each.message} for each in found.unreachable
        ],
    }
