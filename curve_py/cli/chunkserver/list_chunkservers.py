"""curve chunkserver list."""

from __future__ import annotations

from dataclasses import asdict

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.sizes import format_size


def run(dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """List chunkservers with their state, space and processes."""
    with Cluster.connect(dir) as cluster:
        chunkservers = cluster.chunkservers()
    Output(json).table(
        {"chunkservers": [asdict(chunkserver) for chunkserver in chunkservers]},
        ("store", "state", "address", "zone", "server", "#pid", "#used", "#capacity", "#leads"),
        [
            (
                c.store_id,
                c.condition,
                c.data_address,
                c.zone,
                c.server,
                c.pid or "-",
                format_size(c.used_bytes),
                format_size(c.capacity_bytes),
                f"{c.leader_count} of {c.replica_count}",
            )
            for c in chunkservers
        ],
        empty="No chunkserver has registered yet.",
    )
