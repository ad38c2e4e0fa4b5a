"""A cluster that a benchmark makes for itself and removes, as `curve up` makes one. May block."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator

from curve_py.cli.local.cluster import LocalCluster
from curve_py.cli.output import Output
from curve_py.client.directory import ClusterDirectory


@contextlib.contextmanager
def temporary_cluster(
    output: Output, chunkservers: int, store_bytes: int
) -> Iterator[LocalCluster]:
    """Three metaservers and so many chunkservers, in a new directory below $TMPDIR."""
    made = tempfile.mkdtemp(prefix="curve-bench-")
    local = LocalCluster(ClusterDirectory(made))
    description = None
    try:
        local.directory.make()
        with local.locked():
            description = local.describe(None, chunkservers, store_bytes)
            local.start_missing(description)
            with output.progress() as progress:
                local.wait_ready(description, progress)
        yield local
    finally:
        if description is not None:
            local.stop(description)
        shutil.rmtree(made, ignore_errors=True)
