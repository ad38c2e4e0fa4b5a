"""One run: a cluster, a volume exported over NBD, a Linux guest in QEMU that uses it, a chunkserver
killed in mid write, and a comparison of what the guest saw with what is in the volume.

Owns: the cluster, the guest and everything on disk; all of it is gone at the end, however it ends.
Started by tools/vm-test with the Python in which the package is installed. The guest is emulated in
software (no /dev/kvm), so nothing here is about speed. Every wait has a limit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

VOLUME = "vm"
VOLUME_BYTES = 256 * 1024**2
STORE_SIZE = "2GiB"
COMMAND_SECONDS = 120
GUEST_SECONDS = 600
KILL_AFTER_WRITES = 3
RESTART_AFTER_WRITES = 7
GUEST_STEPS_MIN = 10  # a guest that ends earlier without a word has failed


class StepFailed(Exception):
    """What a step says when it fails."""


class Results:
    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def add(self, good: bool, title: str, detail: str = "") -> None:
        self.passed += good
        self.failed += not good
        mark = "ok    " if good else "FAILED"
        print(f"{mark}  {title}{': ' + detail if detail else ''}", flush=True)

    def step(self, title: str, function: Callable[[], str]) -> bool:
        """Runs it; what it returns is shown beside the title."""
        try:
            detail = function()
        except (StepFailed, OSError, subprocess.SubprocessError, ValueError) as error:
            self.add(False, title, str(error))
            return False
        self.add(True, title, detail)
        return True


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=COMMAND_SECONDS
    )
    if done.returncode != 0:
        text = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise StepFailed(f"{command[0]} {command[1]}: " + (" ".join(text[-3:]) or "failed"))
    return done.stdout


class LocalCluster:
    """By the command line, as a user would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_port()
        self._curve = Path(sys.executable).parent / "curve"

    def curve(self, *words: str) -> str:
        return run(self._curve, *words, "--dir", self.directory)

    def up(self) -> str:
        self.curve("up", "--store-size", STORE_SIZE)
        return ""

    def export(self) -> str:
        self.curve("volume", "create", VOLUME, str(VOLUME_BYTES))
        self.curve("volume", "export", VOLUME, "--nbd", f"tcp:127.0.0.1:{self.port}")
        return ""

    def kill_chunkserver(self) -> str:
        """The one that leads most, with SIGKILL."""
        servers = json.loads(self.curve("chunkserver", "list", "--json"))["chunkservers"]
        victim = max(servers, key=lambda server: server["leader_count"])
        if not victim["pid"]:
            raise StepFailed("no chunkserver has a pid")
        os.kill(victim["pid"], signal.SIGKILL)
        return f"pid {victim['pid']}, led {victim['leader_count']} copysets"

    def stop(self) -> str:
        if self.directory.exists():
            self.curve("down")
        return ""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Guest:
    """QEMU and its serial console. Lines are handled on the caller's thread."""

    def __init__(self, kernel: Path, initramfs: Path, port: int, log: Path) -> None:
        parameters = f"curve.port={port} curve.name={VOLUME} curve.bytes={VOLUME_BYTES}"
        # fmt: off
        command = [
            "qemu-system-x86_64", "-accel", "tcg", "-machine", "pc", "-m", "768", "-smp", "1",
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initramfs),
            "-append", f"console=ttyS0 quiet loglevel=1 panic=-1 rdinit=/init {parameters}",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
        ]
        # fmt: on
        self._log = open(log, "wb")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        self._timer = threading.Timer(GUEST_SECONDS, self._process.kill)
        self._timer.start()

    def lines(self) -> list[str] | None:
        """The words of the next line that is for us; None at the end."""
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            self._log.write(raw)
            self._log.flush()
            text = raw.decode(errors="replace").strip()
            _, mark, words = text.partition("VMTEST ")
            if mark:
                return words.split(" ")
        return None

    def say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._timer.cancel()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._log.close()


def watch(guest: Guest, cluster: LocalCluster, results: Results) -> str:
    """Follows the guest to its end. Returns the checksum that it printed, or ""."""
    checksum = ""
    steps = 0
    ended = False
    while (words := guest.lines()) is not None:
        match words:
            case ["PASS", *title]:
                results.add(True, "guest: " + " ".join(title))
                steps += 1
            case ["FAIL", *title]:
                results.add(False, "guest: " + " ".join(title))
                steps += 1
            case ["LOG", *text]:
                print("        " + " ".join(text), flush=True)
            case ["NOTE", "wrote", count]:
                _at_write(int(count), guest, cluster, results)
            case ["NOTE", "sha256", value]:
                checksum = value
            case ["NOTE", "kernel", release]:
                print(f"        Linux {release}", flush=True)
            case ["END"]:
                ended = True
    results.add(ended and steps >= GUEST_STEPS_MIN, "guest came to its end", f"{steps} steps")
    return checksum


def _at_write(count: int, guest: Guest, cluster: LocalCluster, results: Results) -> None:
    if count == KILL_AFTER_WRITES:
        results.step("SIGKILL of a chunkserver in mid write", cluster.kill_chunkserver)
    elif count == RESTART_AFTER_WRITES:
        wrote = f"after {RESTART_AFTER_WRITES - KILL_AFTER_WRITES} more writes of the guest"
        results.step("chunkserver started again", lambda: cluster.up() or wrote)
        guest.say("restarted")


def compare_by_qemu_img(cluster: LocalCluster, image: Path, checksum: str) -> str:
    uri = f"nbd://127.0.0.1:{cluster.port}/{VOLUME}"
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, image)
    with image.open("rb") as file:
        return _equal(hashlib.file_digest(file, "sha256").hexdigest(), checksum)


def compare_by_library(cluster: LocalCluster, checksum: str) -> str:
    cluster.curve("volume", "unexport", VOLUME)
    program = (
        "import hashlib, sys\n"
        "from curve_py.client import Cluster\n"
        "digest = hashlib.sha256()\n"
        "with Cluster.connect(sys.argv[1]) as c, c.volumes().open(sys.argv[2]) as volume:\n"
        "    for offset in range(0, len(volume), 1 << 20):\n"
        "        digest.update(volume.read(offset, 1 << 20))\n"
        "print(digest.hexdigest())\n"
    )
    return _equal(run(sys.executable, "-c", program, cluster.directory, VOLUME).strip(), checksum)


def _equal(found: str, expected: str) -> str:
    if found != expected:
        raise StepFailed(f"{found[:16]}..., the guest had {expected[:16] or 'none'}...")
    return f"{found[:16]}..."


def test(kernel: Path, initramfs: Path, base: Path, results: Results) -> None:
    cluster = LocalCluster(base / "cluster")
    try:
        if not results.step("cluster of three metaservers and three chunkservers", cluster.up):
            return
        if not results.step("volume exported over NBD", cluster.export):
            return
        guest = Guest(kernel, initramfs, cluster.port, base / "console.log")
        try:
            checksum = watch(guest, cluster, results)
        finally:
            guest.close()
        image = base / "image.raw"
        results.step(
            "qemu-img reads the same", lambda: compare_by_qemu_img(cluster, image, checksum)
        )
        results.step("the library reads the same", lambda: compare_by_library(cluster, checksum))
    finally:
        results.step("everything stopped", cluster.stop)


def _keep_logs(base: Path, logs: Path) -> None:
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    for file in (base / "console.log", *(base / "cluster").rglob("*.log")):
        if file.exists():
            shutil.copy(file, logs)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernel", type=Path, required=True)
    parser.add_argument("--initramfs", type=Path, required=True)
    parser.add_argument(
        "--logs", type=Path, required=True, help="gets the guest's console and the logs"
    )
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    results = Results()
    began = time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="curve-vm-"))
    try:
        test(options.kernel, options.initramfs, base, results)
    finally:
        _keep_logs(base, options.logs)
        shutil.rmtree(base, ignore_errors=True)
    print(f"total time: {time.monotonic() - began:.0f} s")
    print(f"{results.passed} passed, {results.failed} failed")
    return 0 if results.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
