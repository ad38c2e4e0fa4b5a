"""curve volume delete NAME."""

from __future__ import annotations

from typing import Annotated

import typer

from curve_py.cli.local.exports import Exports
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory


def run(
    name: str,
    force: Annotated[
        bool, typer.Option("--force", help="Also while it is attached somewhere.")
    ] = False,
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Delete a volume and its data; there is no way back."""
    with Cluster.connect(dir) as cluster:
        cluster.volumes().delete(name, force=force)
    Exports(ClusterDirectory(dir)).forget(name)
    Output(json).result(
        {"deleted": name},
        f"Volume '{name}' is deleted; its space comes back within a minute.",
    )
