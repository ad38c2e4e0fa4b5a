"""The chunkserver's shell over real gRPC, with a stand-in for the native store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from chunkserver import report
from chunkserver.main import serve
from chunkserver.settings import ChunkserverSettings
from curve_py.errors import (
    ConflictError,
    CurveError,
    InvalidError,
    UnavailableError,
)
from curve_py.proto import chunkserver_pb2 as pb
from curve_py.proto import common_pb2
from curve_py.proto.chunkserver_pb2_grpc import ChunkserverAdminStub
from curve_py.service.channel import AsyncSignedChannel
from curve_py.service.rpc_errors import from_rpc_error

SECRET = b"k" * 32
STORE = b"\x01" * 16


class Shell:
    """One chunkserver whose metaservers do not exist."""

    def __init__(self, native: Any, directory: Path) -> None:
        import socket

        with socket.socket() as admin, socket.socket() as http:
            admin.bind(("127.0.0.1", 0))
            http.bind(("127.0.0.1", 0))
            self.admin = f"127.0.0.1:{admin.getsockname()[1]}"
            self.http = f"127.0.0.1:{http.getsockname()[1]}"
        self.native = native
        self.stop = asyncio.Event()
        settings = ChunkserverSettings(
            secret_file=directory / "secret",
            store_path=directory,
            data_listen="127.0.0.1:9000",
            admin_listen=self.admin,
            http_listen=self.http,
            metaservers=["127.0.0.1:1"],
            heartbeat_interval_ms=50,
        )
        self.task = asyncio.create_task(
            serve(settings, SECRET, native, "127.0.0.1:9000", self.stop)
        )
        self._channel = AsyncSignedChannel(self.admin, SECRET)
        self.stub: Any = ChunkserverAdminStub(self._channel)

    async def call(self, method: str, request: Any) -> Any:
        while True:
            try:
                return await getattr(self.stub, method)(request, timeout=20)
            except grpc.RpcError as error:
                failed = from_rpc_error(error, self.admin)
                if not isinstance(failed, UnavailableError) or self.task.done():
                    raise failed from None
            await asyncio.sleep(0.02)  # it has not started yet

    async def close(self) -> None:
        self.stop.set()
        await self._channel.close()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def shell(make_store: Any, tmp_path: Path) -> AsyncIterator[Shell]:
    made = Shell(make_store(STORE, b"c" * 16), tmp_path)
    yield made
    await made.close()


def genesis(copyset: int, *voters: bytes) -> pb.CopysetGenesis:
    return pb.CopysetGenesis(copyset_id=copyset, voters=voters, preferred_leader=voters[0])


async def test_it_serves_without_any_metaserver(shell: Shell) -> None:
    status = await shell.call("GetStoreStatus", pb.GetStoreStatusRequest())
    assert status.store_id == STORE
    assert status.report.usage.capacity_bytes == 1 << 40
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"http://{shell.http}/healthz")).status_code == 200
        text = (await http.get(f"http://{shell.http}/metrics")).text
    assert "curve_chunkserver_capacity_bytes" in text
    assert 'curve_rpc_calls_total{method="GetStoreStatus",outcome="ok"} 1.0' in text


async def test_orders_reach_the_store(shell: Shell) -> None:
    form = pb.FormCopysetsRequest(
        store_id=STORE, copysets=[genesis(5, STORE, b"o" * 16), genesis(6, b"o" * 16, STORE)]
    )
    assert list((await shell.call("FormCopysets", form)).copyset_ids) == [5, 6]
    fence = pb.FenceVolumeRequest(
        store_id=STORE,
        volume_id=7,
        floor_epoch=2,
        ceiling_epoch=4,
        revoked_epochs=[3],
        copyset_ids=[5, 6],
    )
    outcome = await shell.call("FenceVolume", fence)
    assert list(outcome.applied_copyset_ids) == [5]
    hints = [(hint.copyset_id, hint.leader_store_id) for hint in outcome.not_leader]
    assert hints == [(6, b"o" * 16)]
    assert shell.native.fences == {(5, 7): (2, 4, [3])}
    delete = pb.DeleteVolumeData(store_id=STORE, volume_id=7, copyset_ids=[5, 6])
    assert list((await shell.call("DeleteVolume", delete)).applied_copyset_ids) == [5]
    assert shell.native.deleted == {(5, 7)}


async def test_member_orders_reach_the_store(shell: Shell) -> None:
    other = b"o" * 16
    form = pb.FormCopysetsRequest(
        store_id=STORE, copysets=[genesis(5, STORE, other), genesis(6, other, STORE)]
    )
    await shell.call("FormCopysets", form)
    join = pb.JoinCopysetsRequest(store_id=STORE, copyset_ids=[7, 8])
    assert list((await shell.call("JoinCopysets", join)).copyset_ids) == [7, 8]
    assert shell.native.joined == {7, 8}
    new = b"n" * 16
    change = pb.ChangeMembersRequest(store_id=STORE, copyset_id=5, add_learner=new, voters_min=2)
    done = await shell.call("ChangeMembers", change)
    assert (done.applied, done.busy, done.config_index) == (True, "", 4)
    assert (list(done.voters), list(done.learners)) == ([STORE, other], [new])
    elsewhere = pb.ChangeMembersRequest(store_id=STORE, copyset_id=6, remove=STORE, voters_min=2)
    done = await shell.call("ChangeMembers", elsewhere)
    assert (done.applied, done.leader_store_id) == (False, other)
    assert shell.native.changes == [(5, "add_learner", new, 2), (6, "remove", STORE, 2)]
    transfer = pb.TransferLeaderRequest(store_id=STORE, copyset_id=5, to_store_id=other)
    assert (await shell.call("TransferLeader", transfer)).started
    transfer = pb.TransferLeaderRequest(store_id=STORE, copyset_id=6, to_store_id=STORE)
    answer = await shell.call("TransferLeader", transfer)
    assert (answer.started, answer.leader_store_id) == (False, other)
    remove = pb.RemoveReplicaRequest(store_id=STORE, copyset_id=6, config_index=3, leader_term=9)
    assert not (await shell.call("RemoveReplica", remove)).removed
    remove.config_index = 4
    assert (await shell.call("RemoveReplica", remove)).removed
    assert set(shell.native.formed) == {5}
    limits = pb.SetLimitsRequest(store_id=STORE, sync_bytes_per_second=1 << 20, syncs_at_once=2)
    await shell.call("SetLimits", limits)
    assert shell.native.limits == (1 << 20, 2)


async def test_malformed_member_orders_are_refused(shell: Shell) -> None:
    for method, request in (
        ("ChangeMembers", pb.ChangeMembersRequest(store_id=STORE, copyset_id=5)),
        ("ChangeMembers", pb.ChangeMembersRequest(store_id=STORE, copyset_id=5, promote=b"x")),
        ("TransferLeader", pb.TransferLeaderRequest(store_id=STORE, copyset_id=5)),
        ("JoinCopysets", pb.JoinCopysetsRequest(store_id=STORE, copyset_ids=[0])),
    ):
        with pytest.raises(InvalidError):
            await shell.call(method, request)
    assert shell.native.orders == 0


async def test_an_order_for_another_store_is_refused(shell: Shell) -> None:
    """R1: the address was another store's before."""
    for method, request in (
        ("SetPeers", pb.SetPeersRequest(store_id=b"x" * 16)),
        ("FormCopysets", pb.FormCopysetsRequest(store_id=b"x" * 16)),
        ("FenceVolume", pb.FenceVolumeRequest(store_id=b"x" * 16)),
        ("DeleteVolume", pb.DeleteVolumeData()),
        ("JoinCopysets", pb.JoinCopysetsRequest(store_id=b"x" * 16, copyset_ids=[1])),
        ("ChangeMembers", pb.ChangeMembersRequest(store_id=b"x" * 16, remove=STORE)),
        ("RemoveReplica", pb.RemoveReplicaRequest(store_id=b"x" * 16)),
        ("TransferLeader", pb.TransferLeaderRequest(store_id=b"x" * 16, to_store_id=STORE)),
        ("SetLimits", pb.SetLimitsRequest(store_id=b"x" * 16)),
    ):
        with pytest.raises(ConflictError, match="This is store 01010101"):
            await shell.call(method, request)
    assert shell.native.orders == 0


async def test_a_genesis_without_this_store_is_refused(shell: Shell) -> None:
    for voters in ((b"a" * 16, b"b" * 16), (STORE, STORE)):
        request = pb.FormCopysetsRequest(store_id=STORE, copysets=[genesis(5, *voters)])
        with pytest.raises(InvalidError, match="genesis"):
            await shell.call("FormCopysets", request)
    assert not shell.native.formed


async def test_late_peers_do_not_bring_old_addresses_back(shell: Shell) -> None:
    def peers(version: int, address: str) -> pb.SetPeersRequest:
        peer = pb.Peer(store_id=b"p" * 16, address=address)
        return pb.SetPeersRequest(store_id=STORE, topology_version=version, peers=[peer])

    await shell.call("SetPeers", peers(5, "10.0.0.5:1"))
    answer = await shell.call("SetPeers", peers(4, "10.0.0.4:1"))
    assert answer.topology_version == 5
    assert shell.native.peers == [(b"p" * 16, "10.0.0.5:1")]
    with pytest.raises(InvalidError):
        await shell.call("SetPeers", peers(6, "a-name:1"))


async def test_a_store_out_of_service_is_reported_and_serves_no_order(shell: Shell) -> None:
    await shell.call("GetStoreStatus", pb.GetStoreStatusRequest())
    shell.native._events.append(("Stopped", "The device answered with an error"))
    shell.native._answer("FormDone", [])
    order = pb.FenceVolumeRequest(store_id=STORE, copyset_ids=[1])
    async with asyncio.timeout(20):
        while True:
            try:
                await shell.stub.FenceVolume(order, timeout=20)
            except grpc.RpcError as error:
                failed = from_rpc_error(error, shell.admin)
                if "The device answered" in failed.message:
                    break
            await asyncio.sleep(0.01)
    assert not shell.task.done()  # it goes on, to say why


async def test_an_order_that_the_store_refuses_is_an_error(shell: Shell) -> None:
    shell.native.deaf = True
    call = asyncio.create_task(
        shell.call("FenceVolume", pb.FenceVolumeRequest(store_id=STORE, copyset_ids=[1]))
    )
    async with asyncio.timeout(20):
        while not shell.native.orders:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    shell.native.deaf = False
    shell.native._events.append(("Failed", 1, "busy"))
    shell.native._answer("FormDone", [])
    with pytest.raises(CurveError, match="busy"):
        await call


def test_a_report_takes_ids_in_any_form() -> None:
    made = report.report_for_people(
        {
            "capacity_bytes": 10,
            "used_bytes": 3,
            "copysets": [
                {
                    "id": 1,
                    "role": "leader",
                    "term": 4,
                    "leader": STORE,
                    "peers": [
                        {"store_id": "02020202-0202-0202-0202-020202020202", "lag_entries": 9}
                    ],
                },
                {"id": 2, "role": "unheard of", "leader": None},
                {"id": 3, "role": "follower", "leader": bytes(16)},
            ],
            "counters": {"reads": 7},
        }
    )
    assert made.replicas[0].role == common_pb2.REPLICA_ROLE_LEADER
    assert made.replicas[0].leader_store_id == STORE
    assert made.replicas[0].peers[0].store_id == b"\x02" * 16
    assert made.replicas[0].peers[0].lag_entries == 9
    assert made.replicas[1].role == common_pb2.REPLICA_ROLE_UNSPECIFIED
    assert [r.leader_store_id for r in made.replicas[1:]] == [b"", b""]
    assert '"reads": 7' in made.status_json
