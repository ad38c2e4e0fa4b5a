"""Whether what several clients saw of single sectors is linearizable.

Owns: the format of one recorded operation, and the check. Every write puts a value of its own into
a sector, so that each sector is a register with unique values, and the test of Gibbons and Korach
("Testing Shared Memories", 1997, section 4) is exact: gather a write and the reads that saw it;
`first_end` is the earliest end among them, `last_begin` the latest begin. If first_end < last_begin
the value was certainly current in between (a forward zone), else the write may be placed anywhere
in [last_begin, first_end] (a backward zone). The history is linearizable if and only if no two
forward zones overlap and no backward zone lies in a forward one.

What a block device promises less (docs/rules.md, R13): a write that its client had to send again
may take effect more than once before its answer. Only a write of somebody else in between could
show that; a write that overlaps others is therefore certainly current only from its answer to its
last read. The initial zeros are value 0. Must not know the system under test.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

SECTOR_BYTES = 4096
NEVER = 1 << 63
_MARK = struct.Struct("<QQ")  # slot, value


@dataclass(frozen=True, slots=True)
class Operation:
    """Times are CLOCK_MONOTONIC in ns, of one machine.

    A write that was not acknowledged may have taken effect until `end` (NEVER: no bound), or never.
    """

    write: bool
    slot: int
    value: int
    begin: int
    end: int
    client: int = 0
    acknowledged: bool = True


def content(slot: int, value: int) -> bytes:
    return _MARK.pack(slot, value) * (SECTOR_BYTES // _MARK.size) if value else bytes(SECTOR_BYTES)


def value_of(slot: int, data: bytes) -> int:
    """-1: torn, or of another sector."""
    value: int = _MARK.unpack_from(data)[1]
    return value if data == content(slot, value) else -1


@dataclass(frozen=True, slots=True, order=True)
class Zone:
    low: int
    high: int
    value: int


@dataclass(slots=True)
class _Seen:
    """A write and the reads that saw it."""

    write: Operation
    once: bool = True  # certainly took effect at one time only
    reads: list[Operation] = field(default_factory=list)

    def zones(self) -> tuple[list[Zone], list[Zone]]:
        """Forward and backward ones."""
        write, value = self.write, self.write.value
        last_begin = max([write.begin, *(read.begin for read in self.reads)])
        if self.once:
            first_end = min([write.end, *(read.end for read in self.reads)])
            if first_end < last_begin:
                return [Zone(first_end, last_begin, value)], []
            return [], [Zone(last_begin, first_end, value)]
        forward = [Zone(write.end, last_begin, value)] if write.end < last_begin else []
        backward = [] if forward else [Zone(write.begin, write.end, value)]
        for read in self.reads:
            if read.begin < write.end:
                backward.append(Zone(max(read.begin, write.begin), read.end, value))
        return forward, backward


def check(history: Iterable[Operation]) -> list[str]:
    """What is wrong, one sentence each; nothing if every sector is linearizable."""
    slots: defaultdict[int, list[Operation]] = defaultdict(list)
    for operation in history:
        slots[operation.slot].append(operation)
    return [wrong for slot in sorted(slots) for wrong in _check_slot(slot, slots[slot])]


def _check_slot(slot: int, operations: list[Operation]) -> list[str]:
    zeros = Operation(True, slot, 0, -2, -1)
    seen = {0: _Seen(zeros)} | {o.value: _Seen(o) for o in operations if o.write}
    found = []
    for read in operations:
        if read.write:
            continue
        if read.value not in seen:
            what = "a torn or foreign sector" if read.value == -1 else "what nobody wrote"
            found.append(f"{_said(read)}: {what}")
        elif read.end < seen[read.value].write.begin:
            found.append(f"{_said(read)}: a value that was written only later")
        else:
            seen[read.value].reads.append(read)
    _mark_repeatable([s.write for s in seen.values()], seen)
    forward: list[Zone] = []
    backward: list[Zone] = []
    for cluster in seen.values():
        if cluster.reads or cluster.write.acknowledged:
            more_forward, more_backward = cluster.zones()
            forward += more_forward
            backward += more_backward
    return found + _bad_pairs(slot, sorted(forward), backward)


def _mark_repeatable(writes: list[Operation], seen: dict[int, _Seen]) -> None:
    """Those that another write overlaps in time."""
    latest: Operation | None = None
    for write in sorted(writes, key=lambda w: w.begin):
        if latest is not None and write.begin <= latest.end:
            seen[write.value].once = seen[latest.value].once = False
        if latest is None or write.end > latest.end:
            latest = write


def _bad_pairs(slot: int, forward: list[Zone], backward: list[Zone]) -> list[str]:
    found = []
    for one, next_one in itertools.pairwise(forward):
        if next_one.low < one.high:
            found.append(
                f"slot {slot}: {one.value:#x} and {next_one.value:#x} were both certainly there "
                f"between {next_one.low} and {min(one.high, next_one.high)}"
            )
    lows = [zone.low for zone in forward]
    for zone in backward:
        at = bisect.bisect_left(lows, zone.low) - 1
        if at >= 0 and zone.high < forward[at].high and zone.value != forward[at].value:
            found.append(
                f"slot {slot}: {zone.value:#x} was there at some time of {zone.low} to "
                f"{zone.high}, in which {forward[at].value:#x} certainly was"
            )
    return found


def _said(read: Operation) -> str:
    return (
        f"slot {read.slot}: client {read.client} read {read.value:#x} between {read.begin} and "
        f"{read.end}"
    )
