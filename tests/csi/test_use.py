"""Volumes in use on one node: refusals, access modes, resizing; growing and trimming by itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest
from csi_harness import (
    GIB,
    MIB,
    CsiNode,
    Mode,
    block_capability,
    eventually,
    mount_capability,
)

from csi_driver.mounter.commands import may_grow_ext4
from csi_driver.proto import csi_pb2 as csi
from curve_py.proto import agent_pb2

MOUNT, BLOCK = mount_capability(), block_capability()


def status_of(error: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    return error.value.code()  # type: ignore[no-any-return]


def size_of(path: Path) -> int:
    with open(path, "rb", buffering=0) as file:
        return file.seek(0, os.SEEK_END)


def file_system_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def expand(node: CsiNode, volume: str, size_bytes: int) -> int:
    """The controller's half."""
    answer = node.call(
        "ControllerExpandVolume",
        csi.ControllerExpandVolumeRequest(
            volume_id=volume, capacity_range=csi.CapacityRange(required_bytes=size_bytes)
        ),
    )
    assert answer.node_expansion_required
    grown: int = answer.capacity_bytes
    return grown


def expand_here(node: CsiNode, volume: str, path: Path) -> int:
    """The node's half."""
    answer = node.call(
        "NodeExpandVolume", csi.NodeExpandVolumeRequest(volume_id=volume, volume_path=str(path))
    )
    grown: int = answer.capacity_bytes
    return grown


def stage_in_the_end(
    node: CsiNode, volume: str, capability: csi.VolumeCapability, context: dict[str, str]
) -> None:
    """As the kubelet does: asks again while something of an earlier time is in the way."""
    refusals: list[grpc.RpcError] = []

    def is_staged() -> bool:
        try:
            node.stage(volume, capability, context)
        except grpc.RpcError as error:
            refusals.append(error)
            return False
        return True

    try:
        eventually(is_staged, 30.0)
    except AssertionError:
        raise refusals[-1] from None


class Writer:
    """Writes to files of a directory until stopped; every write must succeed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stop = threading.Event()
        self.written = 0
        self.error: OSError | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        block = os.urandom(64 * 1024)
        try:
            while not self._stop.is_set():
                with open(self._directory / f"w{self.written % 8}", "wb") as file:
                    file.write(block)
                    os.fsync(file.fileno())
                self.written += 1
        except OSError as error:
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        assert self.error is None
        assert self.written


def test_data_survives_from_pod_to_pod(node: CsiNode) -> None:
    for capability, name in ((mount_capability("ext4"), "e"), (mount_capability("xfs"), "x")):
        volume = node.create(f"keep-{name}", capability)
        target = node.use(volume, capability)
        (target / "file").write_bytes(b"kept" * 1000)
        node.end_use(volume)
        assert not target.exists()
        target = node.use(volume, capability)
        assert (target / "file").read_bytes() == b"kept" * 1000
        readers = node.mount(volume, capability, "reader", readonly=True)
        with pytest.raises(OSError, match="Read-only"):
            (readers / "file").write_bytes(b"")
        with pytest.raises(grpc.RpcError) as held:
            node.unstage(volume)
        assert status_of(held) is grpc.StatusCode.FAILED_PRECONDITION
        node.unmount(volume, "reader")
        node.end_use(volume)
        node.delete(volume)
    assert (node.mounts(), node.devices(), node.loops()) == ([], [], [])


def test_a_volume_with_data_is_never_formatted(node: CsiNode) -> None:
    """Raw data without any signature on it: nothing that a probe could find."""
    volume = node.create("raw", BLOCK)
    device = node.use(volume, BLOCK)
    with open(device, "r+b", buffering=0) as file:
        file.seek(100 * MIB)
        file.write(b"\x5a" * 4096)
    node.end_use(volume)
    context = node.publish(volume, MOUNT)
    with pytest.raises(grpc.RpcError, match="raw block device") as refused:
        node.stage(volume, MOUNT, context)
    assert status_of(refused) is grpc.StatusCode.FAILED_PRECONDITION
    node.unstage(volume)
    node.unpublish(volume)
    device = node.use(volume, BLOCK)
    with open(device, "rb", buffering=0) as file:
        file.seek(100 * MIB)
        assert file.read(4096) == b"\x5a" * 4096
    node.end_use(volume)
    node.delete(volume)


def test_a_volume_that_is_not_published_here_is_not_staged(node: CsiNode) -> None:
    volume = node.create("elsewhere", MOUNT)
    with pytest.raises(grpc.RpcError, match="not published") as refused:
        node.stage(volume, MOUNT, {})
    assert status_of(refused) is grpc.StatusCode.FAILED_PRECONDITION
    node.staging_path(volume).rmdir()
    node.delete(volume)


def test_who_comes_second_is_told_so(node: CsiNode) -> None:
    """Never INTERNAL, and never two at work: the same call by eight at once."""
    volume = node.create("at-once", MOUNT)
    context = node.publish(volume, MOUNT)
    node.staging_path(volume)
    outcomes = []

    def stage() -> None:
        try:
            node.stage(volume, MOUNT, context)
            outcomes.append(grpc.StatusCode.OK)
        except grpc.RpcError as error:
            outcomes.append(error.code())

    threads = [threading.Thread(target=stage) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {grpc.StatusCode.OK, grpc.StatusCode.ABORTED}
    assert grpc.StatusCode.OK in outcomes
    assert len(node.mounts()) == 1
    node.unstage(volume)
    node.unpublish(volume)
    node.delete(volume)


def test_a_driver_that_is_killed_while_it_stages(node: CsiNode) -> None:
    """At any moment, mkfs among them: staged again the volume is as it must be."""
    for number, wait in enumerate((0.02, 0.06, 0.12, 0.2, 0.3)):
        capability = mount_capability("ext4" if number % 2 else "xfs")
        volume = node.create(f"killed-{number}", capability)
        context = node.publish(volume, capability)
        node.staging_path(volume)

        def stage(volume: str, capability: csi.VolumeCapability, context: dict[str, str]) -> None:
            with contextlib.suppress(grpc.RpcError):
                node.stage(volume, capability, context)

        thread = threading.Thread(target=stage, args=(volume, capability, context))
        thread.start()
        time.sleep(wait)
        node.kill_driver()
        thread.join()
        node.start_driver()

        stage_in_the_end(node, volume, capability, context)
        target = node.mount(volume, capability)
        (target / "file").write_bytes(b"f" * 100_000)
        assert len([path for path in node.mounts() if volume in path]) == 2
        node.end_use(volume)
        target = node.use(volume, capability)
        assert (target / "file").read_bytes() == b"f" * 100_000
        node.end_use(volume)
        node.delete(volume)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_dead_device_is_replaced(node: CsiNode, kind: str) -> None:
    """Everything of the agent is killed: what was mounted is dead, and the volume staged anew."""
    capability = mount_capability(kind)
    volume = node.create(f"dead-{kind}", capability)
    context = node.publish(volume, capability)
    node.stage(volume, capability, context)
    target = node.mount(volume, capability)
    with open(target / "file", "wb") as file:
        file.write(b"d" * 100_000)
        os.fsync(file.fileno())
    node.kill_agent()

    def is_dead() -> bool:
        try:
            with open(target / "late", "wb") as file:
                file.write(b"x" * 4096)
                os.fsync(file.fileno())
        except OSError:
            return True
        return False

    eventually(is_dead)
    node.start_agent()
    stage_in_the_end(node, volume, capability, context)
    node.unmount(volume)  # the pod is started anew
    target = node.mount(volume, capability)
    assert (target / "file").read_bytes() == b"d" * 100_000
    (target / "file").write_bytes(b"")
    node.end_use(volume)
    node.delete(volume)
    assert (node.mounts(), node.loops()) == ([], [])


def test_readers(node: CsiNode) -> None:
    volume = node.create("readers", MOUNT)
    target = node.use(volume, MOUNT)
    (target / "file").write_bytes(b"read")
    node.end_use(volume)
    reader = mount_capability(mode=Mode.MULTI_NODE_READER_ONLY)
    target = node.use(volume, reader)
    assert (target / "file").read_bytes() == b"read"
    with pytest.raises(OSError, match="Read-only"):
        (target / "file").write_bytes(b"")
    node.end_use(volume)
    node.delete(volume)


@pytest.mark.parametrize("kind", ["xfs", "ext4", "block"])
def test_resize_in_use(node: CsiNode, kind: str) -> None:
    capability = BLOCK if kind == "block" else mount_capability(kind)
    volume = node.create(f"resize-{kind}", capability)
    target = node.use(volume, capability)
    writer = None if kind == "block" else Writer(target)
    assert expand(node, volume, 2 * GIB) == 2 * GIB
    assert expand(node, volume, 2 * GIB) == 2 * GIB
    if kind == "ext4" and not may_grow_ext4():
        with pytest.raises(grpc.RpcError, match="CAP_SYS_RESOURCE") as refused:
            expand_here(node, volume, target)
        assert status_of(refused) is grpc.StatusCode.FAILED_PRECONDITION
    else:
        for _ in range(2):
            assert expand_here(node, volume, target) == 2 * GIB
            shown = size_of(target) if kind == "block" else file_system_bytes(target)
            assert shown > 1.8 * GIB
    if writer is not None:
        writer.stop()
    else:
        link = node.directory / "link"
        link.symlink_to(target)
        assert expand_here(node, volume, link) == 2 * GIB
        assert expand_here(node, volume, Path(node.devices()[0].device)) == 2 * GIB
    with pytest.raises(grpc.RpcError) as refused:
        node.call(
            "ControllerExpandVolume",
            csi.ControllerExpandVolumeRequest(
                volume_id=volume, capacity_range=csi.CapacityRange(limit_bytes=GIB)
            ),
        )
    assert status_of(refused) is grpc.StatusCode.OUT_OF_RANGE
    node.end_use(volume)
    node.delete(volume)


def test_the_halves_of_a_resize_are_apart_and_everything_is_restarted_between(
    node: CsiNode,
) -> None:
    capability = mount_capability("xfs")
    volume = node.create("halves", capability)
    target = node.use(volume, capability)
    expand(node, volume, 2 * GIB)
    node.kill_driver()
    node.start_driver()
    assert expand_here(node, volume, node.staging_path(volume)) == 2 * GIB
    assert file_system_bytes(target) > 1.8 * GIB
    node.end_use(volume)
    # And while nobody has it: it is staged with its new size.
    expand(node, volume, 3 * GIB)
    target = node.use(volume, capability)
    assert file_system_bytes(target) > 2.8 * GIB
    node.end_use(volume)
    node.delete(volume)


def test_an_ext4_grows_when_it_is_staged(node: CsiNode) -> None:
    """With CAP_SYS_RESOURCE and without."""
    volume = node.create("staged-larger", MOUNT)
    target = node.use(volume, MOUNT)
    (target / "file").write_bytes(b"kept" * 100_000)
    node.end_use(volume)
    expand(node, volume, 2 * GIB)
    target = node.use(volume, MOUNT)
    assert file_system_bytes(target) > 1.8 * GIB
    assert (target / "file").read_bytes() == b"kept" * 100_000
    node.end_use(volume)
    node.delete(volume)


def test_a_volume_grows_by_itself_up_to_its_limit(node: CsiNode) -> None:
    capability = mount_capability("xfs")
    volume = node.create(
        "grows", capability, 512 * MIB, autoGrowThreshold="40", autoGrowLimit="1GiB"
    )
    target = node.use(volume, capability)
    before = file_system_bytes(target)
    subprocess.run(["fallocate", "-l", "250MiB", str(target / "a")], check=True)
    eventually(lambda: file_system_bytes(target) > before + 90 * MIB)
    subprocess.run(["fallocate", "-l", "200MiB", str(target / "b")], check=True)
    eventually(lambda: file_system_bytes(target) > 900 * MIB)
    answer = node.call("ControllerGetVolume", csi.ControllerGetVolumeRequest(volume_id=volume))
    assert answer.volume.capacity_bytes == GIB
    node.end_use(volume)
    node.delete(volume)


def test_what_was_deleted_is_given_back(node: CsiNode) -> None:
    volume = node.create("trimmed", MOUNT, trimInterval="1s")
    target = node.use(volume, MOUNT)
    (target / "file").write_bytes(os.urandom(64 * MIB))
    os.sync()
    (target / "file").unlink()

    def is_trimmed() -> bool:
        return '"message": "trimmed"' in node.log("csi")

    eventually(is_trimmed)
    node.end_use(volume)
    node.delete(volume)


def test_mounts_of_others_stay(node: CsiNode) -> None:
    """A tmpfs, another volume, a file with content, a directory that is not empty, a link."""
    first, second = node.create("mine", MOUNT), node.create("not-mine", mount_capability("xfs"))
    node.use(first, MOUNT)
    node.use(second, mount_capability("xfs"))
    before = node.mounts()

    def refused(method: str, request: object) -> None:
        with pytest.raises(grpc.RpcError) as error:
            node.call(method, request)
        assert status_of(error) is grpc.StatusCode.FAILED_PRECONDITION, error.value

    def unpublish(path: Path) -> None:
        refused(
            "NodeUnpublishVolume",
            csi.NodeUnpublishVolumeRequest(volume_id=first, target_path=str(path)),
        )

    def publish(path: Path, capability: csi.VolumeCapability = MOUNT) -> None:
        refused("NodePublishVolume", node.publish_request(first, capability, path))

    foreign = node.directory / "foreign"
    foreign.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(foreign)], check=True)
    for path in (foreign, node.target(second), node.staging_path(second)):
        unpublish(path)
        publish(path)
    refused(
        "NodeUnstageVolume",
        csi.NodeUnstageVolumeRequest(
            volume_id=first, staging_target_path=str(node.staging_path(second))
        ),
    )
    subprocess.run(["umount", str(foreign)], check=True)
    (foreign / "kept").write_text("kept")
    link = node.directory / "link"
    link.symlink_to(foreign)
    for path in (foreign, foreign / "kept", link):
        unpublish(path)
        publish(path)
        publish(path, BLOCK)
    publish(foreign / "kept" / "below")
    publish(node.directory / "node", BLOCK)  # it is staged as a file system
    assert (foreign / "kept").read_text() == "kept"
    assert link.is_symlink()
    assert node.mounts() == before
    for volume in (first, second):
        node.end_use(volume)
        node.delete(volume)


def test_staged_over_nothing_and_only_once(node: CsiNode) -> None:
    """Another's live loop mount is left alone; a second path is refused; so is a bad flag."""
    capability = mount_capability("xfs")
    volume = node.create("once", capability)
    context = node.publish(volume, capability)
    path, other = node.staging_path(volume), node.directory / "other"
    other.mkdir()
    image = node.directory / "image"
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(path)], check=True)

    def refused(capability: csi.VolumeCapability, path: Path) -> None:
        with pytest.raises(grpc.RpcError) as error:
            node.stage(volume, capability, context, path)
        assert status_of(error) is grpc.StatusCode.FAILED_PRECONDITION, error.value

    refused(capability, path)
    assert (path / "lost+found").exists()
    subprocess.run(["umount", str(path)], check=True)
    refused(mount_capability("xfs", mount_flags=("no-such-flag",)), path)
    node.stage(volume, capability, context)
    refused(capability, other)
    assert node.mounts() == [str(path)]
    node.unstage(volume)
    node.unpublish(volume)
    node.delete(volume)


def test_a_number_that_was_used_again(node: CsiNode) -> None:
    """A lost device's number has become another volume's: whose mounts nobody touches."""
    for kind, capability in (("raw", BLOCK), ("mount", MOUNT)):
        lost, other = node.create(f"lost-{kind}", capability), node.create(f"other-{kind}", MOUNT)
        node.stage(lost, capability, node.publish(lost, capability))
        (device,) = node.devices()
        if kind == "mount":
            subprocess.run(["umount", str(node.staging_path(lost))], check=True)
        subprocess.run(["losetup", "--detach", device.device], check=True)
        eventually(lambda: node.devices()[0].state == agent_pb2.DEVICE_STATE_LOST)
        eventually(lambda: not node.loops())
        target = node.use(other, MOUNT)
        (target / "file").write_bytes(b"other")
        before = [path for path in node.mounts() if other in path]
        with contextlib.suppress(grpc.RpcError):
            node.unstage(lost)
        assert [path for path in node.mounts() if other in path] == before
        assert (target / "file").read_bytes() == b"other"
        node.end_use(other)
        node.staging_path(lost)
        node.unstage(lost)
        node.unpublish(lost)
        for volume in (lost, other):
            node.delete(volume)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_mkfs_that_was_killed(node: CsiNode, kind: str) -> None:
    """And what is worse than a kill can do: a whole file system that says it is half made."""
    capability = mount_capability(kind)
    volume = node.create(f"mkfs-killed-{kind}", capability)
    context = node.publish(volume, capability)
    with pytest.raises(grpc.RpcError):
        node.stage(volume, capability, context, node.directory / "missing")  # it is attached
    (device,) = node.devices()
    uuid = ["-U", device.volume_uuid] if kind == "ext4" else ["-m", f"uuid={device.volume_uuid}"]
    make = [f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", *uuid, device.device]
    for wait in (0.01, 0.03, 0.1):
        mkfs = subprocess.Popen(make, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        mkfs.kill()
        mkfs.wait()
    subprocess.run(make, check=True, capture_output=True)
    if kind == "xfs":
        spoil = ["xfs_db", "-x", "-c", "sb 0", "-c", "write inprogress 1", device.device]
    else:
        spoil = ["debugfs", "-w", "-R", "clri <2>", device.device]
    subprocess.run(spoil, check=True, capture_output=True)
    node.stage(volume, capability, context)
    target = node.mount(volume, capability)
    (target / "file").write_bytes(b"f" * 1000)
    node.end_use(volume)
    target = node.use(volume, capability)
    assert (target / "file").read_bytes() == b"f" * 1000
    node.end_use(volume)
    node.delete(volume)


def test_published_again_with_the_flag_ro(node: CsiNode) -> None:
    capability = mount_capability("xfs", mount_flags=("ro",))
    volume = node.create("flag-ro", capability)
    target = node.use(volume, capability)
    assert node.mount(volume, capability) == target
    expand(node, volume, 2 * GIB)
    assert expand_here(node, volume, target) == 2 * GIB  # the file system grows when it is written
    node.end_use(volume)
    target = node.use(volume, mount_capability("xfs"))
    assert file_system_bytes(target) > 1.8 * GIB
    node.end_use(volume)
    node.delete(volume)


def test_stats(node: CsiNode) -> None:
    for capability, name in ((MOUNT, "m"), (BLOCK, "b")):
        volume = node.create(f"stats-{name}", capability)
        target = node.use(volume, capability)
        request = csi.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=str(target))
        answer = node.call("NodeGetVolumeStats", request)
        assert not answer.volume_condition.abnormal
        assert answer.usage[0].total > 0.9 * GIB
        assert len(answer.usage) == (1 if capability is BLOCK else 2)
        node.end_use(volume)
        node.delete(volume)
