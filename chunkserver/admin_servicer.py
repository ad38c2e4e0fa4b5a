"""curve.v1.ChunkserverAdmin: the metaserver's orders, handed to the native store.

Errors are mapped by the guard around it. Thread: the asyncio loop.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from chunkserver.ports import CopysetsDone
from chunkserver.report import leaders, report_for_people
from chunkserver.store import Store
from curve_py.errors import ConflictError, InvalidError, UnavailableError, UnsupportedError
from curve_py.proto import chunkserver_pb2 as pb
from curve_py.proto import common_pb2
from curve_py.proto.chunkserver_pb2_grpc import ChunkserverAdminServicer
from curve_py.types import PROTOCOL_VERSION, TRACE_MS_MAX, uuid_text
from curve_py.volume_map import check_numeric_address


class AdminServicer(ChunkserverAdminServicer):
    """One per process."""

    def __init__(self, store: Store, data_address: str, http_address: str) -> None:
        self._store = store
        self._data_address = data_address
        self._http_address = http_address
        self.topology_version = 0  # of the peers table set in this run

    async def SetPeers(self, request: pb.SetPeersRequest, _: Any) -> pb.SetPeersResponse:
        self._check(request.header, request.store_id)
        for peer in request.peers:
            if len(peer.store_id) != 16:
                raise InvalidError("A store id has 16 bytes.")
            check_numeric_address(peer.address)
        # An order that was overtaken by a newer one must not bring old addresses back.
        if request.topology_version >= self.topology_version:
            mine = self._store.native.store_id
            self._store.native.set_peers(
                [(peer.store_id, peer.address) for peer in request.peers if peer.store_id != mine]
            )
            self.topology_version = request.topology_version
        return pb.SetPeersResponse(topology_version=self.topology_version)

    async def FormCopysets(
        self, request: pb.FormCopysetsRequest, _: Any
    ) -> pb.FormCopysetsResponse:
        self._check(request.header, request.store_id)
        for genesis in request.copysets:
            voters = list(genesis.voters)
            if self._store.native.store_id not in voters or len(set(voters)) != len(voters):
                raise InvalidError("The genesis of a copyset does not name this store once.")
        done = await self._store.form_copysets(
            [
                (
                    genesis.copyset_id,
                    [(voter, "voter") for voter in genesis.voters],
                    genesis.preferred_leader,
                )
                for genesis in request.copysets
            ]
        )
        return pb.FormCopysetsResponse(copyset_ids=done.formed)

    async def FenceVolume(self, request: pb.FenceVolumeRequest, _: Any) -> pb.CopysetOutcome:
        self._check(request.header, request.store_id)
        done = await self._store.fence(
            request.volume_id,
            request.floor_epoch,
            request.ceiling_epoch,
            list(request.revoked_epochs),
            list(request.copyset_ids),
        )
        return self._outcome(done)

    async def DeleteVolume(self, request: pb.DeleteVolumeData, _: Any) -> pb.CopysetOutcome:
        self._check(request.header, request.store_id)
        done = await self._store.delete_volume(request.volume_id, list(request.copyset_ids))
        return self._outcome(done)

    async def GetStoreStatus(self, request: pb.GetStoreStatusRequest, _: Any) -> pb.StoreStatus:
        native = self._store.native
        self._check(request.header, native.store_id)
        return pb.StoreStatus(
            store_id=native.store_id,
            cluster_id=native.cluster_id,
            incarnation=native.incarnation,
            topology_version=self.topology_version,
            report=report_for_people(native.status()),
            data_address=self._data_address,
            http_address=self._http_address,
            pid=os.getpid(),
            hostname=socket.gethostname(),
        )

    async def JoinCopysets(
        self, request: pb.JoinCopysetsRequest, _: Any
    ) -> pb.JoinCopysetsResponse:
        self._check(request.header, request.store_id)
        if 0 in request.copyset_ids:
            raise InvalidError("No copyset has the id 0.")
        done = await self._store.join_copysets(list(request.copyset_ids))
        return pb.JoinCopysetsResponse(copyset_ids=done.formed)

    async def ChangeMembers(
        self, request: pb.ChangeMembersRequest, _: Any
    ) -> pb.ChangeMembersResponse:
        self._check(request.header, request.store_id)
        change = request.WhichOneof("change")
        if change is None:
            raise InvalidError("The request names no change.")
        member = self._member(getattr(request, change))
        done = await self._store.change_members(
            request.copyset_id, change, member, request.voters_min
        )
        return pb.ChangeMembersResponse(
            applied=done.applied,
            leader_store_id=b"" if done.applied else done.leader or b"",
            busy=done.busy,
            config_index=done.config_index,
            voters=done.voters,
            learners=done.learners,
        )

    async def RemoveReplica(
        self, request: pb.RemoveReplicaRequest, _: Any
    ) -> pb.RemoveReplicaResponse:
        self._check(request.header, request.store_id)
        done = await self._store.remove_replica(
            request.copyset_id, request.config_index, request.leader_term
        )
        return pb.RemoveReplicaResponse(removed=done.removed)

    async def TransferLeader(
        self, request: pb.TransferLeaderRequest, _: Any
    ) -> pb.TransferLeaderResponse:
        self._check(request.header, request.store_id)
        done = await self._store.transfer(request.copyset_id, self._member(request.to_store_id))
        leader = done.leader if done.leader != self._store.native.store_id else None
        return pb.TransferLeaderResponse(
            started=done.started, leader_store_id=b"" if done.started else leader or b""
        )

    async def SetLimits(self, request: pb.SetLimitsRequest, _: Any) -> pb.SetLimitsResponse:
        self._check(request.header, request.store_id)
        self._store.native.set_limits(request.sync_bytes_per_second, request.syncs_at_once)
        return pb.SetLimitsResponse()

    @staticmethod
    def _member(store_id: bytes) -> bytes:
        if len(store_id) != 16 or not any(store_id):
            raise InvalidError("A store id has 16 bytes.")
        return store_id

    async def GetVolumeSpace(self, request: pb.GetVolumeSpaceRequest, _: Any) -> pb.VolumeSpace:
        self._check(request.header, request.store_id)
        native = self._store.native
        return pb.VolumeSpace(
            store_id=native.store_id, allocated_bytes=native.mapped_bytes(request.volume_id)
        )

    async def Scrub(self, request: pb.ScrubRequest, _: Any) -> common_pb2.ScrubStatus:
        self._check(request.header, request.store_id)
        native = self._store.native
        if request.start:
            native.scrub(request.bytes_per_second)
        status = native.status()
        answer = common_pb2.ScrubStatus(store_id=native.store_id, **status.get("scrub", {}))
        for name in ("damaged_sectors", "repaired_sectors", "repairs_failed"):
            setattr(answer, name, int(status.get("counters", {}).get(name, 0)))
        return answer

    async def CheckVolume(self, request: pb.CheckVolumeRequest, _: Any) -> pb.CheckVolumeResponse:
        self._check(request.header, request.store_id)
        copysets = request.copysets
        if request.volume_id == 0 or copysets == 0 or copysets & (copysets - 1):
            raise InvalidError("The volume is not named, or the copysets are no power of two.")
        report = (
            await self._store.check(
                request.volume_id,
                request.placement_id,
                request.chunks,
                copysets,
                request.copyset_id,
            )
        ).report
        leader = report["leader"]
        return pb.CheckVolumeResponse(
            led_here=report["code"] not in ("not_leader", "no_copyset"),
            leader_store_id=leader if any(leader) else b"",
            chunks=report["chunks"],
            replicas=report["replicas"],
            differences=[common_pb2.ReplicaDifference(**each) for each in report["differences"]],
            error="" if report["code"] == "ok" else report["code"],
        )

    async def TraceWrites(self, request: pb.TraceWritesRequest, _: Any) -> common_pb2.StoreTrace:
        self._check(request.header, request.store_id)
        if request.volume_id == 0 or not 0 < request.duration_ms <= TRACE_MS_MAX:
            raise InvalidError(
                f"The volume is not named, or the time is not 1 to {TRACE_MS_MAX} ms."
            )
        report = (await self._store.trace(request.volume_id, request.duration_ms)).report
        if report["code"] == "busy":
            raise ConflictError("Another trace runs on this store.", "Wait until it has ended.")
        if report["code"] != "ok":
            raise UnavailableError("The store is about to stop.")
        return common_pb2.StoreTrace(
            store_id=request.store_id,
            writes=report["writes"],
            whole=report["whole"],
            stages=[
                common_pb2.TraceStage(
                    name=name,
                    count=numbers[0],
                    sum_ns=numbers[1],
                    max_ns=numbers[2],
                    bucket_ns=numbers[3::2],
                    bucket_counts=numbers[4::2],
                )
                for name, numbers in report["stages"].items()
            ],
        )

    def _check(self, header: common_pb2.RequestHeader, store_id: bytes) -> None:
        """R1: an order is for one store, not for whoever listens at its address."""
        if header.protocol_version > PROTOCOL_VERSION:
            raise UnsupportedError(
                f"The request has protocol version {header.protocol_version}; this chunkserver "
                f"speaks {PROTOCOL_VERSION}."
            )
        mine = self._store.native.store_id
        if store_id != mine:
            raise ConflictError(
                f"This is store {uuid_text(mine)}, not {uuid_text(store_id) or 'none'}."
            )

    def _outcome(self, done: CopysetsDone) -> pb.CopysetOutcome:
        outcome = pb.CopysetOutcome(
            applied_copyset_ids=done.applied, no_space_copyset_ids=done.no_space
        )
        if done.not_leader:
            known = leaders(self._store.native.status())
            for copyset_id in done.not_leader:
                outcome.not_leader.add(
                    copyset_id=copyset_id, leader_store_id=known.get(copyset_id, b"")
                )
        return outcome
