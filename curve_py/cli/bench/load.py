"""A checked load: numbered writes of 4 KiB, each timed, and reads that must never go back.

Owns: what was written and acknowledged where (the ledger). Invariants: the number of a slot is
raised before its write starts and counted as acknowledged only after it ended; a read must find
a whole block with a number at least as high as any acknowledged or seen before the read began.
Threads: one per load; the ledger is shared (single items of lists, each slot has one writer).
"""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from curve_py.errors import CurveError

SECTOR_BYTES = 4096
_WINDOW_NS = 250_000_000
_MARK = struct.Struct("<QQ")  # slot, number


class Target(Protocol):
    """What of an open volume is used here; errors are CurveError."""

    def read(self, offset: int, size: int, /) -> bytes: ...

    def write(self, offset: int, buffer: bytes, /) -> int: ...


def block(slot: int, number: int) -> bytes:
    """The content of a slot; zeros for a slot that was never written."""
    return _MARK.pack(slot, number) * (SECTOR_BYTES // _MARK.size) if number else b"\0" * 4096


class Ledger:
    """Slots of one sector each, at `offsets` of the volume, and the numbers written to them."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self.offsets = list(offsets)
        self.issued = [0] * len(self.offsets)
        self.acknowledged = [0] * len(self.offsets)
        self.seen = [0] * len(self.offsets)
        self.stale: list[str] = []

    def check_read(self, target: Target, slot: int) -> None:
        """Reads one slot; what is wrong with the answer goes to `stale`. Raises CurveError."""
        least = max(self.acknowledged[slot], self.seen[slot])
        data = target.read(self.offsets[slot], SECTOR_BYTES)
        most = self.issued[slot]
        number = _MARK.unpack_from(data)[1]
        where = f"slot {slot} at offset {self.offsets[slot]}"
        if data != block(slot, number):
            self.stale.append(f"{where} holds a torn or foreign block")
        elif not least <= number <= most:
            self.stale.append(f"{where} answered number {number}, expected {least} to {most}")
        else:
            self.seen[slot] = max(self.seen[slot], number)

    def check_all(self, target: Target) -> None:
        for slot in range(len(self.offsets)):
            self.check_read(target, slot)


@dataclass(slots=True)
class Latencies:
    """Of the I/Os of one load: monotonic start and duration, both in ns."""

    samples: list[tuple[int, int]] = field(default_factory=list)

    def between(self, begin_ns: int, end_ns: int) -> list[int]:
        """Durations of what was in flight at some time of [begin, end]."""
        return [d for start, d in self.samples if start + d >= begin_ns and start <= end_ns]


def series(
    loads: Iterable[Latencies], begin_ns: int, end_ns: int
) -> list[tuple[float, float, float]]:
    """Windows of a quarter of a second: seconds at its end since `begin`, I/Os that ended in it per
    second, the longest of them in us.
    """
    count = max((end_ns - begin_ns) // _WINDOW_NS, 1)
    ended = [0] * count
    longest = [0] * count
    for load in loads:
        for start, duration in load.samples:
            window = (start + duration - begin_ns) // _WINDOW_NS
            if 0 <= window < count:
                ended[window] += 1
                longest[window] = max(longest[window], duration)
    second = _WINDOW_NS / 1e9
    return [((n + 1) * second, ended[n] / second, longest[n] / 1e3) for n in range(count)]


class _Load(threading.Thread):
    """Runs `_once` until stopped; keeps the first error."""

    def __init__(self, target: Target, ledger: Ledger, seed: int) -> None:
        super().__init__(daemon=True)
        self.target = target
        self.ledger = ledger
        self.latencies = Latencies()
        self.error: CurveError | None = None
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self._running = threading.Event()
        self._running.set()

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                self._running.wait()
                start = time.monotonic_ns()
                self._once(self._random.randrange(len(self.ledger.offsets)))
                self.latencies.samples.append((start, time.monotonic_ns() - start))
        except CurveError as error:
            self.error = error

    def _once(self, slot: int) -> None:
        raise NotImplementedError

    def doze(self) -> None:
        """Nothing is issued until `wake`."""
        self._running.clear()

    def wake(self) -> None:
        self._running.set()

    def end(self, timeout: float = 60.0) -> None:
        """Waits for the last I/O. Raises TimeoutError if it does not come back."""
        self._ended.set()
        self._running.set()
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError(f"an I/O did not end within {timeout:g} s")


class Writer(_Load):
    """Random writes at depth 1. One per ledger."""

    def _once(self, slot: int) -> None:
        self.write_slot(slot)

    def write_slot(self, slot: int) -> None:
        """One numbered write. Raises CurveError."""
        number = self.ledger.issued[slot] + 1
        self.ledger.issued[slot] = number
        self.target.write(self.ledger.offsets[slot], block(slot, number))
        self.ledger.acknowledged[slot] = number


class Reader(_Load):
    """Random checked reads at depth 1, with a client of its own."""

    def _once(self, slot: int) -> None:
        self.ledger.check_read(self.target, slot)
