"""curve volume list."""

from __future__ import annotations

from curve_py.cli.local.exports import Exports, export_fields
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.cli.volume.fields import volume_fields
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory
from curve_py.sizes import format_size


def run(dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """List volumes, who has them attached, and where they are exported from this machine."""
    with Cluster.connect(dir) as cluster:
        volumes = list(cluster.volumes().list())
    exports = Exports(ClusterDirectory(dir)).list()
    by_volume = {v.name: [e for e in exports if e.volume == v.name] for v in volumes}
    Output(json).table(
        {
            "volumes": [
                {
                    **volume_fields(volume),
                    "exports": [export_fields(export) for export in by_volume[volume.name]],
                }
                for volume in volumes
            ]
        },
        ("name", "#size", "pool", "attached", "exported"),
        [
            (
                volume.name,
                format_size(volume.size_bytes),
                volume.pool,
                ", ".join(str(a.mode) for a in volume.attachments) or "-",
                ", ".join(e.address for e in by_volume[volume.name]) or "-",
            )
            for volume in volumes
        ],
        empty="There are no volumes; make one with `curve volume create NAME SIZE`.",
    )
