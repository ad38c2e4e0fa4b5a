"""When a file system is made, checked, mounted, and when not: every combination, on stand-ins."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import grpc
import pytest

from csi_driver.capabilities import Access
from csi_driver.devices import Devices
from csi_driver.failures import CsiError
from csi_driver.handle import Handle
from csi_driver.mounter.client import MountError
from csi_driver.mounter.mount_table import Mount
from csi_driver.proto import csi_pb2 as csi
from csi_driver.staging import Staging
from curve_py.proto import agent_pb2
from curve_py.proto import meta_pb2 as pb

UUID = "6a1c0f7e-0000-5000-8000-000000000001"
OTHER_UUID = "6a1c0f7e-0000-5000-8000-000000000002"
HANDLE = Handle(7, UUID)
PATH = "/staging/v"
Mode = csi.VolumeCapability.AccessMode
EXT4 = Access(Mode.SINGLE_NODE_WRITER, "ext4")
XFS = Access(Mode.SINGLE_NODE_WRITER, "xfs")
BLOCK = Access(Mode.SINGLE_NODE_WRITER, "")
NEW, UNKNOWN, RAW = (
    pb.VOLUME_CONTENT_NEW,
    pb.VOLUME_CONTENT_UNSPECIFIED,
    pb.VOLUME_CONTENT_RAW,
)
IS_EXT4, IS_XFS = pb.VOLUME_CONTENT_EXT4, pb.VOLUME_CONTENT_XFS


class StandIns:
    """The metaservers, the agent's devices and the mounter, and what was done, in order."""

    def __init__(self) -> None:
        self.content = NEW
        self.found = ("", "")
        self.probe_fails = False
        self.does_not_grow = False
        self.damaged = False
        self.half_made = False  # by a mkfs that was cut off, which a check does not see
        self.mounts_: list[Mount] = []
        self.dead: set[str] = set()
        self.states = [agent_pb2.DEVICE_STATE_SERVING]
        self.kind = "directory"
        self.number = (7, 9)
        self.nameless = False
        self.backing = {(7, 9): f"/curve:{UUID}"}
        self.while_attaching: Any = None  # what another node makes of the volume meanwhile
        self.nodes: dict[str, tuple[str, tuple[int, int], int]] = {}
        self.done: list[str] = []

    # The metaservers.
    async def call(self, method: str, request: Any) -> Any:
        if method == "SetVolumeContent":
            self.content = request.content
            self.done.append(f"mark {pb.VolumeContent.Name(request.content)[15:].lower()}")
        return pb.Volume(id=7, name="v", uuid=UUID, content=self.content)

    # The agent.
    def _device(self) -> agent_pb2.Device:
        state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        return agent_pb2.Device(
            volume_id=7,
            volume_uuid=UUID,
            device="" if self.nameless else f"/dev/loop{self.number[1]}",
            link=f"/devices/{UUID}",
            major=self.number[0],
            minor=self.number[1],
            state=state,
        )

    async def attach(
        self, *, volume_id: int, volume_uuid: str, read_only: bool, shared: bool, published: bool
    ) -> agent_pb2.Device:
        assert (volume_id, volume_uuid, published) == (7, UUID, True)
        self.done.append(
            f"attach {'read_only' if read_only else 'shared' if shared else ''}".strip()
        )
        if self.while_attaching is not None:
            self.content = self.while_attaching
        return self._device()

    async def list(self) -> agent_pb2.ListDevicesResponse:
        return agent_pb2.ListDevicesResponse(devices=[self._device()] if self.states else [])

    async def detach(self, *, volume_id: int, force: bool) -> None:
        assert volume_id == 7
        self.done.append("detach by force" if force else "detach")

    # The mounter.
    async def probe(self, _device: str) -> tuple[str, str]:
        if self.probe_fails:
            raise MountError("failed", "cannot be read")
        return self.found

    async def make_file_system(self, device: str, kind: str, uuid: str) -> None:
        assert (device, uuid) == ("/dev/loop9", UUID)
        self.found = (kind, uuid)
        self.done.append(f"make {kind}")
        self.damaged = self.half_made = False

    async def check(self, _device: str, kind: str) -> None:
        self.done.append(f"check {kind}")
        if self.damaged and kind == "ext4":  # xfs is checked when it is mounted
            raise MountError("refused", "damaged")

    async def mount(self, source: str, target: str, kind: str, options: list[str]) -> None:
        assert not [mount for mount in self.mounts_ if mount.target == target]
        if self.half_made or self.damaged:
            raise MountError("refused", "bad superblock")
        self.done.append(f"mount {kind} {','.join(options)}".strip())
        state = ("ro",) if "ro" in ",".join(options).split(",") else ("rw",)
        self.mounts_.append(Mount((7, 9), "/", target, state, kind, source))

    async def unmount(self, target: str, *, lazily: bool = False) -> None:
        self.done.append("unmount lazily" if lazily else "unmount")
        last = [mount for mount in self.mounts_ if mount.target == target][-1]
        self.mounts_.remove(last)

    async def mounts(self) -> list[Mount]:
        return list(self.mounts_)

    async def look(self, path: str, *, follow: bool = True) -> tuple[str, tuple[int, int], int]:
        if path in (f"/dev/loop{self.number[1]}", f"/devices/{UUID}"):
            return "device", self.number, 0
        return self.nodes.get(path, (self.kind, (0, 0), 0))

    async def backing_file(self, number: tuple[int, int]) -> str:
        return self.backing.get(number, "")

    async def usage(self, path: str) -> dict[str, int]:
        if path in self.dead:
            raise MountError("dead", "Transport endpoint is not connected")
        return {}

    async def grow_unmounted(self, _device: str) -> bool:
        self.done.append("grow unmounted")
        if self.does_not_grow:
            raise MountError("failed", "resize2fs failed")
        return True

    async def grow(self, _device: str, kind: str, _target: str) -> None:
        self.done.append(f"grow {kind}")


@pytest.fixture
def world() -> StandIns:
    return StandIns()


def staging_of(world: StandIns) -> Staging:
    return Staging(world, Devices(world, world), world)  # type: ignore[arg-type]


async def stage(world: StandIns, access: Access, read_only: bool = False) -> None:
    await staging_of(world).stage(HANDLE, access, access.attach_mode(read_only), PATH)


async def test_a_new_volume_is_marked_between_mkfs_and_its_first_mount(world: StandIns) -> None:
    await stage(world, XFS)
    assert world.done == [
        "attach",
        "make xfs",
        "check xfs",
        "mark xfs",
        "mount xfs",
        "grow xfs",
    ]


async def test_mkfs_only_on_what_is_known_to_be_new_and_found_empty() -> None:
    """The rule that costs data when it is broken, for everything that can be the case."""
    found = [("", ""), ("ext4", UUID), ("ext4", OTHER_UUID), ("xfs", UUID), ("LVM2_member", "x")]
    contents = (NEW, UNKNOWN, RAW, IS_EXT4, IS_XFS)
    for content, on_disk, damaged, fails, read_only in product(
        contents, found, (False, True), (False, True), (False, True)
    ):
        world = StandIns()
        world.content, world.found = content, on_disk
        world.damaged, world.probe_fails = damaged, fails
        try:
            await stage(world, EXT4, read_only)
            staged = True
        except CsiError:
            staged = False
        made = [step for step in world.done if "make" in step]
        allowed = content == NEW and not fails and not read_only and on_disk[1] in ("", UUID)
        if made:
            assert allowed, (content, on_disk)
            assert made == ["make ext4"]
        # What was never marked may be half of a mkfs, whatever a check says of it.
        assert made or not allowed
        if staged:
            assert made or on_disk[0] == "ext4"
            if not read_only:
                assert world.content == IS_EXT4
                order = [world.done.index(step) for step in ("check ext4", "mount ext4")]
                assert order == sorted(order)


@pytest.mark.parametrize("access", [EXT4, XFS])
@pytest.mark.parametrize("left", ["ext4", "xfs"])
async def test_what_a_mkfs_left_that_was_cut_off_is_made_anew(
    world: StandIns, access: Access, left: str
) -> None:
    world.found, world.half_made = (left, UUID), True
    await stage(world, access)
    assert f"make {access.file_system}" in world.done
    assert len(world.mounts_) == 1


@pytest.mark.parametrize("found", [("", ""), ("ext4", UUID)])
async def test_what_another_node_wrote_before_the_attachment_counts(
    world: StandIns, found: tuple[str, str]
) -> None:
    """The volume was new when the call began."""
    world.while_attaching, world.found = RAW, found
    with pytest.raises(CsiError, match="raw block device"):
        await stage(world, EXT4)
    assert world.done == ["attach"]
    world = StandIns()
    world.while_attaching = IS_EXT4
    await stage(world, BLOCK)
    assert world.content == IS_EXT4


OTHERS = [
    Mount((7, 9), "/", "/staging/other", ("rw",), "ext4", "/dev/loop9"),
    Mount((7, 9), "/", "/pod/other", ("rw",), "ext4", "/dev/loop9"),
    Mount((0, 5), "/loop9", "/pod/node-of-other", ("rw",), "devtmpfs", "udev"),
    Mount((0, 5), "/", "/dev", ("rw",), "devtmpfs", "udev"),
]


@pytest.mark.parametrize("number", [(7, 9), (0, 0)])
async def test_a_number_that_was_used_again_is_anothers(
    world: StandIns, number: tuple[int, int]
) -> None:
    """The device is lost, and who has its number now is not touched."""
    world.states = [agent_pb2.DEVICE_STATE_LOST]
    world.number = number
    world.backing = {(7, 9): f"/curve:{OTHER_UUID}"}
    world.mounts_ = list(OTHERS)
    await staging_of(world).unstage(HANDLE, PATH)
    assert world.done == ["detach by force"]
    world.done.clear()
    with pytest.raises(CsiError, match="taken away"):
        await stage(world, EXT4)
    assert world.done == ["detach by force", "attach"]
    assert world.mounts_ == OTHERS


async def test_a_device_that_is_not_reported_has_no_mounts(world: StandIns) -> None:
    world.states = [agent_pb2.DEVICE_STATE_LOST]
    world.number, world.nameless = (0, 0), True
    world.mounts_ = list(OTHERS)
    await staging_of(world).unstage(HANDLE, PATH)
    assert world.mounts_ == OTHERS


@pytest.mark.parametrize("number", [(7, 3), (8, 1), (0, 44)])
async def test_what_others_have_at_the_path_is_not_unstaged(
    world: StandIns, number: tuple[int, int]
) -> None:
    """A volume of another, a disk, a tmpfs."""
    await stage(world, EXT4)
    world.backing[7, 3] = f"/curve:{OTHER_UUID}"
    other = Mount(number, "/", PATH, ("rw",), "ext4", "source")
    world.mounts_ = [other]
    with pytest.raises(CsiError, match="has source mounted, not volume") as refused:
        await staging_of(world).unmount(HANDLE, PATH)  # a target, which is to be gone
    assert refused.value.status is grpc.StatusCode.FAILED_PRECONDITION
    await staging_of(world).unstage(HANDLE, PATH)  # the volume is not staged there
    assert world.mounts_ == [other]
    assert world.done[-1] == "detach"


async def test_a_live_loop_of_others_is_not_staged_over(world: StandIns) -> None:
    world.backing[7, 3] = "/home/somebody/image"
    world.mounts_ = [Mount((7, 3), "/", PATH, ("rw",), "ext4", "/dev/loop3")]
    with pytest.raises(CsiError, match="loop3"):
        await stage(world, EXT4)
    assert len(world.mounts_) == 1


@pytest.mark.parametrize("access", [EXT4, XFS])
async def test_it_is_not_staged_at_two_paths(world: StandIns, access: Access) -> None:
    await stage(world, access)
    world.mounts_[0] = replace(world.mounts_[0], target="/staging/first")
    with pytest.raises(CsiError, match="/staging/first") as refused:
        await stage(world, access)
    assert refused.value.status is grpc.StatusCode.FAILED_PRECONDITION
    assert len(world.mounts_) == 1


async def test_a_staging_path_is_a_directory(world: StandIns) -> None:
    for kind in ("link", "file", "missing"):
        world.kind = kind
        with pytest.raises(CsiError, match="not a directory"):
            await stage(world, EXT4)
    assert world.mounts_ == []


async def test_mounted_read_only_by_a_flag(world: StandIns) -> None:
    access = Access(Mode.SINGLE_NODE_WRITER, "xfs", ("noatime,ro",))
    for _ in range(2):
        await stage(world, access)
    assert [step for step in world.done if step.startswith(("mount", "grow"))] == [
        "mount xfs noatime,ro"
    ]


async def test_it_is_staged_once(world: StandIns) -> None:
    await stage(world, EXT4)
    world.done.clear()
    await stage(world, EXT4)
    assert world.done == ["attach", "grow ext4"]
    assert len(world.mounts_) == 1


async def test_it_is_not_staged_in_another_way_as_well(world: StandIns) -> None:
    await stage(world, EXT4)
    with pytest.raises(CsiError) as refused:
        await stage(world, EXT4, read_only=True)
    assert refused.value.status is grpc.StatusCode.ALREADY_EXISTS


async def test_what_others_have_mounted_stays(world: StandIns) -> None:
    world.mounts_ = [Mount((8, 1), "/", PATH, ("rw",), "ext4", "/dev/sda1")]
    with pytest.raises(CsiError, match="sda1"):
        await stage(world, EXT4)
    assert len(world.mounts_) == 1


async def test_a_dead_mount_is_taken_away_and_made_again(world: StandIns) -> None:
    world.content, world.found = IS_EXT4, ("ext4", UUID)
    gone = Mount((7, 3), "/", PATH, ("rw",), "ext4", "/dev/loop3")
    dead = Mount((7, 9), "/", PATH, ("rw",), "ext4", "/dev/loop9")
    for mounted, backing in product(([gone], [dead], [gone, dead]), ("", f"/curve:{UUID}")):
        world.mounts_, world.dead = list(mounted), {PATH}
        world.backing[7, 3] = backing
        world.done.clear()
        await stage(world, EXT4)
        assert world.done.count("unmount lazily") == len(mounted)
        assert world.done[-2:] == ["mount ext4", "grow ext4"]
        assert len(world.mounts_) == 1


async def test_a_lost_device_is_replaced(world: StandIns) -> None:
    world.content, world.found = IS_EXT4, ("ext4", UUID)
    world.states = [agent_pb2.DEVICE_STATE_LOST, agent_pb2.DEVICE_STATE_SERVING]
    world.mounts_ = [Mount((7, 9), "/", "/pod/v", ("rw",), "ext4", "/dev/loop9")]
    await stage(world, EXT4)
    assert world.done[:3] == ["unmount lazily", "detach by force", "attach"]
    world.states = [agent_pb2.DEVICE_STATE_LOST]
    with pytest.raises(CsiError, match="taken away"):
        await stage(world, EXT4)


async def test_it_grows_before_it_is_mounted_and_is_used_also_if_it_does_not() -> None:
    for fails, check in ((False, []), (True, ["check ext4"])):
        world = StandIns()
        world.content, world.found, world.does_not_grow = IS_EXT4, ("ext4", UUID), fails
        await stage(world, EXT4)
        assert world.done == [
            "attach",
            "check ext4",
            "grow unmounted",
            *check,
            "mount ext4",
            "grow ext4",
        ]


async def test_copies_and_readers_have_their_options(world: StandIns) -> None:
    world.content, world.found = IS_XFS, ("xfs", OTHER_UUID)
    await stage(world, XFS)
    assert "mount xfs nouuid" in world.done
    for kind, options in (("xfs", "ro,norecovery,nouuid"), ("ext4", "ro,noload")):
        reader = StandIns()
        reader.content, reader.found = UNKNOWN, (kind, UUID)
        await stage(reader, Access(Mode.MULTI_NODE_READER_ONLY, kind))
        assert reader.done == ["attach read_only", f"mount {kind} {options}"]
        assert reader.content == UNKNOWN


async def test_a_raw_block_device_is_never_new_again(world: StandIns) -> None:
    await stage(world, BLOCK, read_only=True)
    assert world.content == NEW
    await stage(world, BLOCK)
    assert world.content == RAW
    with pytest.raises(CsiError, match="raw block device"):
        await stage(world, EXT4)


async def test_unstage_takes_away_all_that_is_there_and_no_more(world: StandIns) -> None:
    staging = staging_of(world)
    await stage(world, EXT4)
    world.mounts_.append(Mount((7, 9), "/", "/pod/v", ("rw",), "ext4", "/dev/loop9"))
    with pytest.raises(CsiError, match="/pod/v"):
        await staging.unstage(HANDLE, PATH)
    assert len(world.mounts_) == 2
    world.mounts_.pop()
    await staging.unstage(HANDLE, PATH)
    assert world.done[-2:] == ["unmount", "detach"]
    assert world.mounts_ == []
    world.states = []
    await staging.unstage(HANDLE, PATH)
    assert world.done[-1] == "detach"


async def test_a_raw_device_in_use_is_not_unstaged(world: StandIns) -> None:
    world.mounts_ = [Mount((0, 5), "/loop9", "/pod/dev", ("rw",), "devtmpfs", "udev")]
    with pytest.raises(CsiError, match="/pod/dev"):
        await staging_of(world).unstage(HANDLE, PATH)


async def test_unstage_of_a_lost_device_waits_for_nobody(world: StandIns) -> None:
    await stage(world, EXT4)
    world.mounts_.append(Mount((7, 9), "/", "/pod/v", ("rw",), "ext4", "/dev/loop9"))
    world.states = [agent_pb2.DEVICE_STATE_LOST]
    await staging_of(world).unstage(HANDLE, PATH)
    assert world.done[-3:] == ["unmount lazily", "unmount lazily", "detach by force"]
    assert world.mounts_ == []
