"""Volumes as block devices: file systems, growth, discards, agents that are killed, fencing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from agent_harness import Node, fails, fio, shell, until
from running_cluster import RunningCluster

from curve_py.client import AttachmentInfo, kernel_nbd
from curve_py.client.agent import AgentClient
from curve_py.errors import ConflictError, CurveError, NotFoundError, UnsupportedError
from curve_py.proto import agent_pb2 as pb
from curve_py.types import volume_uuid

MIB = 1 << 20


@pytest.fixture(scope="module")
def node(cluster: RunningCluster) -> Iterator[Node]:
    made = Node(cluster.directory, "node-a")
    yield made
    made.close()


@pytest.fixture
def volume(cluster: RunningCluster, node: Node) -> Iterator[str]:
    name = f"agent-{uuid.uuid4().hex[:8]}"
    cluster.curve("volume", "create", name, "400MiB")
    yield name
    node.clean()
    cluster.run("volume", "delete", name, "--force")


def test_a_device_is_made_once_and_goes(cluster: RunningCluster, node: Node, volume: str) -> None:
    device = node.agent.attach(volume_name=volume)
    again = node.agent.attach(volume_id=device.volume_id, volume_uuid=device.volume_uuid)
    assert again == device
    assert os.path.realpath(device.link) == device.device
    assert int(shell(f"blockdev --getsize64 {device.device}")) == device.size_bytes == 400 * MIB
    assert shell(f"blockdev --getss {device.device}").strip() == "4096"
    backing = Path(f"/sys/block/{Path(device.device).name}/loop/backing_file").read_text()
    assert backing.strip() == f"/curve:{device.volume_uuid}"
    with pytest.raises(ConflictError):
        node.agent.attach(volume_name=volume, read_only=True)
    with pytest.raises(ConflictError):
        node.agent.attach(volume_name=volume, volume_uuid="0")
    with pytest.raises(NotFoundError):
        node.agent.attach(volume_name="no-such-volume")
    with pytest.raises(ConflictError):
        node.agent.attach(volume_name=volume, device_type=pb.DEVICE_TYPE_NBD)
    (attachment,) = attachments(cluster, volume)
    assert attachment.node_id == "node-a"
    assert node.agent.detach(volume_name=volume)
    assert not node.agent.detach(volume_name=volume)
    assert not os.path.lexists(device.link)
    assert not attachments(cluster, volume)


@pytest.mark.skipif(not kernel_nbd.missing(), reason="this kernel has nbd: see tests/vm")
def test_without_the_module_the_error_says_so(
    cluster: RunningCluster, node: Node, volume: str
) -> None:
    with pytest.raises(UnsupportedError, match="nbd"):
        node.agent.attach(volume_name=volume, device_type=pb.DEVICE_TYPE_NBD)
    assert not attachments(cluster, volume)
    assert not list((node.directory / "records").iterdir())
    assert not list((node.directory / "devices").iterdir())


def allocated(cluster: RunningCluster, volume: str) -> int:
    """Bytes, replicas counted."""
    with cluster.connect() as connected:
        return connected.volumes().usage(volume).allocated_bytes


def attachments(cluster: RunningCluster, volume: str) -> tuple[AttachmentInfo, ...]:
    with cluster.connect() as connected:
        return connected.volumes().get(volume).attachments


def may_resize_mounted_ext4() -> bool:
    """The kernel wants CAP_SYS_RESOURCE for it, which root in a container has not."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> 24 & 1)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_file_systems(cluster: RunningCluster, node: Node, volume: str, kind: str) -> None:
    device = node.agent.attach(volume_name=volume).device
    shell(f"mkfs.{kind} -q {device}")
    point = node.mount(device)
    shell(f"dd if=/dev/urandom of={point}/a bs=1M count=40 conv=fsync status=none")
    checksum = shell(f"echo 3 >/proc/sys/vm/drop_caches; sha256sum <{point}/a")
    with pytest.raises(ConflictError):
        node.agent.detach(volume_name=volume)  # it is mounted
    # Grows while it is mounted.
    cluster.curve("volume", "resize", volume, "600MiB")
    until(lambda: int(shell(f"blockdev --getsize64 {device}")) == 600 * MIB, "it does not grow")
    assert node.agent.refresh(volume_name=volume).size_bytes == 600 * MIB
    if kind == "xfs":
        shell(f"xfs_growfs {point}")
    elif may_resize_mounted_ext4():
        shell(f"resize2fs {device}")
    else:
        node.unmount(point)
        shell(f"e2fsck -f -p {device}; resize2fs {device}")
        point = node.mount(device)
    # More than it had before; only a little of it is written.
    shell(f"fallocate -l 430M {point}/b")
    shell(f"dd if=/dev/urandom of={point}/b bs=1M seek=410 count=20 conv=notrunc,fsync status=none")
    assert shell(f"sha256sum <{point}/a") == checksum
    # What is deleted comes back to the cluster, once it was written in the background.
    # All of it: 60 MiB, three times.
    until(lambda: allocated(cluster, volume) >= 180 * MIB, "it is not written in the background")
    full = allocated(cluster, volume)
    shell(f"rm {point}/a {point}/b; sync")

    def given_back() -> bool:
        shell(f"fstrim {point}")  # again: xfs frees what was deleted later, sync does not wait
        return allocated(cluster, volume) < full - 100 * MIB

    until(given_back, "the space does not come back")
    node.unmount(point)
    shell(f"e2fsck -f -n {device}" if kind == "ext4" else f"xfs_repair -n {device}")
    shell(f"blkdiscard -f {device}")
    until(lambda: allocated(cluster, volume) == 0, "not all of the space comes back")
    assert node.agent.detach(volume_name=volume)


def test_an_agent_is_killed_again_and_again_and_no_request_fails(node: Node, volume: str) -> None:
    """R12, R13: each successor has a new epoch and goes on where the last one was killed."""
    device = node.agent.attach(volume_name=volume)
    shell(f"mkfs.ext4 -q {device.device}")
    point = node.mount(device.device)
    job = [
        fio(), "--name=job", f"--filename={point}/file", "--rw=randwrite",
        "--bsrange=4k-128k", "--ioengine=psync", "--direct=1", "--numjobs=4", "--size=16M",
        "--offset_increment=16M", "--io_size=200M", "--verify=crc32c", "--verify_backlog=64",
        "--verify_fatal=1", "--verify_state_save=0", "--runtime=60",
    ]  # fmt: skip
    load = subprocess.Popen(job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        kills = 0
        while kills < 5:
            node.kill_worker()
            kills += 1
            assert load.poll() is None or kills > 2, load.communicate()[0]
        said = load.communicate(timeout=120)[0]
        assert load.returncode == 0, said
    finally:
        load.kill()
        load.wait()
    (now,) = node.agent.list().devices
    assert now.device == device.device
    assert now.epoch >= device.epoch + kills
    node.unmount(point)
    shell(f"e2fsck -f -n {device.device}")
    assert node.agent.detach(volume_name=volume)


def test_an_agent_is_killed_while_devices_come_and_go(cluster: RunningCluster, node: Node) -> None:
    """Whatever it was doing, the next one finds it: nothing is left behind or stands still."""
    names = [f"agent-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    done: Counter[str] = Counter()
    ended = threading.Event()

    def use(name: str) -> None:
        with AgentClient(node.directory / "agent.sock") as agent:
            while not ended.is_set():
                with contextlib.suppress(CurveError):
                    device = agent.attach(volume_name=name, seconds=20).device
                    shell(f"dd if=/dev/urandom of={device} bs=64k count=2 oflag=direct status=none")
                    agent.detach(volume_name=name, seconds=20)
                    done[name] += 1
                time.sleep(0.01)

    try:
        for name in names:
            made = cluster.curve("volume", "create", name, "64MiB")["volume"]
            node.uuids.append(volume_uuid(node.cluster_id, made["volume_id"]))
        with ThreadPoolExecutor(len(names)) as threads:
            uses = [threads.submit(use, name) for name in names]
            for _ in range(6):
                before = done.total()
                until(lambda at=before: done.total() > at + 2, "nothing is done")  # type: ignore[misc]
                os.kill(node.worker, signal.SIGKILL)
                until(lambda: node.worker != 0, "no successor")
            ended.set()
            for each in uses:
                each.result()
        for name in names:
            node.agent.detach(volume_name=name)
        until(
            lambda: (
                not any(
                    a["node_id"] == "node-a"
                    for name in names
                    for a in cluster.curve("volume", "show", name)["volume"]["attachments"]
                )
            ),
            "attachments are left",
        )
        until(lambda: not node.loops(), "loop devices are left")
        assert not node.agent.list().devices
        assert not list((node.directory / "records").iterdir())
        assert not list((node.directory / "devices").iterdir())
    finally:
        ended.set()
        node.clean()
        for name in names:
            cluster.run("volume", "delete", name, "--force")


def test_a_new_worker_is_put_in_place_by_a_signal(node: Node, volume: str) -> None:
    device = node.agent.attach(volume_name=volume).device
    before = node.worker
    node.holder.send_signal(signal.SIGHUP)
    until(lambda: node.worker not in (0, before), "it is not replaced")
    shell(f"dd if=/dev/urandom of={device} bs=64k count=2 oflag=direct status=none")
    until(lambda: node.answers() and node.state(volume) == pb.DEVICE_STATE_SERVING, "not served")
    assert node.agent.detach(volume_name=volume)


def test_a_device_that_somebody_else_detached_is_lost_and_made_anew(
    node: Node, volume: str
) -> None:
    device = node.agent.attach(volume_name=volume).device
    shell(f"losetup -d {device}")
    until(lambda: node.state(volume) == pb.DEVICE_STATE_LOST, "it is not noticed")
    # The number may be somebody else's now: nobody is told it as this volume's.
    (lost,) = (d for d in node.agent.list().devices if d.volume_name == volume)
    assert (lost.device, lost.major, lost.minor) == ("", 0, 0)
    device = node.agent.attach(volume_name=volume).device
    shell(f"dd if=/dev/urandom of={device} bs=64k count=2 oflag=direct status=none")
    assert node.agent.detach(volume_name=volume)


def test_a_device_that_is_in_use_stays_when_its_user_goes(node: Node, volume: str) -> None:
    device = node.agent.attach(volume_name=volume).device
    held = os.open(device, os.O_RDONLY)
    try:
        with pytest.raises(ConflictError):
            node.agent.detach(volume_name=volume)
    finally:
        os.close(held)
    shell(f"dd if=/dev/urandom of={device} bs=64k count=2 oflag=direct status=none")
    assert node.state(volume) == pb.DEVICE_STATE_SERVING
    assert node.agent.detach(volume_name=volume)


def test_who_steals_a_volume_has_it_alone(cluster: RunningCluster, node: Node, volume: str) -> None:
    other = Node(cluster.directory, "node-b")
    try:
        mine = node.agent.attach(volume_name=volume)
        shell(f"dd if=/dev/urandom of={mine.device} bs=1M count=4 oflag=direct status=none")
        with pytest.raises(ConflictError):
            other.agent.attach(volume_name=volume)
        theirs = other.agent.attach(volume_name=volume, steal=True)
        assert fails(f"dd if=/dev/zero of={mine.device} bs=4k count=1 oflag=direct")
        assert fails(f"dd if={mine.device} of=/dev/null bs=4k count=1 iflag=direct")
        until(lambda: node.state(volume) == pb.DEVICE_STATE_LOST, "the loss is not seen")
        shell(f"dd if={theirs.device} of=/dev/null bs=1M count=4 iflag=direct status=none")
        # A successor of the fenced agent does not take it back.
        before = node.worker
        os.kill(before, signal.SIGKILL)
        until(lambda: node.worker not in (0, before), "no successor")
        until(lambda: node.answers() and node.state(volume) == pb.DEVICE_STATE_LOST, "not lost")
        assert other.state(volume) == pb.DEVICE_STATE_SERVING
        assert node.agent.detach(volume_name=volume)
        shell(f"dd if=/dev/urandom of={theirs.device} bs=1M count=4 oflag=direct status=none")
        assert other.agent.detach(volume_name=volume)
    finally:
        other.close()


def test_shared_and_read_only_devices(cluster: RunningCluster, node: Node, volume: str) -> None:
    other = Node(cluster.directory, "node-b")
    try:
        a = node.agent.attach(volume_name=volume, shared=True)
        b = other.agent.attach(volume_name=volume, shared=True)
        shell(f"dd if=/dev/urandom of={a.device} bs=4k count=8 oflag=direct status=none")
        read = "dd if={} bs=4k count=8 iflag=direct status=none | sha256sum"
        assert shell(read.format(a.device)) == shell(read.format(b.device))
        assert other.agent.detach(volume_name=volume)
        c = other.agent.attach(volume_name=volume, read_only=True)
        assert shell(read.format(a.device)) == shell(read.format(c.device))
        assert fails(f"dd if=/dev/zero of={c.device} bs=4k count=1 oflag=direct")
        assert other.agent.detach(volume_name=volume)
        assert node.agent.detach(volume_name=volume)
    finally:
        other.close()


def test_an_agent_whose_holder_is_killed_too_finds_its_devices_lost(
    cluster: RunningCluster, volume: str
) -> None:
    node = Node(cluster.directory, "node-c")
    try:
        device = node.agent.attach(volume_name=volume)
        worker = node.worker
        node.holder.kill()
        node.holder.wait()
        os.kill(worker, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{worker}").exists(), "the worker does not end")
        assert fails(f"dd if={device.device} of=/dev/null bs=4k count=1 iflag=direct")
        node.start()
        assert node.state(volume) == pb.DEVICE_STATE_LOST
        made = node.agent.attach(volume_name=volume)  # anew
        shell(f"dd if=/dev/urandom of={made.device} bs=1M count=1 oflag=direct status=none")
        assert node.agent.detach(volume_name=volume)
    finally:
        node.close()


def test_the_command_line_makes_devices(cluster: RunningCluster, volume: str) -> None:
    device = cluster.curve("volume", "attach", volume)["device"]
    try:
        assert device["state"] == "serving"
        listed = cluster.curve("volume", "attachments")
        assert device["device"] in [d["device"] for d in listed["devices"]]
        assert volume in [a["volume"] for a in listed["attachments"]]
        shell(f"dd if=/dev/urandom of={device['device']} bs=1M count=1 oflag=direct status=none")
    finally:
        assert cluster.curve("volume", "detach", volume) == {"detached": volume}
    assert cluster.run("volume", "detach", volume).returncode == 1
    assert cluster.curve("node", "doctor")["chosen"] == "fuse"


def test_an_agent_without_its_holder_is_seen_and_used_and_replaced_when_it_has_no_device(
    cluster: RunningCluster, volume: str
) -> None:
    def agent() -> dict[str, object]:
        (found,) = (s for s in cluster.curve("status")["services"] if s["role"] == "agent")
        return found

    device = cluster.curve("volume", "attach", volume)["device"]
    assert agent()["state"] == "up"
    holder = cluster.pids()["agent"]
    os.kill(holder, signal.SIGKILL)
    until(lambda: agent()["state"] == "unattended", "it is not seen")
    assert agent()["pid"] != holder
    shell(f"dd if=/dev/urandom of={device['device']} bs=1M count=1 oflag=direct status=none")
    with AgentClient(cluster.directory / "agent" / "agent.sock") as asked:
        until(lambda: not asked.doctor().replaceable, "the agent does not know")
    assert cluster.curve("volume", "attach", volume)["device"]["device"] == device["device"]
    cluster.curve("volume", "detach", volume)
    cluster.curve("volume", "attach", volume)
    assert agent()["state"] == "up"
    cluster.curve("volume", "detach", volume)
    assert not os.path.exists(f"/proc/{holder}")
