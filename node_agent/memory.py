"""What keeps the agent out of the deadlock of memory that is short: to free pages the kernel writes
them to a device of ours, and while we serve that write we must not wait for free pages.

Owns: locking memory, PR_SET_IO_FLUSHER (what we allocate never waits for file systems or devices)
and the score of the out-of-memory killer. To be called before any thread is made: they inherit it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_PR_SET_IO_FLUSHER = 57
_SPARED = -999


def prepare() -> list[str]:
    """Does what it may; returns a sentence for each thing that it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    missing = []
    # What is touched stays. Not all at once: stacks of threads are mostly never touched.
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        missing.append(f"Memory cannot be locked: {os.strerror(ctypes.get_errno())}.")
    if libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0:
        missing.append(f"PR_SET_IO_FLUSHER is refused: {os.strerror(ctypes.get_errno())}.")
    try:
        Path("/proc/self/oom_score_adj").write_text(f"{_SPARED}\n")
    except OSError as error:
        missing.append(f"The out-of-memory killer does not spare the agent: {error.strerror}.")
    return missing
