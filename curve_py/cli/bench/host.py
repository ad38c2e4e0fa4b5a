"""What this machine did while something was measured: processor time, bytes written. May block.

Read from /proc several times a second by a thread and interpolated, so that a span can be chosen
afterwards (fio starts and ends outside of what counts). All that is not idle counts as busy, so
that kernel workers and interrupts do; what a hypervisor took (steal) is not ours and does not, nor
does the user time of what runs niced, since nothing of ours does.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PERIOD_SECONDS = 0.1
_SECTOR_BYTES = 512
_BUSY = (1, 3, 6, 7)  # user, system, irq, softirq


@dataclass(slots=True)
class Usage:
    """Of one span."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the whole machine
    disk_bytes: float = 0.0  # written to the block device
    roles: dict[str, float] = field(default_factory=dict)  # processor seconds of processes
    role_bytes: dict[str, float] = field(default_factory=dict)  # what they gave to the disk


@dataclass(slots=True)
class _Snapshot:
    at_ns: int
    values: dict[str, float]


def parse_stat(text: str) -> float:
    """Busy ticks of all processors, from /proc/stat."""
    fields = text.split("\n", 1)[0].split()
    return float(sum(int(fields[number]) for number in _BUSY))


def parse_process_stat(text: str) -> float:
    """Ticks of one process with all its threads, from /proc/PID/stat."""
    fields = text.rpartition(")")[2].split()
    return float(int(fields[11]) + int(fields[12]))


def parse_diskstats(text: str, device: tuple[int, int]) -> float | None:
    """Bytes written to a device, from /proc/diskstats; None: it is not there."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 9 and (int(fields[0]), int(fields[1])) == device:
            return float(int(fields[9]) * _SECTOR_BYTES)
    return None


def device_of(directory: Path) -> tuple[int, int]:
    number = os.stat(directory).st_dev
    return os.major(number), os.minor(number)


class Watch:
    """Snapshots from `with` on. `follow` may be called at any time, from one thread."""

    def __init__(self, directory: Path) -> None:
        self._device = device_of(directory)
        self._ticks = float(os.sysconf("SC_CLK_TCK"))
        self._pids: dict[int, str] = {}
        self._last: dict[str, float] = {}
        self._snapshots: list[_Snapshot] = []
        self._taking = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def follow(self, role: str, *pids: int) -> None:
        """What these processes have spent before does not count in a span that begins later."""
        self._pids |= dict.fromkeys(pids, role)
        self._take()

    def __enter__(self) -> Watch:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._take()

    def _run(self) -> None:
        while not self._ended.wait(_PERIOD_SECONDS):
            self._take()

    def _take(self) -> None:
        with self._taking:
            self._take_alone()

    def _take_alone(self) -> None:
        at = time.time_ns()
        values = {"cpu": parse_stat(Path("/proc/stat").read_text()) / self._ticks}
        written = parse_diskstats(Path("/proc/diskstats").read_text(), self._device)
        if written is not None:
            values["disk"] = written
        for pid, role in list(self._pids.items()):
            # Of a process that has ended, the last that was seen counts.
            with contextlib.suppress(OSError, IndexError):
                stat = Path(f"/proc/{pid}/stat").read_text()
                self._last[f"cpu:{role}:{pid}"] = parse_process_stat(stat) / self._ticks
            with contextlib.suppress(OSError):
                self._last[f"bytes:{role}:{pid}"] = _write_bytes(pid)
        self._snapshots.append(_Snapshot(at, values | self._last))

    def between(self, begin_ns: int, end_ns: int) -> Usage:
        """Times are nanoseconds since 1970; the span is cut to what was watched."""
        first, last = self._at(begin_ns), self._at(end_ns)
        usage = Usage(seconds=max((last.at_ns - first.at_ns) / 1e9, 1e-9))
        for key, value in last.values.items():
            # A process that was not there at the begin has done all of it in the span.
            spent = value - first.values.get(key, 0.0 if ":" in key else value)
            kind, _, rest = key.partition(":")
            role = rest.partition(":")[0]
            if kind == "disk":
                usage.disk_bytes = spent
            elif not role:
                usage.cpu_seconds = spent
            else:
                sums = usage.roles if kind == "cpu" else usage.role_bytes
                sums[role] = sums.get(role, 0.0) + spent
        return usage

    def _at(self, at_ns: int) -> _Snapshot:
        taken = self._snapshots
        number = bisect_left(taken, at_ns, key=lambda snapshot: snapshot.at_ns)
        if number == 0 or number == len(taken):
            return taken[min(number, len(taken) - 1)]
        before, after = taken[number - 1], taken[number]
        if after.at_ns == at_ns:
            return after
        share = (at_ns - before.at_ns) / (after.at_ns - before.at_ns)
        values = {
            key: before.values[key] + share * (value - before.values[key])
            for key, value in after.values.items()
            if key in before.values
        }
        return _Snapshot(at_ns, values)


def _write_bytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return float(line.split()[1])
    return 0.0


def describe(directory: Path) -> dict[str, Any]:
    """The machine, for the report."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processors": os.cpu_count(),
        "processor": model,
        "memory_bytes": pages * page_bytes,
        "kernel": platform.release(),
        "device": ":".join(map(str, device_of(directory))),
        "load": os.getloadavg()[0],
    }
