"""Sizes as people write them: "10GiB", "1.5T", "4096". Bytes inside. Pure functions, any thread.

Units without "i" and with "B" (kB, MB) are decimal; a bare letter (K, M, G, T, P) is binary, as fio
and qemu take it.
"""

from __future__ import annotations

import re
from decimal import Decimal

from curve_py.errors import InvalidError

_PATTERN = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*$")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_BINARY_NAMES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def parse_size(text: str | int) -> int:
    """Bytes of "10GiB", "1.5T", "512". Raises InvalidError with an example."""
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise InvalidError(f"A size cannot be negative: {text}.")
        return text
    match = _PATTERN.match(str(text))
    factor = _factor(match.group(2)) if match else None
    if match is None or factor is None:
        raise InvalidError(f"'{text}' is not a size.", "Write it like 10GiB, 1.5T or 4096.")
    value = Decimal(match.group(1)) * factor
    if value != int(value):
        raise InvalidError(f"'{text}' is not a whole number of bytes.", "Use a smaller unit.")
    if value >= 2**64:
        raise InvalidError(f"'{text}' is too large: sizes end below 16 EiB.")
    return int(value)


def _factor(unit: str) -> int | None:
    lowered = unit.lower()
    if lowered in ("", "b"):
        return 1
    power = _POWERS.get(lowered[0])
    if power is None or lowered[1:] not in ("", "b", "ib"):
        return None
    return int(1000**power if lowered[1:] == "b" else 1024**power)


def format_size(size_bytes: int) -> str:
    """The shortest binary form with at most two decimals: 10737418240 -> "10 GiB"."""
    power = 0
    while power + 1 < len(_BINARY_NAMES) and size_bytes >= 1024 ** (power + 1):
        power += 1
    number = f"{size_bytes / 1024**power:.2f}".rstrip("0").rstrip(".") if power else str(size_bytes)
    return f"{number} {_BINARY_NAMES[power]}"
