"""Inside the guest: a cluster, the node agent and their user share a machine with little memory.

Says on the console what came of it: VMTEST PASS|FAIL step, VMTEST LOG text, VMTEST NOTE text. The
volume's dirty pages are more than the memory that there is, and another process takes what is
left, so the kernel must write them to the volume to get any: whoever waited there for free memory,
agent or chunkserver, would wait for ever.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curve_py.client import Cluster
from curve_py.client.agent import AgentClient
from curve_py.errors import CurveError
from curve_py.proto import agent_pb2 as pb

HOME = Path("/var/tmp")
MOUNT = HOME / "mnt"
WRITTEN_MIB = 700
USED_MIB = 128  # by another process, beside cluster, agent and writer
USER = "memory-user"
STEP_SECONDS = 900
PROGRAMS = Path(sys.executable).parent


def say(text: str) -> None:
    print(f"VMTEST {text}", flush=True)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_SECONDS)
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout).strip()[-600:])
    return done.stdout


def step(title: str, function: Callable[[], Any]) -> Any:
    """Ends the test when it fails."""
    began = time.monotonic()
    try:
        value = function()
    except Exception as error:
        say(f"FAIL {title}")
        for line in str(error).splitlines() or [repr(error)]:
            say(f"LOG {line}")
        for log in sorted((HOME / "c" / "log").glob("*.log")):
            for line in log.read_text().splitlines()[-3:]:
                say(f"LOG {log.name}: {line[:300]}")
        sys.exit(0)
    say(f"PASS {title} ({time.monotonic() - began:.0f} s)")
    return value


def start_cluster() -> None:
    run(
        str(PROGRAMS / "curve"), "up", "--metaservers", "1", "--chunkservers", "1",
        "--store-size", "2GiB", "--dir", str(HOME / "c"),
    )  # fmt: skip


def start_agent() -> AgentClient:
    """By hand: emulated, it takes longer to start than `curve volume attach` waits."""
    description = json.loads((HOME / "c" / "cluster.json").read_text())
    (HOME / "agent.toml").write_text(
        f'secret_file = "{HOME}/c/secret"\ndirectory = "{HOME}/agent"\n'
        f'metaservers = ["{description["metaservers"][0]["grpc_address"]}"]\n'
    )
    log = open(HOME / "c" / "log" / "agent.log", "ab")  # noqa: SIM115
    command = [str(PROGRAMS / "curve-agent"), "--config", str(HOME / "agent.toml")]
    process = subprocess.Popen(command, stderr=log)
    agent = AgentClient(HOME / "agent" / "agent.sock")
    for _ in range(STEP_SECONDS):
        try:
            agent.list()
            return agent
        except CurveError:
            if process.poll() is not None:
                raise RuntimeError("it has ended") from None
        time.sleep(1)
    raise RuntimeError("it does not answer")


def wait_for_size(device: str, size_bytes: int) -> None:
    for _ in range(STEP_SECONDS):
        if int(run("blockdev", "--getsize64", device)) == size_bytes:
            return
        time.sleep(1)
    raise RuntimeError("the device does not grow")


def memory() -> dict[str, int]:
    """MiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines}


def stalls() -> int:
    """How often an allocation had to wait until it had freed memory itself."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("allocstall_"))


def ended_by_the_kernel() -> list[str]:
    """Names of processes that the out-of-memory killer has ended."""
    return re.findall(r"Killed process \d+ \(([^)]*)\)", run("dmesg"))


def watch_memory() -> None:
    """A cluster without its chunkserver waits for ever: that is said, and is no deadlock."""
    while True:
        time.sleep(5)
        ended = [name for name in ended_by_the_kernel() if name != USER]
        if ended:
            say(f"FAIL the out-of-memory killer has ended {', '.join(ended)}")
            for line in run("dmesg").splitlines()[-90:]:
                say(f"LOG {line}")
            say("END")
            os._exit(0)


def keep_memory_short(enough: threading.Event) -> None:
    program = str(Path(__file__).with_name("memory_user.py"))
    times = 0
    while not enough.is_set():
        times += 1
        with subprocess.Popen([sys.executable, "-IS", program, str(USED_MIB)]) as user:
            while user.poll() is None and not enough.wait(0.5):
                pass
            user.kill()
    say(f"NOTE the other user of memory was ended by the kernel {times - 1} times")


def write_much() -> None:
    """Buffered, without waiting in between: dirty pages pile up as far as the kernel lets them."""
    block = os.urandom(1 << 20)
    with open(MOUNT / "much", "wb") as file:
        for number in range(WRITTEN_MIB):
            file.write(number.to_bytes(8, "little") + block[8:])
            if number % 100 == 0:
                now = memory()
                say(
                    f"NOTE {number} MiB written, {now['Dirty'] + now['Writeback']} dirty, "
                    f"{now['MemAvailable']} available, {stalls()} allocations waited"
                )
        os.fsync(file.fileno())


def check() -> None:
    with open(MOUNT / "much", "rb") as file:
        for number in range(WRITTEN_MIB):
            if int.from_bytes(file.read(1 << 20)[:8], "little") != number:
                raise RuntimeError(f"MiB {number} is not what was written")


def main() -> None:
    os.chdir("/")
    for name, percent in (("dirty_background_ratio", "40"), ("dirty_ratio", "60")):
        Path("/proc/sys/vm", name).write_text(percent)
    say(f"NOTE kernel {os.uname().release}, {memory()['MemTotal']} MiB")
    step("cluster", start_cluster)
    agent = step("agent", start_agent)
    with Cluster.connect(HOME / "c") as cluster:
        step("volume", lambda: cluster.volumes().create("v", "1GiB"))
        device = step(
            "device",
            lambda: agent.attach(
                volume_name="v", device_type=pb.DEVICE_TYPE_FUSE, seconds=STEP_SECONDS
            ),
        ).device
        step("resize", lambda: cluster.volumes().resize("v", "2GiB"))
    step("the device grows", lambda: wait_for_size(device, 2 << 30))
    step("mkfs", lambda: run("mkfs.ext4", "-q", device))
    step("mount", lambda: run("mount", device, str(MOUNT)))
    threading.Thread(target=watch_memory, daemon=True).start()
    enough = threading.Event()
    other = threading.Thread(target=keep_memory_short, args=(enough,), daemon=True)
    other.start()
    step("more is written than there is memory", write_much)
    enough.set()
    other.join()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    step("all of it is there", check)
    step("unmount", lambda: run("umount", str(MOUNT)))
    step("fsck", lambda: run("e2fsck", "-f", "-n", device))
    step("detach", lambda: agent.detach(volume_name="v", seconds=STEP_SECONDS))


if __name__ == "__main__":
    main()
