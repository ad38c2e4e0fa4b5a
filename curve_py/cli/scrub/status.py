"""curve scrub status."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client import Cluster
from curve_py.client.chunkservers import Chunkservers, ScrubInfo
from curve_py.errors import CurveError, InvalidError
from curve_py.sizes import format_size


def chosen_stores(chunkservers: Chunkservers, names: Sequence[str] | None) -> list[bytes]:
    """The stores that are named, or all. Raises InvalidError."""
    if not names:
        return chunkservers.store_ids
    try:
        return [uuid.UUID(name).bytes for name in names]
    except ValueError:
        raise InvalidError("A store is named by its UUID.", "See: curve chunkserver list") from None


def scrub_table(output: Output, data: Mapping[str, Any], infos: Sequence[ScrubInfo]) -> None:
    output.table(
        data,
        ("store", "state", "#rate", "last pass", "#damaged", "#repaired", "#failed", "#differ"),
        [
            (
                info.store_id,
                f"{info.blocks_done} of {info.blocks_total} blocks" if info.running else "idle",
                f"{format_size(info.bytes_per_second)}/s",
                _time(info.finished_at_ms),
                info.damaged_sectors,
                info.repaired_sectors,
                info.repairs_failed,
                info.chunks_differ,
            )
            for info in infos
        ],
        empty="No chunkserver has registered yet.",
    )


def _time(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_ms / 1000)) if at_ms else "never"


def run(dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """How scrub goes on each store: progress, last whole pass, what was found and repaired."""
    infos: list[ScrubInfo] = []
    silent: list[str] = []
    output = Output(json)
    with Cluster.connect(dir) as cluster, Chunkservers(cluster) as chunkservers:
        for store_id in chunkservers.store_ids:
            try:
                infos.append(chunkservers.scrub(store_id))
            except CurveError as error:
                silent.append(str(uuid.UUID(bytes=store_id)))
                output.note(f"Store {silent[-1]} does not answer: {error.message}")
    data = {"stores": [asdict(info) for info in infos], "unreachable": silent}
    scrub_table(output, data, infos)
