"""What the cluster says about itself, as plain values. Sizes in bytes, times in milliseconds.

Owns: the translation from protocol messages. Pure functions, any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from curve_py.proto import common_pb2 as common
from curve_py.proto import meta_pb2 as pb
from curve_py.types import copyset_text, uuid_text


class AttachMode(StrEnum):
    """What an attachment allows beside itself (R12)."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    READ_ONLY = "read_only"


MODE_TO_PROTO = {
    AttachMode.EXCLUSIVE: pb.ATTACH_MODE_EXCLUSIVE,
    AttachMode.SHARED: pb.ATTACH_MODE_SHARED,
    AttachMode.READ_ONLY: pb.ATTACH_MODE_READ_ONLY,
}
_MODE_FROM_PROTO = {number: mode for mode, number in MODE_TO_PROTO.items()}
_CONTENTS = {
    pb.VOLUME_CONTENT_NEW: "new",
    pb.VOLUME_CONTENT_RAW: "raw",
    pb.VOLUME_CONTENT_EXT4: "ext4",
    pb.VOLUME_CONTENT_XFS: "xfs",
}
_CHUNKSERVER_STATES = {
    pb.CHUNKSERVER_STATE_UP: "up",
    pb.CHUNKSERVER_STATE_DOWN: "down",
    pb.CHUNKSERVER_STATE_GONE: "gone",
    pb.CHUNKSERVER_STATE_FAILED: "failed",
}
_CHUNKSERVER_LIVES = {
    pb.CHUNKSERVER_LIFE_DRAINING: "draining",
    pb.CHUNKSERVER_LIFE_REMOVED: "removed",
}


@dataclass(frozen=True, slots=True)
class AttachmentInfo:
    attachment_id: int
    epoch: int
    mode: AttachMode
    active: bool  # False while its fence is not applied everywhere
    holder: str
    attached_at_ms: int
    node_id: str = ""  # of the node whose agent it is


@dataclass(frozen=True, slots=True)
class PublicationInfo:
    """The permission of a node to attach."""

    node_id: str
    mode: AttachMode
    single_node: bool
    published_at_ms: int


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    volume_id: int
    name: str
    pool: str
    size_bytes: int
    stripe_unit_bytes: int
    stripe_count: int
    created_at_ms: int
    attachments: tuple[AttachmentInfo, ...]
    uuid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    content: str = "unknown"  # new, raw, ext4, xfs; unknown: somebody may have written to it
    publications: tuple[PublicationInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreSpace:
    store_id: str
    allocated_bytes: int | None  # None: the chunkserver did not answer


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    size_bytes: int
    allocated_bytes: int  # on all stores that answered, replicas counted
    stores: tuple[StoreSpace, ...]


@dataclass(frozen=True, slots=True)
class ChunkserverInfo:
    store_id: str
    state: str  # up, down, gone, failed, unknown
    data_address: str
    admin_address: str
    http_address: str
    zone: str
    server: str
    hostname: str
    pid: int
    capacity_bytes: int
    used_bytes: int
    reserved_bytes: int  # set aside for writes that are acknowledged and not yet in their place
    wal_capacity_bytes: int
    wal_used_bytes: int
    replica_count: int
    leader_count: int
    heartbeat_age_ms: int
    life: str  # in_service, draining, removed
    assigned_count: int  # replicas that are to be there, those on their way included
    failure: str  # why its store has failed, or ""

    @property
    def condition(self) -> str:
        """State and life in one word or two, for people."""
        if self.life == "removed":
            return "removed"
        if self.life == "in_service":
            return self.state
        life = "draining" if self.assigned_count else "drained"
        return life if self.state == "up" else f"{self.state}, {life}"


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    store_id: str
    data_address: str
    state: str  # of its chunkserver
    role: str  # leader, follower, candidate, learner, syncing; unknown when not reported
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    lag_entries: int  # as the leader sees it


@dataclass(frozen=True, slots=True)
class CopysetInfo:
    copyset_id: int
    name: str  # pool.index
    leader_store_id: str  # "" when unknown
    leader_address: str
    preferred_store_id: str
    term: int
    replicas: tuple[ReplicaInfo, ...]

    @property
    def lag_entries(self) -> int:
        """The largest lag of a replica."""
        return max((replica.lag_entries for replica in self.replicas), default=0)


@dataclass(frozen=True, slots=True)
class RecoveryInfo:
    """Of all replicas that move."""

    running: int
    queued: int  # kept waiting by the limits
    left_bytes: int
    bytes_per_second: int  # measured over the last half minute
    seconds_left: int | None  # None: not known
    notes: tuple[str, ...]  # what should be done and cannot be


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A replica that goes, or has gone, from one chunkserver to another."""

    task_id: int
    copyset: str  # pool.index
    source_store_id: str
    source_address: str
    target_store_id: str
    target_address: str
    reason: str  # replace, drain, space, domain, balance
    why: str
    step: str  # join, fill, remove, cancel; of an ended one: done, cancelled
    size_bytes: int
    done_bytes: int
    started_at_ms: int
    ended_at_ms: int  # 0: it runs
    cancelled: str  # why it was given up
    seconds_left: int | None
    waits_for: str  # what its step is held up by, or ""


@dataclass(frozen=True, slots=True)
class PassInfo:
    """What a pass of the scheduler decided."""

    at_ms: int
    decisions: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskList:
    running: tuple[TaskInfo, ...]
    ended: tuple[TaskInfo, ...]  # the last ones, oldest first
    passes: tuple[PassInfo, ...]  # oldest first
    progress: RecoveryInfo


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    cluster_id: str
    name: str
    leader_address: str
    chunkservers: tuple[ChunkserverInfo, ...]
    pools: tuple[str, ...]
    volume_count: int
    volume_bytes: int
    attachment_count: int
    deletions_pending: int
    capacity_bytes: int
    used_bytes: int
    copysets_total: int
    copysets_with_leader: int
    copysets_degraded: int
    copysets_at_risk: int
    recovery: RecoveryInfo


def volume_info(message: pb.Volume) -> VolumeInfo:
    return VolumeInfo(
        message.id,
        message.name,
        message.pool_name,
        message.size_bytes,
        message.stripe_unit_bytes,
        message.stripe_count,
        message.created_at_ms,
        tuple(
            AttachmentInfo(
                attachment.id,
                attachment.epoch,
                _MODE_FROM_PROTO[attachment.mode],
                attachment.state == pb.ATTACH_STATE_ACTIVE,
                attachment.holder,
                attachment.attached_at_ms,
                attachment.node_id,
            )
            for attachment in message.attachments
        ),
        message.uuid,
        dict(message.labels),
        _CONTENTS.get(message.content, "unknown"),
        tuple(
            PublicationInfo(
                publication.node_id,
                _MODE_FROM_PROTO[publication.mode],
                publication.single_node,
                publication.published_at_ms,
            )
            for publication in message.publications
        ),
    )


def volume_usage(message: pb.VolumeUsage) -> VolumeUsage:
    stores = tuple(
        StoreSpace(uuid_text(store.store_id), None if store.unreachable else store.allocated_bytes)
        for store in message.stores
    )
    return VolumeUsage(message.size_bytes, message.allocated_bytes, stores)


def chunkserver_info(message: pb.Chunkserver) -> ChunkserverInfo:
    usage = message.usage
    return ChunkserverInfo(
        store_id=uuid_text(message.store_id),
        state=_CHUNKSERVER_STATES.get(message.state, "unknown"),
        data_address=message.data_address,
        admin_address=message.admin_address,
        http_address=message.http_address,
        zone=message.zone,
        server=message.server,
        hostname=message.hostname,
        pid=message.pid,
        capacity_bytes=usage.capacity_bytes or message.capacity_bytes,
        used_bytes=usage.used_bytes,
        reserved_bytes=usage.reserved_bytes,
        wal_capacity_bytes=usage.wal_capacity_bytes,
        wal_used_bytes=usage.wal_used_bytes,
        replica_count=message.replica_count,
        leader_count=message.leader_count,
        heartbeat_age_ms=message.heartbeat_age_ms,
        life=_CHUNKSERVER_LIVES.get(message.life, "in_service"),
        assigned_count=message.assigned_count,
        failure=message.failure,
    )


def copyset_info(message: pb.Copyset) -> CopysetInfo:
    replicas = tuple(_replica_info(replica) for replica in message.replicas)
    leader = uuid_text(message.leader_store_id)
    address = next((r.data_address for r in replicas if r.store_id == leader), "")
    return CopysetInfo(
        message.id,
        copyset_text(message.id),
        leader,
        address,
        uuid_text(message.preferred_leader),
        message.term,
        replicas,
    )


def _replica_info(message: pb.CopysetReplica) -> ReplicaInfo:
    report = message.report
    role = "unknown"
    if message.HasField("report"):
        role = common.ReplicaRole.Name(report.role).removeprefix("REPLICA_ROLE_").lower()
    return ReplicaInfo(
        uuid_text(message.store_id),
        message.data_address,
        _CHUNKSERVER_STATES.get(message.state, "unknown"),
        role,
        report.term,
        report.commit_index,
        report.applied_index,
        report.last_index,
        message.lag_entries,
    )


def cluster_status(message: pb.ClusterStatus) -> ClusterStatus:
    leader = message.leader.leader_address or message.leader.grpc_address
    return ClusterStatus(
        cluster_id=uuid_text(message.cluster.cluster_id),
        name=message.cluster.name,
        leader_address=leader,
        chunkservers=tuple(chunkserver_info(c) for c in message.chunkservers),
        pools=tuple(pool.name for pool in message.pools),
        volume_count=message.volume_count,
        volume_bytes=message.volume_bytes,
        attachment_count=message.attachment_count,
        deletions_pending=message.deletions_pending,
        capacity_bytes=message.capacity_bytes,
        used_bytes=message.used_bytes,
        copysets_total=message.copysets_total,
        copysets_with_leader=message.copysets_with_leader,
        copysets_degraded=message.copysets_degraded,
        copysets_at_risk=message.copysets_at_risk,
        recovery=recovery_info(message.recovery),
    )


def recovery_info(message: pb.RecoveryProgress) -> RecoveryInfo:
    return RecoveryInfo(
        running=message.running,
        queued=message.queued,
        left_bytes=message.left_bytes,
        bytes_per_second=message.bytes_per_second,
        seconds_left=message.seconds_left if message.HasField("seconds_left") else None,
        notes=tuple(message.notes),
    )


def task_list(message: pb.ListTasksResponse) -> TaskList:
    return TaskList(
        running=tuple(_task_info(task) for task in message.running),
        ended=tuple(_task_info(task) for task in message.ended),
        passes=tuple(
            PassInfo(each.at_ms, tuple(each.decisions), tuple(each.notes))
            for each in message.passes
        ),
        progress=recovery_info(message.progress),
    )


def _task_info(message: pb.Task) -> TaskInfo:
    if message.ended_at_ms:
        step = "cancelled" if message.cancelled else "done"
    else:
        step = pb.MoveStep.Name(message.step).removeprefix("MOVE_STEP_").lower()
    return TaskInfo(
        task_id=message.id,
        copyset=copyset_text(message.copyset_id),
        source_store_id=uuid_text(message.source),
        source_address=message.source_address,
        target_store_id=uuid_text(message.target),
        target_address=message.target_address,
        reason=pb.MoveReason.Name(message.reason).removeprefix("MOVE_REASON_").lower(),
        why=message.why,
        step=step,
        size_bytes=message.size_bytes,
        done_bytes=message.done_bytes,
        started_at_ms=message.started_at_ms,
        ended_at_ms=message.ended_at_ms,
        cancelled=message.cancelled,
        seconds_left=message.seconds_left if message.HasField("seconds_left") else None,
        waits_for=message.waits_for,
    )
