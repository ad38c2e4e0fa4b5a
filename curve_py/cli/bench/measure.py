"""Runs the jobs of a suite on a system, beside its baselines, in turns (A B A B). May block.

Owns: the order. Volumes are filled once and drained, each job warms up once, and a run that wrote
is followed by the draining of what it left, which is measured too; so every run begins alike.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curve_py.cli.bench import fio
from curve_py.cli.bench.floor import Floor
from curve_py.cli.bench.host import Usage, Watch
from curve_py.cli.bench.report import ENGINE, FLOOR, Result, Sample, summarise
from curve_py.cli.bench.suites import Job, Limit, Suite
from curve_py.cli.bench.systems import CurveSystem, System

_BEFORE_SECONDS = 1.0  # what the machine does beside
_WARM_SECONDS = 2.0
Note = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Settings:
    runs: int | None = None
    seconds: float | None = None
    volume_bytes: int | None = None
    drain: bool = True  # wait until the logs are empty
    limits: list[tuple[str, Limit]] = field(default_factory=list)  # given by the caller

    def limits_for(self, name: str, own: Sequence[Limit]) -> list[Limit]:
        """Those given for a job or scenario, in place of its own of the same figures."""
        given = [limit for job, limit in self.limits if job == name]
        return [x for x in own if not any(x.same_figure(y) for y in given)] + given


@dataclass(slots=True)
class Bench:
    """One system, measured suite by suite."""

    system: System
    floor: Floor | None
    work: Path  # for job files and logs
    settings: Settings
    note: Note
    progress: Progress

    def suite(self, suite: Suite, finished: Callable[[Result], None]) -> None:
        """Calls `finished` after each job. Raises CurveError."""
        size = self.settings.volume_bytes or suite.volume_bytes
        counts = sorted({1 if job.beside else job.volumes for job in suite.jobs})
        counts += sorted({job.volumes for job in suite.jobs} - set(counts))
        with contextlib.ExitStack() as stack:
            groups = {
                count: stack.enter_context(self._filled(suite.name, count, _share(size, count)))
                for count in counts
            }
            for number, job in enumerate(suite.jobs):
                self.progress(f"{suite.name}: jobs", number, len(suite.jobs))
                finished(self._job(suite, job, groups, size))
            self.progress(f"{suite.name}: jobs", len(suite.jobs), len(suite.jobs))

    @contextlib.contextmanager
    def _filled(self, suite: str, count: int, size_bytes: int) -> Iterator[list[str]]:
        with self.system.volumes(count, size_bytes) as names:
            self.note(f"{suite}: filling {count} x {size_bytes / 1024**2:.0f} MiB")
            for name in names:
                with self.system.reach([name], "") as reached:
                    fio.run(reached, fio.fill_job(), size_bytes, 0, self.work)
            self._drain()
            yield names

    def _drain(self) -> None:
        if self.settings.drain:
            self.system.wait_drained()

    def _job(self, suite: Suite, job: Job, groups: dict[int, list[str]], size: int) -> Result:
        runs = self.settings.runs or job.runs or suite.runs
        seconds = self.settings.seconds or job.seconds or suite.seconds
        result = Result(suite.name, job.name, job.title, [])
        result.options = {
            "rw": job.options["rw"],
            "block_bytes": job.block_bytes,
            "depth": job.depth,
            "volumes": job.volumes,
            "volume_bytes": _share(size, job.volumes),
            "export": job.export,
            "seconds": seconds,
            "fio": job.options,
        }
        for number in range(runs):
            if number == 0:
                self._warm(job, groups, size, min(_WARM_SECONDS, seconds))
            result.runs.append(self._fio(job, groups, size, seconds, job.export))
            if job.beside == ENGINE:
                one = Job(job.name, options=job.options)
                side = self._fio(one, groups, size, seconds, "")
                result.beside.setdefault(ENGINE, []).append(side)
            if self.floor and job.floor:
                side = self._floor(self.floor, job, job.floor_seconds or seconds)
                result.beside.setdefault(FLOOR, []).append(side)
            self.note(f"{job.title}, run {number + 1} of {runs}: {_words(result)}")
        summarise(result, self.settings.limits_for(job.name, job.limits))
        return result

    def _warm(self, job: Job, groups: dict[int, list[str]], size: int, seconds: float) -> None:
        with self.system.reach(groups[job.volumes], job.export) as reached:
            fio.run(reached, job, _share(size, job.volumes), seconds, self.work)
        if job.writes:
            self._drain()

    def _fio(
        self, job: Job, groups: dict[int, list[str]], size: int, seconds: float, export: str
    ) -> Sample:
        volumes = groups[job.volumes]
        with (
            self.system.reach(volumes, export) as reached,
            Watch(self.system.directory) as watch,
        ):
            for role, pids in self.system.processes().items():
                watch.follow(role, *pids)
            if export and isinstance(self.system, CurveSystem):
                watch.follow("export", *self.system.exporter_pids())
            begin_ns = time.time_ns()
            time.sleep(_BEFORE_SECONDS)
            quiet_ns = time.time_ns()
            done = fio.run(
                reached,
                job,
                _share(size, job.volumes),
                seconds,
                self.work,
                lambda pid: watch.follow("client", pid),
            )
            left = self.system.undrained_bytes()
            drain_ns = time.time_ns()
            if job.writes:
                self._drain()
            end_ns = time.time_ns()
        beside = watch.between(begin_ns, quiet_ns)
        during = watch.between(done.begin_ns, done.end_ns)
        measures = done.measures | _cpu(during, beside, done.ios)
        if done.written_bytes and self.settings.drain:
            drain = watch.between(drain_ns, end_ns)
            whole = watch.between(done.begin_ns, end_ns)
            measures |= _drained(drain, whole, beside, done, left, measures["cpu_us_per_io"])
        return Sample(measures, done.directions, done.series)

    def _floor(self, floor: Floor, job: Job, seconds: float) -> Sample:
        with Watch(self.system.directory) as watch:
            begin_ns = time.time_ns()
            time.sleep(_BEFORE_SECONDS)
            quiet_ns = time.time_ns()
            measures, operations, lasted = floor.run(job, seconds)
            end_ns = time.time_ns()
        beside = watch.between(begin_ns, quiet_ns)
        during = watch.between(end_ns - int(lasted * 1e9), end_ns)
        spent = _cpu(during, beside, int(operations))["cpu_us_per_io"]
        return Sample(measures | {"cpu_us_per_io": spent, "cpu_drained_us_per_io": spent})


def _share(size_bytes: int, volumes: int) -> int:
    """Of each of the volumes, in whole MiB."""
    return max(size_bytes // volumes >> 20, 1) << 20


def _cpu(during: Usage, beside: Usage, ios: int) -> dict[str, float]:
    """Microseconds per I/O: of the machine, less what it did just before; of each role."""
    if not ios:
        return {}
    other = beside.cpu_seconds / beside.seconds
    found = {"cpu_us_per_io": _less(during, other) * 1e6 / ios, "other_cpu_percent": 100 * other}
    for role, seconds in sorted(during.roles.items()):
        found[f"{role}_cpu_us_per_io"] = seconds * 1e6 / ios
    if during.roles:
        found["processes_cpu_us_per_io"] = sum(during.roles.values()) * 1e6 / ios
    return found


def _less(usage: Usage, other_per_second: float) -> float:
    return max(usage.cpu_seconds - other_per_second * usage.seconds, 0.0)


def _drained(
    drain: Usage,
    whole: Usage,
    beside: Usage,
    done: fio.FioResult,
    left: float | None,
    cpu_us_per_io: float,
) -> dict[str, float]:
    """What was left in the logs, and the bytes that the disk was given from the first I/O until
    all is in its place. device: what the storage processes gave it, so that nobody else's writes
    count; disk: all that arrived, which also has the file system's and everybody's.
    """
    given = sum(whole.role_bytes.get(role, 0.0) for role in ("chunkserver", "osd"))
    found = {"disk_bytes_per_byte": whole.disk_bytes / done.written_bytes}
    if given:
        found["device_bytes_per_byte"] = given / done.written_bytes
    if left is not None:
        cost = _less(drain, beside.cpu_seconds / beside.seconds)
        found |= {
            "wal_left_bytes": left,
            "drain_seconds": drain.seconds if left else 0.0,
            "drain_cpu_seconds": cost,
            "cpu_drained_us_per_io": cpu_us_per_io + cost * 1e6 / done.ios,
        }
    return found


def _words(result: Result) -> str:
    """The last run of each side, in a few words."""
    sides = [("", result.runs), *((f"{base} ", side) for base, side in result.beside.items())]
    large = result.options["block_bytes"] >= 1024**2
    words = []
    for title, samples in sides:
        m = samples[-1].measures
        rate = f"{m['mib_per_second']:.0f} MiB/s" if large else f"{m['iops']:.0f} IOPS"
        words.append(f"{title}{rate}, {m['mean_us']:.0f} us")
    return "; ".join(words)
