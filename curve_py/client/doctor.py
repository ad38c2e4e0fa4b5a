"""What this machine has for block devices, and what would be chosen: `curve node doctor`.

Owns: the probes and their sentences. Looks, and changes nothing. May block for a moment: it makes
an event loop and opens devices.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass

from curve_py.client import kernel_nbd
from curve_py.client.native import start_node
from curve_py.errors import CurveError
from curve_py.service import memory

_KERNEL_MIN = (6, 1)
_KERNEL_RESEND = (6, 9)  # FUSE_NOTIFY_RESEND
_CAP_SYS_ADMIN = 21


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The type of device that is made where none is asked for."""

    chosen: str  # fuse, nbd; "" when none is possible
    reason: str
    replaceable: bool
    replaceable_detail: str


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything, and what follows from it."""

    findings: tuple[Finding, ...]
    chosen: str
    reason: str
    replaceable: bool
    replaceable_detail: str
    version: str


def examine(wanted: str = "auto") -> Examination:
    """Of the machine that this runs on, with the privileges of this process."""
    needed, fuse, nbd = [_kernel(), _privilege(), _io_uring()], _fuse(), _nbd()
    choice = _choose(needed, fuse, nbd, wanted)
    version = importlib.metadata.version("curve")
    return Examination(
        (*needed, *fuse, nbd, _memory_lock()),
        choice.chosen,
        choice.reason,
        choice.replaceable,
        choice.replaceable_detail,
        version,
    )


def choose(wanted: str = "auto") -> Choice:
    """What an agent makes. `wanted`: auto, or what its settings say."""
    return _choose([_kernel(), _privilege()], _fuse(), _nbd(), wanted)


def _choose(needed: list[Finding], fuse: list[Finding], nbd: Finding, wanted: str) -> Choice:
    """FUSE where an agent can be replaced under it, then nbd, then FUSE all the same."""
    resends = kernel_version() >= _KERNEL_RESEND
    cannot = (
        f"Linux {platform.release()} cannot ask again for what a killed agent had not answered on "
        "a FUSE device (6.9 can)"
    )
    missing = [finding for finding in (*needed, *fuse) if not finding.ok]
    makes_fuse = not missing and wanted in ("auto", "fuse")
    makes_nbd = nbd.ok and all(f.ok for f in needed) and wanted in ("auto", "nbd")
    if makes_fuse and (resends or not makes_nbd):
        reason = "A loop device over FUSE: it is there, and needs no module that is not."
        if resends:
            detail = "The kernel asks a new agent again for what the old one had not answered."
        else:
            detail = f"{cannot}: detach all devices before the agent is replaced, or load nbd."
        return Choice("fuse", reason, resends, detail)
    if makes_nbd:
        reason = "The kernel's nbd: the settings say so."
        if wanted == "auto":
            reason = f"The kernel's nbd: {missing[0].detail if missing else cannot + '.'}"
        detail = "The kernel sends a new agent again what the old one had not answered."
        return Choice("nbd", reason, True, detail)
    problem = nbd if wanted == "nbd" and all(f.ok for f in needed) else missing[0]
    reason = f"No device can be made: {problem.detail}"
    return Choice("", reason, False, "There are no devices to replace an agent under.")


def kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _kernel() -> Finding:
    ok = kernel_version() >= _KERNEL_MIN
    remedy = "" if ok else "Linux 6.1 or later is needed."
    return Finding("kernel", ok, f"Linux {platform.release()}.", remedy)


def _privilege() -> Finding:
    ok = bool(memory.capabilities() >> _CAP_SYS_ADMIN & 1)
    detail = "CAP_SYS_ADMIN is there." if ok else "CAP_SYS_ADMIN is missing."
    remedy = "" if ok else "Run the agent as root, or in a privileged container."
    return Finding("privilege", ok, detail, remedy)


def _device(name: str, path: str, remedy: str) -> Finding:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Finding(name, False, f"{path}: {error.strerror}.", f"Try: {remedy}")
    return Finding(name, True, f"{path} can be opened.")


def _io_uring() -> Finding:
    try:
        start_node(b"").close()
    except CurveError as error:
        return Finding("io_uring", False, error.message, error.remedy)
    return Finding("io_uring", True, "An event loop can be made.")


def _memory_lock() -> Finding:
    if memory.may_lock():
        return Finding("memory lock", True, "The agent can lock its memory.")
    return Finding(
        "memory lock",
        False,
        "Memory cannot be locked: short of it, the agent may wait for what waits for it.",
        "Give it CAP_IPC_LOCK, or set its RLIMIT_MEMLOCK to unlimited.",
    )


def _fuse() -> list[Finding]:
    return [
        _device("fuse", "/dev/fuse", "modprobe fuse"),
        _device("loop", "/dev/loop-control", "modprobe loop"),
    ]


def _nbd() -> Finding:
    if missing := kernel_nbd.missing():
        return Finding("nbd", False, missing, "If it is wanted, try: modprobe nbd")
    return Finding("nbd", True, "The kernel's nbd answers.")
