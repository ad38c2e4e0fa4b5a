"""Real metaserver processes: killed one by one and all at once under a stream of creates.

Chunkservers are only registered here, so that there is a pool to create volumes in.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from curve_py.proto import meta_pb2 as pb

CALL_SECONDS = 60.0  # a bound only, for a machine that does other things as well


class Creators:
    """Streams of creates; knows what was acknowledged."""

    def __init__(self, servers: Any, streams: int) -> None:
        self.acknowledged: list[str] = []
        self.ids: dict[str, int] = {}
        self._servers = servers
        self._stop = False
        self._tasks = [asyncio.create_task(self._create(n)) for n in range(streams)]

    async def _create(self, stream: int) -> None:
        number = 0
        while not self._stop:
            number += 1
            name = f"v{stream}-{number}"
            volume = await self._servers.client.call(
                "CreateVolume", pb.CreateVolumeRequest(name=name, size_bytes=1 << 30), CALL_SECONDS
            )
            self.acknowledged.append(name)
            self.ids[name] = volume.id

    async def more(self, count: int) -> None:
        """Returns when so many more were acknowledged."""
        target = len(self.acknowledged) + count
        async with asyncio.timeout(CALL_SECONDS):
            while len(self.acknowledged) < target:
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


async def test_any_one_can_be_killed_under_a_stream_of_creates(servers: Any) -> None:
    await servers.make_pool()
    creators = Creators(servers, 4)
    for round_ in range(4):
        await creators.more(20)
        leader = await servers.leader()
        victim = leader if round_ % 2 == 0 else (leader + 1) % 3
        servers.kill(victim)
        await creators.more(20)  # without it
        servers.start(victim)
    await creators.more(20)
    await creators.stop()
    names = await servers.names()
    # Every create was acknowledged in the end, so each is there, once, under the id answered.
    assert sorted(names) == sorted(creators.acknowledged)
    assert len(set(creators.ids.values())) == len(creators.ids)


async def test_all_can_be_killed_and_everything_is_there(servers: Any) -> None:
    await servers.make_pool()
    for _ in range(3):
        creators = Creators(servers, 2)
        before = set(await servers.names())
        await creators.more(10)
        for number in range(3):
            servers.kill(number)
        for number in range(3):
            servers.start(number)
        await creators.more(10)
        await creators.stop()
        after = await servers.names()
        assert len(set(after)) == len(after)
        assert before | set(creators.acknowledged) == set(after)
        for name in creators.acknowledged:
            await servers.client.call("DeleteVolume", pb.DeleteVolumeRequest(name=name))


async def test_a_stopped_leader_is_replaced_and_comes_back_as_a_follower(
    servers: Any,
) -> None:
    await servers.make_pool()
    leader = await servers.leader()
    creators = Creators(servers, 2)
    await creators.more(5)
    os.kill(servers.processes[leader].pid, signal.SIGSTOP)
    await creators.more(10)
    os.kill(servers.processes[leader].pid, signal.SIGCONT)
    await creators.more(10)
    await creators.stop()
    assert sorted(await servers.names()) == sorted(creators.acknowledged)


async def test_stopping_in_order_and_starting_again(servers: Any) -> None:
    await servers.make_pool()
    for number in range(3):
        assert servers.kill(number, signal.SIGTERM) == 0
    for number in range(3):
        servers.start(number)
    pools = await servers.client.call("ListPools", pb.ListPoolsRequest(), CALL_SECONDS)
    assert [pool.name for pool in pools.pools] == ["default"]


async def test_an_emptied_metaserver_does_not_come_back_by_itself(servers: Any) -> None:
    """R1, with the real store."""
    await servers.make_pool()
    servers.kill(0)
    (servers.directory / "0").rename(servers.directory / "lost")
    servers.start(0)
    assert servers.processes.pop(0).wait(60) == 1
    assert b"is empty" in (servers.directory / "0.log").read_bytes()
    (servers.directory / "lost").rename(servers.directory / "0")
    servers.start(0, "--bootstrap")
    assert servers.processes.pop(0).wait(60) == 1
    assert b"not empty" in (servers.directory / "0.log").read_bytes()
