"""A file system of a disk that fails: a directory seen through FUSE, with faults on command.

    python fault_fs.py DIRECTORY MOUNT CONTROL_SOCKET

What is written is visible at once, and on stable storage after an fsync or when it was written with
O_DSYNC. One JSON object per connection to the control socket: {"fail": ["write", ...]} answers EIO
to these operations (read, write, sync), {"delay_ms": N} makes each of them slow, {"cut": SEED} is a
power cut: every operation fails from now on, and each 4 KiB page that is not stable is kept, lost,
or torn at 512 bytes, as SEED says; {"heal": true} ends all. The answer says how many pages were
dirty, lost and torn.

Invariant: the files of DIRECTORY hold what a reader sees; `durable` holds, for each page that is
not stable, what a power cut may bring back.
"""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mfusepy import FUSE, FuseOSError, Operations

PAGE, PART = 4096, 512


class Disk:
    """The faults, and what a power cut may take back. Any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.durable: dict[tuple[str, int], bytes] = {}
        self.failing: set[str] = set()
        self.delay_seconds = 0.0
        self.powered = True

    def enter(self, operation: str) -> None:
        """Waits, or raises, as the faults say."""
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        if not self.powered or operation in self.failing:
            raise FuseOSError(errno.EIO)

    def write(self, path: str, handle: int, data: bytes, offset: int, stable: bool) -> int:
        with self.lock:
            pages = range(offset // PAGE, (offset + len(data) + PAGE - 1) // PAGE)
            if not stable:
                before = os.pread(handle, len(pages) * PAGE, pages[0] * PAGE)
                for number, page in enumerate(pages):
                    old = before[number * PAGE : (number + 1) * PAGE]
                    self.durable.setdefault((path, page), old)
            written = os.pwrite(handle, data, offset)
            if stable:
                for page in pages:
                    whole = offset <= page * PAGE and (page + 1) * PAGE <= offset + len(data)
                    if whole or (path, page) not in self.durable:
                        self.durable.pop((path, page), None)
            return written

    def sync(self, path: str) -> None:
        with self.lock:
            for key in [key for key in self.durable if key[0] == path]:
                del self.durable[key]

    def cut(self, root: str, seed: int) -> dict[str, int]:
        choice, counts = random.Random(seed), {"dirty": 0, "lost": 0, "torn": 0}
        with self.lock:
            self.powered = False
            for (path, page), old in self.durable.items():
                counts["dirty"] += 1
                what = choice.choice(("kept", "lost", "torn"))
                if what == "kept":
                    continue
                counts[what] += 1
                with open(root + path, "r+b") as file:
                    file.seek(page * PAGE)
                    now = file.read(PAGE)
                    old = old.ljust(len(now), b"\0")[: len(now)]
                    parts = range(0, len(now), PART)
                    lost = [what == "lost" or choice.random() < 0.5 for _ in parts]
                    torn = b"".join(
                        (old if gone else now)[at : at + PART]
                        for at, gone in zip(parts, lost, strict=True)
                    )
                    file.seek(page * PAGE)
                    file.write(torn)
            self.durable.clear()
        return counts

    def command(self, root: str, order: dict[str, Any]) -> dict[str, int]:
        if "cut" in order:
            return self.cut(root, order["cut"])
        if order.get("heal"):
            self.failing, self.delay_seconds, self.powered = set(), 0.0, True
        self.failing = set(order.get("fail", self.failing))
        self.delay_seconds = order.get("delay_ms", self.delay_seconds * 1000) / 1000
        return {"dirty": len(self.durable)}


class FaultFs(Operations):
    """A directory passed through. Thread: any of libfuse's."""

    use_ns = True

    def __init__(self, root: str, disk: Disk) -> None:
        self.root, self.disk = root, disk

    def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
        found = os.lstat(self.root + path)
        names = ("mode", "nlink", "uid", "gid", "size", "blocks")
        values: dict[str, Any] = {f"st_{name}": getattr(found, f"st_{name}") for name in names}
        for name in ("atime", "mtime", "ctime"):
            values[f"st_{name}"] = getattr(found, f"st_{name}_ns")
        return values

    def readdir(self, path: str, fh: Any) -> list[str]:
        return [".", "..", *os.listdir(self.root + path)]

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        fi.fh = os.open(self.root + path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        return 0

    def open(self, path: str, flags: Any) -> int:  # with raw_fi the file's structure
        flags.fh = os.open(self.root + path, os.O_RDWR | os.O_CLOEXEC)
        return 0

    def release(self, path: str, fh: Any) -> int:
        os.close(fh.fh)
        return 0

    def read(self, path: str, size: int, offset: int, fh: Any) -> bytes:
        self.disk.enter("read")
        return os.pread(fh.fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: Any) -> int:
        self.disk.enter("write")
        stable = bool(fh.flags & os.O_DSYNC)
        return self.disk.write(path, fh.fh, data, offset, stable)

    def fsync(self, path: str, datasync: int, fh: Any) -> int:
        self.disk.enter("sync")
        self.disk.sync(path)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: Any) -> int:
        self.disk.enter("sync")
        return 0

    def flush(self, path: str, fh: Any) -> int:
        return 0

    def truncate(self, path: str, length: int, fh: Any = None) -> int:
        self.disk.enter("write")
        os.truncate(self.root + path, length)
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self.root + path)
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self.root + old, self.root + new)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self.root + path, mode)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self.root + path, mode)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self.root + path)
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_namemax")
        return {name: getattr(found, name) for name in names}


def serve_control(path: str, root: str, disk: Disk) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as file:
                answer = disk.command(root, json.loads(file.readline()))
                file.write(json.dumps(answer).encode() + b"\n")


def main() -> None:
    root, mount, control = sys.argv[1:]
    disk = Disk()
    threading.Thread(target=serve_control, args=(control, root, disk), daemon=True).start()
    Path(mount).mkdir(exist_ok=True)
    FUSE(FaultFs(root, disk), mount, foreground=True, raw_fi=True, nothreads=False)


if __name__ == "__main__":
    main()
