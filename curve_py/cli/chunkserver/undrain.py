"""curve chunkserver undrain ID: takes a drained chunkserver back into service."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from curve_py.cli.chunkserver.find import HELP, find_chunkserver
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory


def run(
    chunkserver: Annotated[str, typer.Argument(metavar="ID", help=HELP)],
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Take a chunkserver back into service; it is filled again."""
    output = Output(json)
    directory = ClusterDirectory(dir)
    with Cluster.connect(directory.path) as cluster:
        found = find_chunkserver(cluster, directory, chunkserver)
        changed = cluster.undrain_chunkserver(found.store_id)
    output.result(
        {"chunkserver": asdict(changed)},
        f"Chunkserver {changed.data_address} is in service; replicas come back to it.",
    )
