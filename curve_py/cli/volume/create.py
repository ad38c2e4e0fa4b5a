"""curve volume create NAME SIZE."""

from __future__ import annotations

from typing import Annotated

import typer

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.cli.volume.fields import volume_fields
from curve_py.client import Cluster
from curve_py.sizes import format_size, parse_size


def run(
    name: str,
    size: Annotated[str, typer.Argument(help="Like 10GiB or 1.5T.")],
    stripe_unit: Annotated[
        str, typer.Option(metavar="S", help="Bytes in a row on one copyset, like 64KiB.")
    ] = "16MiB",
    stripe_count: Annotated[
        int, typer.Option(help="Over how many copysets a stream is spread.")
    ] = 1,
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Make a thin volume."""
    with Cluster.connect(dir) as cluster:
        volume = cluster.volumes().create(
            name, size, stripe_unit_bytes=parse_size(stripe_unit), stripe_count=stripe_count
        )
    Output(json).result(
        {"volume": volume_fields(volume)},
        f"Volume '{volume.name}' of {format_size(volume.size_bytes)} is made.",
    )
