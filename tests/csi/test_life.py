"""The whole life of a volume: two nodes, restarts of everything, a steal, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from agent_harness import fio
from csi_harness import GIB, CsiNode, Mode, block_capability, eventually, mount_capability
from running_cluster import RunningCluster
from test_use import Writer, expand, expand_here, file_system_bytes

from csi_driver.proto import csi_pb2 as csi

# The two nodes have one kernel, in which one xfs is mounted once.
XFS = mount_capability("xfs", mount_flags=("nouuid",))
# A node of its own sees its own mounts.
APART = ("unshare", "--mount", "--propagation", "private")


def test_whole_life(cluster: RunningCluster, make_node: Callable[..., CsiNode]) -> None:
    first, second = make_node("first"), make_node("second", APART)
    first.start()
    second.start()
    volumes_before = len(cluster.curve("volume", "list")["volumes"])

    # Create, publish, stage, mount, write.
    volume = first.create("life", XFS)
    target = first.use(volume, XFS)
    (target / "kept").write_bytes(b"k" * 100_000)
    os.sync()

    # Grow under fio, which checks what it has written.
    load = subprocess.Popen(
        [
            fio(),
            "--name=load",
            f"--directory={target}",
            "--size=48MiB",
            "--rw=randwrite",
            "--bs=16k",
            "--direct=1",
            "--fsync=16",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    eventually(lambda: any(target.glob("load.*")))
    expand(first, volume, 2 * GIB)
    expand_here(first, volume, target)
    assert load.poll() is None  # it was at work all the time
    assert file_system_bytes(target) > 1.8 * GIB
    output, _ = load.communicate(timeout=200)
    assert load.returncode == 0, output

    # The driver is stateless: it goes and comes under load.
    writer = Writer(target)
    first.kill_driver()
    first.start_driver()
    assert first.mount(volume, XFS) == target
    written = writer.written
    # So does the agent, and no request fails.
    first.restart_agent()
    eventually(lambda: writer.written > written + 3)
    writer.stop()
    with open(target / "last", "wb") as file:
        file.write(b"l" * 5000)
        os.fsync(file.fileno())

    # Not for another node while this one has it.
    second.call("NodeGetInfo", csi.NodeGetInfoRequest())
    with pytest.raises(grpc.RpcError) as refused:
        second.publish(volume, XFS)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    # It stands still, and its volume is taken away, as Kubernetes does with a node that does not
    # answer. It has a write on its way.
    os.kill(first.agent_worker, signal.SIGSTOP)
    late = threading.Thread(target=fails, args=(target,))
    late.start()
    second.unpublish(volume, "first")
    context = second.publish(volume, XFS)
    second.stage(volume, XFS, context)
    other = second.mount(volume, XFS)
    assert second.read(other / "kept") == b"k" * 100_000
    assert second.read(other / "last") == b"l" * 5000

    # The first one goes on and is fenced: what it writes fails, and it cannot come back.
    os.kill(first.agent_worker, signal.SIGCONT)
    late.join()
    eventually(lambda: fails(target))
    answer = first.call(
        "NodeGetVolumeStats",
        csi.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=str(target)),
    )
    assert answer.volume_condition.abnormal
    first.unmount(volume)
    first.unstage(volume)
    with pytest.raises(grpc.RpcError, match="not published"):
        first.stage(volume, XFS, {})
    first.staging_path(volume).rmdir()
    assert second.read(other / "kept") == b"k" * 100_000
    assert second.run("test", "!", "-e", str(other / "late")) == 0

    # To its end, with nothing left.
    second.end_use(volume)
    second.delete(volume)
    for node in (first, second):
        assert node.devices() == []
        assert node.mounts() == []
        assert node.loops() == []
    assert len(cluster.curve("volume", "list")["volumes"]) == volumes_before


def fails(directory: Path) -> bool:
    """To write there, durably."""
    try:
        with open(directory / "late", "wb") as file:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
    except OSError:
        return True
    return False


def test_a_raw_volume_of_two_nodes(make_node: Callable[..., CsiNode]) -> None:
    """Shared: each sees what the other has written."""
    first, second = make_node("first"), make_node("second")
    first.start()
    second.start()
    shared = block_capability(Mode.MULTI_NODE_MULTI_WRITER)
    volume = first.create("shared", shared)
    devices = [first.use(volume, shared), second.use(volume, shared)]
    for number, device in enumerate(devices):
        write_direct(device, number << 20, bytes([number + 1]) * 4096)
    for number in range(2):
        for device in devices:
            assert read_direct(device, number << 20, 4096) == bytes([number + 1]) * 4096
    first.end_use(volume)
    write_direct(devices[1], 0, b"2" * 4096)  # the other one goes on
    second.end_use(volume)
    second.delete(volume)


def write_direct(device: Path, offset: int, data: bytes) -> None:
    subprocess.run(
        ["dd", f"of={device}", f"bs={len(data)}", f"seek={offset // len(data)}", "oflag=direct"],
        input=data,
        check=True,
        capture_output=True,
    )


def read_direct(device: Path, offset: int, size: int) -> bytes:
    return subprocess.run(
        ["dd", f"if={device}", f"bs={size}", f"skip={offset // size}", "count=1", "iflag=direct"],
        check=True,
        capture_output=True,
    ).stdout
