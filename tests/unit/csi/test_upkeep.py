"""Growing and trimming by itself, on stand-ins: who waits for whom, and who is looked at when."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from csi_driver.controller import LABEL_REQUEST
from csi_driver.devices import Devices
from csi_driver.failures import CsiError
from csi_driver.in_flight import InFlight
from csi_driver.mounter.client import MountError
from csi_driver.mounter.mount_table import Mount
from csi_driver.upkeep import Upkeep
from curve_py.proto import agent_pb2
from curve_py.proto import meta_pb2 as pb

GIB = 1 << 30
UUIDS = {number: f"6a1c0f7e-0000-5000-8000-00000000000{number}" for number in (1, 2)}


class StandIns:
    """Two volumes: the first is trimmed, the second grows. A trim ends when it is let."""

    def __init__(self) -> None:
        self.sizes = {1: 10 * GIB, 2: 10 * GIB}
        self.used = 0
        self.trims: list[tuple[int, int | None]] = []
        self.let = asyncio.Semaphore(0)
        self.trim_fails = False
        self.looked = 0
        self.mounts_ = [
            Mount((7, n), "/", f"/staging/{n}", ("rw",), "xfs", f"/dev/loop{n}") for n in (1, 2)
        ]

    # The metaservers.
    async def call(self, method: str, request: Any) -> Any:
        if method == "ResizeVolume":
            self.sizes[request.volume_id] = request.size_bytes
        labels = {"autoGrowLimit": "40GiB"} if request.volume_id == 2 else {"trimInterval": "1s"}
        labels = {LABEL_REQUEST: json.dumps({"parameters": labels})}
        return pb.Volume(id=request.volume_id, labels=labels)

    # The agent.
    def _device(self, number: int) -> agent_pb2.Device:
        return agent_pb2.Device(
            volume_id=number,
            volume_uuid=UUIDS[number],
            device=f"/dev/loop{number}",
            major=7,
            minor=number,
            size_bytes=self.sizes[number],
            state=agent_pb2.DEVICE_STATE_SERVING,
        )

    async def list(self) -> agent_pb2.ListDevicesResponse:
        return agent_pb2.ListDevicesResponse(devices=[self._device(1), self._device(2)])

    async def refresh(self, *, volume_id: int) -> agent_pb2.Device:
        return self._device(volume_id)

    # The mounter.
    async def mounts(self) -> list[Mount]:
        return self.mounts_.copy()

    async def backing_file(self, number: tuple[int, int]) -> str:
        return f"/curve:{UUIDS[number[1]]}"

    async def usage(self, target: str) -> dict[str, int]:
        self.looked += target == "/staging/2"
        total = self.sizes[int(target[-1])]
        return {
            "total_bytes": total,
            "used_bytes": self.used,
            "available_bytes": total - self.used,
        }

    async def grow(self, _device: str, _kind: str, _target: str) -> None:
        pass

    async def trim_step(self, _target: str, _kind: str) -> int:
        return 4 * GIB

    async def trim(self, target: str, offset: int, length: int | None) -> int:
        assert target == "/staging/1"
        self.trims.append((offset, length))
        await self.let.acquire()
        if self.trim_fails:
            raise MountError("timeout", "fstrim took more than 60 s.")
        return 1


@pytest.fixture
def world() -> StandIns:
    return StandIns()


@pytest.fixture
def in_flight() -> InFlight:
    return InFlight()


@pytest.fixture
def upkeep(world: StandIns, in_flight: InFlight, monkeypatch: pytest.MonkeyPatch) -> Upkeep:
    monkeypatch.setattr("random.random", lambda: 1.0)  # the first trim is due at once
    devices = Devices(world, world)  # type: ignore[arg-type]
    return Upkeep(world, devices, world, in_flight, 10.0, CollectorRegistry())  # type: ignore[arg-type]


async def until(what: Any) -> None:
    for _ in range(1000):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


async def test_nobody_waits_for_a_trim(
    world: StandIns, upkeep: Upkeep, in_flight: InFlight
) -> None:
    await upkeep.look()
    await until(lambda: world.trims)
    world.used = 9 * GIB
    upkeep._cares[2].look_at = 0.0
    await upkeep.look()
    await until(lambda: world.sizes[2] == 12 * GIB)

    # Between two slices its volume can be had by a call, and the trim waits.
    key = f"curve-1-{UUIDS[1]}"
    with pytest.raises(CsiError) as refused, in_flight.holding(key):
        pass
    assert refused.value.status is grpc.StatusCode.ABORTED
    assert world.trims == [(0, 4 * GIB)]
    world.let.release()
    await until(lambda: key not in in_flight._held)
    with in_flight.holding(key):
        await asyncio.sleep(0.5)
        assert len(world.trims) == 1
    for _ in range(2):
        world.let.release()
    await until(lambda: not upkeep.tasks())
    assert world.trims == [(0, 4 * GIB), (4 * GIB, 4 * GIB), (8 * GIB, None)]


async def test_a_slice_waits_for_a_call(
    world: StandIns, upkeep: Upkeep, in_flight: InFlight
) -> None:
    with in_flight.holding(f"curve-1-{UUIDS[1]}"):
        await upkeep.look()
        await asyncio.sleep(0.3)
        assert world.trims == []
        world.mounts_ = world.mounts_[1:]  # it is unstaged
    await until(lambda: not upkeep.tasks())
    assert world.trims == []


async def test_a_trim_goes_on_where_it_had_to_end(world: StandIns, upkeep: Upkeep) -> None:
    world.let.release()
    await upkeep.look()
    await until(lambda: len(world.trims) == 2)
    world.trim_fails = True
    world.let.release()
    await until(lambda: not upkeep.tasks())
    world.trim_fails = False
    upkeep._cares[1].look_at = upkeep._cares[1].trimmed_at = 0.0
    await upkeep.look()
    for _ in range(2):
        world.let.release()
    await until(lambda: not upkeep.tasks() and len(world.trims) == 4)
    assert world.trims[2:] == [(4 * GIB, 4 * GIB), (8 * GIB, None)]


async def test_who_may_be_full_soon_is_looked_at_more_often(
    world: StandIns, upkeep: Upkeep
) -> None:
    async def pause(used: int) -> float:
        world.used = used
        for care in upkeep._cares.values():
            care.look_at = 0.0
        await upkeep.look()
        await until(lambda: not upkeep._growing[2] or upkeep._growing[2].done())
        care = upkeep._cares[2]
        return care.look_at - asyncio.get_running_loop().time()

    assert await pause(1 * GIB) > 5
    assert await pause(6 * GIB) > 5
    assert await pause(int(7.1 * GIB)) < 5
    assert await pause(6 * GIB) > 5
    assert await pause(9 * GIB) < 5  # it grows
    assert world.sizes[2] == 12 * GIB
    assert await pause(1 * GIB) < 5  # it has grown lately
    upkeep._cares[2].look_at = asyncio.get_running_loop().time() + 5
    upkeep._cares[1].look_at = 0.0
    looked = world.looked
    await upkeep.look()
    assert upkeep._pause_seconds() == 1.0
    await asyncio.sleep(0)
    assert world.looked == looked  # it is not due
    for task in upkeep.tasks():
        task.cancel()
