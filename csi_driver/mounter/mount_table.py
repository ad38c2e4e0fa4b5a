"""What is mounted: /proc/self/mountinfo (proc(5)), parsed. Pure functions, any thread."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line; later ones lie over earlier ones with the same target."""

    device: tuple[int, int]  # of the file system
    root: str  # what of it is mounted
    target: str
    options: tuple[str, ...]  # of this mount
    file_system: str
    source: str

    @property
    def read_only(self) -> bool:
        return "ro" in self.options


def parse_mount_table(text: str) -> list[Mount]:
    """In the order of mounting. Lines of another form are left out."""
    mounts = []
    for line in text.split("\n"):
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        dash = fields.index("-", 6)
        major, _, minor = fields[2].partition(":")
        if len(fields) < dash + 3 or not major.isdigit() or not minor.isdigit():
            continue
        mounts.append(
            Mount(
                (int(major), int(minor)),
                _unescaped(fields[3]),
                _unescaped(fields[4]),
                tuple(fields[5].split(",")),
                fields[dash + 1],
                _unescaped(fields[dash + 2]),
            )
        )
    return mounts


def mounts_at(mounts: Iterable[Mount], target: str) -> list[Mount]:
    """The lowest first."""
    return [mount for mount in mounts if mount.target == target]


def _unescaped(text: str) -> str:
    """The kernel writes space, tab, newline and backslash in octal, everything else as it is."""
    if "\\" not in text:
        return text
    raw = text.encode(errors="surrogateescape")
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), raw).decode(
        errors="surrogateescape"
    )
