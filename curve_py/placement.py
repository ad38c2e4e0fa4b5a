"""Volume offset -> chunk -> copyset, bit for bit as native/base/placement.h. Pure, any thread."""

from __future__ import annotations

CHUNK_BYTES = 16 * 1024**2
_MASK = (1 << 64) - 1


def mix64(value: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def chunk_of(offset_bytes: int, stripe_unit_bytes: int, stripe_count: int) -> int:
    """Index of the chunk that holds this byte of a volume."""
    unit = offset_bytes // stripe_unit_bytes
    row, column = divmod(unit, stripe_count)
    return row // (CHUNK_BYTES // stripe_unit_bytes) * stripe_count + column


def copyset_index(placement_id: int, chunk: int, copysets: int) -> int:
    """Index of the chunk's copyset in its pool; `copysets` is a power of two."""
    return mix64(mix64(placement_id) ^ chunk) & (copysets - 1)
