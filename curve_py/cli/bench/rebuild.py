"""curve bench rebuild: one of four chunkservers is killed for good while clients work.

Owns: the run, its figures and their limits. Nobody helps: the metaserver notices and has the
replicas rebuilt on the other three. Each run has a cluster of its own, so that all begin alike.
Every write of the load is numbered and every read checked (curve_py/cli/bench/load.py); what lay
there before is read again at the end.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from curve_py.cli.bench.failover import wait_caught_up
from curve_py.cli.bench.load import Ledger, Reader, Writer
from curve_py.cli.bench.temporary import temporary_cluster
from curve_py.cli.local.cluster import LocalCluster
from curve_py.cli.options import JsonOption
from curve_py.cli.output import Output
from curve_py.client import AttachMode, Cluster, Volume
from curve_py.errors import CurveTimeoutError
from curve_py.placement import CHUNK_BYTES
from curve_py.sizes import format_size, parse_size

_MIB = 1024**2
_CHUNKSERVERS, _REPLICAS = 4, 3
_PIECE_BYTES = _MIB
_FILLERS = 4
_LOADS, _LOAD_SLOTS, _LOAD_BYTES = 4, 256, 64 * CHUNK_BYTES
_WARM_SECONDS = 2.0
_FIRST_SECONDS = 1.0  # after the kill, while leaders are elected
_BOUND_SECONDS = 600.0
_POLL_SECONDS = 0.1
_REBUILD_MIB_MIN = 50.0
_SHARE_MIN = 0.6
_LONGEST_MS_MAX = 200.0


@dataclass(slots=True)
class Run:
    """One run; a copy counts once for each replica that was rebuilt."""

    rebuilt_mib: float
    noticed_seconds: float  # from the kill to the first replica that is on its way
    rebuild_seconds: float  # from there to full replication
    rebuild_mib_per_second: float
    before_iops: float
    degraded_iops: float  # from one second after the kill until it is noticed
    rebuild_iops: float
    share: float  # of what it was before
    first_longest_ms: float  # longest I/O of the first second
    longest_ms: float  # what of an I/O lay behind it, until full replication
    longest_before_ms: float
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # stale or lost


def run(
    runs: Annotated[int, typer.Option(min=1, help="Runs, each with a new cluster.")] = 3,
    data: Annotated[
        str, typer.Option(help="What the clients have written before, as 2GiB.")
    ] = "2GiB",
    seconds: Annotated[float, typer.Option(min=1, help="Measured before the kill.")] = 10.0,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 when a median misses its limit.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure how fast a chunkserver that is gone is replaced, and what clients feel of it.

    Every run makes a cluster of four chunkservers and removes it.
    """
    output = Output(json)
    pieces = max(parse_size(data) // _PIECE_BYTES, 1)
    done = []
    for number in range(runs):
        one = _run(output, pieces, seconds)
        done.append(one)
        output.note(
            f"run {number + 1} of {runs}: {one.rebuilt_mib:.0f} MiB in {one.rebuild_seconds:.1f} s,"
            f" clients at {100 * one.share:.0f} % of {one.before_iops:.0f} I/Os per second,"
            f" longest I/O {one.longest_ms:.0f} ms"
        )
    figures = _figures(done)
    output.table(
        {"runs": [asdict(r) for r in done], "data_bytes": pieces * _PIECE_BYTES, **figures},
        ("figure", "#median", "limit"),
        _rows(figures),
        title=f"One of four chunkservers killed for good, {format_size(pieces * _PIECE_BYTES)} of "
        f"data, medians of {runs} runs",
    )
    broken = any(r.errors or r.wrong for r in done)
    if broken or (check and not figures["kept"]):
        raise typer.Exit(1)


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians, sums, and whether the limits are kept."""

    def median(name: str) -> float:
        return float(statistics.median(getattr(r, name) for r in runs))

    found: dict[str, Any] = {
        name: median(name)
        for name in (
            "rebuilt_mib",
            "noticed_seconds",
            "rebuild_seconds",
            "rebuild_mib_per_second",
            "before_iops",
            "degraded_iops",
            "rebuild_iops",
            "share",
            "longest_before_ms",
            "first_longest_ms",
            "longest_ms",
        )
    }
    found["errors"] = sum(len(r.errors) for r in runs)
    found["wrong"] = sum(len(r.wrong) for r in runs)
    found["kept"] = all(_kept(found).values())
    return found


def _kept(figures: dict[str, Any]) -> dict[str, bool]:
    return {
        "rebuild_mib_per_second": figures["rebuild_mib_per_second"] >= _REBUILD_MIB_MIN,
        "share": figures["share"] >= _SHARE_MIN,
        "longest_ms": figures["longest_ms"] < _LONGEST_MS_MAX,
    }


def _rows(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    kept = _kept(figures)

    def limited(title: str, name: str, figure: str, limit: str) -> tuple[str, str, str]:
        return title, figure, f"{limit}: {'kept' if kept[name] else 'MISSED'}"

    return [
        ("noticed after", f"{figures['noticed_seconds']:.1f} s", ""),
        ("rebuilt", f"{figures['rebuilt_mib']:.0f} MiB", ""),
        ("full replication after", f"{figures['rebuild_seconds']:.1f} s more", ""),
        limited(
            "rate of rebuilding",
            "rebuild_mib_per_second",
            f"{figures['rebuild_mib_per_second']:.0f} MiB/s",
            f"at least {_REBUILD_MIB_MIN:.0f} MiB/s",
        ),
        ("client I/Os per second before", f"{figures['before_iops']:.0f}", ""),
        ("with one dead, not yet noticed", f"{figures['degraded_iops']:.0f}", ""),
        ("client I/Os per second meanwhile", f"{figures['rebuild_iops']:.0f}", ""),
        limited(
            "share",
            "share",
            f"{100 * figures['share']:.0f} %",
            f"at least {100 * _SHARE_MIN:.0f} %",
        ),
        ("longest I/O before", f"{figures['longest_before_ms']:.0f} ms", ""),
        ("longest I/O, first second", f"{figures['first_longest_ms']:.0f} ms", ""),
        limited(
            "longest I/O afterwards",
            "longest_ms",
            f"{figures['longest_ms']:.0f} ms",
            f"below {_LONGEST_MS_MAX:.0f} ms",
        ),
        ("I/O errors", str(figures["errors"]), "none"),
        ("stale or lost", str(figures["wrong"]), "none"),
    ]


# --- One run --------------------------------------------------------------------------------------


def _run(output: Output, pieces: int, seconds: float) -> Run:
    # Room for all of it on three stores, with what the scheduler keeps free.
    store_bytes = 2 * pieces * _PIECE_BYTES + 1024 * _MIB
    with (
        temporary_cluster(output, _CHUNKSERVERS, store_bytes) as local,
        Cluster.connect(local.directory.path) as cluster,
    ):
        cluster.volumes().create("data", pieces * _PIECE_BYTES)
        cluster.volumes().create("load", _LOAD_BYTES)
        with (
            cluster.volumes().open("data") as data,
            cluster.volumes().open("load", AttachMode.SHARED) as writing,
            cluster.volumes().open("load", AttachMode.SHARED) as reading,
        ):
            content = Content(pieces)
            content.write(data)
            ledgers = [_ledger(number) for number in range(_LOADS)]
            loads: list[Writer | Reader] = []
            for number, ledger in enumerate(ledgers):
                _write_once(writing, ledger)
                loads += [Writer(writing, ledger, number), Reader(reading, ledger, number)]
            wait_caught_up(cluster.client)
            found = _measure(local, cluster, loads, seconds)
            for ledger in ledgers:
                ledger.check_all(reading)
                found.wrong += ledger.stale
            found.wrong += content.check(data)
            return found


def _measure(
    local: LocalCluster, cluster: Cluster, loads: Sequence[Writer | Reader], seconds: float
) -> Run:
    """Runs load and fault."""
    victim = local.directory.load().chunkservers[-1]
    with _running(loads):
        time.sleep(_WARM_SECONDS)
        begin = time.monotonic_ns()
        time.sleep(seconds)
        info = next(c for c in cluster.chunkservers() if c.data_address == victim.data_address)
        killed = time.monotonic_ns()
        pid = local.processes.pid(victim.name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        _until(lambda: cluster.status().recovery.running > 0, "no replica is rebuilt")
        noticed = time.monotonic_ns()
        _until(lambda: _is_whole(cluster, info.store_id), "there is no full replication again")
        whole = time.monotonic_ns()
    first = killed + int(_FIRST_SECONDS * 1e9)
    rebuilt_mib = info.used_bytes / _MIB
    before, during = _rate(loads, begin, killed), _rate(loads, noticed, whole)
    return Run(
        rebuilt_mib=rebuilt_mib,
        noticed_seconds=(noticed - killed) / 1e9,
        rebuild_seconds=(whole - noticed) / 1e9,
        rebuild_mib_per_second=rebuilt_mib / ((whole - noticed) / 1e9),
        before_iops=before,
        degraded_iops=_rate(loads, first, noticed),
        rebuild_iops=during,
        share=during / before,
        first_longest_ms=_longest(loads, killed, first),
        longest_ms=_longest(loads, first, whole),
        longest_before_ms=_longest(loads, begin, killed),
        errors=[str(load.error) for load in loads if load.error is not None],
    )


@contextlib.contextmanager
def _running(loads: Sequence[Writer | Reader]) -> Iterator[None]:
    for load in loads:
        load.start()
    try:
        yield
    finally:
        for load in loads:
            load.end()


def _rate(loads: Sequence[Writer | Reader], begin: int, end: int) -> float:
    """I/Os that ended in [begin, end), per second."""
    count = sum(begin <= s + d < end for load in loads for s, d in load.latencies.samples)
    return count / ((end - begin) / 1e9)


def _longest(loads: Sequence[Writer | Reader], begin: int, end: int) -> float:
    """The most that one I/O took of [begin, end), in ms; what lay before does not count."""
    inside = (
        start + duration - max(start, begin)
        for load in loads
        for start, duration in load.latencies.samples
        if start < end and start + duration > begin
    )
    return max(inside, default=end - begin) / 1e6


def _is_whole(cluster: Cluster, gone: str) -> bool:
    """Every copyset has as many replicas that serve as it should, none of them on `gone`."""
    recovery = cluster.status().recovery
    if recovery.running or recovery.queued:
        return False
    return all(
        len(copyset.replicas) == _REPLICAS
        and all(r.store_id != gone and r.state == "up" for r in copyset.replicas)
        for copyset in cluster.copysets()
    )


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _BOUND_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise CurveTimeoutError(f"After {_BOUND_SECONDS:g} s {otherwise}.")
        time.sleep(_POLL_SECONDS)


# --- What is written ------------------------------------------------------------------------------


def _ledger(number: int) -> Ledger:
    """Slots over the whole volume, other ones for each load."""
    step = _LOAD_BYTES // (_LOAD_SLOTS * _LOADS)
    return Ledger([(slot * _LOADS + number) * step for slot in range(_LOAD_SLOTS)])


def _write_once(volume: Volume, ledger: Ledger) -> None:
    """First writes take space; they are not what is measured."""
    writer = Writer(volume, ledger, 0)
    for slot in range(len(ledger.offsets)):
        writer.write_slot(slot)


class Content:
    """So many pieces, each different, in the order of the volume."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self._base = random.Random(pieces).randbytes(2 * _PIECE_BYTES)

    def _piece(self, number: int) -> bytes:
        at = number * 4096 % _PIECE_BYTES
        return struct.pack("<Q", number) + self._base[at + 8 : at + _PIECE_BYTES]

    def write(self, volume: Volume) -> None:
        def one(number: int) -> None:
            volume.write(number * _PIECE_BYTES, self._piece(number))

        with ThreadPoolExecutor(_FILLERS) as pool:
            list(pool.map(one, range(self._pieces)))

    def check(self, volume: Volume) -> list[str]:
        """A sentence for each piece that is not as it was written."""

        def is_whole(number: int) -> bool:
            read = volume.read(number * _PIECE_BYTES, _PIECE_BYTES)
            return read == self._piece(number)

        with ThreadPoolExecutor(_FILLERS) as pool:
            whole = pool.map(is_whole, range(self._pieces))
        return [
            f"the data at {number * _PIECE_BYTES} is not what was written"
            for number, good in enumerate(whole)
            if not good
        ]
