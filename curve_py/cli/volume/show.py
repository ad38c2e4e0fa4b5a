"""curve volume show NAME."""

from __future__ import annotations

from dataclasses import asdict

from curve_py.cli.local.exports import Exports, export_fields
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.cli.volume.fields import volume_fields
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory
from curve_py.sizes import format_size


def run(name: str, dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """Show one volume: size, space, attachments, exports."""
    with Cluster.connect(dir) as cluster:
        volume = cluster.volumes().get(name)
        usage = cluster.volumes().usage(name)
    exports = [e for e in Exports(ClusterDirectory(dir)).list() if e.volume == name]
    missing = sum(store.allocated_bytes is None for store in usage.stores)
    Output(json).table(
        {
            "volume": volume_fields(volume),
            "allocated_bytes": usage.allocated_bytes,
            "stores": [asdict(store) for store in usage.stores],
            "exports": [export_fields(export) for export in exports],
        },
        ("property", "value"),
        [
            ("name", volume.name),
            ("id", volume.volume_id),
            ("pool", volume.pool),
            ("size", format_size(volume.size_bytes)),
            (
                "space",
                f"{format_size(usage.allocated_bytes)} on {len(usage.stores)} stores"
                + (f" ({missing} did not answer)" if missing else ""),
            ),
            ("stripes", f"{volume.stripe_count} of {format_size(volume.stripe_unit_bytes)}"),
            *(
                ("attached", f"{a.mode} by {a.holder}{'' if a.active else ' (pending)'}")
                for a in volume.attachments
            ),
            *(("exported", f"{e.uri} by pid {e.pid}") for e in exports),
        ],
    )
