"""The CSI id of a volume: its number and its UUID, so that an id of another cluster is known.

`curve-<volume id>-<volume uuid>`; part of PersistentVolumes, so never changed. Any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"curve-([1-9][0-9]{0,18})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Handle:
    volume_id: int
    uuid: str

    def __str__(self) -> str:
        return f"curve-{self.volume_id}-{self.uuid}"


def parse_handle(text: str) -> Handle | None:
    """None for what no driver of ours has made."""
    found = _FORM.fullmatch(text)
    return Handle(int(found[1]), found[2]) if found else None
