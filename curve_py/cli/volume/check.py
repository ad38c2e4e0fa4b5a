"""curve volume check NAME."""

from __future__ import annotations

from dataclasses import asdict

import typer

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.client.chunkservers import Chunkservers, CopysetCheck, ReplicaDifference

DIFFERENCES_EXIT = 3


def run(name: str, dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """Read every replica of every chunk of a volume and compare them, also while it is in use.

    Exit code 3 when replicas differ, are damaged or do not answer.
    """
    output = Output(json)
    checks: list[CopysetCheck] = []
    with (
        Cluster.connect(dir) as cluster,
        Chunkservers(cluster) as chunkservers,
        output.progress() as step,
    ):
        copysets = len(cluster.copysets())
        for check in chunkservers.check(name):
            checks.append(check)
            step("copysets", len(checks), copysets)
    found = [difference for check in checks for difference in check.differences]
    chunks = sum(check.chunks for check in checks)
    data = {
        "volume": name,
        "copysets": len(checks),
        "chunks": chunks,
        "differences": [asdict(difference) for difference in found],
    }
    if not found:
        output.result(data, f"All replicas of {name} agree: {chunks} chunks were read.")
        return
    output.table(
        data,
        ("copyset", "#chunk", "store", "what"),
        [(each.copyset_id, each.chunk, each.store_id, _what(each)) for each in found],
    )
    raise typer.Exit(DIFFERENCES_EXIT)


def _what(difference: ReplicaDifference) -> str:
    if difference.missing:
        return "no answer, or being filled"
    parts = []
    if difference.blocks:
        parts.append(f"{difference.blocks} blocks differ from most replicas")
    if difference.damaged_blocks:
        parts.append(f"{difference.damaged_blocks} blocks were damaged and are being repaired")
    return ", ".join(parts)
