"""A report as one HTML file with plots; nothing is loaded from anywhere. Pure but for the file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from curve_py.cli.bench.report import (
    ENGINE,
    FLOOR,
    LIMIT_COLUMNS,
    RESULT_COLUMNS,
    Report,
    Result,
    Sample,
    limit_rows,
    median,
    result_row,
)
from curve_py.cli.bench.svg import Chart, Line, bar_chart, line_chart
from curve_py.errors import CurveError

_PERCENTILES = ("p50", "p90", "p99", "p999", "max")
_PERCENTILE_NAMES = ("p50", "p90", "p99", "p99.9", "max")
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1320px;padding:0 16px;
color:#222}
h1{font-size:22px}h2{font-size:17px;margin-top:32px}table{border-collapse:collapse;margin:8px 0}
th,td{padding:3px 10px;border-bottom:1px solid #ddd;text-align:left;white-space:nowrap}
.n{text-align:right;font-variant-numeric:tabular-nums}.kept{color:#187a3c}.MISSED{color:#b3261e;
font-weight:bold}.plots{display:flex;flex-wrap:wrap;gap:12px}.plots>svg{width:620px;height:auto;
border:1px solid #ddd}.wide{overflow-x:auto}svg text{font:11px system-ui,sans-serif;fill:#444}
.m,.t{text-anchor:middle}.e{text-anchor:end}svg text.t{font-size:13px;font-weight:600}
.g{stroke:#e4e4e4}.v{stroke:#b3261e;stroke-dasharray:3 3}polyline,line{fill:none;stroke-width:1.6}
.d{stroke-dasharray:6 4}
"""
_COLOURS = (
    "#1f6fb4",
    "#d1711a",
    "#2c8a46",
    "#b3304a",
    "#7a57b5",
    "#7c6a52",
    "#c25fa6",
    "#5f6c72",
)


def write_html(path: Path, reports: Sequence[Report]) -> None:
    """One report, or several to be compared. Raises CurveError."""
    try:
        path.write_text(page(reports), encoding="utf-8")
    except OSError as error:
        raise CurveError(f"{path} cannot be written: {error.strerror}.") from None


def page(reports: Sequence[Report]) -> str:
    colours = "".join(
        f".c{n}{{stroke:{c};fill:none}}circle.c{n}{{fill:{c}}}.f{n}{{fill:{c}}}"
        for n, c in enumerate(_COLOURS)
    )
    title = " against ".join(label(reports))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>curve bench: {escape(title)}</title><style>{_STYLE}{colours}</style></head><body>",
        f"<h1>curve bench: {escape(title)}</h1>",
    ]
    if len(reports) > 1:
        parts += _comparison(reports)
    for report, name in zip(reports, label(reports), strict=True):
        parts += _report(report, name)
    return "".join(parts) + "</body></html>\n"


def label(reports: Sequence[Report]) -> list[str]:
    """Names that differ."""
    names = [f"{report.system} {report.version}".strip() for report in reports]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({chr(ord('A') + number)})" for number, name in enumerate(names)]


def _report(report: Report, name: str) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(report.started_at_ms / 1000))
    host = ", ".join(f"{key} {value}" for key, value in report.host.items())
    parts = [f"<h2>{escape(name)}, {when} UTC</h2>"]
    parts.append(f"<p>{escape(host)}<br>curve {escape(' '.join(report.command))}</p>")
    jobs = [result for result in report.results if "iops" in result.median]
    if jobs:
        parts.append(_table(RESULT_COLUMNS, [result_row(r) for r in jobs]))
    if rows := limit_rows(report.results):
        parts.append(_table(LIMIT_COLUMNS, rows))
    charts = [*_depth_charts(jobs), *_latency_charts(jobs)]
    charts += [_time_chart(result) for result in report.results if _has_series(result)]
    return [*parts, _plots(charts)]


def _plots(charts: Iterable[str]) -> str:
    return f'<div class="plots">{"".join(chart for chart in charts if chart)}</div>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    numbers = [column.startswith("#") for column in columns]
    head = "".join(
        f"<th{' class=n' if number else ''}>{escape(column.removeprefix('#'))}</th>"
        for column, number in zip(columns, numbers, strict=True)
    )
    body = []
    for row in rows:
        cells = []
        for cell, number in zip(row, numbers, strict=True):
            word = cell.split(",")[0]
            style = "n" if number else word if word in ("kept", "MISSED") else ""
            cells.append(f"<td{f' class={style}' if style else ''}>{escape(cell)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


# --- Plots ----------------------------------------------------------------------------------------


def _kind(result: Result) -> tuple[str, int]:
    return str(result.options.get("rw", "")), int(result.options.get("block_bytes", 0))


def _plain(results: Iterable[Result]) -> list[Result]:
    """One volume through the system's own engine."""
    return [r for r in results if r.options.get("volumes", 1) == 1 and not r.options.get("export")]


def _depth_charts(results: Sequence[Result]) -> list[str]:
    kinds: dict[tuple[str, int], dict[int, Result]] = {}
    for result in _plain(results):
        kinds.setdefault(_kind(result), {})[int(result.options["depth"])] = result
    charts = []
    for (rw, block), depths in kinds.items():
        if len(depths) < 2:
            continue
        ordered = sorted(depths.items())
        lines = [Line("system", [(depth, r.median["iops"]) for depth, r in ordered])]
        below = [(depth, median(r.side(FLOOR), "iops")) for depth, r in ordered]
        found = [(float(depth), rate) for depth, rate in below if rate is not None]
        lines.append(Line("floor", found, dashed=True))
        charts.append(
            line_chart(
                Chart(
                    f"{rw} {block // 1024}k: depth against IOPS",
                    "depth",
                    "IOPS",
                    lines,
                    log_x=True,
                    ticks=[(float(depth), str(depth)) for depth, _ in ordered],
                )
            )
        )
    return charts


def _latency_charts(results: Sequence[Result]) -> list[str]:
    suites: dict[str, list[Result]] = {}
    for result in results:
        suites.setdefault(result.suite, []).append(result)
    charts = []
    for suite, members in suites.items():
        lines = []
        for number, result in enumerate(members):
            lines.append(_percentiles(result.title, result.runs, number, False))
            for base in (FLOOR, ENGINE):
                lines.append(_percentiles(f"{base}, dashed", result.side(base), number, True))
        charts.append(
            line_chart(
                Chart(
                    f"{suite}: latency percentiles",
                    "of the I/Os",
                    "microseconds",
                    lines,
                    log_y=True,
                    ticks=[(float(n), name) for n, name in enumerate(_PERCENTILE_NAMES)],
                )
            )
        )
    return charts


def _percentiles(name: str, samples: Sequence[Sample], colour: int, dashed: bool) -> Line:
    values = [(float(n), median(samples, f"{p}_us")) for n, p in enumerate(_PERCENTILES)]
    return Line(name, [(x, y) for x, y in values if y is not None], dashed, colour)


def _has_series(result: Result) -> bool:
    return any(sample.series for sample in result.runs)


def _time_chart(result: Result) -> str:
    lines = [
        Line(f"run {number + 1}", [(at, rate) for at, rate, _ in sample.series])
        for number, sample in enumerate(result.runs)
    ]
    events = next((sample.events for sample in result.runs if sample.events), [])
    title = f"{result.title}: IOPS over time"
    return line_chart(Chart(title, "seconds", "IOPS", lines, events=events))


def _comparison(reports: Sequence[Report]) -> list[str]:
    names = label(reports)
    tables = [{(r.suite, r.name): r for r in report.results} for report in reports]
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    charts = []
    for measure, title in (
        ("iops", "I/Os per second"),
        ("mean_us", "mean latency, us"),
        ("p99_us", "p99, us"),
        ("processes_cpu_us_per_io", "processor time of the processes per I/O, us"),
    ):
        groups = [
            (tables[0][key].title, [table[key].median[measure] for table in tables])
            for key in shared
            if all(measure in table[key].median for table in tables)
        ]
        charts.append(bar_chart(title, "", names, groups))
    return ["<h2>Comparison</h2>", _plots(charts)]
