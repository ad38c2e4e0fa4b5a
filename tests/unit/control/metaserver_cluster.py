"""Metaservers and chunkserver shells of one loop: real gRPC, stand-ins for native parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chunkserver.main import serve as serve_chunkserver
from chunkserver.settings import ChunkserverSettings
from curve_py.cli.local.ports import free_addresses
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient
from metaserver.entrypoints.main import serve as serve_metaserver
from metaserver.entrypoints.settings import MetaserverSettings

SECRET = b"k" * 32
CLUSTER = b"\xc1" * 16


class Cluster:
    """Metaservers and chunkserver shells of one loop."""

    def __init__(self, group: Any, make_store: Any, directory: Path) -> None:
        self.group = group
        self.make_store = make_store
        self.directory = directory
        self.stores: list[Any] = []
        self.addresses: list[str] = []
        self.http: list[str] = []
        self._running: dict[object, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._settings: list[MetaserverSettings] = []
        self.client: AsyncMetaClient

    async def start_metaservers(self, count: int) -> None:
        addresses = free_addresses(2 * count)
        ids = [bytes([0xA0 + n]) * 16 for n in range(count)]
        self.addresses, self.http = addresses[:count], addresses[count:]
        members = [
            {"node_id": node_id, "peer_address": "127.0.0.1:1", "grpc_address": address}
            for node_id, address in zip(ids, self.addresses, strict=True)
        ]
        for number, node_id in enumerate(ids):
            settings = MetaserverSettings(
                secret_file=self.directory / "secret",
                data_dir=self.directory,
                node_id=node_id,
                members=members,  # type: ignore[arg-type]
                grpc_listen=self.addresses[number],
                peer_listen="127.0.0.1:1",
                http_listen=self.http[number],
                cluster_id=CLUSTER,
            )
            self._settings.append(settings)
            self.group.node(node_id)
            self.start_metaserver(number)
        self.client = AsyncMetaClient(self.addresses, SECRET)
        self.group.elect(self.group.nodes[0])

    def start_metaserver(self, number: int) -> None:
        node = self.group.nodes[number]
        self._run(number, lambda stop: serve_metaserver(self._settings[number], SECRET, stop, node))

    async def start_chunkservers(self, count: int) -> None:
        for number in range(count):
            store = self.make_store(bytes([number + 1]) * 16, CLUSTER)
            self.stores.append(store)
            self.start_chunkserver(store)

    def start_chunkserver(self, store: Any) -> None:
        number = self.stores.index(store)
        settings = ChunkserverSettings(
            secret_file=self.directory / "secret",
            store_path=self.directory,
            data_listen=f"127.0.0.1:{9000 + number}",
            admin_listen="127.0.0.1:0",
            metaservers=self.addresses,
            heartbeat_interval_ms=50,
            server=f"server-{number}",
        )
        address = f"127.0.0.1:{9000 + number}"
        self._run(store, lambda stop: serve_chunkserver(settings, SECRET, store, address, stop))

    def _run(self, key: object, service: Callable[[asyncio.Event], Any]) -> None:
        stop = asyncio.Event()
        self._running[key] = (stop, asyncio.create_task(service(stop)))

    async def stop(self, key: object) -> None:
        stop, task = self._running.pop(key)
        stop.set()
        await task

    async def close(self) -> None:
        for key in reversed(list(self._running)):
            await self.stop(key)
        await self.client.close()

    async def call(self, method: str, request: Any, seconds: float = 20) -> Any:
        return await self.client.call(method, request, seconds)

    async def ready(self, eventually: Any, copysets: int = 8) -> None:
        """Three chunkservers and a pool that is formed."""
        await self.start_chunkservers(3)

        async def servers_up() -> bool:
            answer = await self.call("ListChunkservers", pb.ListChunkserversRequest())
            return sum(c.state == pb.CHUNKSERVER_STATE_UP for c in answer.chunkservers) == 3

        async def pool_ready() -> bool:
            return (await self.pool()).state == pb.POOL_STATE_READY

        await eventually(servers_up)
        await self.call("CreatePool", pb.CreatePoolRequest(copyset_count=copysets))
        await eventually(pool_ready)

    async def pool(self) -> pb.Pool:
        pools: list[pb.Pool] = (await self.call("ListPools", pb.ListPoolsRequest())).pools
        return pools[0]

    async def create(self, name: str, size: int = 1 << 30) -> pb.Volume:
        volume: pb.Volume = await self.call(
            "CreateVolume", pb.CreateVolumeRequest(name=name, size_bytes=size)
        )
        return volume

    async def attach(self, name: str, seconds: float = 20, **fields: Any) -> Any:
        fields.setdefault("mode", pb.ATTACH_MODE_EXCLUSIVE)
        request = pb.AttachVolumeRequest(name=name, holder="test", **fields)
        return await self.call("AttachVolume", request, seconds)
