"""curve volume check NAME."""

from __future__ import annotations

from dataclasses import asdict

import typer

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.client.inspections import CopysetCheck, ReplicaDifference
from curve_py.types import copyset_text

DIFFERENCES_EXIT = 3


def run(name: str, dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """Read every replica of every chunk of a volume and compare them, also while it is in use.

    Exit code 3 when replicas differ, are damaged or do not answer, or a copyset cannot be checked.
    """
    output = Output(json)
    checks: list[CopysetCheck] = []
    with Cluster.connect(dir) as cluster, output.progress() as step:
        copysets, each_check = cluster.volumes().check(name)
        for check in each_check:
            checks.append(check)
            step("copysets", len(checks), copysets)
    found = [difference for check in checks for difference in check.differences]
    unchecked = [check for check in checks if check.error]
    chunks = sum(check.chunks for check in checks)
    data = {
        "volume": name,
        "copysets": len(checks) - len(unchecked),
        "chunks": chunks,
        "differences": [asdict(difference) for difference in found],
        "unchecked": [{"copyset_id": c.copyset_id, "message": c.error} for c in unchecked],
    }
    if not found and not unchecked:
        output.result(data, f"All replicas of {name} agree: {chunks} chunks were read.")
        return
    for check in unchecked:
        output.note(f"Copyset {copyset_text(check.copyset_id)}: {check.error}")
    output.table(
        data,
        ("copyset", "#chunk", "store", "what"),
        [(each.copyset_id, each.chunk, each.store_id, _what(each)) for each in found],
        empty=f"What could be compared of {name} agrees: {chunks} chunks were read.",
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
