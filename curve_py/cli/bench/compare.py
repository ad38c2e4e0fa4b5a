"""curve bench compare A.json B.json: what two reports have in common, figure by figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from curve_py.cli.bench.html import label, write_html
from curve_py.cli.bench.report import Report, format_measure, load, ratio_note
from curve_py.cli.options import JsonOption
from curve_py.cli.output import Output
from curve_py.errors import InvalidError

_MEASURES = ("iops", "mib_per_second", "mean_us", "p99_us", "max_us", "processes_cpu_us_per_io")


def run(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="Of curve bench run --json.")],
    second: Annotated[Path, typer.Argument(metavar="B.json")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Both with plots, in one file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare two reports: medians of both, and the second over the first."""
    reports = [load(first), load(second)]
    rows = compare(*reports)
    if not rows:
        raise InvalidError("The two reports have no job in common.")
    if html:
        write_html(html, reports)
    names = label(reports)
    output = Output(json)
    output.table(
        {"first": names[0], "second": names[1], "figures": rows},
        ("workload", "measure", f"#{names[0]}", f"#{names[1]}", "#ratio"),
        [
            (
                row["title"],
                row["measure"],
                format_measure(row["measure"], row["first"]),
                format_measure(row["measure"], row["second"]),
                ratio_note(row["measure"], row["ratio"]),
            )
            for row in rows
        ],
    )


def compare(first: Report, second: Report) -> list[dict[str, Any]]:
    """Medians of the jobs that both have, by suite and name, where neither is zero."""
    others = {(result.suite, result.name): result for result in second.results}
    rows = []
    for result in first.results:
        other = others.get((result.suite, result.name))
        for measure in _MEASURES if other else ():
            assert other is not None
            a, b = result.median.get(measure), other.median.get(measure)
            if measure == "mib_per_second" and result.options.get("block_bytes", 0) < 65536:
                continue  # says the same as iops
            if a and b:
                rows.append(
                    {
                        "suite": result.suite,
                        "name": result.name,
                        "title": result.title,
                        "measure": measure,
                        "first": a,
                        "second": b,
                        "ratio": b / a,
                    }
                )
    return rows
