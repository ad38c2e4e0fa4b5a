"""What names, sizes and layouts are allowed.

Each check returns None or a sentence. Pure, any thread.
"""

from __future__ import annotations

import re

from curve_py.types import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    NAME_CHARACTERS_MAX,
    SECTOR_BYTES,
    STRIPE_COUNT_MAX,
    VOLUME_BYTES_MAX,
)

LABELS_MAX = 64
LABELS_CHARACTERS_MAX = 16 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_name(name: str, what: str) -> str | None:
    if len(name) > NAME_CHARACTERS_MAX:
        return f"The {what} name is longer than {NAME_CHARACTERS_MAX} characters."
    if not _NAME.fullmatch(name):
        return (
            f"'{name}' is no {what} name: letters, digits, '.', '_' and '-' are allowed, "
            "a letter or digit first."
        )
    return None


def check_labels(labels: tuple[tuple[str, str], ...]) -> str | None:
    keys = [label[0] for label in labels if len(label) == 2]
    if len(keys) != len(labels) or keys != sorted(set(keys)):
        return "Labels are pairs of different keys and values, sorted by key."
    if len(labels) > LABELS_MAX or sum(len(k) + len(v) for k, v in labels) > LABELS_CHARACTERS_MAX:
        return f"A volume has at most {LABELS_MAX} labels of {LABELS_CHARACTERS_MAX} characters."
    return None


def check_size(size_bytes: int) -> str | None:
    if size_bytes <= 0 or size_bytes % SECTOR_BYTES:
        return f"A volume's size is a multiple of {SECTOR_BYTES} bytes above 0, not {size_bytes}."
    if size_bytes > VOLUME_BYTES_MAX:
        return f"A volume has at most {VOLUME_BYTES_MAX} bytes, not {size_bytes}."
    return None


def check_layout(stripe_unit_bytes: int, stripe_count: int) -> str | None:
    unit = stripe_unit_bytes
    if not BLOCK_BYTES <= unit <= CHUNK_BYTES or unit & (unit - 1):
        return f"A stripe unit is a power of two from 64 KiB to 16 MiB, not {unit} bytes."
    if not 1 <= stripe_count <= STRIPE_COUNT_MAX:
        return f"A stripe count is 1 to {STRIPE_COUNT_MAX}, not {stripe_count}."
    return None
