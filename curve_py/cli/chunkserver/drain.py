"""curve chunkserver drain ID: begins to empty a chunkserver."""

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
    """Empty a chunkserver: its replicas move to others, one by one, at full replication."""
    output = Output(json)
    directory = ClusterDirectory(dir)
    with Cluster.connect(directory.path) as cluster:
        found = find_chunkserver(cluster, directory, chunkserver)
        changed = cluster.drain_chunkserver(found.store_id)
    output.result(
        {"chunkserver": asdict(changed)},
        f"{changed.assigned_count} replicas move away from chunkserver {changed.data_address}; "
        "see how far it is with: curve task list --follow",
    )
