"""Real metaserver processes: killed one by one and all at once under a stream of creates.

Chunkservers are only registered here, so that there is a pool to create volumes in.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from curve_py.errors import CurveError
from curve_py.proto import common_pb2
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient
from curve_py.service.secret import create_secret

CLUSTER = uuid.UUID("c0ffee00-0000-4000-8000-000000000001")
START_SECONDS = 60.0  # bounds only, for a machine that does other things as well
CALL_SECONDS = 60.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Metaservers:
    """Three processes in one directory."""

    def __init__(self, directory: Path, count: int = 3) -> None:
        self.directory = directory
        self.count = count
        self.secret = create_secret(directory / "secret")
        ports = free_ports(2 * count)
        self.addresses = [f"127.0.0.1:{port}" for port in ports[:count]]
        ids = [str(uuid.UUID(int=n + 1)) for n in range(count)]
        members = "".join(
            f'[[members]]\nnode_id = "{ids[n]}"\ngrpc_address = "{self.addresses[n]}"\n'
            f'peer_address = "127.0.0.1:{ports[count + n]}"\n'
            for n in range(count)
        )
        for n in range(count):
            (directory / f"{n}.toml").write_text(
                f'secret_file = "{directory / "secret"}"\ndata_dir = "{directory / str(n)}"\n'
                f'node_id = "{ids[n]}"\ncluster_id = "{CLUSTER}"\nwal_bytes = "64MiB"\n'
                f'grpc_listen = "{self.addresses[n]}"\n'
                f'peer_listen = "127.0.0.1:{ports[count + n]}"\n{members}'
            )
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.client = AsyncMetaClient(self.addresses, self.secret)

    def start(self, number: int, *flags: str) -> None:
        with open(self.directory / f"{number}.log", "ab") as log:
            self.processes[number] = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "metaserver.entrypoints.main",
                    "--config",
                    str(self.directory / f"{number}.toml"),
                    *flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, number: int, how: signal.Signals = signal.SIGKILL) -> int:
        process = self.processes.pop(number)
        process.send_signal(how)
        return process.wait(60)

    async def leader(self) -> int:
        async with asyncio.timeout(START_SECONDS):
            while True:
                for number in self.processes:
                    try:
                        status = await self.client.ask(
                            self.addresses[number], "GetNodeStatus", pb.GetNodeStatusRequest()
                        )
                    except CurveError:
                        continue
                    if status.role == pb.NODE_ROLE_LEADER:
                        return number
                await asyncio.sleep(0.02)

    async def all_joined(self) -> None:
        """Every one has formed the group: until then a killed one has nothing to come back with."""
        async with asyncio.timeout(START_SECONDS):
            for address in self.addresses:
                while True:
                    try:
                        request = pb.GetNodeStatusRequest()
                        if (await self.client.ask(address, "GetNodeStatus", request)).cluster_id:
                            break
                    except CurveError:
                        pass
                    await asyncio.sleep(0.02)

    async def make_pool(self) -> None:
        await self.all_joined()
        for number in range(3):
            store = bytes([number + 1]) * 16
            await self.client.call(
                "RegisterChunkserver",
                pb.RegisterChunkserverRequest(
                    cluster_id=CLUSTER.bytes,
                    store_id=store,
                    data_address=f"127.0.0.1:{number + 1}",
                    admin_address=f"127.0.0.1:{number + 1}",
                    zone="z",
                    server=f"s{number}",
                    capacity_bytes=1 << 40,
                ),
                CALL_SECONDS,
            )
            await self.client.call(
                "Heartbeat",
                pb.HeartbeatRequest(
                    cluster_id=CLUSTER.bytes, store_id=store, report=common_pb2.StoreReport()
                ),
                CALL_SECONDS,
            )
        await self.client.call("CreatePool", pb.CreatePoolRequest(copyset_count=4), CALL_SECONDS)

    async def names(self) -> list[str]:
        found: list[str] = []
        after = 0
        while True:
            page = await self.client.call(
                "ListVolumes", pb.ListVolumesRequest(after_volume_id=after), CALL_SECONDS
            )
            found += [volume.name for volume in page.volumes]
            after = page.next_after_volume_id
            if not after:
                return found

    async def close(self) -> None:
        for number in list(self.processes):
            self.kill(number)
        await self.client.close()


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Metaservers]:
    made = Metaservers(tmp_path)
    try:
        for number in range(made.count):
            made.start(number, "--bootstrap")
        yield made
    finally:
        await made.close()


class Creators:
    """Streams of creates; knows what was acknowledged."""

    def __init__(self, servers: Metaservers, streams: int) -> None:
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


async def test_any_one_can_be_killed_under_a_stream_of_creates(servers: Metaservers) -> None:
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


async def test_all_can_be_killed_and_everything_is_there(servers: Metaservers) -> None:
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
    servers: Metaservers,
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


async def test_stopping_in_order_and_starting_again(servers: Metaservers) -> None:
    await servers.make_pool()
    for number in range(3):
        assert servers.kill(number, signal.SIGTERM) == 0
    for number in range(3):
        servers.start(number)
    pools = await servers.client.call("ListPools", pb.ListPoolsRequest(), CALL_SECONDS)
    assert [pool.name for pool in pools.pools] == ["default"]


async def test_an_emptied_metaserver_does_not_come_back_by_itself(servers: Metaservers) -> None:
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
