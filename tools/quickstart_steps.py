"""What tools/quickstart does once everything is installed.

Speaks to the cluster by the `curve` command and its --json, as a user would. Every check that fails
ends it with one sentence and exit code 1; with --check everything is removed, failed or not.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from curve_py.client.directory import ClusterDirectory

VOLUME = "quickstart"
STORE_SIZE = "3GiB"
IMAGE_BYTES = 512 << 20
FILES_BYTES = 300 << 20
COPY_RATE = "48M"  # slow enough for a chunkserver to be killed and restarted meanwhile
FIO_SECONDS = 30
FREE_BYTES_MIN = 16 << 30

console = Console(highlight=False, soft_wrap=True)


class FailedError(Exception):
    """One sentence."""


class Steps:
    """Numbers and times what is done."""

    def __init__(self) -> None:
        self._number = 0
        self._started = time.monotonic()

    def begin(self, text: str) -> None:
        self._number += 1
        seconds = time.monotonic() - self._started
        console.print(f"[bold]{self._number:2}.[/bold] {text} [dim]({seconds:.0f} s)[/dim]")


def run(*command: str, timeout: float = 300) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise FailedError(f"`{' '.join(command)}` failed ({done.returncode}): {said}")
    return done.stdout


def curve(*arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run("curve", *arguments, "--json"))
    return answer


def make_image(work: Path) -> Path:
    """An ext4 image of files of this machine."""
    tree, total = work / "tree", 0
    for source in _files_of("/usr"):
        if total >= FILES_BYTES:
            break
        target = tree / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(source, target, follow_symlinks=False)
        except OSError:
            continue
        total += target.lstat().st_size
    image = work / "image.raw"
    with open(image, "wb") as file:
        file.truncate(IMAGE_BYTES)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", str(tree), str(image))
    shutil.rmtree(tree)
    return image


def _files_of(root: str) -> Any:
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_symlink() or (path.is_file() and path.stat().st_size < 64 << 20):
                yield path


def written_bytes(metrics_address: str) -> int:
    with urllib.request.urlopen(f"http://{metrics_address}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("curve_nbd_written_bytes_total "):
                return int(float(line.split()[1]))
    return 0


def copy_with_a_kill(image: Path, target: str, metrics_address: str, steps: Steps) -> float:
    """Copies the image; kills a chunkserver in mid copy and restarts it. Returns seconds."""
    # Asked for before, so that no program is started between the moment to kill and the kill.
    pid = {s["name"]: s["pid"] for s in curve("status")["services"]}["chunkserver-2"]
    begin = time.monotonic()
    command = ["qemu-img", "convert", "-n", "-r", COPY_RATE, "-f", "raw", "-O", "raw"]
    copy = subprocess.Popen([*command, str(image), target], stderr=subprocess.PIPE, text=True)
    try:
        while written_bytes(metrics_address) < FILES_BYTES // 4:
            if copy.poll() is not None or time.monotonic() - begin > 120:
                raise FailedError("The copy ended or stood still before a quarter was written.")
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        if copy.poll() is not None:
            raise FailedError("The copy was over before the chunkserver was killed.")
        steps.begin(f"SIGKILL of chunkserver-2 (pid {pid}) in mid copy")
        time.sleep(1.0)
        started = curve("up")["started"]
        if started != ["chunkserver-2"]:
            raise FailedError(f"`curve up` restarted {started}, not chunkserver-2.")
        steps.begin("`curve up` has restarted it; the rest of the copy")
        said = copy.communicate(timeout=240)[1]
        if copy.returncode:
            raise FailedError(f"qemu-img convert failed: {said.strip()}")
    finally:
        if copy.poll() is None:
            copy.kill()
            copy.wait()
    return time.monotonic() - begin


def fio(uri: str) -> dict[str, Any]:
    """Thirty seconds of random writes, each read back and verified."""
    output = run(
        "fio",
        "--name=verified",
        "--ioengine=nbd",
        f"--uri={uri}",
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=16",
        "--offset=1G",
        "--size=32M",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        "--time_based",
        f"--runtime={FIO_SECONDS}",
        "--percentile_list=99",
        "--output-format=json",
        timeout=FIO_SECONDS * 6,
    )
    job: dict[str, Any] = json.loads(output[output.index("{") :])["jobs"][0]
    if job["error"]:
        raise FailedError(f"fio ended with error {job['error']}.")
    return job


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def show(job: dict[str, Any], copy_seconds: float, usage: dict[str, Any]) -> None:
    table = Table(title="Verified random 4 KiB I/O, depth 16, NBD", title_justify="left")
    for column in ("", "IOPS", "mean", "p99", "longest stall"):
        table.add_column(column, justify="right" if column else "left")
    for kind in ("write", "read"):
        part = job[kind]
        if not part["total_ios"]:
            continue
        latency = part["clat_ns"]
        p99 = latency.get("percentile", {}).get("99.000000", 0)
        table.add_row(
            kind,
            f"{part['iops']:,.0f}",
            f"{latency['mean'] / 1000:,.0f} µs",
            f"{p99 / 1000:,.0f} µs",
            f"{latency['max'] / 1e6:,.1f} ms",
        )
    console.print(table)
    stores = [store["allocated_bytes"] or 0 for store in usage["stores"]]
    space = Table(title="Space", title_justify="left", show_header=False)
    space.add_row("size of the volume", size(usage["volume"]["size_bytes"]))
    space.add_row("logical: what was written", size(max(stores)))
    space.add_row("physical: on all stores", size(sum(stores)))
    space.add_row("the copy took", f"{copy_seconds:.1f} s, at {COPY_RATE} a second at most")
    console.print(space)


def prove(directory: Path, work: Path, steps: Steps) -> None:
    steps.begin(f"cluster of 3 metaservers and 3 chunkservers in {directory}")
    curve("up", "--store-size", STORE_SIZE)
    for volume in curve("volume", "list")["volumes"]:
        if volume["name"] == VOLUME:
            if volume["exports"]:
                curve("volume", "unexport", VOLUME)
            curve("volume", "delete", VOLUME, "--force")
    steps.begin(f"thin volume '{VOLUME}' of 10 GiB, exported over NBD on a unix socket")
    curve("volume", "create", VOLUME, "10GiB")
    path = directory / "nbd.sock"
    if len(os.fsencode(path)) > 100:
        path = work / "nbd.sock"
    options = ("--nbd", f"unix:{path}", "--metrics", "127.0.0.1:0")
    export = curve("volume", "export", VOLUME, *options)["export"]
    uri = export["uri"]
    steps.begin("ext4 image of files from /usr")
    image = make_image(work)
    steps.begin(f"qemu-img convert of {size(image.stat().st_blocks * 512)} into the volume")
    seconds = copy_with_a_kill(image, uri, export["http_address"], steps)
    steps.begin("qemu-img compare")
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), uri)
    steps.begin("copy back and fsck.ext4")
    back = work / "back.raw"
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, str(back))
    run("fsck.ext4", "-fn", str(back))
    image.unlink()
    back.unlink()
    steps.begin(f"fio, {FIO_SECONDS} s of writes that are read back and verified")
    job = fio(uri)
    show(job, seconds, curve("volume", "show", VOLUME))
    console.print("Equal after the copy, clean file system, no I/O error, nothing lost.")


def farewell(directory: Path) -> None:
    prefix = f"CURVE_DIR={directory} " if "CURVE_DIR" in os.environ else ""
    program = shutil.which("curve") or "curve"
    console.print(
        f"""
The cluster runs. To go on:
  {prefix}{program} status
  {prefix}{program} volume create data 20GiB
  {prefix}{program} volume export data --nbd unix:/tmp/data.sock
  nbdinfo 'nbd+unix:///data?socket=/tmp/data.sock'
To stop it (the data stays; `curve up` starts it again):
  {prefix}{program} down""",
        markup=False,
    )


def main() -> int:
    check = "--check" in sys.argv[1:]
    build = Path(os.environ.get("CURVE_BUILD", "build"))
    build.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(build).free < FREE_BYTES_MIN:
        console.print(f"quickstart: {build} has less than {size(FREE_BYTES_MIN)} free.")
        return 1
    work = Path(tempfile.mkdtemp(prefix="quickstart-", dir=build)).absolute()
    if check:
        os.environ["CURVE_DIR"] = str(work / "cluster")
    directory = ClusterDirectory().path
    try:
        prove(directory, work, Steps())
        if not check:
            farewell(directory)
    except (FailedError, subprocess.TimeoutExpired) as error:
        console.print(f"quickstart: {error}", markup=False)
        console.print(f"quickstart: the logs are in {directory}/log", markup=False)
        if check:
            show_logs(directory)
        return 1
    finally:
        if check and (directory / "cluster.json").exists():
            subprocess.run(["curve", "down"], stdout=subprocess.DEVNULL, check=False)
        if check or not (work / "nbd.sock").exists():  # else the export that goes on is in there
            shutil.rmtree(work, ignore_errors=True)
    return 0


def show_logs(directory: Path) -> None:
    """The last lines of each log, before they are removed."""
    for log in sorted((directory / "log").glob("*.log")):
        console.print(f"--- {log.name}", markup=False)
        for line in log.read_text(errors="replace").splitlines()[-5:]:
            console.print(line[:500], markup=False)


if __name__ == "__main__":
    sys.exit(main())
