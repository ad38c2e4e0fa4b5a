"""curve copyset list."""

from __future__ import annotations

from curve_py.cli.copyset.fields import copyset_fields
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster


def run(dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """List copysets: leader, replicas, lag."""
    with Cluster.connect(dir) as cluster:
        copysets = cluster.copysets()
    Output(json).table(
        {"copysets": [copyset_fields(copyset) for copyset in copysets]},
        ("copyset", "leader", "#term", "replicas", "#lag"),
        [
            (
                c.name,
                c.leader_address or "-",
                c.term,
                ", ".join(f"{r.data_address} {r.role}" for r in c.replicas),
                c.lag_entries,
            )
            for c in copysets
        ],
        empty="There are no copysets; `curve up` makes the default pool.",
    )
