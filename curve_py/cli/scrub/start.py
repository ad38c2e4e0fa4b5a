"""curve scrub start [--store ID]... [--rate RATE]."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.cli.scrub.status import chosen_stores, scrub_table
from curve_py.client import Cluster
from curve_py.client.chunkservers import Chunkservers
from curve_py.sizes import parse_size

StoreOption = Annotated[
    list[str] | None,
    typer.Option("--store", metavar="ID", help="Only this store; may be repeated. Default: all."),
]


def run(
    store: StoreOption = None,
    rate: Annotated[
        str, typer.Option(metavar="SIZE", help="Bytes per second and store, such as 16M.")
    ] = "",
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Read stores through now: what is damaged is repaired, replicas are compared."""
    bytes_per_second = parse_size(rate) if rate else 0
    with Cluster.connect(dir) as cluster, Chunkservers(cluster) as chunkservers:
        infos = [
            chunkservers.scrub(each, start=True, bytes_per_second=bytes_per_second)
            for each in chosen_stores(chunkservers, store)
        ]
    scrub_table(Output(json), {"stores": [asdict(info) for info in infos]}, infos)
