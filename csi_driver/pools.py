"""What the controller needs to know of pools: their zones and their room. Thread: the asyncio loop.

Nothing is kept but the cluster's id, which never changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from csi_driver.failures import invalid
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient
from curve_py.types import volume_uuid

DEFAULT_POOL = "default"


@dataclass(frozen=True, slots=True)
class PoolView:
    name: str
    zones: frozenset[str]
    free_bytes: int  # replicas taken into account


class Pools:
    def __init__(self, client: AsyncMetaClient) -> None:
        self._client = client
        self._cluster_id = b""

    async def find(self, name: str) -> PoolView:
        """Raises CsiError (INVALID_ARGUMENT)."""
        name = name or DEFAULT_POOL
        pools = (await self._client.call("ListPools", pb.ListPoolsRequest())).pools
        pool = next((each for each in pools if each.name == name), None)
        if pool is None:
            raise invalid(f"There is no pool '{name}'.")
        answer = await self._client.call("ListChunkservers", pb.ListChunkserversRequest())
        members = frozenset(pool.store_ids)
        servers = [each for each in answer.chunkservers if each.store_id in members]
        free = sum(max(0, s.usage.capacity_bytes - s.usage.used_bytes) for s in servers)
        return PoolView(name, frozenset(s.zone for s in servers), free // pool.replica_count)

    async def uuid_of(self, volume_id: int) -> str:
        """Of a volume of this cluster, whether or not there is one."""
        if not self._cluster_id:
            info = await self._client.call("GetClusterInfo", pb.GetClusterInfoRequest())
            self._cluster_id = info.cluster_id
        return volume_uuid(self._cluster_id, volume_id)
