"""Real metaserver and chunkserver processes in a directory of the test; all are stopped by it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from curve_py.cli.local.ports import free_addresses
from curve_py.errors import CurveError
from curve_py.proto import common_pb2
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient
from curve_py.service.secret import create_secret

CLUSTER = uuid.UUID("c0ffee00-0000-4000-8000-000000000001")
START_SECONDS = 60.0  # bounds only, for a machine that does other things as well
CALL_SECONDS = 60.0


class Metaservers:
    """Three processes in one directory."""

    def __init__(self, directory: Path, count: int = 3) -> None:
        self.directory = directory
        self.count = count
        self.secret = create_secret(directory / "secret")
        addresses = free_addresses(2 * count)
        self.addresses, peers = addresses[:count], addresses[count:]
        ids = [str(uuid.UUID(int=n + 1)) for n in range(count)]
        members = "".join(
            f'[[members]]\nnode_id = "{ids[n]}"\ngrpc_address = "{self.addresses[n]}"\n'
            f'peer_address = "{peers[n]}"\n'
            for n in range(count)
        )
        for n in range(count):
            (directory / f"{n}.toml").write_text(
                f'secret_file = "{directory / "secret"}"\ndata_dir = "{directory / str(n)}"\n'
                f'node_id = "{ids[n]}"\ncluster_id = "{CLUSTER}"\nwal_bytes = "64MiB"\n'
                f'grpc_listen = "{self.addresses[n]}"\n'
                f'peer_listen = "{peers[n]}"\n{members}'
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


class Chunkservers:
    """Three processes beside the metaservers."""

    def __init__(self, servers: Metaservers, count: int = 3) -> None:
        self._servers = servers
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        addresses = free_addresses(2 * count)
        data, self.admin = addresses[:count], addresses[count:]
        for n in range(count):
            directory = servers.directory
            addresses = ", ".join(f'"{address}"' for address in servers.addresses)
            store = directory / f"store{n}"
            (directory / f"chunkserver{n}.toml").write_text(
                f'secret_file = "{directory / "secret"}"\nstore_path = "{store}"\n'
                f'data_listen = "{data[n]}"\nadmin_listen = "{self.admin[n]}"\n'
                f'metaservers = [{addresses}]\nserver = "server{n}"\n'
                f'data_bytes = "512MiB"\nheartbeat_interval_ms = 200\n'
            )

    def start(self, number: int, *flags: str) -> None:
        with open(self._servers.directory / f"chunkserver{number}.log", "ab") as log:
            self.processes[number] = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "chunkserver.main",
                    "--config",
                    str(self._servers.directory / f"chunkserver{number}.toml"),
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

    def close(self) -> None:
        for number in list(self.processes):
            self.kill(number)

    async def all_up(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            while True:
                request = pb.ListChunkserversRequest()
                answer = await self._servers.client.call("ListChunkservers", request, CALL_SECONDS)
                up = [c.state == pb.CHUNKSERVER_STATE_UP for c in answer.chunkservers]
                if sum(up) == 3:
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Metaservers]:
    made = Metaservers(tmp_path)
    try:
        for number in range(made.count):
            made.start(number, "--bootstrap")
        yield made
    finally:
        await made.close()


@pytest.fixture
async def chunkservers(servers: Metaservers) -> AsyncIterator[Chunkservers]:
    made = Chunkservers(servers)
    try:
        for number in range(3):
            made.start(number, "--format", "--cluster-id", str(CLUSTER))
        await servers.all_joined()
        await made.all_up()
        yield made
    finally:
        made.close()
