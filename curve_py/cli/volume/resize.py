"""curve volume resize NAME SIZE."""

from __future__ import annotations

from typing import Annotated

import typer

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.cli.volume.fields import volume_fields
from curve_py.client import Cluster
from curve_py.sizes import format_size


def run(
    name: str,
    size: Annotated[str, typer.Argument(help="The new size, like 20GiB; not smaller.")],
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Grow a volume; it may be in use."""
    with Cluster.connect(dir) as cluster:
        volume = cluster.volumes().resize(name, size)
    Output(json).result(
        {"volume": volume_fields(volume)},
        f"Volume '{volume.name}' has {format_size(volume.size_bytes)} now.",
    )
