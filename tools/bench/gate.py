"""The speed gate: the system through its fio engine, beside the floor in the same run.

Owns: the workloads, the order (floor, system, floor, system, ...), medians and limits. Both work
on files or volumes of one size that were written once before anything is measured. Single figures
drift with the machine; the ratio of two medians from interleaved runs does not drift as much.
Starts a cluster of its own with `curve up` and removes it. Only the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3
READY_SECONDS = 120


@dataclass(frozen=True)
class Workload:
    name: str
    operation: str  # write or read
    depth: int
    measure: str  # mean_us or iops
    option: str  # the limit's flag
    limit: float
    at_most: bool


WORKLOADS = (
    Workload("4k random write, depth 1", "write", 1, "mean_us", "write_latency_ratio", 2.5, True),
    Workload("4k random write, depth 32", "write", 32, "iops", "write_iops_ratio", 0.2, False),
    Workload("4k random read, depth 32", "read", 32, "iops", "read_iops_ratio", 0.6, False),
)


def fail(sentence: str) -> None:
    raise SystemExit(f"gate: {sentence}")


def run(command: Sequence[str], seconds: float) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        fail(f"{Path(command[0]).name} ended with {done.returncode}: {' | '.join(words)}")
    return done.stdout


class Floor:
    """tools/bench/floor on files in a directory that are kept between runs."""

    def __init__(self, program: Path, directory: Path, gib: int) -> None:
        self._command = [str(program), "--dir", str(directory), "--keep"]
        self._command += ["--working-set-gib", str(gib)]

    def measure(self, workload: Workload, seconds: int) -> dict[str, float]:
        output = run(
            [
                *self._command,
                *("--op", workload.operation, "--depth", str(workload.depth)),
                *("--seconds", str(seconds)),
            ],
            seconds + 300,
        )
        result = json.loads(output)
        return {key: float(result[key]) for key in ("iops", "mean_us", "p99_us")}


class System:
    """One volume through the fio engine."""

    def __init__(self, fio: Path, engine: Path, where: Sequence[str], gib: int) -> None:
        self._common = [str(fio), "--output-format=json", "--randrepeat=0", "--norandommap"]
        self._common += [f"--ioengine=external:{engine}", *where, f"--size={gib}G", "--name=gate"]

    def fill(self) -> None:
        self._fio(["--rw=write", "--bs=1M", "--iodepth=8"], "write", 600)

    def measure(self, workload: Workload, seconds: int) -> dict[str, float]:
        return self._fio(
            [
                *(f"--rw=rand{workload.operation}", "--bs=4k", f"--iodepth={workload.depth}"),
                *("--time_based", f"--runtime={seconds}"),
            ],
            workload.operation,
            seconds + 120,
        )

    def _fio(self, options: Sequence[str], operation: str, seconds: float) -> dict[str, float]:
        output = run([*self._common, *options], seconds)
        job = json.loads(output[output.index("{") :])["jobs"][0]
        if job["error"]:
            fail(f"fio saw I/O error {job['error']}")
        result = job[operation]
        return {
            "iops": float(result["iops"]),
            "mean_us": float(result["lat_ns"]["mean"]) / 1e3,
            "p99_us": float(result["clat_ns"]["percentile"]["99.000000"]) / 1e3,
        }


@contextlib.contextmanager
def cluster(directory: Path, gib: int) -> Iterator[list[str]]:
    """`curve up`, a volume; the engine's options for it."""
    place = ["--dir", str(directory)]
    size = f"{4 * gib}GiB"
    try:
        run(["curve", "up", *place, "--store-size", size, "--json"], READY_SECONDS + 60)
        run(["curve", "volume", "create", "gate", f"{gib}GiB", *place, "--json"], 60)
        yield [f"--cluster={directory}", "--volume=gate"]
    finally:
        subprocess.run(["curve", "down", *place], capture_output=True, check=False, timeout=120)


@contextlib.contextmanager
def bare_stores(program: Path, directory: Path, gib: int) -> Iterator[list[str]]:
    """The three chunkserver cores alone, without a control plane."""
    command = [str(program), str(directory), str(4 * gib), str(gib)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdin is not None
        assert it.stdout is not None
        try:
            if not select.select([it.stdout], [], [], READY_SECONDS)[0]:
                fail("the stores did not start")
            if not it.stdout.readline().startswith("ready"):
                fail("the stores did not start")
            yield [f"--cluster={directory}", f"--volume_map={directory / 'map'}"]
        finally:
            it.stdin.close()
            it.wait(30)


def judge(
    workload: Workload, floor: list[dict[str, float]], system: list[dict[str, float]], limit: float
) -> dict[str, object]:
    def median(runs: list[dict[str, float]], key: str) -> float:
        return statistics.median(result[key] for result in runs)

    ratio = median(system, workload.measure) / median(floor, workload.measure)
    return {
        "workload": workload.name,
        "measure": workload.measure,
        "floor": {key: median(floor, key) for key in floor[0]},
        "system": {key: median(system, key) for key in system[0]},
        "floor_runs": floor,
        "system_runs": system,
        "ratio": ratio,
        "limit": limit,
        "limit_is": "at most" if workload.at_most else "at least",
        "kept": ratio <= limit if workload.at_most else ratio >= limit,
    }


def print_table(results: list[dict[str, object]]) -> None:
    print(f"{'workload':28}{'floor':>26}{'system':>26}{'ratio':>8}  limit")
    for result in results:
        cells = []
        for side in ("floor", "system"):
            figures = result[side]
            assert isinstance(figures, dict)
            cells.append(f"{figures['iops']:9.0f} IOPS {figures['mean_us']:7.0f} us")
        word = "kept" if result["kept"] else "MISSED"
        print(
            f"{result['workload']:28}{cells[0]:>26}{cells[1]:>26}{result['ratio']:8.2f}"
            f"  {result['limit_is']} {result['limit']}: {word}"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench/gate", description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True, help="directory of the native build")
    parser.add_argument("--dir", type=Path, help="where data may lie (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side per workload")
    parser.add_argument("--seconds", type=int, default=5, help="length of a run")
    parser.add_argument("--working-set-gib", type=int, default=1)
    parser.add_argument("--bare-stores", action="store_true", help="no metaserver, cores alone")
    parser.add_argument("--json", type=Path, help="write all figures into this file")
    for workload in WORKLOADS:
        parser.add_argument(
            "--" + workload.option.replace("_", "-"),
            type=float,
            default=workload.limit,
            help=f"{workload.name}: {workload.measure} of the system / of the floor, "
            f"{'at most' if workload.at_most else 'at least'} (default %(default)s)",
        )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    build, gib = options.build.absolute(), options.working_set_gib
    root = Path(__file__).resolve().parents[2]
    fio, engine = root / "build/fio/fio", build / "native/fio/fio-curve.so"
    floor_program = build / "tools/bench/floor/curve_floor"
    for program in (fio, engine, floor_program):
        if not program.exists():
            fail(f"{program} is missing; run tools/bench/gate without --no-build")
    os.environ.setdefault("CURVE", shutil.which("curve") or "curve")
    directory = Path(
        tempfile.mkdtemp(prefix="curve-gate-", dir=options.dir and options.dir.absolute())
    )
    report = options.json.absolute() if options.json else None
    os.chdir(directory)  # fio leaves state files where it stands
    results = []
    try:
        if options.bare_stores:
            stores = bare_stores(build / "native/fio/fio_local_stores", directory / "s", gib)
        else:
            stores = cluster(directory / "c", gib)
        with stores as where:
            floor = Floor(floor_program, directory, gib)
            system = System(fio, engine, where, gib)
            system.fill()
            for workload in WORKLOADS:
                pairs: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
                for number in range(options.rounds):
                    for side, runs in zip((floor, system), pairs, strict=True):
                        runs.append(side.measure(workload, options.seconds))
                    last = ", ".join(f"{runs[-1][workload.measure]:.0f}" for runs in pairs)
                    print(
                        f"   {workload.name}, {workload.measure}, round {number + 1}: {last}",
                        file=sys.stderr,
                    )
                limit = getattr(options, workload.option)
                results.append(judge(workload, *pairs, limit))
    finally:
        os.chdir(root)
        shutil.rmtree(directory, ignore_errors=True)
    print_table(results)
    if report:
        report.write_text(json.dumps({"results": results}, indent=2) + "\n")
    return 0 if all(result["kept"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
