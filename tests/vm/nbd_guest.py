"""Inside the guest: the node agent with devices of the kernel's nbd; at first without the module.

A file system on such a device is written, grows, and is checked while the agent is killed. Says on
the console what came of it, like agent_guest.py, whose cluster and agent it uses.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from agent_guest import HOME, MOUNT, STEP_SECONDS, run, say, start_agent, start_cluster, step

from curve_py.client import Cluster
from curve_py.client.agent import AgentClient
from curve_py.client.doctor import examine
from curve_py.errors import ConflictError, CurveError, UnsupportedError
from curve_py.proto import agent_pb2 as pb

MIB = 1 << 20
MODULES = Path("/run/modules")
_FINIT_MODULE = 313  # x86-64
KILLS = 2


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + STEP_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(what)
        time.sleep(0.2)


def refused(function: Callable[[], object], error: type[CurveError]) -> str:
    try:
        function()
    except error as said:
        return said.message
    raise RuntimeError(f"no {error.__name__}")


def without_the_module(agent: AgentClient) -> None:
    said = refused(
        lambda: agent.attach(volume_name="v", device_type=pb.DEVICE_TYPE_NBD, seconds=STEP_SECONDS),
        UnsupportedError,
    )
    found = {finding.name: finding for finding in examine().findings}["nbd"]
    if found.ok or "nbd" not in said or "modprobe nbd" not in found.remedy:
        raise RuntimeError(f"{said} {found}")
    say(f"NOTE {said} {found.remedy}")


def load_module() -> None:
    (path,) = MODULES.glob("*-nbd.ko")
    with open(path, "rb") as file:
        if ctypes.CDLL(None, use_errno=True).syscall(_FINIT_MODULE, file.fileno(), b"", 0) != 0:
            raise RuntimeError(os.strerror(ctypes.get_errno()))


def is_chosen() -> None:
    found = examine()
    say(f"NOTE {found.chosen}: {found.reason}")
    if found.chosen != "nbd" or not found.replaceable:
        raise RuntimeError(f"{found}")


def look_at(device: pb.Device) -> None:
    queue = Path(f"/sys/block/{Path(device.device).name}/queue")
    found = (
        device.device_type,
        run("blockdev", "--getsize64", "--getss", device.device).split(),
        (queue.parent / "backend").read_text().strip(),
        os.path.realpath(device.link),
    )
    uuid = f"curve:{device.volume_uuid}"
    if found != (pb.DEVICE_TYPE_NBD, [str(256 * MIB), "4096"], uuid, device.device):
        raise RuntimeError(f"{found}")


def discard(device: str) -> None:
    """Of 1 MiB in 4: the neighbours keep what they have."""
    data = os.urandom(4 * MIB)
    descriptor = os.open(device, os.O_RDWR)
    try:
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    run("blkdiscard", "-f", "-o", str(MIB), "-l", str(MIB), device)
    run("blkdiscard", "-f", "-z", "-o", str(3 * MIB), "-l", "65536", device)
    run("blockdev", "--flushbufs", device)
    with open(device, "rb") as file:
        found = file.read(4 * MIB)
    wanted = data[:MIB] + bytes(MIB) + data[2 * MIB : 3 * MIB] + bytes(65536)
    if found != wanted + data[3 * MIB + 65536 :]:
        raise RuntimeError("not what was written and discarded")


def holder_pid() -> int:
    found = subprocess.run(["pgrep", "-f", "curve-agent --config"], capture_output=True, text=True)
    return int(found.stdout.split()[0])


def worker_pid(holder: int) -> int:
    children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
    return int(children[0]) if children else 0


def serves(agent: AgentClient) -> bool:
    try:
        devices = agent.list(seconds=10).devices
    except CurveError:
        return False
    return bool(devices) and all(d.state == pb.DEVICE_STATE_SERVING for d in devices)


def start_fio(seconds: int) -> subprocess.Popen[str]:
    # fmt: off
    command = [
        "fio", "--name=job", f"--filename={MOUNT}/file", "--rw=randwrite", "--bsrange=4k-128k",
        "--ioengine=psync", "--direct=1", "--numjobs=2", "--size=24M", "--offset_increment=24M",
        "--verify=crc32c", "--verify_backlog=32", "--verify_fatal=1", "--time_based",
        f"--runtime={seconds}", "--output-format=json", "--group_reporting",
    ]
    # fmt: on
    return subprocess.Popen(
        command, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish_fio(load: subprocess.Popen[str]) -> None:
    said, problems = load.communicate(timeout=STEP_SECONDS)
    if load.returncode != 0:
        raise RuntimeError(f"fio: {problems} {said[-800:]}")
    (job,) = json.loads(said[said.index("{") :])["jobs"]
    longest = max(job[kind]["clat_ns"]["max"] for kind in ("read", "write")) / 1e9
    done = job["write"]["total_ios"] + job["read"]["total_ios"]
    say(f"NOTE {done} requests, none failed, the longest took {longest:.1f} s (emulated)")


def grow_under_load(cluster: Cluster, device: str) -> None:
    load = start_fio(30)
    try:
        cluster.volumes().resize("v", "512MiB")
        until(lambda: int(run("blockdev", "--getsize64", device)) == 512 * MIB, "it does not grow")
        say(f"NOTE {run('resize2fs', device).strip().splitlines()[-1]}")
        finish_fio(load)
    finally:
        load.kill()
    size = os.statvfs(MOUNT)
    if size.f_blocks * size.f_frsize < 400 * MIB:
        raise RuntimeError(f"the file system has {size.f_blocks * size.f_frsize} bytes")


def requests(device: str) -> int:
    """That the device has answered: reads and writes."""
    fields = Path(f"/sys/block/{Path(device).name}/stat").read_text().split()
    return int(fields[0]) + int(fields[4])


def kill_under_load(agent: AgentClient, device: str) -> None:
    holder = holder_pid()
    load = start_fio(240)
    try:
        for _ in range(KILLS):
            done = requests(device)
            until(lambda at=done: requests(device) > at + 50, "fio does nothing")  # type: ignore[misc]
            time.sleep(3)  # what waited for the last one has been sent again by now
            before = worker_pid(holder)
            os.kill(before, signal.SIGKILL)
            began = time.monotonic()
            until(lambda old=before: worker_pid(holder) not in (0, old), "no successor")  # type: ignore[misc]
            until(lambda: serves(agent), "it does not take up its device")
            say(f"NOTE taken up after {time.monotonic() - began:.1f} s (emulated)")
        finish_fio(load)
    finally:
        load.kill()


def kill_both(agent: AgentClient) -> AgentClient:
    holder = holder_pid()
    worker = worker_pid(holder)
    os.kill(holder, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    agent.close()
    started = start_agent()
    until(lambda: serves(started), "the next agent does not take up the device")
    run("dd", f"if={MOUNT}/file", "of=/dev/null", "bs=1M", "iflag=direct")
    return started


def is_held(agent: AgentClient, device: str) -> None:
    descriptor = os.open(device, os.O_RDONLY)
    try:
        refused(lambda: agent.detach(volume_name="v", seconds=STEP_SECONDS), ConflictError)
    finally:
        os.close(descriptor)
    os.close(os.open(device, os.O_RDONLY))
    if not serves(agent):
        raise RuntimeError("it is not served any more")


def read_only(agent: AgentClient) -> None:
    device = agent.attach(volume_name="v", read_only=True, seconds=STEP_SECONDS).device
    if run("blockdev", "--getro", device).strip() != "1":
        raise RuntimeError("it may be written to")
    run("e2fsck", "-f", "-n", device)
    agent.detach(volume_name="v", seconds=STEP_SECONDS)


def stolen(cluster: Cluster, agent: AgentClient) -> None:
    device = agent.attach(volume_name="v", seconds=STEP_SECONDS).device
    with cluster.volumes().open("v") as volume:
        volume.write(0, bytes(4096))
        until(lambda: agent.list().devices[0].state == pb.DEVICE_STATE_LOST, "it is not lost")
        for command in (
            ("if=/dev/zero", f"of={device}", "oflag=direct"),
            (f"if={device}", "of=/dev/null", "iflag=direct"),
        ):
            done = subprocess.run(["dd", *command, "bs=4k", "count=1"], capture_output=True)
            if done.returncode == 0:
                raise RuntimeError("a fenced device answers")
    agent.detach(volume_name="v", seconds=STEP_SECONDS)


def nothing_left() -> None:
    left = [str(path) for path in Path("/sys/block").glob("nbd*/backend")]
    left += [str(path) for path in Path("/sys/block").glob("nbd*/pid")]
    for folder in ("records", "devices"):
        left += [str(path) for path in (HOME / "agent" / folder).iterdir()]
    if left:
        raise RuntimeError(f"left: {left}")


def no_errors_before_theft() -> None:
    said = subprocess.run(["dmesg"], capture_output=True, text=True).stdout
    bad = [line for line in said.splitlines() if "I/O error" in line or "EXT4-fs error" in line]
    if bad:
        raise RuntimeError("\n".join(bad[:6]))


def main() -> None:
    os.chdir("/")
    say(f"NOTE kernel {os.uname().release}")
    step("cluster", start_cluster)
    agent = step("agent", start_agent)
    with Cluster.connect(HOME / "c") as cluster:
        step("volume", lambda: cluster.volumes().create("v", "256MiB"))
        step("without the module the error says so", lambda: without_the_module(agent))
        step("the module is loaded", load_module)
        step("nbd is chosen", is_chosen)
        device = step("device", lambda: agent.attach(volume_name="v", seconds=STEP_SECONDS))
        step("size, 4 KiB blocks, identity", lambda: look_at(device))
        step("discard and zeroing", lambda: discard(device.device))
        step("mkfs", lambda: run("mkfs.ext4", "-q", device.device))
        step("mount", lambda: run("mount", device.device, str(MOUNT)))
        step(
            "volume, device and mounted file system grow under fio",
            lambda: grow_under_load(cluster, device.device),
        )
        step(
            f"fio verifies, agent killed {KILLS} times",
            lambda: kill_under_load(agent, device.device),
        )
        agent = step("agent and holder killed, the next agent goes on", lambda: kill_both(agent))
        step(
            "no detach while mounted",
            lambda: refused(
                lambda: agent.detach(volume_name="v", seconds=STEP_SECONDS), ConflictError
            ),
        )
        step("unmount", lambda: run("umount", str(MOUNT)))
        step("no detach while a process has it open", lambda: is_held(agent, device.device))
        step("fsck", lambda: run("e2fsck", "-f", "-n", device.device))
        step("detach", lambda: agent.detach(volume_name="v", seconds=STEP_SECONDS))
        step("nothing is left", nothing_left)
        step("read-only", lambda: read_only(agent))
        step("no error in the kernel's log", no_errors_before_theft)
        step("a volume that is taken over is lost", lambda: stolen(cluster, agent))
        step("nothing is left", nothing_left)


if __name__ == "__main__":
    main()
