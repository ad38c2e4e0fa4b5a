"""curve.v1.MetaService: parse, call the service, convert. Errors are mapped by the guard around it.

Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

from curve_py.errors import ConflictError, FencedError, InvalidError, NotFoundError
from curve_py.proto import meta_pb2 as pb
from curve_py.proto.meta_pb2_grpc import MetaServiceServicer
from curve_py.types import CHUNK_BYTES, TRACE_MS_MAX
from metaserver.bootstrap import Member
from metaserver.domain import commands as cmd
from metaserver.domain.entities import (
    Chunkserver,
    ChunkserverLife,
    Deleted,
    Detached,
    Volume,
    VolumeContent,
)
from metaserver.domain.ports import RaftNode
from metaserver.domain.scheduler import Tables
from metaserver.domain.state import MetaState
from metaserver.entrypoints import convert, convert_tasks
from metaserver.service.health import ReportOrder
from metaserver.service.inspections import Inspections
from metaserver.service.journal import Journal
from metaserver.service.metaserver import ATTACH_SECONDS, DEFAULT_POOL, Metaserver, now_ms

_ROLES = {
    "follower": pb.NODE_ROLE_FOLLOWER,
    "candidate": pb.NODE_ROLE_CANDIDATE,
    "leader": pb.NODE_ROLE_LEADER,
    "learner": pb.NODE_ROLE_LEARNER,
}
_LIST_DEFAULT = 1000
_LIST_MAX = 10_000
# Messages made before other work gets its turn.
_MESSAGES_PER_SLICE = 200
_HOLDER_CHARACTERS_MAX = 256


class MetaServicer(MetaServiceServicer):
    """One per process."""

    def __init__(
        self,
        metaserver: Metaserver,
        journal: Journal,
        inspections: Inspections,
        node: RaftNode,
        node_id: bytes,
        members: Sequence[Member],
        grpc_address: str,
        http_address: str,
    ) -> None:
        self._meta = metaserver
        self._replicator = metaserver.replicator
        self._health = metaserver.health
        self._journal = journal
        self._inspections = inspections
        self._node = node
        self._node_id = node_id
        self._members = members
        self._grpc_address = grpc_address
        self._http_address = http_address

    # --- Cluster --------------------------------------------------------------------------------

    async def GetNodeStatus(self, request: pb.GetNodeStatusRequest, _: Any) -> pb.NodeStatus:
        convert.check_header(request.header)
        return self._node_status()

    async def GetClusterInfo(self, request: pb.GetClusterInfoRequest, _: Any) -> pb.ClusterInfo:
        convert.check_header(request.header)
        await self._replicator.read_barrier()
        return self._cluster_info()

    async def GetClusterStatus(
        self, request: pb.GetClusterStatusRequest, _: Any
    ) -> pb.ClusterStatus:
        convert.check_header(request.header)
        state = await self._replicator.read_barrier()
        servers = self._chunkserver_messages(state)
        counts = await asyncio.to_thread(
            convert.count_copysets, Tables.of(state), self._health.heard()
        )
        return pb.ClusterStatus(
            cluster=self._cluster_info(),
            leader=self._node_status(),
            chunkservers=servers,
            pools=[convert.pool_message(state, pool) for pool in state.pools.values()],
            volume_count=len(state.volumes),
            volume_bytes=state.volume_bytes,
            attachment_count=state.attachment_count,
            deletions_pending=len(state.deletions),
            capacity_bytes=sum(server.capacity_bytes for server in servers),
            used_bytes=sum(server.usage.used_bytes for server in servers),
            copysets_total=counts.total,
            copysets_with_leader=counts.with_leader,
            copysets_degraded=counts.degraded,
            copysets_at_risk=counts.at_risk,
            recovery=convert_tasks.progress_message(self._journal.progress()),
        )

    def _cluster_info(self) -> pb.ClusterInfo:
        cluster = self._replicator.state.cluster
        info = pb.ClusterInfo(metaservers=self._member_messages({}))
        if cluster is not None:
            info.cluster_id = cluster.cluster_id
            info.name = cluster.name
            info.created_at_ms = cluster.created_at_ms
        return info

    def _node_status(self) -> pb.NodeStatus:
        view = self._node.status()
        replicator = self._replicator
        state = replicator.state
        return pb.NodeStatus(
            node_id=self._node_id,
            role=_ROLES.get(view.role, pb.NODE_ROLE_UNSPECIFIED),
            term=view.term,
            leader_node_id=replicator.leader_id or b"",
            leader_address=replicator.leader_address(),
            cluster_id=state.cluster.cluster_id if state.cluster else b"",
            commit_index=view.commit_index,
            applied_index=replicator.applied_index,
            first_index=view.first_index,
            last_index=view.last_index,
            snapshot_index=replicator.snapshot_index,
            wal_bytes=view.wal_bytes,
            volume_count=len(state.volumes),
            pid=os.getpid(),
            hostname=socket.gethostname(),
            grpc_address=self._grpc_address,
            http_address=self._http_address,
            members=self._member_messages(dict(view.lag_entries)),
        )

    def _member_messages(self, lags: dict[bytes, int]) -> list[pb.MetaserverMember]:
        return [
            pb.MetaserverMember(
                node_id=member.node_id,
                grpc_address=member.grpc_address,
                peer_address=member.peer_address,
                is_leader=member.node_id == self._replicator.leader_id,
                lag_entries=lags.get(member.node_id, 0),
            )
            for member in self._members
        ]

    # --- Chunkservers, pools, copysets ----------------------------------------------------------

    async def RegisterChunkserver(
        self, request: pb.RegisterChunkserverRequest, _: Any
    ) -> pb.RegisterChunkserverResponse:
        convert.check_header(request.header)
        self._replicator.require_leader()
        self._meta.require_cluster(request.cluster_id)
        chunkserver = await self._meta.register_chunkserver(
            Chunkserver(
                store_id=request.store_id,
                data_address=request.data_address,
                admin_address=request.admin_address,
                http_address=request.http_address,
                zone=request.zone,
                server=request.server,
                capacity_bytes=request.capacity_bytes,
                registered_at_ms=0,
            )
        )
        return pb.RegisterChunkserverResponse(
            chunkserver=convert.chunkserver_message(self._health, chunkserver, 0)
        )

    async def Heartbeat(self, request: pb.HeartbeatRequest, _: Any) -> pb.HeartbeatResponse:
        convert.check_header(request.header)
        self._replicator.require_leader()
        self._meta.require_cluster(request.cluster_id)
        state = self._replicator.state
        known = state.chunkservers.get(request.store_id)
        if known is None:
            raise NotFoundError("This chunkserver is not registered.", "Register it first.")
        if known.life is ChunkserverLife.REMOVED:
            raise ConflictError(
                "This chunkserver was removed from the cluster.",
                "Make a new store: a removed one is never let in again.",
            )
        if request.incarnation == 0:
            self._health.check_silent(request.store_id)
        known_number = self._health.record(
            request.store_id,
            request.incarnation,
            request.topology_version,
            request.report,
            request.pid,
            request.hostname,
            ReportOrder(
                request.report_number, request.report_since, tuple(request.gone_copyset_ids)
            ),
        )
        return pb.HeartbeatResponse(
            topology_version=state.counters.topology_version, report_known=known_number
        )

    async def ListChunkservers(
        self, request: pb.ListChunkserversRequest, _: Any
    ) -> pb.ListChunkserversResponse:
        convert.check_header(request.header)
        state = await self._replicator.read_barrier()
        return pb.ListChunkserversResponse(chunkservers=self._chunkserver_messages(state))

    def _chunkserver_messages(self, state: MetaState) -> list[pb.Chunkserver]:
        assigned = convert.count_assigned(state)
        return [
            convert.chunkserver_message(self._health, c, assigned[c.store_id])
            for c in state.chunkservers.values()
        ]

    async def DrainChunkserver(self, request: pb.DrainChunkserverRequest, _: Any) -> pb.Chunkserver:
        return await self._change_life(
            cmd.DrainChunkserver(
                convert.request_id_of(request.header), request.store_id, not request.undrain
            )
        )

    async def RemoveChunkserver(
        self, request: pb.RemoveChunkserverRequest, _: Any
    ) -> pb.Chunkserver:
        return await self._change_life(
            cmd.RemoveChunkserver(convert.request_id_of(request.header), request.store_id)
        )

    async def _change_life(
        self, command: cmd.DrainChunkserver | cmd.RemoveChunkserver
    ) -> pb.Chunkserver:
        result = await self._meta.change(command)
        assert isinstance(result, Chunkserver)
        assigned = convert.count_assigned(self._replicator.state)
        return convert.chunkserver_message(self._health, result, assigned[result.store_id])

    async def ListTasks(self, request: pb.ListTasksRequest, _: Any) -> pb.ListTasksResponse:
        convert.check_header(request.header)
        state = await self._replicator.read_barrier()
        return convert_tasks.tasks_message(state, self._journal)

    async def ScrubStores(self, request: pb.ScrubStoresRequest, _: Any) -> pb.ScrubStoresResponse:
        convert.check_header(request.header)
        return await self._inspections.scrub(
            list(request.store_ids), request.start, request.bytes_per_second
        )

    async def CheckCopyset(self, request: pb.CheckCopysetRequest, _: Any) -> pb.CopysetCheck:
        convert.check_header(request.header)
        _check_reference(request.name, request.volume_id)
        volume = await self._meta.get_volume(request.name, request.volume_id)
        return await self._inspections.check(volume, request.copyset_id)

    async def TraceVolume(self, request: pb.TraceVolumeRequest, _: Any) -> pb.VolumeTrace:
        convert.check_header(request.header)
        _check_reference(request.name, request.volume_id)
        if not 0 < request.duration_ms <= TRACE_MS_MAX:
            raise InvalidError(f"The time of a trace is 1 to {TRACE_MS_MAX} ms.")
        volume = await self._meta.get_volume(request.name, request.volume_id)
        return await self._inspections.trace(volume, request.duration_ms)

    async def CreatePool(self, request: pb.CreatePoolRequest, _: Any) -> pb.Pool:
        pool = await self._meta.create_pool(
            convert.request_id_of(request.header),
            request.name or DEFAULT_POOL,
            request.copyset_count or 64,
            request.replica_count or 3,
            convert.failure_domain_of(request.failure_domain),
        )
        state = self._replicator.state
        return convert.pool_message(state, state.pools[pool.pool_id])

    async def ListPools(self, request: pb.ListPoolsRequest, _: Any) -> pb.ListPoolsResponse:
        convert.check_header(request.header)
        state = await self._replicator.read_barrier()
        return pb.ListPoolsResponse(
            pools=[convert.pool_message(state, pool) for pool in state.pools.values()]
        )

    async def ListCopysets(
        self, request: pb.ListCopysetsRequest, _: Any
    ) -> pb.ListCopysetsResponse:
        convert.check_header(request.header)
        state = await self._replicator.read_barrier()
        answer = pb.ListCopysetsResponse()
        wanted = [
            copyset
            for copyset in state.copysets.values()
            if request.pool_id in (0, copyset.copyset_id >> 32)
            and request.copyset_id in (0, copyset.copyset_id)
        ]
        for number, copyset in enumerate(wanted, 1):
            answer.copysets.append(convert.copyset_message(state, self._health, copyset))
            if number % _MESSAGES_PER_SLICE == 0:
                await asyncio.sleep(0)
        return answer

    # --- Volumes --------------------------------------------------------------------------------

    async def CreateVolume(self, request: pb.CreateVolumeRequest, _: Any) -> pb.Volume:
        result = await self._meta.change(
            cmd.CreateVolume(
                request_id=convert.request_id_of(request.header),
                at_ms=now_ms(),
                name=request.name,
                pool_name=request.pool_name or DEFAULT_POOL,
                size_bytes=request.size_bytes,
                stripe_unit_bytes=request.stripe_unit_bytes or CHUNK_BYTES,
                stripe_count=request.stripe_count or 1,
                labels=tuple(sorted(request.labels.items())),
                content=VolumeContent.NEW,
            )
        )
        assert isinstance(result, Volume)
        return convert.volume_message(self._replicator.state, result)

    async def GetVolume(self, request: pb.GetVolumeRequest, _: Any) -> pb.Volume:
        convert.check_header(request.header)
        _check_reference(request.name, request.volume_id)
        volume = await self._meta.get_volume(request.name, request.volume_id)
        return convert.volume_message(self._replicator.state, volume)

    async def ListVolumes(self, request: pb.ListVolumesRequest, _: Any) -> pb.ListVolumesResponse:
        convert.check_header(request.header)
        limit = min(request.limit or _LIST_DEFAULT, _LIST_MAX)
        volumes = await self._meta.list_volumes(request.after_volume_id, limit)
        state = self._replicator.state
        answer = pb.ListVolumesResponse()
        for number, volume in enumerate(volumes, 1):
            answer.volumes.append(convert.volume_message(state, volume))
            if number % _MESSAGES_PER_SLICE == 0:
                await asyncio.sleep(0)
        if len(volumes) == limit:
            answer.next_after_volume_id = volumes[-1].volume_id
        return answer

    async def ResizeVolume(self, request: pb.ResizeVolumeRequest, _: Any) -> pb.Volume:
        _check_reference(request.name, request.volume_id)
        result = await self._meta.change(
            cmd.ResizeVolume(
                request_id=convert.request_id_of(request.header),
                name=request.name,
                volume_id=request.volume_id,
                size_bytes=request.size_bytes,
            )
        )
        assert isinstance(result, Volume)
        return convert.volume_message(self._replicator.state, result)

    async def DeleteVolume(
        self, request: pb.DeleteVolumeRequest, _: Any
    ) -> pb.DeleteVolumeResponse:
        _check_reference(request.name, request.volume_id)
        result = await self._meta.change(
            cmd.DeleteVolume(
                request_id=convert.request_id_of(request.header),
                name=request.name,
                volume_id=request.volume_id,
                force=request.force,
            )
        )
        assert isinstance(result, Deleted)
        return pb.DeleteVolumeResponse(volume_id=result.volume_id)

    async def GetVolumeUsage(self, request: pb.GetVolumeUsageRequest, _: Any) -> pb.VolumeUsage:
        convert.check_header(request.header)
        _check_reference(request.name, request.volume_id)
        volume = await self._meta.get_volume(request.name, request.volume_id)
        space = await self._meta.volume_space(volume)
        return pb.VolumeUsage(
            volume_id=volume.volume_id,
            size_bytes=volume.size_bytes,
            allocated_bytes=sum(size or 0 for size in space.values()),
            stores=[
                pb.StoreSpace(store_id=store, allocated_bytes=size or 0, unreachable=size is None)
                for store, size in space.items()
            ],
        )

    # --- Attachments (R12) ----------------------------------------------------------------------

    async def AttachVolume(
        self, request: pb.AttachVolumeRequest, context: Any
    ) -> pb.AttachVolumeResponse:
        _check_reference(request.name, request.volume_id)
        if not request.holder or len(request.holder) > _HOLDER_CHARACTERS_MAX:
            raise InvalidError(
                f"An attach names its holder in 1 to {_HOLDER_CHARACTERS_MAX} characters."
            )
        command = cmd.AttachVolume(
            request_id=convert.request_id_of(request.header),
            at_ms=now_ms(),
            name=request.name,
            volume_id=request.volume_id,
            mode=convert.mode_of(request.mode),
            holder=request.holder,
            refuse_when_attached=request.refuse_when_attached,
            node_id=request.node_id,
            published=request.published,
            continues=request.continues_attachment_id,
        )
        answer = await self._meta.attach(command, _seconds_left(context))
        return pb.AttachVolumeResponse(
            attachment=convert.attachment_message(answer.volume, answer.attachment),
            map=convert.map_message(self._meta.encode_map(answer.volume, answer.attachment)),
            fenced=[convert.attachment_message(answer.volume, a) for a in answer.fenced],
        )

    async def DetachVolume(
        self, request: pb.DetachVolumeRequest, _: Any
    ) -> pb.DetachVolumeResponse:
        result = await self._meta.detach(
            cmd.DetachVolume(
                request_id=convert.request_id_of(request.header),
                volume_id=request.volume_id,
                attachment_id=request.attachment_id,
            )
        )
        assert isinstance(result, Detached)
        return pb.DetachVolumeResponse(was_attached=result.was_attached)

    async def RegisterNode(self, request: pb.RegisterNodeRequest, _: Any) -> pb.Node:
        command = cmd.RegisterNode(
            request_id=convert.request_id_of(request.header),
            at_ms=now_ms(),
            node_id=request.node_id,
            zone=request.zone,
            volumes_max=request.volumes_max,
        )
        return convert.node_message(await self._meta.register_node(command))

    async def ListNodes(self, request: pb.ListNodesRequest, _: Any) -> pb.ListNodesResponse:
        convert.check_header(request.header)
        state = await self._replicator.read_barrier()
        return pb.ListNodesResponse(nodes=[convert.node_message(n) for n in state.nodes.values()])

    async def PublishVolume(self, request: pb.PublishVolumeRequest, _: Any) -> pb.Volume:
        _check_reference("", request.volume_id)
        await self._meta.change(
            cmd.PublishVolume(
                request_id=convert.request_id_of(request.header),
                at_ms=now_ms(),
                volume_id=request.volume_id,
                node_id=request.node_id,
                mode=convert.mode_of(request.mode),
                single_node=request.single_node,
            )
        )
        volume = await self._meta.get_volume("", request.volume_id)
        return convert.volume_message(self._replicator.state, volume)

    async def UnpublishVolume(
        self, request: pb.UnpublishVolumeRequest, context: Any
    ) -> pb.UnpublishVolumeResponse:
        _check_reference("", request.volume_id)
        command = cmd.UnpublishVolume(
            request_id=convert.request_id_of(request.header),
            volume_id=request.volume_id,
            node_id=request.node_id,
        )
        result = await self._meta.unpublish(command, _seconds_left(context))
        return pb.UnpublishVolumeResponse(was_published=result.was_published)

    async def SetVolumeContent(self, request: pb.SetVolumeContentRequest, _: Any) -> pb.Volume:
        _check_reference("", request.volume_id)
        result = await self._meta.change(
            cmd.SetVolumeContent(
                request_id=convert.request_id_of(request.header),
                volume_id=request.volume_id,
                content=convert.content_of(request.content),
            )
        )
        assert isinstance(result, Volume)
        return convert.volume_message(self._replicator.state, result)

    async def GetVolumeMap(self, request: pb.GetVolumeMapRequest, _: Any) -> pb.VolumeMap:
        convert.check_header(request.header)
        return convert.map_message(
            await self._meta.volume_map(request.volume_id, request.attachment_id)
        )

    async def WatchVolumeMap(
        self, request: pb.WatchVolumeMapRequest, _: Any
    ) -> AsyncIterator[pb.VolumeMapEvent]:
        convert.check_header(request.header)
        maps = self._meta.watch_map(
            request.volume_id, request.attachment_id, request.known_map_version
        )
        try:
            async for encoded in maps:
                yield pb.VolumeMapEvent(map=convert.map_message(encoded))
        except FencedError as error:
            yield pb.VolumeMapEvent(lost=pb.AttachmentLost(reason=error.message))


def _check_reference(name: str, volume_id: int) -> None:
    if not name and not volume_id:
        raise InvalidError("The request names no volume.")


def _seconds_left(context: Any) -> float:
    """A little less than the caller waits, so that it gets an answer and not a deadline."""
    left = context.time_remaining()
    return ATTACH_SECONDS if left is None else max(0.05, left - 0.1)
