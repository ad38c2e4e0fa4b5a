"""A cluster that a benchmark makes for itself and removes, as `curve up` makes one. May block."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator

from curve_py.cli.local.cluster import COPYSETS, LocalCluster
from curve_py.cli.output import Output
from curve_py.client.directory import ClusterDirectory


@contextlib.contextmanager
def temporary_cluster(
    output: Output,
    chunkservers: int,
    store_bytes: int,
    *,
    wal_bytes: int = 0,
    copysets: int = COPYSETS,
) -> Iterator[LocalCluster]:
    """Three metaservers and so many chunkservers, in a new directory below $TMPDIR."""
    made = tempfile.mkdtemp(prefix="curve-bench-")
    local = LocalCluster(ClusterDirectory(made), copysets)
    description = None
    try:
        local.directory.make()
        with local.locked():
            description = local.describe(None, chunkservers, store_bytes)
            if wal_bytes:
                for chunkserver in description.chunkservers:
                    with open(local.directory.config_file(chunkserver.name), "a") as config:
                        config.write(f"wal_bytes = {wal_bytes}\n")
            local.start_missing(description)
            with output.progress() as progress:
                local.wait_ready(description, progress)
        yield local
    finally:
        if description is not None:
            local.stop(description)
        shutil.rmtree(made, ignore_errors=True)
