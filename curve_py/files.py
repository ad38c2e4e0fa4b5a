"""Small files that are replaced as a whole. Blocks."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, content: str) -> None:
    """Atomic: the file holds the old content or this, also after a power cut. Raises OSError."""
    fresh = path.with_suffix(".new")
    with open(fresh, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was made, renamed or removed in it is durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
