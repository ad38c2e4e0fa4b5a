"""Commands to chunkservers over gRPC (curve.v1.ChunkserverAdmin), as the domain's gateway.

Owns: one signed channel per admin address, deadlines, the mapping of every failure to
UnreachableError (the caller tries again). Thread: the asyncio loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio

from curve_py.proto import chunkserver_pb2 as pb
from curve_py.proto import chunkserver_pb2_grpc, common_pb2
from curve_py.service.channel import AsyncSignedChannel
from curve_py.service.rpc_errors import from_rpc_error
from curve_py.types import PROTOCOL_VERSION
from metaserver.domain.ports import (
    ChangeOutcome,
    CheckOutcome,
    CopysetOutcome,
    Genesis,
    MemberChange,
    UnreachableError,
    VolumeExtent,
)

_CALL_SECONDS = 2.0
_FORM_SECONDS = 10.0
_TRACE_GRACE_SECONDS = 5.0
_CHECK_SECONDS = 24 * 3600.0  # a chunkserver that is gone is noticed by the connection


class GrpcChunkserverGateway:
    """Implements ports.ChunkserverGateway."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._channels: dict[str, tuple[AsyncSignedChannel, Any]] = {}

    async def close(self) -> None:
        channels = list(self._channels.values())
        self._channels.clear()
        for channel, _ in channels:
            await channel.close()

    async def set_peers(
        self, address: str, store_id: bytes, version: int, peers: list[tuple[bytes, str]]
    ) -> None:
        request = pb.SetPeersRequest(
            store_id=store_id,
            topology_version=version,
            peers=[pb.Peer(store_id=peer, address=at) for peer, at in peers],
        )
        await self._call(address, "SetPeers", request, _CALL_SECONDS)

    async def form_copysets(
        self, address: str, store_id: bytes, copysets: list[Genesis]
    ) -> set[int]:
        request = pb.FormCopysetsRequest(
            store_id=store_id,
            copysets=[
                pb.CopysetGenesis(
                    copyset_id=genesis.copyset_id,
                    voters=genesis.voters,
                    preferred_leader=genesis.preferred_leader,
                )
                for genesis in copysets
            ],
        )
        answer = await self._call(address, "FormCopysets", request, _FORM_SECONDS)
        return set(answer.copyset_ids)

    async def fence_volume(
        self,
        address: str,
        store_id: bytes,
        volume_id: int,
        fence: tuple[int, int, tuple[int, ...]],
        copyset_ids: list[int],
    ) -> CopysetOutcome:
        floor, ceiling, revoked = fence
        request = pb.FenceVolumeRequest(
            store_id=store_id,
            volume_id=volume_id,
            floor_epoch=floor,
            ceiling_epoch=ceiling,
            revoked_epochs=revoked,
            copyset_ids=copyset_ids,
        )
        return _outcome(await self._call(address, "FenceVolume", request, _CALL_SECONDS))

    async def delete_volume(
        self, address: str, store_id: bytes, volume_id: int, copyset_ids: list[int]
    ) -> CopysetOutcome:
        request = pb.DeleteVolumeData(
            store_id=store_id, volume_id=volume_id, copyset_ids=copyset_ids
        )
        return _outcome(await self._call(address, "DeleteVolume", request, _CALL_SECONDS))

    async def join_copysets(self, address: str, store_id: bytes, copyset_ids: list[int]) -> None:
        request = pb.JoinCopysetsRequest(store_id=store_id, copyset_ids=copyset_ids)
        answer = await self._call(address, "JoinCopysets", request, _CALL_SECONDS)
        if not set(copyset_ids) <= set(answer.copyset_ids):
            raise UnreachableError(f"{address} has not taken every replica.")

    async def change_members(
        self,
        address: str,
        store_id: bytes,
        copyset_id: int,
        change: tuple[MemberChange, bytes],
        voters_min: int,
    ) -> ChangeOutcome:
        kind, subject = change
        request = pb.ChangeMembersRequest(
            store_id=store_id, copyset_id=copyset_id, voters_min=voters_min
        )
        setattr(request, kind.value, subject)
        answer = await self._call(address, "ChangeMembers", request, _CALL_SECONDS)
        return ChangeOutcome(answer.applied, answer.leader_store_id or None, answer.busy)

    async def remove_replica(
        self, address: str, store_id: bytes, copyset_id: int, config_index: int, leader_term: int
    ) -> None:
        request = pb.RemoveReplicaRequest(
            store_id=store_id,
            copyset_id=copyset_id,
            config_index=config_index,
            leader_term=leader_term,
        )
        await self._call(address, "RemoveReplica", request, _CALL_SECONDS)

    async def transfer_leader(
        self, address: str, store_id: bytes, copyset_id: int, to_store_id: bytes
    ) -> tuple[bool, bytes | None]:
        request = pb.TransferLeaderRequest(
            store_id=store_id, copyset_id=copyset_id, to_store_id=to_store_id
        )
        answer = await self._call(address, "TransferLeader", request, _CALL_SECONDS)
        return answer.started, answer.leader_store_id or None

    async def set_limits(
        self, address: str, store_id: bytes, sync_bytes_per_second: int, syncs_at_once: int
    ) -> None:
        request = pb.SetLimitsRequest(
            store_id=store_id,
            sync_bytes_per_second=sync_bytes_per_second,
            syncs_at_once=syncs_at_once,
        )
        await self._call(address, "SetLimits", request, _CALL_SECONDS)

    async def volume_bytes(self, address: str, store_id: bytes, volume_id: int) -> int:
        request = pb.GetVolumeSpaceRequest(store_id=store_id, volume_id=volume_id)
        answer = await self._call(address, "GetVolumeSpace", request, _CALL_SECONDS)
        return int(answer.allocated_bytes)

    async def scrub(
        self, address: str, store_id: bytes, start: bool, bytes_per_second: int
    ) -> common_pb2.ScrubStatus:
        request = pb.ScrubRequest(store_id=store_id, start=start, bytes_per_second=bytes_per_second)
        status: common_pb2.ScrubStatus = await self._call(address, "Scrub", request, _CALL_SECONDS)
        return status

    async def check_volume(
        self, address: str, store_id: bytes, volume: VolumeExtent, copyset_id: int
    ) -> CheckOutcome:
        request = pb.CheckVolumeRequest(
            store_id=store_id,
            volume_id=volume.volume_id,
            placement_id=volume.placement_id,
            chunks=volume.chunks,
            copysets=volume.copysets,
            copyset_id=copyset_id,
        )
        answer = await self._call(address, "CheckVolume", request, _CHECK_SECONDS)
        return CheckOutcome(
            answer.led_here,
            answer.leader_store_id or None,
            answer.error,
            answer.chunks,
            answer.replicas,
            tuple(answer.differences),
        )

    async def trace_writes(
        self, address: str, store_id: bytes, volume_id: int, duration_ms: int
    ) -> common_pb2.StoreTrace:
        request = pb.TraceWritesRequest(
            store_id=store_id, volume_id=volume_id, duration_ms=duration_ms
        )
        seconds = duration_ms / 1000 + _TRACE_GRACE_SECONDS
        trace: common_pb2.StoreTrace = await self._call(address, "TraceWrites", request, seconds)
        return trace

    async def _call(self, address: str, method: str, request: Any, seconds: float) -> Any:
        request.header.protocol_version = PROTOCOL_VERSION
        try:
            return await getattr(self._stub(address), method)(request, timeout=seconds)
        except grpc.RpcError as error:
            raise UnreachableError(str(from_rpc_error(error, address))) from None

    def _stub(self, address: str) -> Any:
        if address not in self._channels:
            channel = AsyncSignedChannel(address, self._secret)
            stub = chunkserver_pb2_grpc.ChunkserverAdminStub(channel)
            self._channels[address] = (channel, stub)
        return self._channels[address][1]


def _outcome(answer: pb.CopysetOutcome) -> CopysetOutcome:
    hints: Iterable[pb.CopysetLeaderHint] = answer.not_leader
    return CopysetOutcome(
        tuple(answer.applied_copyset_ids),
        tuple((hint.copyset_id, hint.leader_store_id or None) for hint in hints),
        tuple(answer.no_space_copyset_ids),
    )
