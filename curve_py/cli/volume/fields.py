"""The documented fields of volumes in JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from curve_py.client import VolumeInfo


def volume_fields(volume: VolumeInfo) -> dict[str, Any]:
    """As in docs/cli.md."""
    return asdict(volume)
