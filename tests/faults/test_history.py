"""The checker of histories: against a search through every order, and on what must be found."""

from __future__ import annotations

import itertools
import random

import pytest
from history import NEVER, Operation, check, content, value_of


def is_linearizable(history: list[Operation]) -> bool:
    """By definition: some order keeps real time and is a register."""
    optional = [o for o in history if not o.acknowledged]
    required = [o for o in history if o not in optional]
    for count in range(len(optional) + 1):
        for some in itertools.combinations(optional, count):
            if any(_is_register(order) for order in itertools.permutations([*required, *some])):
                return True
    return False


def _is_register(order: tuple[Operation, ...]) -> bool:
    value = 0
    for at, operation in enumerate(order):
        if any(later.end < operation.begin for later in order[at + 1 :]):
            return False
        if operation.write:
            value = operation.value
        elif operation.value != value:
            return False
    return True


def some_history(choice: random.Random, overlapping: bool) -> list[Operation]:
    """Three writes and three reads of one sector; no two ends or begins at one time."""
    times = choice.sample(range(100), 12)
    intervals = [sorted(times[at : at + 2]) for at in range(0, 12, 2)]
    if not overlapping:
        intervals[:3] = [sorted(times)[at : at + 2] for at in (0, 4, 8)]
    history = [Operation(True, 0, n + 1, *intervals[n]) for n in range(3)]
    if choice.random() < 0.2:
        end = choice.choice([NEVER, 110])
        history[2] = Operation(True, 0, 3, max(intervals[2][0], 80), end, acknowledged=False)
    return history + [Operation(False, 0, choice.randrange(4), *intervals[n]) for n in (3, 4, 5)]


@pytest.mark.parametrize("overlapping", [False, True])
def test_agrees_with_a_search_through_all_orders(overlapping: bool) -> None:
    """Exact where no writes overlap; else it may forgive what sending twice explains, no more."""
    choice, good = random.Random(7), 0
    for _ in range(600):
        history = some_history(choice, overlapping)
        expected = is_linearizable(history)
        writes = sorted((o.begin, o.end) for o in history if o.write)
        apart = all(a[1] < b[0] for a, b in itertools.pairwise(writes))
        good += expected
        if apart:
            assert (check(history) == []) == expected, history
        elif expected:
            assert check(history) == [], history
    assert 20 < good < 580


def test_a_write_that_comes_again_after_a_newer_one() -> None:
    """R13: not after its answer; before it nobody promises the order."""
    write, newer = Operation(True, 0, 1, 0, 100), Operation(True, 0, 2, 10, 20)
    reads = [Operation(False, 0, 1, 5, 8), Operation(False, 0, 2, 21, 22)]
    assert check([write, newer, *reads, Operation(False, 0, 1, 30, 40)]) == []
    answered = Operation(True, 0, 1, 0, 9)
    found = check([answered, newer, *reads, Operation(False, 0, 1, 30, 40)])
    assert len(found) == 1
    assert "certainly" in found[0]


def test_a_write_after_its_fence_is_found() -> None:
    """R12: `end` of a write that was refused is its fence."""
    history = [
        Operation(True, 0, 1, 0, 50, acknowledged=False),
        Operation(True, 0, 2, 60, 70),
        Operation(False, 0, 2, 80, 81),
        Operation(False, 0, 1, 90, 91),
    ]
    assert check(history)
    assert check(history[:-1]) == []  # it may never have happened


def test_torn_and_foreign_sectors() -> None:
    assert value_of(3, content(3, 77)) == 77
    assert value_of(3, bytes(4096)) == 0
    assert value_of(3, content(4, 77)) == -1
    assert value_of(3, content(3, 77)[:2048] + content(3, 78)[2048:]) == -1
    assert "torn" in check([Operation(False, 3, -1, 0, 1)])[0]
    assert "nobody" in check([Operation(False, 3, 5, 0, 1)])[0]
    assert "only later" in check([Operation(False, 3, 5, 0, 1), Operation(True, 3, 5, 2, 3)])[0]
