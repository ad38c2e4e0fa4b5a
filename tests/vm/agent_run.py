"""One run of the node agent in a guest with little memory: cluster, agent and user share it.

Owns: the guest and its disk; both are gone at the end, however it ends. Started by tools/vm-test
--agent with the Python in which the package is installed: the guest has the host's file system
(read-only, by 9p) and runs agent_guest.py or nbd_guest.py with that Python. It is emulated in
software, so nothing here is about speed. Every wait has a limit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

MEMORY_MIB = 640
DISK_BYTES = 6 << 30
GUEST_SECONDS = 2400
STEPS_MIN = 13  # a guest that ends earlier without a word has failed


def command(options: argparse.Namespace, disk: Path) -> list[str]:
    script = Path(__file__).resolve().with_name(f"{options.test}_guest.py")
    parameters = f"curve.python={sys.executable} curve.script={script}"
    # fmt: off
    return [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "pc",
        "-m", str(MEMORY_MIB), "-smp", "2", "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none", "-serial", "stdio",
        "-kernel", str(options.kernel), "-initrd", str(options.initramfs),
        "-append", f"console=ttyS0 quiet loglevel=1 panic=-1 rdinit=/init {parameters}",
        "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
        "-drive", f"file={disk},format=raw,if=none,id=disk,cache=unsafe",
        "-device", "virtio-blk-pci,drive=disk,romfile=",
    ]
    # fmt: on


def watch(guest: subprocess.Popen[bytes], log: Path) -> tuple[int, int]:
    """Prints the guest's steps; returns how many passed and failed."""
    passed = failed = 0
    ended = False
    assert guest.stdout is not None
    with open(log, "wb") as console:
        for raw in guest.stdout:
            console.write(raw)
            console.flush()
            _, mark, text = raw.decode(errors="replace").strip().partition("VMTEST ")
            kind, _, rest = text.partition(" ")
            if not mark:
                continue
            passed += kind == "PASS"
            failed += kind == "FAIL"
            if kind == "END":  # what it does then may wait for a device whose agent is gone
                ended = True
                break
            lead = {"PASS": "ok      guest: ", "FAIL": "FAILED  guest: "}.get(kind, " " * 8)
            print(f"{lead}{rest}", flush=True)
    if not ended or (passed + failed < STEPS_MIN and not failed):
        print(f"FAILED  the guest did not come to its end: see {log}")
        failed += 1
    return passed, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernel", type=Path, required=True)
    parser.add_argument("--initramfs", type=Path, required=True)
    parser.add_argument("--test", choices=("agent", "nbd"), default="agent")
    parser.add_argument("--logs", type=Path, required=True, help="gets the guest's console")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    began = time.monotonic()
    options.logs.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="curve-vm-"))
    try:
        disk = base / "disk.raw"
        with open(disk, "wb") as file:
            os.truncate(file.fileno(), DISK_BYTES)
        guest = subprocess.Popen(
            command(options, disk), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        timer = threading.Timer(GUEST_SECONDS, guest.kill)
        timer.start()
        try:
            passed, failed = watch(guest, options.logs / f"{options.test}-console.log")
        finally:
            timer.cancel()
            guest.kill()
            guest.wait()
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(f"total time: {time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
