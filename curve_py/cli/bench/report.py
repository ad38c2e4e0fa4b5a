"""The figures of a benchmark: medians, spread, limits; as JSON and as tables. Pure.

Field names are documented in docs/benchmarks.md and stay: later versions add some.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curve_py.cli.bench.suites import HIGHER_IS_BETTER, Limit
from curve_py.errors import InvalidError, NotFoundError

VERSION = 1
FLOOR, ENGINE = "floor", "engine"


@dataclass(slots=True)
class Sample:
    """One run of one side."""

    measures: dict[str, float]
    directions: dict[str, dict[str, float]] = field(default_factory=dict)
    series: list[tuple[float, float, float]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)  # seconds, what happened


@dataclass(slots=True)
class Verdict:
    """A limit and what was found. value is the measure, or the ratio when there is a base."""

    measure: str
    base: str
    at_most: bool
    must: float | None
    goal: float | None
    baseline: float | None
    value: float | None
    kept: bool | None  # None: not measured
    reached: bool | None  # the goal


@dataclass(slots=True)
class Result:
    """One job or scenario: all runs of all sides."""

    suite: str
    name: str
    title: str
    runs: list[Sample]
    beside: dict[str, list[Sample]] = field(default_factory=dict)  # floor, engine
    verdicts: list[Verdict] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)  # rw, block_bytes, depth, seconds, ...
    median: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)  # (most - least) / median

    def side(self, base: str) -> list[Sample]:
        return self.beside.get(base, [])


@dataclass(slots=True)
class Report:
    system: str
    version: str
    started_at_ms: int
    command: list[str]
    host: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    format: int = VERSION


def median(samples: Sequence[Sample], measure: str) -> float | None:
    """Of the runs that have it."""
    values = [s.measures[measure] for s in samples if measure in s.measures]
    return statistics.median(values) if values else None


def spread(samples: Sequence[Sample], measure: str) -> float | None:
    """Most less least, over the median; 0 for one run."""
    values = [s.measures[measure] for s in samples if measure in s.measures]
    middle = statistics.median(values) if values else 0.0
    return (max(values) - min(values)) / middle if middle else None


def summarise(result: Result, limits: Iterable[Limit]) -> None:
    """Fills median, spread and verdicts from the runs."""
    measures = dict.fromkeys(key for sample in result.runs for key in sample.measures)
    for measure in measures:
        middle, wide = median(result.runs, measure), spread(result.runs, measure)
        result.median[measure] = middle if middle is not None else 0.0
        result.spread[measure] = wide if wide is not None else 0.0
    result.verdicts = [judge(result, limit) for limit in limits]


def judge(result: Result, limit: Limit) -> Verdict:
    value = median(result.runs, limit.measure)
    baseline = None
    if limit.base:
        if limit.base in (FLOOR, ENGINE):
            baseline = median(result.side(limit.base), limit.measure)
        else:
            baseline = median(result.runs, limit.base)
        value = value / baseline if value is not None and baseline else None

    def holds(bound: float | None) -> bool | None:
        if value is None or bound is None:
            return None
        return value <= bound if limit.at_most else value >= bound

    return Verdict(
        limit.measure,
        limit.base,
        limit.at_most,
        limit.must,
        limit.goal,
        baseline,
        value,
        holds(limit.must),
        holds(limit.goal),
    )


def missed(
    results: Iterable[Result], given: Sequence[tuple[str, Limit]] | None = None
) -> list[str]:
    """Names of limits that do not hold, or whose figure was not measured: of `given` (job, limit),
    or of all for None.
    """
    found = []
    for result in results:
        for verdict in result.verdicts:
            figure = (verdict.measure, verdict.base)
            counts = given is None or any(
                job == result.name and (x.measure, x.base) == figure for job, x in given
            )
            if not counts or verdict.must is None or verdict.kept:
                continue
            name = f"{result.name}:{'/'.join(filter(None, figure))}"
            found.append(name if verdict.kept is False else f"{name} (not measured)")
    return found


# --- JSON -----------------------------------------------------------------------------------------


def to_json(report: Report) -> str:
    return json.dumps(asdict(report), ensure_ascii=False, default=str) + "\n"


def load(path: Path) -> Report:
    """Raises NotFoundError, InvalidError."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != VERSION:
            raise InvalidError(f"{path} has format {content['format']}; this reads {VERSION}.")
        results = [_result(one) for one in content.pop("results")]
        return Report(**content, results=results)
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidError(f"{path} is not a report of curve bench: {error!r}.") from None


def _result(content: dict[str, Any]) -> Result:
    content["runs"] = [_sample(one) for one in content["runs"]]
    content["beside"] = {k: [_sample(one) for one in v] for k, v in content["beside"].items()}
    content["verdicts"] = [Verdict(**one) for one in content["verdicts"]]
    return Result(**content)


def _sample(content: dict[str, Any]) -> Sample:
    content["series"] = [(float(a), float(b), float(c)) for a, b, c in content["series"]]
    content["events"] = [(float(a), str(b)) for a, b in content["events"]]
    return Sample(**content)


# --- For people -----------------------------------------------------------------------------------


def format_measure(measure: str, value: float | None) -> str:
    """With its unit: 12,345 IOPS; 1.23 ms."""
    if value is None:
        return "-"
    if measure.endswith("_us") or "_us_" in measure:
        if value >= 10_000:
            return f"{value / 1000:,.0f} ms"
        return f"{value / 1000:.2f} ms" if value >= 1000 else f"{value:.4g} us"
    if measure == "iops":
        return f"{value:,.0f} IOPS"
    if measure == "mib_per_second":
        return f"{value:,.0f} MiB/s"
    if measure.endswith("_ms"):
        return f"{value:,.0f} ms"
    if measure.endswith("_seconds"):
        return f"{value:.2f} s"
    if measure.endswith("_percent"):
        return f"{value:.2f} %"
    if measure.endswith("_mib"):
        return f"{value:,.0f} MiB"
    if measure.endswith("_bytes"):
        return f"{value / 1024**2:,.1f} MiB"
    return f"{value:.3g}"


RESULT_COLUMNS = (
    "workload",
    "#IOPS",
    "#MiB/s",
    "#spread",
    "#mean",
    "#p50",
    "#p99",
    "#p99.9",
    "#max",
    "#CPU/IO",
    "#processes",
    "#drained",
    "#dev/user",
    "#left in WAL",
    "#drain",
)


def result_row(result: Result) -> tuple[str, ...]:
    m = result.median

    def show(measure: str) -> str:
        return format_measure(measure, m.get(measure))

    main = "mib_per_second" if result.options.get("block_bytes", 0) >= 1024**2 else "iops"
    return (
        result.title,
        f"{m['iops']:,.0f}" if "iops" in m else "-",
        f"{m['mib_per_second']:,.0f}" if "mib_per_second" in m else "-",
        f"{100 * result.spread[main]:.0f} %" if main in result.spread else "-",
        *(show(name) for name in ("mean_us", "p50_us", "p99_us", "p999_us", "max_us")),
        show("cpu_us_per_io"),
        show("processes_cpu_us_per_io"),
        show("cpu_drained_us_per_io"),
        show("device_bytes_per_byte"),
        show("wal_left_bytes"),
        show("drain_seconds"),
    )


LIMIT_COLUMNS = ("workload", "measure", "#floor", "#system", "#ratio", "must", "goal", "kept")


def limit_rows(results: Iterable[Result]) -> list[tuple[str, ...]]:
    """One per limit: workload | measure | floor | system | ratio | must | goal | kept."""
    return [(r.title, *_limit_cells(r, v)) for r in results for v in r.verdicts]


def _limit_cells(result: Result, verdict: Verdict) -> tuple[str, ...]:
    sign = "<=" if verdict.at_most else ">="
    measured = result.median.get(verdict.measure)
    base = verdict.base if verdict.base not in ("", FLOOR) else ""
    unit = verdict.measure

    def bound(value: float | None) -> str:
        if value is None:
            return ""
        return f"{sign} {f'{value:g} x' if verdict.base else format_measure(unit, value)}"

    baseline_unit = verdict.base if verdict.base not in (FLOOR, ENGINE) else unit
    baseline = format_measure(baseline_unit, verdict.baseline) if verdict.base else ""
    kept = {True: "kept", False: "MISSED", None: "not measured"}[verdict.kept]
    if verdict.must is None:
        kept = {True: "goal reached", False: "goal not reached", None: "-"}[verdict.reached]
    elif verdict.reached:
        kept += ", goal too"
    return (
        verdict.measure,
        baseline + (f" ({base})" if base and baseline not in ("", "-") else ""),
        format_measure(unit, measured),
        f"{verdict.value:.2f}" if verdict.base and verdict.value is not None else "",
        bound(verdict.must),
        bound(verdict.goal),
        kept,
    )


def ratio_note(measure: str, ratio: float) -> str:
    """`1.20 x, better` and the like, for comparisons."""
    better = ratio > 1 if measure in HIGHER_IS_BETTER else ratio < 1
    if abs(ratio - 1) < 0.05:
        return f"{ratio:.2f} x"
    return f"{ratio:.2f} x, {'better' if better else 'worse'}"
