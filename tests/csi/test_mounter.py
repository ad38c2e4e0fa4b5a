"""The mount helper with real file systems on real loop devices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from csi_driver.failures import CsiError
from csi_driver.mounter.client import Mounter, MountError
from csi_driver.mounter.mount_table import mounts_at

MIB = 1 << 20
UUID = "6a1c0f7e-1111-5000-8000-00000000c511"


def run(*command: str) -> int:
    return subprocess.run(command, check=False, capture_output=True).returncode


def spoil(device: str, offset: int, size: int) -> None:
    with open(device, "r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * size)


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def held_open(path: Path) -> int:
    """A descriptor that keeps the mount busy."""
    return os.open(path, os.O_RDONLY)


@pytest.fixture
async def mounter() -> AsyncIterator[Mounter]:
    made = await Mounter.start()
    yield made
    await made.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop device of 512 MiB over a sparse file."""
    backing = tmp_path / "backing"
    with open(backing, "wb") as file:
        file.truncate(512 * MIB)
    done = subprocess.run(
        ["losetup", "--find", "--show", str(backing)], check=True, capture_output=True, text=True
    )
    yield done.stdout.strip()
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["umount", "--lazy", str(tmp_path / "m")], check=False, capture_output=True)
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
async def test_life_of_a_file_system(
    mounter: Mounter, device: str, tmp_path: Path, kind: str
) -> None:
    target = str(tmp_path / "m")
    assert await mounter.probe(device) == ("", "")
    await mounter.make_file_system(device, kind, UUID)
    assert await mounter.probe(device) == (kind, UUID)
    await mounter.check(device, kind)
    await mounter.make_directory(target)
    await mounter.mount(device, target, kind, ["noatime"])
    (mounted,) = mounts_at(await mounter.mounts(), target)
    assert (mounted.file_system, mounted.read_only) == (kind, False)
    assert (await mounter.look(device))[1] == mounted.device
    write(Path(target, "file"), os.urandom(MIB))

    # It grows while it is used, and a second time nothing happens.
    before = (await mounter.usage(target))["total_bytes"]
    os.truncate(tmp_path / "backing", 1024 * MIB)
    assert run("losetup", "--set-capacity", device) == 0
    if kind == "xfs" or await mounter.may_grow_ext4():
        await mounter.grow(device, kind, target)
        after = (await mounter.usage(target))["total_bytes"]
        assert after > before + 400 * MIB
        await mounter.grow(device, kind, target)
        assert (await mounter.usage(target))["total_bytes"] == after
    else:
        with pytest.raises(MountError, match="CAP_SYS_RESOURCE"):
            await mounter.grow(device, kind, target)
    step = await mounter.trim_step(target, kind)
    assert step >= 4 << 30 or kind == "xfs"
    assert await mounter.trim(target, 0, None) > 0
    assert await mounter.trim(target, 128 * MIB, 64 * MIB) >= 0

    # A mount for a pod, which cannot write.
    pod = str(tmp_path / "pod")
    await mounter.make_directory(pod)
    await mounter.bind(target, pod, read_only=True)
    assert mounts_at(await mounter.mounts(), pod)[0].read_only
    with pytest.raises(OSError, match="Read-only"):
        write(Path(pod, "file"), b"x")
    await mounter.unmount(pod)
    await mounter.remove(pod)
    assert (await mounter.look(pod))[0] == "missing"

    held = held_open(Path(target, "file"))
    with pytest.raises(MountError) as busy:
        await mounter.unmount(target)
    assert busy.value.kind == "busy"
    os.close(held)
    await mounter.unmount(target)
    with pytest.raises(MountError) as missing:
        await mounter.unmount(target)
    assert missing.value.kind == "missing"
    assert await mounter.probe(device) == (kind, UUID)


async def test_a_damaged_file_system_is_not_taken_for_a_good_one(
    mounter: Mounter, device: str
) -> None:
    await mounter.make_file_system(device, "ext4", UUID)
    spoil(device, 4096, 8 * MIB)  # group descriptors and what follows
    with pytest.raises(CsiError, match=r"damaged|failed"):
        await mounter.check(device, "ext4")


async def test_what_cannot_be_probed_is_not_empty(
    mounter: Mounter, device: str, tmp_path: Path
) -> None:
    os.truncate(tmp_path / "backing", 0)  # reading the device fails now
    with pytest.raises(MountError, match="cannot be read"):
        await mounter.probe(device)
    with pytest.raises(MountError, match="cannot be read"):
        await mounter.probe("/dev/there-is-none")


async def test_remains_of_an_earlier_attempt_are_cleared(mounter: Mounter, device: str) -> None:
    spoil(device, 3 * MIB, 64 * MIB)
    await mounter.make_file_system(device, "ext4", UUID)
    assert run("e2fsck", "-f", "-n", device) == 0


async def test_ext4_grows_without_a_privilege_when_it_is_not_mounted(
    mounter: Mounter, device: str, tmp_path: Path
) -> None:
    target = str(tmp_path / "m")
    await mounter.make_file_system(device, "ext4", UUID)
    assert not await mounter.grow_unmounted(device)
    os.truncate(tmp_path / "backing", 1024 * MIB)
    assert run("losetup", "--set-capacity", device) == 0
    assert await mounter.grow_unmounted(device) != await mounter.may_grow_ext4()
    assert not await mounter.grow_unmounted(device)
    await mounter.check(device, "ext4")
    await mounter.make_directory(target)
    await mounter.mount(device, target, "ext4", [])
    await mounter.grow(device, "ext4", target)  # by whichever way, it has its size
    assert (await mounter.usage(target))["total_bytes"] > 900 * MIB
    await mounter.unmount(target)


async def test_programs_have_a_deadline(mounter: Mounter) -> None:
    with pytest.raises(MountError, match="blkid") as late:
        await mounter._call("probe", device="/dev/null", seconds=0.0)
    assert late.value.kind == "timeout"


async def test_what_hangs_is_not_asked_again(mounter: Mounter, tmp_path: Path) -> None:
    """Opening a FIFO blocks, like a device that does not answer."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = mounter._call
    with pytest.raises(MountError, match="not ended after"):
        await command("probe", 0.2, device=str(fifo), seconds=30.0)
    with pytest.raises(MountError, match="earlier probe"):
        await command("probe", 0.2, device=str(fifo), seconds=30.0)
    await mounter.make_file(str(tmp_path / "other"))
    writer = -1
    while writer < 0:
        with contextlib.suppress(OSError):  # it has not opened it yet
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)  # now it ends
    for _ in range(1000):
        if mounter._hanging:
            await asyncio.sleep(0.01)
    with pytest.raises(MountError, match="cannot be read"):
        await command("probe", 5.0, device=str(fifo), seconds=5.0)
    os.close(writer)


async def test_only_what_is_empty_is_mounted_on_and_removed(
    mounter: Mounter, tmp_path: Path
) -> None:
    full, link = tmp_path / "full", tmp_path / "link"
    full.mkdir()
    write(full / "file", b"kept")
    link.symlink_to(tmp_path / "nowhere")
    for path in (full, full / "file", link):
        for command in (mounter.make_directory, mounter.make_file, mounter.remove):
            with pytest.raises(MountError) as refused:
                await command(str(path))
            assert refused.value.kind == "occupied"
    with pytest.raises(MountError) as refused:
        await mounter.make_directory(str(full / "file" / "below"))
    assert refused.value.kind == "occupied"
    for _ in range(2):
        await mounter.make_directory(str(tmp_path / "a" / "b"))
        await mounter.make_file(str(tmp_path / "c" / "d"))
    for _ in range(2):
        await mounter.remove(str(tmp_path / "a" / "b"))
        await mounter.remove(str(tmp_path / "c" / "d"))
    assert (await mounter.look(str(link), follow=False))[0] == "link"
    assert not os.listdir(tmp_path / "a") + os.listdir(tmp_path / "c")


async def test_a_helper_that_died_is_said(mounter: Mounter) -> None:
    mounter._process.kill()
    await mounter.ended.wait()
    with pytest.raises(MountError, match="has ended"):
        await mounter.mounts()


async def test_paths_are_as_the_mount_table_has_them(mounter: Mounter, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    found = await mounter.canonical(f"{tmp_path}/link/../link//x")
    assert found == f"{tmp_path}/real/x"
