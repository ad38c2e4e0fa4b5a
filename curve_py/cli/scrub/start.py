"""curve scrub start [--store ID]... [--rate RATE]."""

from __future__ import annotations

from typing import Annotated

import typer

from curve_py.cli.chunkserver.find import HELP, find_chunkserver
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.cli.scrub.status import show_scrub
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory
from curve_py.sizes import parse_size

StoreOption = Annotated[
    list[str] | None,
    typer.Option("--store", metavar="ID", help=f"{HELP} May be repeated. Default: all."),
]


def run(
    store: StoreOption = None,
    rate: Annotated[
        str, typer.Option(metavar="SIZE", help="Bytes per second and store, such as 16M.")
    ] = "",
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Read stores through now: what is damaged is repaired, replicas are compared.

    Exit code 1 when a store could not be told.
    """
    bytes_per_second = parse_size(rate) if rate else 0
    directory = ClusterDirectory(dir)
    with Cluster.connect(directory.path) as cluster:
        stores = [find_chunkserver(cluster, directory, each).store_id for each in store or ()]
        report = cluster.scrub(stores, start=True, bytes_per_second=bytes_per_second)
    show_scrub(Output(json), report)
    if report.unreachable:
        raise typer.Exit(1)
