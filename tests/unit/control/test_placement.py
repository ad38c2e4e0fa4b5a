"""Volume offset -> chunk -> copyset in Python: the values of native/base/placement_test.cc."""

from __future__ import annotations

from collections import Counter

import pytest

from curve_py.placement import CHUNK_BYTES, chunk_of, copyset_index, mix64

UNIT = 64 * 1024


@pytest.mark.parametrize(
    ("value", "mixed"),
    [
        (0, 0xE220A8397B1DCDAF),
        (1, 0x910A2DEC89025CC1),
        (42, 0xBDD732262FEB6E95),
        (2**64 - 1, 0xE4D971771B652C20),
    ],
)
def test_the_hash_is_fixed(value: int, mixed: int) -> None:
    assert mix64(value) == mixed


@pytest.mark.parametrize(
    ("placement_id", "chunk", "copysets", "index"),
    [(1, 0, 64, 30), (42, 7, 64, 0), (1 << 40, 2**32 - 1, 4096, 2546), (2**64 - 1, 5, 1, 0)],
)
def test_copysets_are_fixed(placement_id: int, chunk: int, copysets: int, index: int) -> None:
    assert copyset_index(placement_id, chunk, copysets) == index


def test_copysets_get_about_as_many_chunks() -> None:
    hits = Counter(copyset_index(42, chunk, 64) for chunk in range(6400))
    assert len(hits) == 64
    assert all(40 <= count <= 160 for count in hits.values())


def test_without_stripes_chunks_are_contiguous() -> None:
    for chunk in range(4):
        first = chunk * CHUNK_BYTES
        assert chunk_of(first, CHUNK_BYTES, 1) == chunk
        assert chunk_of(first + CHUNK_BYTES - 1, CHUNK_BYTES, 1) == chunk


@pytest.mark.parametrize(("unit", "count"), [(UNIT, 4), (1 << 20, 3), (CHUNK_BYTES, 5)])
def test_stripes_fill_every_chunk_exactly(unit: int, count: int) -> None:
    """Two rows of chunks: each stripe unit is in one chunk, each chunk gets what it holds."""
    volume = 2 * count * CHUNK_BYTES
    units = Counter(chunk_of(offset, unit, count) for offset in range(0, volume, unit))
    assert units == dict.fromkeys(range(2 * count), CHUNK_BYTES // unit)
    # A unit is not torn, and the next one is in the next column.
    assert chunk_of(unit - 1, unit, count) == 0
    assert chunk_of(unit, unit, count) == 1
