"""curve volume detach NAME."""

from __future__ import annotations

from typing import Annotated

import typer

from curve_py.cli.local.agent import LocalAgent
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import NotFoundError


def run(
    name: str,
    force: Annotated[
        bool, typer.Option("--force", help="Also while it is open: its users get errors.")
    ] = False,
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Take the block device of a volume away from this machine."""
    directory = ClusterDirectory(dir)
    directory.load()
    with LocalAgent(directory).client() as agent:
        found = agent.detach(volume_name=name, force=force)
    if not found:
        raise NotFoundError(
            f"Volume '{name}' has no device on this machine.", "See: curve volume attachments"
        )
    Output(json).result({"detached": name}, f"Volume '{name}' is detached.")
