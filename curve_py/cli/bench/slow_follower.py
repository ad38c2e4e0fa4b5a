"""A follower whose disk takes 500 ms for each write: what writers feel of it. May block.

The kernel slows the disk down for one process (control group `io`/`blkio`: two writes a second),
so the real chunkserver meets a real slow disk. Everything that is written lies in copysets that one
chunkserver leads (as in failover.py); the victim is a follower of most of them.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from curve_py.cli.bench.failover import Plan, wait_caught_up
from curve_py.cli.bench.host import device_of
from curve_py.cli.bench.load import Ledger, Writer, series
from curve_py.cli.bench.measure import Settings
from curve_py.cli.bench.report import Sample
from curve_py.cli.bench.temporary import temporary_cluster
from curve_py.cli.local.cluster import LocalCluster
from curve_py.cli.output import Output
from curve_py.client import AttachMode, Cluster
from curve_py.errors import CurveTimeoutError, UnavailableError, UnsupportedError
from curve_py.placement import CHUNK_BYTES

_WRITES_PER_SECOND = 2
_BEFORE_SECONDS = 20.0
_SLOW_SECONDS = 60.0
_WRITERS, _SLOTS = 4, 256
_SETTLE_SECONDS, _SETTLE_TRIES = 10.0, 12
_STORE_BYTES = 2 * 1024**3
_GROUPS = Path("/sys/fs/cgroup")


def run(output: Output, settings: Settings) -> list[Sample]:
    """Raises UnsupportedError where control groups cannot be made."""
    seconds = settings.seconds or _SLOW_SECONDS
    with (
        temporary_cluster(output, 3, _STORE_BYTES) as local,
        Cluster.connect(local.directory.path) as cluster,
    ):
        created = cluster.volumes().create("slow", 64 * CHUNK_BYTES)
        wait_caught_up(cluster.client)
        with cluster.volumes().open("slow", AttachMode.SHARED) as volume:
            plan = _settled_plan(cluster, created.volume_id)
            offsets = plan.offsets(_WRITERS * _SLOTS)
            ledgers = [Ledger(offsets[number::_WRITERS]) for number in range(_WRITERS)]
            writers = [Writer(volume, ledger, n) for n, ledger in enumerate(ledgers)]
            sample = _measure(local, writers, _pid(local, plan.follower), seconds)
            if Plan.of(cluster.client, created.volume_id) != plan:
                raise UnavailableError(
                    "Leaders have moved meanwhile, so it was not only a follower that was slow.",
                    "Run it again.",
                )
            for ledger in ledgers:
                ledger.check_all(volume)
                sample.measures["errors"] += len(ledger.stale)
    return [sample]


def _settled_plan(cluster: Cluster, volume_id: int) -> Plan:
    """Once leaders have stayed where they are; the balance of a new cluster moves some."""
    plan = Plan.of(cluster.client, volume_id)
    for _ in range(_SETTLE_TRIES):
        time.sleep(_SETTLE_SECONDS)
        before, plan = plan, Plan.of(cluster.client, volume_id)
        if before == plan:
            return plan
    raise CurveTimeoutError("Leaders do not settle.")


def _pid(local: LocalCluster, data_address: str) -> int:
    for chunkserver in local.directory.load().chunkservers:
        pid = local.processes.pid(chunkserver.name)
        if chunkserver.data_address == data_address and pid is not None:
            return pid
    raise UnavailableError(f"No process of this cluster serves {data_address}.")


def _measure(local: LocalCluster, writers: Sequence[Writer], victim: int, seconds: float) -> Sample:
    directory = local.directory.path
    with slow_disk_group(directory) as slow:
        for writer in writers:
            writer.start()
        try:
            time.sleep(2.0)
            first = time.monotonic_ns()
            time.sleep(min(_BEFORE_SECONDS, seconds))
            memory, most = _memory(local), 0.0
            begin = time.monotonic_ns()
            with slow(victim):
                while time.monotonic_ns() < begin + seconds * 1e9:
                    time.sleep(0.5)
                    most = max(most, _memory(local))
                end = time.monotonic_ns()
        finally:
            for writer in writers:
                writer.end()
    before, during = _of(writers, first, begin), _of(writers, begin, end)
    return Sample(
        {
            "p99_us": _percentile(during, 99) / 1e3,
            "before_p99_us": _percentile(before, 99) / 1e3,
            "mean_us": statistics.fmean(during) / 1e3,
            "before_mean_us": statistics.fmean(before) / 1e3,
            "longest_ms": max(during) / 1e6,
            "memory_growth_mib": max(most - memory, 0.0) / 1024**2,
            "errors": float(sum(writer.error is not None for writer in writers)),
        },
        series=series([writer.latencies for writer in writers], first, end),
        events=[((begin - first) / 1e9, "slow from here")],
    )


def _of(writers: Sequence[Writer], begin_ns: int, end_ns: int) -> list[int]:
    """Durations of the writes that began in the span. Raises UnavailableError: there were none."""
    found = [d for w in writers for start, d in w.latencies.samples if begin_ns <= start < end_ns]
    if not found:
        raise UnavailableError("No write was answered in the span that is measured.")
    return found


def _percentile(values: Sequence[int], percent: float) -> float:
    ordered = sorted(values)
    return float(ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)])


def _memory(local: LocalCluster) -> float:
    """Resident bytes of the chunkserver that has most."""
    most = 0
    for chunkserver in local.directory.load().chunkservers:
        pid = local.processes.pid(chunkserver.name)
        with contextlib.suppress(OSError):
            most = max(most, int(Path(f"/proc/{pid}/statm").read_text().split()[1]))
    return float(most * os.sysconf("SC_PAGE_SIZE"))


class SlowDisk:
    """Called with a pid: a context in which the disk is slow for that process."""

    def __init__(self, group: Path, limit_file: str, on: str, off: str) -> None:
        self._group = group
        self._limit_file = limit_file
        self._on, self._off = on, off

    @contextlib.contextmanager
    def __call__(self, pid: int) -> Iterator[None]:
        try:
            (self._group / self._limit_file).write_text(self._on)
            (self._group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise UnsupportedError(f"The disk cannot be made slow: {error.strerror}.") from None
        try:
            yield
        finally:
            # What waits already goes on only if the limit goes too.
            (self._group / self._limit_file).write_text(self._off)
            (self._group.parent / "cgroup.procs").write_text(str(pid))


@contextlib.contextmanager
def slow_disk_group(directory: Path) -> Iterator[SlowDisk]:
    """A control group for the device below `directory`. Raises UnsupportedError."""
    major, minor = device_of(directory)
    device = f"{major}:{minor}"
    first, second = _GROUPS / "blkio", _GROUPS
    try:
        if (first / "blkio.throttle.write_iops_device").exists():
            group = first / f"curve-bench-{os.getpid()}"
            names = ("blkio.throttle.write_iops_device", f"{device} {_WRITES_PER_SECOND}")
            off = f"{device} 0"
        elif "io" in (second / "cgroup.controllers").read_text().split():
            (second / "cgroup.subtree_control").write_text("+io")
            group = second / f"curve-bench-{os.getpid()}"
            names = ("io.max", f"{device} wiops={_WRITES_PER_SECOND}")
            off = f"{device} wiops=max"
        else:
            raise UnsupportedError("No control group limits disks here.")
        group.mkdir()
    except OSError as error:
        raise UnsupportedError(f"Control groups cannot be made: {error.strerror}.") from None
    try:
        yield SlowDisk(group, *names, off)
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()
