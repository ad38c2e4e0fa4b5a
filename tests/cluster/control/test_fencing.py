"""Pools, attachments and deletions through real metaservers and chunkservers (R1, R12)."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from curve_py import volume_map
from curve_py.errors import FencedError
from curve_py.proto import chunkserver_pb2, chunkserver_pb2_grpc
from curve_py.proto import meta_pb2 as pb
from curve_py.service.channel import AsyncSignedChannel

CALL_SECONDS = 60.0  # a bound only


async def make_pool(servers: Any, copysets: int = 16) -> None:
    request = pb.CreatePoolRequest(copyset_count=copysets)
    await servers.client.call("CreatePool", request, CALL_SECONDS)
    async with asyncio.timeout(CALL_SECONDS):
        while True:
            pools = await servers.client.call("ListPools", pb.ListPoolsRequest(), CALL_SECONDS)
            if pools.pools[0].state == pb.POOL_STATE_READY:
                return
            await asyncio.sleep(0.02)


async def attach(servers: Any, name: str) -> pb.AttachVolumeResponse:
    answer: pb.AttachVolumeResponse = await servers.client.call(
        "AttachVolume",
        pb.AttachVolumeRequest(name=name, mode=pb.ATTACH_MODE_EXCLUSIVE, holder="test"),
        CALL_SECONDS,
    )
    return answer


async def create(servers: Any, name: str) -> pb.Volume:
    volume: pb.Volume = await servers.client.call(
        "CreateVolume", pb.CreateVolumeRequest(name=name, size_bytes=1 << 30), CALL_SECONDS
    )
    return volume


async def store_status(address: str, secret: bytes) -> chunkserver_pb2.StoreStatus:
    """Once the chunkserver answers. Each try is signed anew: older ones are not taken."""
    channel = AsyncSignedChannel(address, secret)
    stub: Any = chunkserver_pb2_grpc.ChunkserverAdminStub(channel)
    request = chunkserver_pb2.GetStoreStatusRequest()
    try:
        async with asyncio.timeout(CALL_SECONDS):
            while True:
                try:
                    status: chunkserver_pb2.StoreStatus = await stub.GetStoreStatus(request)
                    return status
                except grpc.RpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                await asyncio.sleep(0.05)
    finally:
        await channel.close()


async def test_attach_through_kills_and_restarts(servers: Any, chunkservers: Any) -> None:
    await make_pool(servers)
    volume = await create(servers, "a")
    first = await attach(servers, "a")
    decoded = volume_map.decode(first.map.encoded)
    assert (decoded.epoch, len(decoded.copysets), len(decoded.stores)) == (1, 16, 3)

    chunkservers.kill(0)
    second = await attach(servers, "a")  # a majority of each copyset is enough
    assert second.attachment.epoch == 2
    assert [a.id for a in second.fenced] == [first.attachment.id]
    chunkservers.start(0)

    for number in range(3):
        servers.kill(number)
    chunkservers.kill(1)
    chunkservers.start(1)  # with no metaserver up
    status = await store_status(chunkservers.admin[1], servers.secret)
    assert len(status.report.replicas) == 16

    for number in range(3):
        servers.start(number)
    third = await attach(servers, "a")
    assert third.attachment.epoch == 3
    with pytest.raises(FencedError):
        await servers.client.call(
            "GetVolumeMap",
            pb.GetVolumeMapRequest(volume_id=volume.id, attachment_id=second.attachment.id),
            CALL_SECONDS,
        )


async def test_a_deletion_is_finished_when_chunkservers_come_back(
    servers: Any, chunkservers: Any
) -> None:
    await make_pool(servers)
    await create(servers, "a")
    await attach(servers, "a")
    chunkservers.kill(0)
    chunkservers.kill(1)  # no majority now
    await servers.client.call(
        "DeleteVolume", pb.DeleteVolumeRequest(name="a", force=True), CALL_SECONDS
    )
    assert (await create(servers, "a")).id == 2  # the name is free, the id is new
    status = await servers.client.call(
        "GetClusterStatus", pb.GetClusterStatusRequest(), CALL_SECONDS
    )
    assert status.deletions_pending == 1
    servers.kill(await servers.leader())
    chunkservers.start(0)
    chunkservers.start(1)
    async with asyncio.timeout(CALL_SECONDS):
        while status.deletions_pending:
            status = await servers.client.call(
                "GetClusterStatus", pb.GetClusterStatusRequest(), CALL_SECONDS
            )
            await asyncio.sleep(0.05)
    assert (await attach(servers, "a")).attachment.volume_id == 2


async def test_an_order_that_is_not_signed_never_reaches_a_store(
    servers: Any, chunkservers: Any
) -> None:
    channel = AsyncSignedChannel(chunkservers.admin[0], b"x" * 32)
    stub: Any = chunkserver_pb2_grpc.ChunkserverAdminStub(channel)
    for method, request in (
        ("DeleteVolume", chunkserver_pb2.DeleteVolumeData(volume_id=1, copyset_ids=[1])),
        ("SetPeers", chunkserver_pb2.SetPeersRequest()),
        ("GetStoreStatus", chunkserver_pb2.GetStoreStatusRequest()),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            await getattr(stub, method)(request, timeout=CALL_SECONDS)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await channel.close()
