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
    removed, cut_off = Exports(directory).remove(name)
    lines = [f"Volume '{name}' is not exported at {export.address} any more." for export in removed]
    if cut_off:
        lines.append(
            f"{cut_off} requests did not end within 5 s and were answered with an error: "
            "see `curve status` for chunkservers that are down."
        )
    Output(json).result(
        {"removed": [export_fields(export) for export in removed], "requests_cut_off": cut_off},
        *lines,
    )
