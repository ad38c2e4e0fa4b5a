"""The documented fields of copysets in JSON, and how one is named."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from curve_py.client import CopysetInfo
from curve_py.errors import InvalidError
from curve_py.types import copyset_id


def copyset_fields(copyset: CopysetInfo) -> dict[str, Any]:
    """As in docs/cli.md."""
    return {**asdict(copyset), "lag_entries": copyset.lag_entries}


def parse_copyset(text: str) -> int:
    """The id of "pool.index", or of a plain number. Raises InvalidError."""
    if match := re.fullmatch(r"(\d{1,9})\.(\d{1,9})", text):
        return copyset_id(int(match[1]), int(match[2]))
    if text.isdecimal() and 0 < int(text) < 2**64:
        return int(text)
    raise InvalidError(f"'{text}' is no copyset.", "Write it as in `curve copyset list`, like 1.0.")
