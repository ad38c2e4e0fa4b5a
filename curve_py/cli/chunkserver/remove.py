"""curve chunkserver remove ID: takes an empty chunkserver out of the cluster, for good."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from curve_py.cli.chunkserver.find import HELP, find_chunkserver
from curve_py.cli.local.cluster import LocalCluster
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory


def run(
    chunkserver: Annotated[str, typer.Argument(metavar="ID", help=HELP)],
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Remove an empty chunkserver for good; one of this machine's cluster is stopped."""
    output = Output(json)
    directory = ClusterDirectory(dir)
    with Cluster.connect(directory.path) as cluster:
        found = find_chunkserver(cluster, directory, chunkserver)
        removed = cluster.remove_chunkserver(found.store_id)
    name = LocalCluster(directory).forget(removed.data_address) if directory.exists else ""
    local = f"; {name} was stopped, and {directory.data_dir(name)} can be deleted" if name else ""
    output.result(
        {"chunkserver": asdict(removed), "stopped": [name] if name else []},
        f"Chunkserver {removed.data_address} is removed{local}.",
    )
