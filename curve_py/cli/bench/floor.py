"""The floor beside the system: runs tools/bench/floor on files of its own. May block."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from curve_py.cli.bench.suites import Job
from curve_py.errors import CurveError, InternalError

_FILES = 3
_KEYS = ("iops", "mib_per_second", "mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us")
_RATES = ("iops", "mib_per_second")
_FILL_SECONDS = 600.0


class Floor:
    """The program, and a directory in which its files stay between runs."""

    def __init__(self, program: Path, directory: Path, working_set_bytes: int) -> None:
        self._program = program
        self._directory = directory
        self._mib = max(working_set_bytes // 1024**2, 16)

    def run(
        self, job: Job, seconds: float, started: Callable[[int], None] = lambda pid: None
    ) -> tuple[dict[str, float], float, float]:
        """Measures, number of operations, seconds of the measured part, which ended just now."""
        # Readers and writers share the working set, so that the disk sees as much of it.
        alone = job.floor in ("readers", "writers")
        mib = max(-(-self._mib // _FILES), 16) if job.floor == "writers" else self._mib
        command = [str(self._program), "--dir", str(self._directory), "--keep"]
        command += ["--op", job.floor, "--depth", str(max(job.depth, _FILES if alone else 1))]
        command += ["--block-size", str(job.block_bytes), "--working-set-mib", str(mib)]
        command += ["--seconds", str(max(round(seconds), 1))]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            started(child.pid)
            try:
                output, errors = child.communicate(timeout=seconds + _FILL_SECONDS)
            except BaseException:
                child.kill()
                raise
        if child.returncode != 0:
            raise CurveError(f"The floor ended with {child.returncode}: {errors.strip()}")
        return parse(output, job.floor_share)

    def remove(self) -> None:
        for path in self._directory.glob("curve-floor-*"):
            path.unlink(missing_ok=True)


def parse(output: str, share: float) -> tuple[dict[str, float], float, float]:
    """From its JSON. `share` is applied to rates."""
    try:
        result = json.loads(output)
        measures = {key: float(result[key]) for key in _KEYS}
        measures["processes_cpu_us_per_io"] = float(result["cpu_us_per_io"])
        for key in _RATES:
            measures[key] *= share
        return measures, float(result["operations"]), float(result["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(f"The output of the floor cannot be read: {error!r}.") from None
