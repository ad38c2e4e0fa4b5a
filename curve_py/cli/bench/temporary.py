"""A cluster that a benchmark makes for itself and removes, as `curve up` makes one. May block."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator

from curve_py.cli.local.cluster import COPYSETS, LocalCluster
from curve_py.cli.output import Output
from curve_py.client.directory import ClusterDirectory

_STEP_SECONDS = 600.0  # stores may be written once from end to end


@contextlib.contextmanager
def temporary_cluster(
    output: Output,
    chunkservers: int,
    store_bytes: int,
    *,
    wal_bytes: int = 0,
    copysets: int = COPYSETS,
    preallocation: str = "falloc",
) -> Iterator[LocalCluster]:
    """Three metaservers and so many chunkservers, in a new directory below $TMPDIR. Main thread."""
    keys: dict[str, str | int] = {"preallocation": f'"{preallocation}"'}
    if wal_bytes:
        keys["wal_bytes"] = wal_bytes
    with _ended_in_order():
        yield from _make(output, chunkservers, store_bytes, keys, copysets)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends the benchmark as an interrupt does, so that nothing is left running."""

    def end(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _make(
    output: Output, chunkservers: int, store_bytes: int, keys: dict[str, str | int], copysets: int
) -> Iterator[LocalCluster]:
    made = tempfile.mkdtemp(prefix="curve-bench-")
    local = LocalCluster(ClusterDirectory(made), copysets, _STEP_SECONDS)
    description = None
    try:
        local.directory.make()
        with local.locked():
            description = local.describe(None, chunkservers, store_bytes)
            for chunkserver in description.chunkservers:
                with open(local.directory.config_file(chunkserver.name), "a") as config:
                    config.writelines(f"{key} = {value}\n" for key, value in keys.items())
            local.start_missing(description)
            with output.progress() as progress:
                local.wait_ready(description, progress)
        yield local
    finally:
        if description is not None:
            local.stop(description)
        shutil.rmtree(made, ignore_errors=True)
