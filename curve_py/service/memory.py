"""What keeps a process out of the deadlock of memory that is short: to free dirty pages the kernel
writes them to a device of ours, and whoever serves that write must not wait for free pages.

Owns: locking memory, PR_SET_IO_FLUSHER (what we allocate never waits for file systems or devices)
and the score of the out-of-memory killer. For the processes that such a write goes through, agent
and chunkserver. To be called before any thread is made: they inherit it.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_PR_SET_IO_FLUSHER = 57
_SPARED = -999
_CAP_IPC_LOCK = 14


def capabilities() -> int:
    """The effective ones of this process, a bit each."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def may_lock() -> bool:
    """Without a limit. Under one, memory that is locked may make a later allocation fail."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return limit == resource.RLIM_INFINITY or bool(capabilities() >> _CAP_IPC_LOCK & 1)


def prepare() -> list[str]:
    """Does what it may; returns a sentence for each thing that it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    missing = []
    # What is touched stays. Not all at once: stacks of threads are mostly never touched.
    if not may_lock():
        missing.append("Memory cannot be locked: RLIMIT_MEMLOCK is not unlimited.")
    elif libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        missing.append(f"Memory cannot be locked: {os.strerror(ctypes.get_errno())}.")
    if libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0:
        missing.append(f"PR_SET_IO_FLUSHER is refused: {os.strerror(ctypes.get_errno())}.")
    try:
        Path("/proc/self/oom_score_adj").write_text(f"{_SPARED}\n")
    except OSError as error:
        missing.append(f"The out-of-memory killer does not spare it: {error.strerror}.")
    return missing
