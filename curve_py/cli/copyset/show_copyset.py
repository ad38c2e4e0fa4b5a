"""curve copyset show COPYSET."""

from __future__ import annotations

from typing import Annotated

import typer

from curve_py.cli.copyset.fields import copyset_fields, parse_copyset
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.errors import NotFoundError


def run(
    copyset: Annotated[str, typer.Argument(help="As in `curve copyset list`, like 1.0.")],
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Show one copyset: leader, replicas, indexes, lag."""
    number = parse_copyset(copyset)
    with Cluster.connect(dir) as cluster:
        found = cluster.copysets(number)
    if not found:
        raise NotFoundError(f"There is no copyset {copyset}.", "See: curve copyset list")
    Output(json).table(
        {"copyset": copyset_fields(found[0])},
        ("store", "address", "state", "role", "#term", "#commit", "#applied", "#last", "#lag"),
        [
            (
                r.store_id,
                r.data_address,
                r.state,
                r.role,
                r.term,
                r.commit_index,
                r.applied_index,
                r.last_index,
                r.lag_entries,
            )
            for r in found[0].replicas
        ],
        title=f"copyset {found[0].name}",
    )
