"""curve bench failover: the longest I/O when a chunkserver is killed or stopped, beside none.

Owns: the scenarios, their limits, and the faults, which go to processes of a cluster on this
machine. Every write is numbered and every read checked (curve_py/cli/bench/load.py). What was
killed is started again, and has caught up before the next run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from curve_py.cli.bench.load import SECTOR_BYTES, Ledger, Reader, Writer, series
from curve_py.cli.bench.temporary import temporary_cluster
from curve_py.cli.local.cluster import LocalCluster
from curve_py.cli.options import JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory
from curve_py.client.records import AttachMode
from curve_py.errors import CurveTimeoutError, UnavailableError
from curve_py.placement import CHUNK_BYTES, chunk_of, copyset_index
from curve_py.proto import common_pb2 as common
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import MetaClient

_VOLUME_BYTES = 64 * CHUNK_BYTES
_SLOTS = 512
WARM_SECONDS = 1.0  # before the fault
_KILL_SECONDS = 4.0  # observed after the fault
_STOP_SECONDS = 10.0
_AFTER_STOP_SECONDS = 3.0
_STORE_BYTES = 2 * 1024**3
_RECOVERY_SECONDS = 120.0
_SERVING = (common.REPLICA_ROLE_LEADER, common.REPLICA_ROLE_FOLLOWER)


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    title: str
    victim: str  # none, follower or leader, of everything that is written
    signal: signal.Signals | None
    limit_ms: float


SCENARIOS = (
    Scenario("none", "no fault", "none", None, 0.0),
    Scenario("kill_follower", "SIGKILL of a follower", "follower", signal.SIGKILL, 100.0),
    Scenario("kill_leader", "SIGKILL of the leader", "leader", signal.SIGKILL, 1500.0),
    Scenario("stop_leader", "SIGSTOP of the leader, 10 s", "leader", signal.SIGSTOP, 1500.0),
)


@dataclass(slots=True)
class Run:
    """One run of one scenario; times in ms."""

    longest_ms: float
    longest_read_ms: float
    mean_ms: float
    writes: int
    errors: list[str] = field(default_factory=list)
    stale_reads: list[str] = field(default_factory=list)
    # From a second before the fault: seconds, writes per second, longest in us (load.series).
    series: list[tuple[float, float, float]] = field(default_factory=list)


def run(
    dir: Annotated[  # noqa: A002
        Path | None,
        typer.Option(
            "--dir",
            metavar="D",
            help="Cluster to use; by default a new one that is removed afterwards.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each scenario.")] = 5,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 when a median misses its limit.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure how long I/O waits when a chunkserver is killed or stopped.

    Never run it on a cluster that somebody needs: its chunkservers are killed.
    """
    output = Output(json)
    given = contextlib.nullcontext(LocalCluster(ClusterDirectory(dir))) if dir else None
    with given or temporary_cluster(output, 3, _STORE_BYTES) as local:
        bench = Bench(local, output)
        results = {scenario.name: bench.measure(scenario, runs) for scenario in SCENARIOS}
    rows = [_row(scenario, results[scenario.name]) for scenario in SCENARIOS]
    output.table(
        {"runs": runs, "scenarios": rows},
        ("fault", "#longest write", "#longest read", "#mean", "#errors", "#stale reads", "limit"),
        [
            (
                row["title"],
                f"{row['longest_ms']:.0f} ms",
                f"{row['longest_read_ms']:.0f} ms",
                f"{row['mean_ms']:.2f} ms",
                row["errors"],
                row["stale_reads"],
                f"{row['limit_ms']:.0f} ms: {'kept' if row['kept'] else 'MISSED'}"
                if row["limit_ms"]
                else "",
            )
            for row in rows
        ],
        title=f"4k random writes at depth 1, medians of {runs} runs",
    )
    broken = [row["title"] for row in rows if row["errors"] or row["stale_reads"]]
    late = [row["title"] for row in rows if not row["kept"]]
    if broken or (check and late):
        raise typer.Exit(1)


def _row(scenario: Scenario, runs: list[Run]) -> dict[str, Any]:
    longest = statistics.median(r.longest_ms for r in runs)
    return {
        "name": scenario.name,
        "title": scenario.title,
        "limit_ms": scenario.limit_ms,
        "longest_ms": longest,
        "longest_read_ms": statistics.median(r.longest_read_ms for r in runs),
        "mean_ms": statistics.median(r.mean_ms for r in runs),
        "errors": sum(len(r.errors) for r in runs),
        "stale_reads": sum(len(r.stale_reads) for r in runs),
        "kept": not scenario.limit_ms or longest < scenario.limit_ms,
        "runs": [asdict(r) for r in runs],
    }


class Bench:
    """Scenarios on one cluster."""

    def __init__(self, local: LocalCluster, output: Output) -> None:
        self._local = local
        self._output = output
        self._description = local.directory.load()

    def measure(self, scenario: Scenario, runs: int) -> list[Run]:
        done = []
        for number in range(runs):
            result = self._run(scenario, number)
            self._output.note(
                f"{scenario.title}, run {number + 1} of {runs}: longest write "
                f"{result.longest_ms:.0f} ms, {result.writes} writes"
            )
            done.append(result)
        return done

    def _run(self, scenario: Scenario, number: int) -> Run:
        path = self._local.directory.path
        # The late reader has a native client of its own, which knows only the old leader.
        with Cluster.connect(path) as cluster, Cluster.connect(path) as other:
            meta = cluster.client
            wait_caught_up(meta)
            name = f"bench-failover-{os.getpid()}-{scenario.name}-{number}"
            volume = cluster.volumes().create(name, _VOLUME_BYTES)
            try:
                plan = Plan.of(meta, volume.volume_id)
                ledger = Ledger(plan.offsets(_SLOTS))
                with (
                    cluster.volumes().open(name, AttachMode.SHARED) as writing,
                    cluster.volumes().open(name, AttachMode.SHARED) as reading,
                    other.volumes().open(name, AttachMode.SHARED) as late,
                ):
                    writer = Writer(writing, ledger, number)
                    readers = [
                        Reader(reading, ledger, number + 1),
                        Reader(late, ledger, number + 2),
                    ]
                    pid = self._pid(plan.victim(scenario.victim))
                    observed = self._observe(scenario, writer, readers, pid)
                    ledger.check_all(late)
                return _summary(observed, writer, readers, ledger)
            finally:
                self._restore()
                cluster.volumes().delete(name, force=True)

    def _observe(
        self, scenario: Scenario, writer: Writer, readers: list[Reader], pid: int | None
    ) -> tuple[int, int]:
        """Runs load and fault; returns the time that counts, monotonic ns."""
        loads = [writer, *readers]
        for load in loads:
            load.start()
        try:
            time.sleep(WARM_SECONDS)
            readers[-1].doze()  # it will ask the stopped leader when that comes back
            time.sleep(0.1)
            begin = time.monotonic_ns()
            if pid is not None and scenario.signal is not None:
                os.kill(pid, scenario.signal)
            if scenario.signal == signal.SIGSTOP and pid is not None:
                time.sleep(_STOP_SECONDS - 0.02)
                readers[-1].wake()  # what it asks waits in the stopped leader's socket
                time.sleep(0.02)
                os.kill(pid, signal.SIGCONT)
                time.sleep(_AFTER_STOP_SECONDS)
            else:
                readers[-1].wake()
                time.sleep(_KILL_SECONDS)
            return begin, time.monotonic_ns()
        finally:
            for load in loads:
                load.end()

    def _pid(self, data_address: str) -> int | None:
        if not data_address:
            return None
        for chunkserver in self._description.chunkservers:
            if chunkserver.data_address == data_address:
                pid = self._local.processes.pid(chunkserver.name)
                if pid is not None:
                    return pid
        raise UnavailableError(f"No process of this cluster serves {data_address}.")

    def _restore(self) -> None:
        for chunkserver in self._description.chunkservers:
            pid = self._local.processes.pid(chunkserver.name)
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
        self._local.start_missing(self._description)


def wait_caught_up(meta: MetaClient, reports: int = 3) -> None:
    """Until every copyset has a leader and no replica lags, is being filled or is damaged, so many
    times in a row.

    Raises CurveTimeoutError. Blocks.
    """
    deadline = time.monotonic() + _RECOVERY_SECONDS
    good = 0
    while good < reports:
        copysets = meta.call("ListCopysets", pb.ListCopysetsRequest()).copysets
        whole = bool(copysets) and all(
            c.leader_store_id
            and all(
                r.state == pb.CHUNKSERVER_STATE_UP
                and not r.lag_entries
                and r.report.role in _SERVING
                and not r.report.damaged
                for r in c.replicas
            )
            for c in copysets
        )
        good = good + 1 if whole else 0
        if time.monotonic() > deadline:
            raise CurveTimeoutError("The replicas have not caught up in time.")
        if good < reports:
            time.sleep(0.5)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which chunks of the volume one chunkserver leads, and who could be hit."""

    chunks: tuple[int, ...]
    leader: str  # data address
    follower: str

    @classmethod
    def of(cls, meta: MetaClient, volume_id: int) -> Plan:
        volume = meta.call("GetVolume", pb.GetVolumeRequest(volume_id=volume_id))
        request = pb.ListCopysetsRequest(pool_id=volume.pool_id)
        copysets = {c.id & 0xFFFFFFFF: c for c in meta.call("ListCopysets", request).copysets}
        led: dict[bytes, list[int]] = {}
        for offset in range(0, volume.size_bytes, CHUNK_BYTES):
            chunk = chunk_of(offset, volume.stripe_unit_bytes, volume.stripe_count)
            copyset = copysets[copyset_index(volume.placement_id, chunk, len(copysets))]
            led.setdefault(copyset.leader_store_id, []).append(chunk)
        leader, chunks = max(led.items(), key=lambda item: len(item[1]))
        addresses = {r.store_id: r.data_address for c in copysets.values() for r in c.replicas}
        # The follower that holds most of these copysets.
        holders = Counter(
            replica.store_id
            for chunk in chunks
            for replica in copysets[
                copyset_index(volume.placement_id, chunk, len(copysets))
            ].replicas
            if replica.store_id != leader
        )
        return cls(tuple(chunks), addresses[leader], addresses[holders.most_common(1)[0][0]])

    def victim(self, kind: str) -> str:
        return {"none": "", "leader": self.leader, "follower": self.follower}[kind]

    def offsets(self, count: int) -> list[int]:
        """That many sectors, spread over the chunks."""
        per_chunk = -(-count // len(self.chunks))
        step = CHUNK_BYTES // per_chunk // SECTOR_BYTES * SECTOR_BYTES
        spread = [chunk * CHUNK_BYTES + n * step for chunk in self.chunks for n in range(per_chunk)]
        return spread[:count]


def _summary(
    observed: tuple[int, int], writer: Writer, readers: list[Reader], ledger: Ledger
) -> Run:
    begin, end = observed
    writes = writer.latencies.between(begin, end)
    reads = [d for reader in readers for d in reader.latencies.between(begin, end)]
    errors = [str(load.error) for load in (writer, *readers) if load.error is not None]
    return Run(
        longest_ms=max(writes, default=end - begin) / 1e6,
        longest_read_ms=max(reads, default=end - begin) / 1e6,
        mean_ms=statistics.fmean(writes) / 1e6 if writes else (end - begin) / 1e6,
        writes=len(writes),
        errors=errors,
        stale_reads=list(ledger.stale),
        series=series([writer.latencies], begin - int(WARM_SECONDS * 1e9), end),
    )
