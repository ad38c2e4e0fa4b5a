"""curve bench run SUITE...: fio job files on a cluster, beside the least that is possible."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from curve_py.cli.bench import scenarios
from curve_py.cli.bench.floor import Floor
from curve_py.cli.bench.host import describe
from curve_py.cli.bench.html import write_html
from curve_py.cli.bench.measure import Bench, Settings
from curve_py.cli.bench.report import (
    LIMIT_COLUMNS,
    RESULT_COLUMNS,
    Report,
    Result,
    limit_rows,
    missed,
    result_row,
    to_json,
)
from curve_py.cli.bench.suites import (
    SCENARIO,
    Suite,
    load_suite,
    members,
    parse_given_limit,
    suite_directory,
    suite_names,
)
from curve_py.cli.bench.systems import CurveSystem, OtherSystem, System, find_program
from curve_py.cli.bench.temporary import temporary_cluster
from curve_py.cli.local.cluster import LocalCluster
from curve_py.cli.output import Output
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import CurveError, InvalidError
from curve_py.sizes import parse_size

_CHUNKSERVERS = 3
_OTHER_CPU_PERCENT = 25.0


def run(
    suites: Annotated[
        list[str] | None,
        typer.Argument(metavar="SUITE...", help="Names (see --list), or fio job files."),
    ] = None,
    dir: Annotated[  # noqa: A002
        Path | None,
        typer.Option(
            "--dir",
            metavar="D",
            help="Cluster to use; by default a new one for each suite, removed afterwards.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        Path | None,
        typer.Option(
            "--system",
            metavar="FILE",
            help="Another system, described in a file (tools/bench/peers), instead of a cluster.",
            show_default=False,
        ),
    ] = None,
    floor: Annotated[
        bool, typer.Option("--floor", help="Run tools/bench/floor in turns with the system.")
    ] = False,
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs of each job; medians count. By default the suite's, 5."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Length of a run. By default the suite's, 5.")
    ] = None,
    volume_size: Annotated[
        str | None, typer.Option(metavar="S", help="Size of the volume. By default the suite's.")
    ] = None,
    drain: Annotated[
        bool,
        typer.Option(help="Wait after each run until the logs have drained, and measure that."),
    ] = True,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JOB:MEASURE[/BASE]=VALUE",
            help="A limit instead of the suite's; the exit code is 1 when it is missed, or its "
            "figure was not measured.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Exit with 1 when a limit of a suite is missed or was not measured."
        ),
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="All figures; - is standard output."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="A report with plots, one file.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the suites, and end.")] = False,
) -> None:
    """Measure with fio: rates, latencies, processor time and bytes written per I/O, what is left to
    drain, and the limits of the suite.

    Volumes are filled before, runs alternate with those of the floor. Do nothing else on the
    machine meanwhile. fio, its engine and the floor are found by tools/bench/run.
    """
    output = Output(json is not None and str(json) == "-")
    directory = suite_directory()
    if list_:
        _list(output, directory)
        return
    if not suites:
        raise InvalidError("No suite is named.", "See: curve bench run --list")
    settings = Settings(
        runs,
        seconds,
        parse_size(volume_size) if volume_size else None,
        drain,
        [parse_given_limit(text) for text in limit or []],
    )
    # Everything is read before anything is started.
    plan: list[Suite | str] = [
        scenarios.checked(name) if name.startswith(SCENARIO) else load_suite(directory, name)
        for name in members(directory, suites)
    ]
    _check_limits(plan, settings)
    other = OtherSystem(system) if system else None
    report = _new_report(other)
    for step in plan:
        if isinstance(step, str):
            scenario = scenarios.left_out if other or dir else scenarios.measure
            _add(report, scenario(step, output, settings), json, output)
        else:
            _measure(step, other, dir, floor, settings, report, json, output)
    report.host["load_at_end"] = os.getloadavg()[0]
    if html:
        write_html(html, [report])
    _print(output, report)
    _say_other_work(output, report)
    counting = None if check else settings.limits
    if names := missed(report.results, counting):
        output.note(f"Limits that were not kept: {', '.join(names)}.")
        raise typer.Exit(1)


def _list(output: Output, directory: Path) -> None:
    rows = []
    for name in suite_names(directory):
        listed = directory / f"{name}.list"
        if listed.exists():
            title = ", ".join(members(directory, [name]))
        else:
            suite = load_suite(directory, name)
            title = f"{suite.title}: {', '.join(job.name for job in suite.jobs)}"
        rows.append((name, title))
    output.table({"suites": dict(rows)}, ("suite", "what"), rows)


def _check_limits(plan: list[Suite | str], settings: Settings) -> None:
    """A limit for a job that is not run would be kept for ever."""
    known = {job.name for suite in plan if isinstance(suite, Suite) for job in suite.jobs}
    known |= {step.removeprefix(SCENARIO) for step in plan if isinstance(step, str)}
    for name, _ in settings.limits:
        if name not in known:
            raise InvalidError(
                f"There is no job {name} for the limit in what is run.",
                f"There are: {', '.join(sorted(known))}.",
            )


def _new_report(other: System | None) -> Report:
    where = other.directory if other else Path(tempfile.gettempdir())
    return Report(
        system=other.name if other else "curve",
        version="" if other else version("curve"),
        started_at_ms=time.time_ns() // 1_000_000,
        command=sys.argv[1:],
        host=describe(where),
    )


def _measure(
    suite: Suite,
    other: System | None,
    directory: Path | None,
    with_floor: bool,
    settings: Settings,
    report: Report,
    json: Path | None,
    output: Output,
) -> None:
    with contextlib.ExitStack() as stack:
        measured = other or stack.enter_context(_cluster(suite, directory, settings, output))
        # Beside the stores: the floor's files are to be on the same disk.
        work = Path(tempfile.mkdtemp(prefix="curve-bench-work-", dir=measured.directory.parent))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        floor = None
        if with_floor:
            program = find_program("CURVE_FLOOR", ("build/tools/bench/floor/curve_floor",), "floor")
            floor = Floor(program, work, settings.volume_bytes or suite.volume_bytes)
        with output.progress() as progress:
            bench = Bench(measured, floor, work, settings, output.note, progress)
            bench.suite(suite, lambda result: _add(report, result, json, output))


@contextlib.contextmanager
def _cluster(
    suite: Suite, directory: Path | None, settings: Settings, output: Output
) -> Iterator[System]:
    if directory:
        yield CurveSystem(LocalCluster(ClusterDirectory(directory)))
        return
    volumes = settings.volume_bytes or suite.volume_bytes
    groups = len({job.volumes for job in suite.jobs})
    store_bytes = max(suite.store_bytes, volumes * groups * 5 // 4)
    if settings.volume_bytes and settings.volume_bytes < suite.volume_bytes:
        store_bytes = max(volumes * groups * 3 // 2, 256 * 1024**2)
    # As a store is once each block was written: a file system is slower where a file is new, and
    # the files of the floor are written before, too.
    with temporary_cluster(
        output,
        _CHUNKSERVERS,
        store_bytes,
        wal_bytes=suite.wal_bytes,
        preallocation="full",
    ) as local:
        yield CurveSystem(local)


def _add(report: Report, result: Result, json: Path | None, output: Output) -> None:
    """What was measured is kept even if something later fails."""
    report.results.append(result)
    if json and str(json) != "-":
        try:
            json.write_text(to_json(report))
        except OSError as error:
            raise CurveError(f"{json} cannot be written: {error.strerror}.") from None


def _say_other_work(output: Output, report: Report) -> None:
    other = max((r.median.get("other_cpu_percent", 0.0) for r in report.results), default=0.0)
    if other > _OTHER_CPU_PERCENT:
        output.note(
            f"Other work used up to {other:.0f} % of a processor just before the runs: rates, and "
            "processor time of the whole machine, say little."
        )


def _print(output: Output, report: Report) -> None:
    if output.as_json:
        print(to_json(report), end="", flush=True)
        return
    runs = [result for result in report.results if "iops" in result.median]
    if runs:
        output.table({}, RESULT_COLUMNS, [result_row(r) for r in runs], title="Medians")
    if rows := limit_rows(report.results):
        output.table({}, LIMIT_COLUMNS, rows, title="Limits")
