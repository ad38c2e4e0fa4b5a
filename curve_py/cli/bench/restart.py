"""A chunkserver with much data is killed and started: how long until it serves. May block.

One chunkserver and pools of one replica: nobody else can answer, so what is measured is its own
start, and 20 GiB fit on a small machine. Just before the kill random writes have filled the log as
far as it gets. Serving means that a read that waits is answered.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

from curve_py.cli.bench import fio
from curve_py.cli.bench.measure import Settings
from curve_py.cli.bench.report import Sample
from curve_py.cli.bench.suites import Job
from curve_py.cli.bench.systems import CurveSystem
from curve_py.cli.bench.temporary import temporary_cluster
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.errors import CurveError, CurveTimeoutError, UnavailableError

_GIB = 1024**3
_MAPPED_BYTES = 20 * _GIB
_WRITE_SECONDS = 10.0
_BOUND_SECONDS = 120.0


def run(output: Output, settings: Settings) -> list[Sample]:
    """Raises CurveError."""
    size = settings.volume_bytes or _MAPPED_BYTES
    with (
        temporary_cluster(output, 1, size * 5 // 4) as local,
        tempfile.TemporaryDirectory(prefix="curve-bench-work-") as work,
    ):
        system = CurveSystem(local)
        with system.volumes(1, size) as [name]:
            output.note(f"restart: filling {size / _GIB:.0f} GiB")
            job = Job("random", options={"rw": "randwrite", "bs": "4k", "iodepth": "64"})
            with system.reach([name], "") as reached:
                fio.run(reached, fio.fill_job(), size, 0, Path(work))
                fio.run(reached, job, size, settings.seconds or _WRITE_SECONDS, Path(work))
            used, left = sum(system.metrics("wal_used_bytes")), system.undrained_bytes()
            seconds = _restart(system, name)
    measures = {"serving_seconds": seconds, "mapped_bytes": float(size)}
    measures |= {"wal_used_bytes": used, "wal_left_bytes": left or 0.0}
    return [Sample(measures)]


def _restart(system: CurveSystem, name: str) -> float:
    """Kills and starts the only chunkserver; seconds until a read is answered."""
    local = system.local
    description = local.directory.load()
    with Cluster.connect(system.directory) as cluster, cluster.volumes().open(name) as volume:
        volume.read(0, 4096)
        pid = local.processes.pid(description.chunkservers[0].name)
        if pid is None:
            raise UnavailableError("The chunkserver does not run.")
        os.kill(pid, signal.SIGKILL)
        while local.processes.pid(description.chunkservers[0].name) is not None:
            time.sleep(0.01)
        answered: list[float] = []

        def read() -> None:
            try:
                volume.read(0, 4096)
                answered.append(time.monotonic())
            except CurveError:
                return

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        time.sleep(0.2)
        begin = time.monotonic()
        local.start_missing(description)
        reader.join(_BOUND_SECONDS)
        if not answered:
            raise CurveTimeoutError(f"It did not serve within {_BOUND_SECONDS:g} s.")
        return answered[0] - begin
