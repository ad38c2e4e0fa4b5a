"""Orders to chunkservers over real gRPC: what arrives, and what comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from curve_py.errors import NotFoundError
from curve_py.proto import chunkserver_pb2 as pb
from curve_py.proto.chunkserver_pb2_grpc import (
    ChunkserverAdminServicer,
    add_ChunkserverAdminServicer_to_server,
)
from curve_py.service.server import listen, make_server
from metaserver.adapters.chunkserver_gateway import GrpcChunkserverGateway
from metaserver.domain.ports import ChangeOutcome, MemberChange, UnreachableError

SECRET = b"g" * 32
STORE, OTHER = b"s" * 16, b"o" * 16


class Recorder(ChunkserverAdminServicer):
    """Notes each order; `answers` has what is answered."""

    def __init__(self) -> None:
        self.orders: list[Any] = []
        self.answers: dict[str, Any] = {}

    async def _take(self, request: Any, answer: Any) -> Any:
        assert request.store_id == STORE
        self.orders.append(request)
        given = self.answers.get(type(request).__name__, answer)
        if isinstance(given, Exception):
            raise given
        return given

    async def JoinCopysets(self, request: Any, _: Any) -> Any:
        return await self._take(request, pb.JoinCopysetsResponse(copyset_ids=[1, 2]))

    async def ChangeMembers(self, request: Any, _: Any) -> Any:
        return await self._take(request, pb.ChangeMembersResponse(applied=True))

    async def RemoveReplica(self, request: Any, _: Any) -> Any:
        return await self._take(request, pb.RemoveReplicaResponse(removed=True))

    async def TransferLeader(self, request: Any, _: Any) -> Any:
        return await self._take(request, pb.TransferLeaderResponse(started=True))

    async def SetLimits(self, request: Any, _: Any) -> Any:
        return await self._take(request, pb.SetLimitsResponse())


@pytest.fixture
async def served() -> AsyncIterator[tuple[Recorder, GrpcChunkserverGateway, str]]:
    recorder, server = Recorder(), make_server(SECRET)
    add_ChunkserverAdminServicer_to_server(recorder, server)
    address = listen(server, "127.0.0.1:0")
    await server.start()
    gateway = GrpcChunkserverGateway(SECRET)
    yield recorder, gateway, address
    await gateway.close()
    await server.stop(0)


async def test_members_are_changed(served: Any) -> None:
    recorder, gateway, address = served
    for kind in MemberChange:
        outcome = await gateway.change_members(address, STORE, 7, (kind, OTHER), 3)
        assert outcome == ChangeOutcome(True)
        order = recorder.orders[-1]
        assert order.WhichOneof("change") == kind.value
        assert getattr(order, kind.value) == OTHER
        assert (order.copyset_id, order.voters_min) == (7, 3)
    recorder.answers["ChangeMembersRequest"] = pb.ChangeMembersResponse(leader_store_id=OTHER)
    assert await gateway.change_members(
        address, STORE, 7, (MemberChange.PROMOTE, OTHER), 3
    ) == ChangeOutcome(False, OTHER)
    recorder.answers["ChangeMembersRequest"] = pb.ChangeMembersResponse(busy="not filled")
    assert await gateway.change_members(
        address, STORE, 7, (MemberChange.PROMOTE, OTHER), 3
    ) == ChangeOutcome(False, None, "not filled")


async def test_a_replica_that_was_not_taken_is_an_error(served: Any) -> None:
    recorder, gateway, address = served
    await gateway.join_copysets(address, STORE, [1, 2])
    with pytest.raises(UnreachableError, match="not taken every replica"):
        await gateway.join_copysets(address, STORE, [1, 3])
    assert list(recorder.orders[-1].copyset_ids) == [1, 3]


async def test_replicas_leaders_and_limits(served: Any) -> None:
    recorder, gateway, address = served
    await gateway.remove_replica(address, STORE, 7, 40, 3)
    order = recorder.orders[-1]
    assert (order.copyset_id, order.config_index, order.leader_term) == (7, 40, 3)
    assert await gateway.transfer_leader(address, STORE, 7, OTHER) == (True, None)
    assert recorder.orders[-1].to_store_id == OTHER
    answer = pb.TransferLeaderResponse(leader_store_id=OTHER)
    recorder.answers["TransferLeaderRequest"] = answer
    assert await gateway.transfer_leader(address, STORE, 7, OTHER) == (False, OTHER)
    await gateway.set_limits(address, STORE, 1000, 4)
    assert recorder.orders[-1].sync_bytes_per_second == 1000
    assert recorder.orders[-1].syncs_at_once == 4


async def test_every_failure_is_tried_again_by_the_caller(served: Any) -> None:
    recorder, gateway, address = served
    recorder.answers["RemoveReplicaRequest"] = NotFoundError("There is no such copyset.")
    with pytest.raises(UnreachableError, match="no such copyset"):
        await gateway.remove_replica(address, STORE, 7, 40, 3)
    with pytest.raises(UnreachableError):
        await gateway.set_limits("127.0.0.1:1", STORE, 1, 1)
