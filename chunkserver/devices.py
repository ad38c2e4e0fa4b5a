"""Block devices under a store: what may be formatted, and how large it is.

Owns: the refusal to write over what is not ours. Whether one of our own stores is on a device is
the native code's to say; what else is there, `blkid` of util-linux. May block (device).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from curve_py.errors import ConfigError, ExistsError, UnavailableError

_NOTHING_FOUND = 2  # exit codes of `blkid -p`
_AMBIGUOUS = 8
_BLKID_SECONDS = 30.0


def check_block_device(path: Path) -> None:
    """Raises ConfigError: nothing is there (a typing error would make a file), or not a device."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"The device {path} cannot be found: {error.strerror}.") from None
    if not stat.S_ISBLK(mode):
        raise ConfigError(
            f"{path} is not a block device.",
            "A store in files needs only store_path, a directory.",
        )


def device_bytes(path: Path) -> int:
    """The size of a block device. Raises UnavailableError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.lseek(descriptor, 0, os.SEEK_END)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnavailableError(
            f"The device {path} cannot be read: {error.strerror}.",
            "Check owner and mode; the process needs read and write access.",
        ) from None


def check_empty(path: Path) -> None:
    """Raises ExistsError when a file system, a partition table or the like is on the device."""
    device_bytes(path)  # says so when it cannot be read; blkid would say "nothing found"
    program = shutil.which("blkid", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise UnavailableError(
            f"What is on {path} cannot be told: there is no program blkid.",
            "Install util-linux, or format with --force.",
        )
    found = subprocess.run(
        [program, "-p", "-o", "export", str(path)],
        capture_output=True,
        text=True,
        timeout=_BLKID_SECONDS,
        check=False,
    )
    if found.returncode == _NOTHING_FOUND:
        return
    values = dict(line.split("=", 1) for line in found.stdout.splitlines() if "=" in line)
    if found.returncode == _AMBIGUOUS:
        what = "signatures of several kinds"
    elif kind := values.get("TYPE"):
        label = values.get("LABEL")
        what = f"{kind} ({values.get('USAGE', 'data')})" + (f" named '{label}'" if label else "")
    elif kind := values.get("PTTYPE"):
        what = f"a partition table ({kind})"
    else:
        what = "something"
    raise ExistsError(
        f"{path} is not empty: it holds {what}.",
        "Check that it is the right device; --force formats it and destroys what is there.",
    )
