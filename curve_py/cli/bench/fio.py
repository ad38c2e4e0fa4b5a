"""fio: the job file of one run, the run, and what its JSON and its logs say. May block.

Figures are of all I/Os of the run together (reads and writes), latencies from submission to
completion. Invariant: a run that saw an I/O error has no figures.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curve_py.cli.bench.suites import Job
from curve_py.errors import ConfigError, CurveError, CurveTimeoutError, InternalError

WINDOW_MS = 250  # of the figures over time
_PERCENTILES = {"50.000000": "p50", "90.000000": "p90", "99.000000": "p99", "99.900000": "p999"}
_SPARE_SECONDS = 180.0  # for starting, attaching and detaching
_OURS = {
    "group_reporting": "1",
    "lat_percentiles": "1",
    "clat_percentiles": "0",
    "percentile_list": "50:90:99:99.9",
    "unified_rw_reporting": "both",
    "log_avg_msec": str(WINDOW_MS),
    "log_max_value": "1",
    "log_unix_epoch": "1",
    "per_job_logs": "0",
    "write_iops_log": "log",
    "write_lat_log": "log",
}


@dataclass(slots=True)
class FioResult:
    """Of one run. Times are nanoseconds since 1970."""

    measures: dict[str, float]
    directions: dict[str, dict[str, float]]  # read, write: the same for each alone
    series: list[tuple[float, float, float]]  # seconds since the begin, IOPS, longest I/O in us
    ios: int
    user_bytes: int
    written_bytes: int
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Fio:
    """A fio program, and the options that lead to a volume: one list of key=value per volume."""

    program: Path
    volumes: Sequence[Sequence[str]]
    environment: dict[str, str] = field(default_factory=dict)


def job_file(job: Job, volumes: Sequence[Sequence[str]], size_bytes: int, seconds: float) -> str:
    """A complete job file: what the suite says, with the target's options for its variables."""
    kept = {key: value for key, value in job.options.items() if "${CURVE_" not in value}
    kept |= _OURS | {"size": str(size_bytes)}
    if seconds:
        kept |= {"runtime": f"{max(seconds, 1):g}", "time_based": "1"}
    lines = ["[global]", *(f"{key}={value}" if value else key for key, value in kept.items())]
    for number, options in enumerate(volumes):
        lines += [f"[{job.name}-{number}]" if len(volumes) > 1 else f"[{job.name}]", *options]
    return "\n".join(lines) + "\n"


def fill_job() -> Job:
    """Writes the whole volume once."""
    return Job("fill", "fill", {"rw": "write", "bs": "1M", "iodepth": "8"})


def run(
    fio: Fio,
    job: Job,
    size_bytes: int,
    seconds: float,
    directory: Path,
    started: Callable[[int], None] = lambda pid: None,
) -> FioResult:
    """One run in `directory` (its files are replaced). seconds 0: until the size is done.

    Raises CurveError: fio cannot be started, ends with an error, saw an I/O error, hangs.
    """
    for old in directory.glob("log_*.log"):
        old.unlink()
    file = directory / f"{job.name}.fio"
    file.write_text(job_file(job, fio.volumes, size_bytes, seconds))
    command = [str(fio.program), "--output-format=json", str(file)]
    try:
        child = subprocess.Popen(
            command,
            cwd=directory,
            env=os.environ | fio.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise ConfigError(f"{fio.program} cannot be started: {error.strerror}.") from None
    with child:
        started(child.pid)
        limit = (seconds or size_bytes / 1024**2) + _SPARE_SECONDS
        try:
            output, errors = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            child.kill()
            raise CurveTimeoutError(f"fio did not end within {limit:.0f} s ({file}).") from None
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        raise CurveError(f"fio ended with {child.returncode}: {_last_words(errors, output)}")
    logs = {kind: _read(directory / f"log_{kind}.log") for kind in ("iops", "lat")}
    return parse(output, logs["iops"], logs["lat"])


def _last_words(errors: str, output: str) -> str:
    lines = [line.strip() for line in (errors.strip() or output.strip()).splitlines()]
    return " | ".join(lines[-3:])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def parse(output: str, iops_log: str = "", latency_log: str = "") -> FioResult:
    """From fio's JSON (and words that it may print before) and its two logs."""
    try:
        document = json.loads(output[output.index("{") :])
        jobs = document["jobs"]
        job = jobs[0]
        if error := next((one["error"] for one in jobs if one["error"]), 0):
            raise CurveError(f"fio saw an I/O error: {os.strerror(error)}.")
        return _result(document, job, iops_log, latency_log)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InternalError(
            f"The output of fio cannot be read: {error!r}.", "Another version of fio?"
        ) from None


def _result(document: Any, job: Any, iops_log: str, latency_log: str) -> FioResult:
    directions = {
        name: _measures(job[name])
        for name in ("read", "write")
        if job.get(name, {}).get("total_ios")
    }
    if not directions:
        raise ValueError("no I/O was done")
    whole = job.get("mixed") or next(iter(job[name] for name in directions))
    runtime_ns = int(whole["runtime"] * 1e6)
    iops, latency = _windows(iops_log), _windows(latency_log)
    # The last window ends with the I/O; fio itself goes on until all is detached.
    end_ns = int(max(iops, default=document["timestamp_ms"])) * 1_000_000
    begin_ns = end_ns - runtime_ns
    series = [
        (
            round(at / 1000 - begin_ns / 1e9, 3),
            sum(iops[at]),
            max(latency.get(at, ()), default=0.0) / 1000,
        )
        for at in sorted(iops)
    ]
    return FioResult(
        measures=_measures(whole),
        directions=directions if len(directions) > 1 else {},
        series=series,
        ios=int(whole["total_ios"]),
        user_bytes=int(whole["io_bytes"]),
        written_bytes=int(job["write"]["io_bytes"]),
        begin_ns=begin_ns,
        end_ns=end_ns,
    )


def _measures(part: Any) -> dict[str, float]:
    latency = part["lat_ns"]
    found = {
        "iops": float(part["iops"]),
        "mib_per_second": float(part["bw_bytes"]) / 1024**2,
        "mean_us": float(latency["mean"]) / 1e3,
    }
    for key, name in _PERCENTILES.items():
        if key in latency.get("percentile", {}):
            found[f"{name}_us"] = latency["percentile"][key] / 1e3
    found["max_us"] = float(latency["max"]) / 1e3
    return found


def _windows(log: str) -> dict[int, list[float]]:
    """Lines "epoch ms, value, ..." by the window in which they end; one line per job and way."""
    found: dict[int, list[float]] = {}
    for line in log.splitlines():
        fields = line.split(",")
        if len(fields) >= 2 and fields[0].strip().isdigit():
            at = round(int(fields[0]) / WINDOW_MS) * WINDOW_MS
            found.setdefault(at, []).append(float(fields[1]))
    return found
