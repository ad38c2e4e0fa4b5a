"""Domain records to published messages and back. Pure; knows both sides. Any thread."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from curve_py.errors import InvalidError, UnsupportedError
from curve_py.proto import common_pb2, meta_pb2
from curve_py.types import PROTOCOL_VERSION, volume_uuid
from metaserver.domain.entities import (
    Attachment,
    AttachMode,
    Chunkserver,
    ChunkserverLife,
    Copyset,
    FailureDomain,
    Node,
    Pool,
    Volume,
    VolumeContent,
)
from metaserver.domain.health_view import StoreState
from metaserver.domain.scheduler import Tables
from metaserver.domain.state import MetaState
from metaserver.service.assess import assess
from metaserver.service.health import Health, Heard
from metaserver.service.metaserver import EncodedMap

_MODES = {
    AttachMode.EXCLUSIVE: meta_pb2.ATTACH_MODE_EXCLUSIVE,
    AttachMode.SHARED: meta_pb2.ATTACH_MODE_SHARED,
    AttachMode.READ_ONLY: meta_pb2.ATTACH_MODE_READ_ONLY,
}
_MODE_OF = {value: mode for mode, value in _MODES.items()}
_CONTENTS = {
    VolumeContent.UNKNOWN: meta_pb2.VOLUME_CONTENT_UNSPECIFIED,
    VolumeContent.NEW: meta_pb2.VOLUME_CONTENT_NEW,
    VolumeContent.RAW: meta_pb2.VOLUME_CONTENT_RAW,
    VolumeContent.EXT4: meta_pb2.VOLUME_CONTENT_EXT4,
    VolumeContent.XFS: meta_pb2.VOLUME_CONTENT_XFS,
}
_CONTENT_OF = {value: content for content, value in _CONTENTS.items()}
_STATES = {
    StoreState.UNKNOWN: meta_pb2.CHUNKSERVER_STATE_UNSPECIFIED,
    StoreState.UP: meta_pb2.CHUNKSERVER_STATE_UP,
    StoreState.DOWN: meta_pb2.CHUNKSERVER_STATE_DOWN,
    StoreState.GONE: meta_pb2.CHUNKSERVER_STATE_GONE,
    StoreState.FAILED: meta_pb2.CHUNKSERVER_STATE_FAILED,
}
_LIVES = {
    ChunkserverLife.IN_SERVICE: meta_pb2.CHUNKSERVER_LIFE_IN_SERVICE,
    ChunkserverLife.DRAINING: meta_pb2.CHUNKSERVER_LIFE_DRAINING,
    ChunkserverLife.REMOVED: meta_pb2.CHUNKSERVER_LIFE_REMOVED,
}


def check_header(header: common_pb2.RequestHeader) -> None:
    """Raises UnsupportedError for a version that this server does not speak."""
    if header.protocol_version > PROTOCOL_VERSION:
        raise UnsupportedError(
            f"The request has protocol version {header.protocol_version}; this metaserver speaks "
            f"{PROTOCOL_VERSION}.",
            "Update the metaservers first.",
        )


def request_id_of(header: common_pb2.RequestHeader) -> bytes:
    """Of a request that changes something (R16). Raises InvalidError."""
    check_header(header)
    if len(header.request_id) != 16:
        raise InvalidError("A request that changes something needs a request id of 16 bytes.")
    return header.request_id


def mode_of(value: meta_pb2.AttachMode) -> AttachMode:
    mode = _MODE_OF.get(value)
    if mode is None:
        raise InvalidError("An attach says whether it is exclusive, shared or read-only.")
    return mode


def content_of(value: meta_pb2.VolumeContent) -> VolumeContent:
    content = _CONTENT_OF.get(value, VolumeContent.UNKNOWN)
    if content in (VolumeContent.UNKNOWN, VolumeContent.NEW):
        raise InvalidError("A volume is marked as raw, ext4 or xfs.")
    return content


def failure_domain_of(text: str) -> FailureDomain | None:
    if not text:
        return None
    try:
        return FailureDomain(text)
    except ValueError:
        raise InvalidError(f"'{text}' is no failure domain: zone, server or chunkserver.") from None


def attachment_message(volume: Volume, attachment: Attachment) -> meta_pb2.Attachment:
    active = volume.is_active(attachment)
    return meta_pb2.Attachment(
        id=attachment.attachment_id,
        volume_id=attachment.volume_id,
        epoch=attachment.epoch,
        mode=_MODES[attachment.mode],
        state=meta_pb2.ATTACH_STATE_ACTIVE if active else meta_pb2.ATTACH_STATE_PENDING,
        holder=attachment.holder,
        attached_at_ms=attachment.attached_at_ms,
        node_id=attachment.node_id,
    )


def node_message(node: Node) -> meta_pb2.Node:
    return meta_pb2.Node(
        node_id=node.node_id,
        zone=node.zone,
        registered_at_ms=node.registered_at_ms,
        volumes_max=node.volumes_max,
    )


def volume_message(state: MetaState, volume: Volume) -> meta_pb2.Volume:
    return meta_pb2.Volume(
        id=volume.volume_id,
        name=volume.name,
        pool_id=volume.pool_id,
        pool_name=state.pools[volume.pool_id].name,
        size_bytes=volume.size_bytes,
        stripe_unit_bytes=volume.stripe_unit_bytes,
        stripe_count=volume.stripe_count,
        placement_id=volume.placement_id,
        created_at_ms=volume.created_at_ms,
        version=volume.version,
        attachments=[attachment_message(volume, a) for a in volume.attachments],
        uuid=volume_uuid(state.cluster.cluster_id, volume.volume_id) if state.cluster else "",
        labels=dict(volume.labels),
        content=_CONTENTS[volume.content],
        publications=[
            meta_pb2.Publication(
                node_id=publication.node_id,
                mode=_MODES[publication.mode],
                single_node=publication.single_node,
                published_at_ms=publication.published_at_ms,
            )
            for publication in volume.publications
        ],
    )


def map_message(encoded: EncodedMap) -> meta_pb2.VolumeMap:
    return meta_pb2.VolumeMap(
        volume_id=encoded.volume_id, map_version=encoded.map_version, encoded=encoded.encoded
    )


def pool_message(state: MetaState, pool: Pool) -> meta_pb2.Pool:
    stores = sorted({store for c in state.copysets_of(pool) for store in state.members_of(c)})
    forming = meta_pb2.POOL_STATE_FORMING if pool.unformed else meta_pb2.POOL_STATE_READY
    return meta_pb2.Pool(
        id=pool.pool_id,
        name=pool.name,
        copyset_count=pool.copyset_count,
        replica_count=pool.replica_count,
        state=forming,
        created_at_ms=pool.created_at_ms,
        volume_count=state.volume_count(pool.pool_id),
        store_ids=stores,
    )


def count_assigned(state: MetaState) -> Counter[bytes]:
    """Replicas by store, those on their way there included."""
    assigned = Counter(s for copyset in state.copysets.values() for s in copyset.replicas)
    assigned.update(move.target for move in state.moves.values())
    return assigned


def chunkserver_message(
    health: Health, chunkserver: Chunkserver, assigned: int
) -> meta_pb2.Chunkserver:
    message = meta_pb2.Chunkserver(
        store_id=chunkserver.store_id,
        data_address=chunkserver.data_address,
        admin_address=chunkserver.admin_address,
        http_address=chunkserver.http_address,
        zone=chunkserver.zone,
        server=chunkserver.server,
        capacity_bytes=chunkserver.capacity_bytes,
        registered_at_ms=chunkserver.registered_at_ms,
        state=_STATES[health.state_of(chunkserver.store_id)],
        heartbeat_age_ms=health.age_ms(chunkserver.store_id),
        life=_LIVES[chunkserver.life],
        assigned_count=assigned,
    )
    heartbeat = health.heartbeat(chunkserver.store_id)
    if heartbeat is not None:
        replicas = heartbeat.replicas.values()
        message.usage.CopyFrom(heartbeat.report.usage)
        message.replica_count = len(replicas)
        message.leader_count = sum(
            replica.role == common_pb2.REPLICA_ROLE_LEADER for replica in replicas
        )
        message.incarnation = heartbeat.incarnation
        message.pid = heartbeat.pid
        message.hostname = heartbeat.hostname
        message.failure = heartbeat.report.failure
    return message


def copyset_message(state: MetaState, health: Health, copyset: Copyset) -> meta_pb2.Copyset:
    message = meta_pb2.Copyset(
        id=copyset.copyset_id,
        pool_id=copyset.copyset_id >> 32,
        preferred_leader=copyset.preferred_leader,
        version=copyset.version,
    )
    leader = health.leader_of(copyset.copyset_id)
    lags: dict[bytes, int] = {}
    if leader is not None:
        message.term, message.leader_store_id = leader
        heartbeat = health.heartbeat(leader[1])
        report = heartbeat.replicas.get(copyset.copyset_id) if heartbeat else None
        lags = {peer.store_id: peer.lag_entries for peer in report.peers} if report else {}
    for store_id in state.members_of(copyset):
        chunkserver = state.chunkservers[store_id]
        replica = message.replicas.add(
            store_id=store_id,
            data_address=chunkserver.data_address,
            state=_STATES[health.state_of(store_id)],
            lag_entries=lags.get(store_id, 0),
        )
        heartbeat = health.heartbeat(store_id)
        report = heartbeat.replicas.get(copyset.copyset_id) if heartbeat else None
        if report is not None:
            replica.report.CopyFrom(report)
    return message


@dataclass(frozen=True, slots=True)
class CopysetCounts:
    total: int
    with_leader: int
    degraded: int  # a replica does not serve, or there is no leader
    at_risk: int  # of these: without a leader, or one more failure away from it


def count_copysets(tables: Tables, heard: Heard) -> CopysetCounts:
    """Tens of ms with thousands of copysets: off the loop, on copies."""
    view = assess(tables, heard)
    with_leader = degraded = at_risk = 0
    for copyset in tables.copysets.values():
        seen = view.copyset(copyset.copyset_id)
        led, replicas = seen.leader is not None, len(copyset.replicas)
        with_leader += led
        if not led or len(seen.healthy) < replicas:
            degraded += 1
            at_risk += not led or len(seen.healthy) <= replicas // 2 + 1
    return CopysetCounts(len(tables.copysets), with_leader, degraded, at_risk)
