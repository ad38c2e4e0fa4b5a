"""Measurements that are no job of fio's: what each does, and its limits. May block.

Each makes a cluster of its own and removes it. One that this machine does not allow is said to be
not measured; it is never taken for kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from curve_py.cli.bench import failover, restart, slow_follower
from curve_py.cli.bench.host import Watch
from curve_py.cli.bench.measure import Settings
from curve_py.cli.bench.report import Result, Sample, summarise
from curve_py.cli.bench.suites import SCENARIO, Limit
from curve_py.cli.bench.systems import CurveSystem
from curve_py.cli.bench.temporary import temporary_cluster
from curve_py.cli.local.cluster import service_names
from curve_py.cli.output import Output
from curve_py.errors import NotFoundError, UnsupportedError

_GIB = 1024**3
_IDLE_COPYSETS = 1024
_SETTLE_SECONDS = 60.0  # leaders go where they are wished, stores drain their logs
_IDLE_SECONDS = 60.0
_RUNS = 5


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    title: str
    run: Callable[[Output, Settings], list[Sample]]
    limits: Sequence[Limit]


def _idle(output: Output, settings: Settings) -> list[Sample]:
    """Processor time of the process that uses most, with nobody connected."""
    del settings
    with temporary_cluster(output, 3, 2 * _GIB, copysets=_IDLE_COPYSETS) as local:
        time.sleep(_SETTLE_SECONDS)
        with Watch(CurveSystem(local).directory) as watch:
            for name in service_names(local.directory.load()):
                pid = local.processes.pid(name)
                if pid is not None:
                    watch.follow(name, pid)
            begin = time.time_ns()
            time.sleep(_IDLE_SECONDS)
            end = time.time_ns()
        usage = watch.between(begin, end)
        shares = {name: 100 * spent / usage.seconds for name, spent in usage.roles.items()}
    measures = {f"{name.replace('-', '_')}_cpu_percent": x for name, x in sorted(shares.items())}
    return [Sample({"most_cpu_percent": max(shares.values())} | measures)]


def _failover(name: str) -> Callable[[Output, Settings], list[Sample]]:
    scenario = next(one for one in failover.SCENARIOS if one.name == name)

    def run(output: Output, settings: Settings) -> list[Sample]:
        with temporary_cluster(output, 3, 2 * _GIB) as local:
            runs = failover.Bench(local, output).measure(scenario, settings.runs or _RUNS)
        return [
            Sample(
                {
                    "longest_ms": run.longest_ms,
                    "longest_read_ms": run.longest_read_ms,
                    "mean_us": run.mean_ms * 1000,
                    "errors": float(len(run.errors) + len(run.stale_reads)),
                },
                series=run.series,
                events=[(failover.WARM_SECONDS, scenario.title)],
            )
            for run in runs
        ]

    return run


_NO_ERROR = Limit("errors", "", True, 0.0)
SCENARIOS = (
    Scenario(
        "idle",
        f"idle cluster, {_IDLE_COPYSETS} copysets: busiest process",
        _idle,
        [Limit("most_cpu_percent", "", True, 1.0, 0.2)],
    ),
    Scenario(
        "slow-follower",
        "one follower's disk takes 500 ms per write",
        slow_follower.run,
        [
            Limit("p99_us", "before_p99_us", True, 1.2),
            Limit("memory_growth_mib", "", True, 512.0),
            _NO_ERROR,
        ],
    ),
    Scenario(
        "kill-leader",
        "leader killed with SIGKILL: longest I/O",
        _failover("kill_leader"),
        [Limit("longest_ms", "", True, 500.0, 300.0), _NO_ERROR],
    ),
    Scenario(
        "stop-leader",
        "leader stopped with SIGSTOP: longest I/O",
        _failover("stop_leader"),
        [Limit("longest_ms", "", True, 1500.0, 600.0), _NO_ERROR],
    ),
    Scenario(
        "restart",
        "restart of a chunkserver, all of it mapped: until it serves",
        restart.run,
        [Limit("serving_seconds", "", True, 5.0, 2.0)],
    ),
)


def checked(step: str) -> str:
    """`step` is scenario:NAME. Raises NotFoundError."""
    _find(step)
    return step


def _find(step: str) -> Scenario:
    name = step.removeprefix(SCENARIO)
    for scenario in SCENARIOS:
        if scenario.name == name:
            return scenario
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    raise NotFoundError(f"There is no scenario {name}.", f"There are: {names}.")


def measure(step: str, output: Output, settings: Settings) -> Result:
    """Raises CurveError."""
    scenario = _find(step)
    result = Result("scenario", scenario.name, scenario.title, [])
    output.note(f"{scenario.title}")
    try:
        result.runs = scenario.run(output, settings)
    except UnsupportedError as error:
        output.note(f"{scenario.title}: not measured. {error}")
    summarise(result, settings.limits_for(scenario.name, scenario.limits))
    return result


def left_out(step: str, output: Output, settings: Settings) -> Result:
    """One that cannot be measured on the system that is measured: its limits are not kept."""
    scenario = _find(step)
    output.note(f"{scenario.title}: not measured. It wants a cluster of its own.")
    result = Result("scenario", scenario.name, scenario.title, [])
    summarise(result, settings.limits_for(scenario.name, scenario.limits))
    return result
