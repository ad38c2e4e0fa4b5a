"""curve volume unexport NAME."""

from __future__ import annotations

from curve_py.cli.local.exports import Exports, export_fields
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client.directory import ClusterDirectory


def run(name: str, dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """End the exports of a volume from this machine."""
    directory = ClusterDirectory(dir)
    directory.load()
    removed = Exports(directory).remove(name)
    Output(json).result(
        {"removed": [export_fields(export) for export in removed]},
        *(f"Volume '{name}' is not exported at {export.address} any more." for export in removed),
    )
