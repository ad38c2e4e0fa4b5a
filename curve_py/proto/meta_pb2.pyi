from curve_py.proto import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_ROLE_UNSPECIFIED: _ClassVar[NodeRole]
    NODE_ROLE_FOLLOWER: _ClassVar[NodeRole]
    NODE_ROLE_CANDIDATE: _ClassVar[NodeRole]
    NODE_ROLE_LEADER: _ClassVar[NodeRole]
    NODE_ROLE_LEARNER: _ClassVar[NodeRole]

class ChunkserverState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHUNKSERVER_STATE_UNSPECIFIED: _ClassVar[ChunkserverState]
    CHUNKSERVER_STATE_UP: _ClassVar[ChunkserverState]
    CHUNKSERVER_STATE_DOWN: _ClassVar[ChunkserverState]
    CHUNKSERVER_STATE_GONE: _ClassVar[ChunkserverState]
    CHUNKSERVER_STATE_FAILED: _ClassVar[ChunkserverState]

class ChunkserverLife(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHUNKSERVER_LIFE_UNSPECIFIED: _ClassVar[ChunkserverLife]
    CHUNKSERVER_LIFE_IN_SERVICE: _ClassVar[ChunkserverLife]
    CHUNKSERVER_LIFE_DRAINING: _ClassVar[ChunkserverLife]
    CHUNKSERVER_LIFE_REMOVED: _ClassVar[ChunkserverLife]

class PoolState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POOL_STATE_UNSPECIFIED: _ClassVar[PoolState]
    POOL_STATE_FORMING: _ClassVar[PoolState]
    POOL_STATE_READY: _ClassVar[PoolState]

class MoveReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOVE_REASON_UNSPECIFIED: _ClassVar[MoveReason]
    MOVE_REASON_REPLACE: _ClassVar[MoveReason]
    MOVE_REASON_DRAIN: _ClassVar[MoveReason]
    MOVE_REASON_SPACE: _ClassVar[MoveReason]
    MOVE_REASON_DOMAIN: _ClassVar[MoveReason]
    MOVE_REASON_BALANCE: _ClassVar[MoveReason]

class MoveStep(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOVE_STEP_UNSPECIFIED: _ClassVar[MoveStep]
    MOVE_STEP_JOIN: _ClassVar[MoveStep]
    MOVE_STEP_FILL: _ClassVar[MoveStep]
    MOVE_STEP_REMOVE: _ClassVar[MoveStep]
    MOVE_STEP_CANCEL: _ClassVar[MoveStep]

class AttachMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTACH_MODE_UNSPECIFIED: _ClassVar[AttachMode]
    ATTACH_MODE_EXCLUSIVE: _ClassVar[AttachMode]
    ATTACH_MODE_SHARED: _ClassVar[AttachMode]
    ATTACH_MODE_READ_ONLY: _ClassVar[AttachMode]

class AttachState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTACH_STATE_UNSPECIFIED: _ClassVar[AttachState]
    ATTACH_STATE_PENDING: _ClassVar[AttachState]
    ATTACH_STATE_ACTIVE: _ClassVar[AttachState]

class VolumeContent(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VOLUME_CONTENT_UNSPECIFIED: _ClassVar[VolumeContent]
    VOLUME_CONTENT_NEW: _ClassVar[VolumeContent]
    VOLUME_CONTENT_RAW: _ClassVar[VolumeContent]
    VOLUME_CONTENT_EXT4: _ClassVar[VolumeContent]
    VOLUME_CONTENT_XFS: _ClassVar[VolumeContent]
NODE_ROLE_UNSPECIFIED: NodeRole
NODE_ROLE_FOLLOWER: NodeRole
NODE_ROLE_CANDIDATE: NodeRole
NODE_ROLE_LEADER: NodeRole
NODE_ROLE_LEARNER: NodeRole
CHUNKSERVER_STATE_UNSPECIFIED: ChunkserverState
CHUNKSERVER_STATE_UP: ChunkserverState
CHUNKSERVER_STATE_DOWN: ChunkserverState
CHUNKSERVER_STATE_GONE: ChunkserverState
CHUNKSERVER_STATE_FAILED: ChunkserverState
CHUNKSERVER_LIFE_UNSPECIFIED: ChunkserverLife
CHUNKSERVER_LIFE_IN_SERVICE: ChunkserverLife
CHUNKSERVER_LIFE_DRAINING: ChunkserverLife
CHUNKSERVER_LIFE_REMOVED: ChunkserverLife
POOL_STATE_UNSPECIFIED: PoolState
POOL_STATE_FORMING: PoolState
POOL_STATE_READY: PoolState
MOVE_REASON_UNSPECIFIED: MoveReason
MOVE_REASON_REPLACE: MoveReason
MOVE_REASON_DRAIN: MoveReason
MOVE_REASON_SPACE: MoveReason
MOVE_REASON_DOMAIN: MoveReason
MOVE_REASON_BALANCE: MoveReason
MOVE_STEP_UNSPECIFIED: MoveStep
MOVE_STEP_JOIN: MoveStep
MOVE_STEP_FILL: MoveStep
MOVE_STEP_REMOVE: MoveStep
MOVE_STEP_CANCEL: MoveStep
ATTACH_MODE_UNSPECIFIED: AttachMode
ATTACH_MODE_EXCLUSIVE: AttachMode
ATTACH_MODE_SHARED: AttachMode
ATTACH_MODE_READ_ONLY: AttachMode
ATTACH_STATE_UNSPECIFIED: AttachState
ATTACH_STATE_PENDING: AttachState
ATTACH_STATE_ACTIVE: AttachState
VOLUME_CONTENT_UNSPECIFIED: VolumeContent
VOLUME_CONTENT_NEW: VolumeContent
VOLUME_CONTENT_RAW: VolumeContent
VOLUME_CONTENT_EXT4: VolumeContent
VOLUME_CONTENT_XFS: VolumeContent

class GetNodeStatusRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node_id", "role", "term", "leader_node_id", "leader_address", "cluster_id", "commit_index", "applied_index", "first_index", "last_index", "snapshot_index", "wal_bytes", "volume_count", "pid", "hostname", "grpc_address", "http_address", "members")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_INDEX_FIELD_NUMBER: _ClassVar[int]
    WAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    VOLUME_COUNT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    role: NodeRole
    term: int
    leader_node_id: bytes
    leader_address: str
    cluster_id: bytes
    commit_index: int
    applied_index: int
    first_index: int
    last_index: int
    snapshot_index: int
    wal_bytes: int
    volume_count: int
    pid: int
    hostname: str
    grpc_address: str
    http_address: str
    members: _containers.RepeatedCompositeFieldContainer[MetaserverMember]
    def __init__(self, node_id: _Optional[bytes] = ..., role: _Optional[_Union[NodeRole, str]] = ..., term: _Optional[int] = ..., leader_node_id: _Optional[bytes] = ..., leader_address: _Optional[str] = ..., cluster_id: _Optional[bytes] = ..., commit_index: _Optional[int] = ..., applied_index: _Optional[int] = ..., first_index: _Optional[int] = ..., last_index: _Optional[int] = ..., snapshot_index: _Optional[int] = ..., wal_bytes: _Optional[int] = ..., volume_count: _Optional[int] = ..., pid: _Optional[int] = ..., hostname: _Optional[str] = ..., grpc_address: _Optional[str] = ..., http_address: _Optional[str] = ..., members: _Optional[_Iterable[_Union[MetaserverMember, _Mapping]]] = ...) -> None: ...

class MetaserverMember(_message.Message):
    __slots__ = ("node_id", "grpc_address", "peer_address", "is_leader", "lag_entries")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IS_LEADER_FIELD_NUMBER: _ClassVar[int]
    LAG_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    grpc_address: str
    peer_address: str
    is_leader: bool
    lag_entries: int
    def __init__(self, node_id: _Optional[bytes] = ..., grpc_address: _Optional[str] = ..., peer_address: _Optional[str] = ..., is_leader: _Optional[bool] = ..., lag_entries: _Optional[int] = ...) -> None: ...

class GetClusterInfoRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ...) -> None: ...

class ClusterInfo(_message.Message):
    __slots__ = ("cluster_id", "name", "created_at_ms", "metaservers")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    METASERVERS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    name: str
    created_at_ms: int
    metaservers: _containers.RepeatedCompositeFieldContainer[MetaserverMember]
    def __init__(self, cluster_id: _Optional[bytes] = ..., name: _Optional[str] = ..., created_at_ms: _Optional[int] = ..., metaservers: _Optional[_Iterable[_Union[MetaserverMember, _Mapping]]] = ...) -> None: ...

class GetClusterStatusRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ...) -> None: ...

class ClusterStatus(_message.Message):
    __slots__ = ("cluster", "leader", "chunkservers", "pools", "volume_count", "volume_bytes", "attachment_count", "deletions_pending", "capacity_bytes", "used_bytes", "copysets_total", "copysets_with_leader", "copysets_degraded", "copysets_at_risk", "recovery")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNKSERVERS_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    VOLUME_COUNT_FIELD_NUMBER: _ClassVar[int]
    VOLUME_BYTES_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETIONS_PENDING_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COPYSETS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    COPYSETS_WITH_LEADER_FIELD_NUMBER: _ClassVar[int]
    COPYSETS_DEGRADED_FIELD_NUMBER: _ClassVar[int]
    COPYSETS_AT_RISK_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_FIELD_NUMBER: _ClassVar[int]
    cluster: ClusterInfo
    leader: NodeStatus
    chunkservers: _containers.RepeatedCompositeFieldContainer[Chunkserver]
    pools: _containers.RepeatedCompositeFieldContainer[Pool]
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
    recovery: RecoveryProgress
    def __init__(self, cluster: _Optional[_Union[ClusterInfo, _Mapping]] = ..., leader: _Optional[_Union[NodeStatus, _Mapping]] = ..., chunkservers: _Optional[_Iterable[_Union[Chunkserver, _Mapping]]] = ..., pools: _Optional[_Iterable[_Union[Pool, _Mapping]]] = ..., volume_count: _Optional[int] = ..., volume_bytes: _Optional[int] = ..., attachment_count: _Optional[int] = ..., deletions_pending: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., copysets_total: _Optional[int] = ..., copysets_with_leader: _Optional[int] = ..., copysets_degraded: _Optional[int] = ..., copysets_at_risk: _Optional[int] = ..., recovery: _Optional[_Union[RecoveryProgress, _Mapping]] = ...) -> None: ...

class Chunkserver(_message.Message):
    __slots__ = ("store_id", "data_address", "admin_address", "http_address", "zone", "server", "capacity_bytes", "registered_at_ms", "state", "heartbeat_age_ms", "usage", "replica_count", "leader_count", "incarnation", "pid", "hostname", "life", "assigned_count", "failure")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEADER_COUNT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    data_address: str
    admin_address: str
    http_address: str
    zone: str
    server: str
    capacity_bytes: int
    registered_at_ms: int
    state: ChunkserverState
    heartbeat_age_ms: int
    usage: _common_pb2.StoreUsage
    replica_count: int
    leader_count: int
    incarnation: int
    pid: int
    hostname: str
    life: ChunkserverLife
    assigned_count: int
    failure: str
    def __init__(self, store_id: _Optional[bytes] = ..., data_address: _Optional[str] = ..., admin_address: _Optional[str] = ..., http_address: _Optional[str] = ..., zone: _Optional[str] = ..., server: _Optional[str] = ..., capacity_bytes: _Optional[int] = ..., registered_at_ms: _Optional[int] = ..., state: _Optional[_Union[ChunkserverState, str]] = ..., heartbeat_age_ms: _Optional[int] = ..., usage: _Optional[_Union[_common_pb2.StoreUsage, _Mapping]] = ..., replica_count: _Optional[int] = ..., leader_count: _Optional[int] = ..., incarnation: _Optional[int] = ..., pid: _Optional[int] = ..., hostname: _Optional[str] = ..., life: _Optional[_Union[ChunkserverLife, str]] = ..., assigned_count: _Optional[int] = ..., failure: _Optional[str] = ...) -> None: ...

class DrainChunkserverRequest(_message.Message):
    __slots__ = ("header", "store_id", "undrain")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    UNDRAIN_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    undrain: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., undrain: _Optional[bool] = ...) -> None: ...

class RemoveChunkserverRequest(_message.Message):
    __slots__ = ("header", "store_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ...) -> None: ...

class RegisterChunkserverRequest(_message.Message):
    __slots__ = ("header", "cluster_id", "store_id", "data_address", "admin_address", "http_address", "zone", "server", "capacity_bytes")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    cluster_id: bytes
    store_id: bytes
    data_address: str
    admin_address: str
    http_address: str
    zone: str
    server: str
    capacity_bytes: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., cluster_id: _Optional[bytes] = ..., store_id: _Optional[bytes] = ..., data_address: _Optional[str] = ..., admin_address: _Optional[str] = ..., http_address: _Optional[str] = ..., zone: _Optional[str] = ..., server: _Optional[str] = ..., capacity_bytes: _Optional[int] = ...) -> None: ...

class RegisterChunkserverResponse(_message.Message):
    __slots__ = ("chunkserver",)
    CHUNKSERVER_FIELD_NUMBER: _ClassVar[int]
    chunkserver: Chunkserver
    def __init__(self, chunkserver: _Optional[_Union[Chunkserver, _Mapping]] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("header", "cluster_id", "store_id", "incarnation", "topology_version", "report", "pid", "hostname", "report_number", "report_since", "gone_copyset_ids")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    REPORT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    REPORT_SINCE_FIELD_NUMBER: _ClassVar[int]
    GONE_COPYSET_IDS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    cluster_id: bytes
    store_id: bytes
    incarnation: int
    topology_version: int
    report: _common_pb2.StoreReport
    pid: int
    hostname: str
    report_number: int
    report_since: int
    gone_copyset_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., cluster_id: _Optional[bytes] = ..., store_id: _Optional[bytes] = ..., incarnation: _Optional[int] = ..., topology_version: _Optional[int] = ..., report: _Optional[_Union[_common_pb2.StoreReport, _Mapping]] = ..., pid: _Optional[int] = ..., hostname: _Optional[str] = ..., report_number: _Optional[int] = ..., report_since: _Optional[int] = ..., gone_copyset_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("topology_version", "report_known")
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_KNOWN_FIELD_NUMBER: _ClassVar[int]
    topology_version: int
    report_known: int
    def __init__(self, topology_version: _Optional[int] = ..., report_known: _Optional[int] = ...) -> None: ...

class ListChunkserversRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ...) -> None: ...

class ListChunkserversResponse(_message.Message):
    __slots__ = ("chunkservers",)
    CHUNKSERVERS_FIELD_NUMBER: _ClassVar[int]
    chunkservers: _containers.RepeatedCompositeFieldContainer[Chunkserver]
    def __init__(self, chunkservers: _Optional[_Iterable[_Union[Chunkserver, _Mapping]]] = ...) -> None: ...

class Pool(_message.Message):
    __slots__ = ("id", "name", "copyset_count", "replica_count", "state", "created_at_ms", "volume_count", "store_ids")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    COPYSET_COUNT_FIELD_NUMBER: _ClassVar[int]
    REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    VOLUME_COUNT_FIELD_NUMBER: _ClassVar[int]
    STORE_IDS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    copyset_count: int
    replica_count: int
    state: PoolState
    created_at_ms: int
    volume_count: int
    store_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., copyset_count: _Optional[int] = ..., replica_count: _Optional[int] = ..., state: _Optional[_Union[PoolState, str]] = ..., created_at_ms: _Optional[int] = ..., volume_count: _Optional[int] = ..., store_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CreatePoolRequest(_message.Message):
    __slots__ = ("header", "name", "copyset_count", "replica_count", "failure_domain")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    COPYSET_COUNT_FIELD_NUMBER: _ClassVar[int]
    REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    name: str
    copyset_count: int
    replica_count: int
    failure_domain: str
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., name: _Optional[str] = ..., copyset_count: _Optional[int] = ..., replica_count: _Optional[int] = ..., failure_domain: _Optional[str] = ...) -> None: ...

class ListPoolsRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ...) -> None: ...

class ListPoolsResponse(_message.Message):
    __slots__ = ("pools",)
    POOLS_FIELD_NUMBER: _ClassVar[int]
    pools: _containers.RepeatedCompositeFieldContainer[Pool]
    def __init__(self, pools: _Optional[_Iterable[_Union[Pool, _Mapping]]] = ...) -> None: ...

class CopysetReplica(_message.Message):
    __slots__ = ("store_id", "data_address", "state", "report", "lag_entries")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    LAG_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    data_address: str
    state: ChunkserverState
    report: _common_pb2.ReplicaReport
    lag_entries: int
    def __init__(self, store_id: _Optional[bytes] = ..., data_address: _Optional[str] = ..., state: _Optional[_Union[ChunkserverState, str]] = ..., report: _Optional[_Union[_common_pb2.ReplicaReport, _Mapping]] = ..., lag_entries: _Optional[int] = ...) -> None: ...

class Copyset(_message.Message):
    __slots__ = ("id", "pool_id", "replicas", "preferred_leader", "leader_store_id", "term", "version")
    ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_LEADER_FIELD_NUMBER: _ClassVar[int]
    LEADER_STORE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    id: int
    pool_id: int
    replicas: _containers.RepeatedCompositeFieldContainer[CopysetReplica]
    preferred_leader: bytes
    leader_store_id: bytes
    term: int
    version: int
    def __init__(self, id: _Optional[int] = ..., pool_id: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[CopysetReplica, _Mapping]]] = ..., preferred_leader: _Optional[bytes] = ..., leader_store_id: _Optional[bytes] = ..., term: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class ListCopysetsRequest(_message.Message):
    __slots__ = ("header", "pool_id", "copyset_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    pool_id: int
    copyset_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., pool_id: _Optional[int] = ..., copyset_id: _Optional[int] = ...) -> None: ...

class ListCopysetsResponse(_message.Message):
    __slots__ = ("copysets",)
    COPYSETS_FIELD_NUMBER: _ClassVar[int]
    copysets: _containers.RepeatedCompositeFieldContainer[Copyset]
    def __init__(self, copysets: _Optional[_Iterable[_Union[Copyset, _Mapping]]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "copyset_id", "source", "target", "source_address", "target_address", "reason", "why", "step", "size_bytes", "done_bytes", "started_at_ms", "ended_at_ms", "cancelled", "seconds_left", "waits_for")
    ID_FIELD_NUMBER: _ClassVar[int]
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TARGET_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    id: int
    copyset_id: int
    source: bytes
    target: bytes
    source_address: str
    target_address: str
    reason: MoveReason
    why: str
    step: MoveStep
    size_bytes: int
    done_bytes: int
    started_at_ms: int
    ended_at_ms: int
    cancelled: str
    seconds_left: int
    waits_for: str
    def __init__(self, id: _Optional[int] = ..., copyset_id: _Optional[int] = ..., source: _Optional[bytes] = ..., target: _Optional[bytes] = ..., source_address: _Optional[str] = ..., target_address: _Optional[str] = ..., reason: _Optional[_Union[MoveReason, str]] = ..., why: _Optional[str] = ..., step: _Optional[_Union[MoveStep, str]] = ..., size_bytes: _Optional[int] = ..., done_bytes: _Optional[int] = ..., started_at_ms: _Optional[int] = ..., ended_at_ms: _Optional[int] = ..., cancelled: _Optional[str] = ..., seconds_left: _Optional[int] = ..., waits_for: _Optional[str] = ...) -> None: ...

class SchedulerPass(_message.Message):
    __slots__ = ("at_ms", "decisions", "notes")
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    at_ms: int
    decisions: _containers.RepeatedScalarFieldContainer[str]
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, at_ms: _Optional[int] = ..., decisions: _Optional[_Iterable[str]] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class RecoveryProgress(_message.Message):
    __slots__ = ("running", "queued", "left_bytes", "bytes_per_second", "seconds_left", "notes")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    LEFT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    running: int
    queued: int
    left_bytes: int
    bytes_per_second: int
    seconds_left: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, running: _Optional[int] = ..., queued: _Optional[int] = ..., left_bytes: _Optional[int] = ..., bytes_per_second: _Optional[int] = ..., seconds_left: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ...) -> None: ...

class ListTasksResponse(_message.Message):
    __slots__ = ("running", "ended", "passes", "progress")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    running: _containers.RepeatedCompositeFieldContainer[Task]
    ended: _containers.RepeatedCompositeFieldContainer[Task]
    passes: _containers.RepeatedCompositeFieldContainer[SchedulerPass]
    progress: RecoveryProgress
    def __init__(self, running: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., ended: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., passes: _Optional[_Iterable[_Union[SchedulerPass, _Mapping]]] = ..., progress: _Optional[_Union[RecoveryProgress, _Mapping]] = ...) -> None: ...

class ScrubStoresRequest(_message.Message):
    __slots__ = ("header", "store_ids", "start", "bytes_per_second")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_IDS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_ids: _containers.RepeatedScalarFieldContainer[bytes]
    start: bool
    bytes_per_second: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_ids: _Optional[_Iterable[bytes]] = ..., start: _Optional[bool] = ..., bytes_per_second: _Optional[int] = ...) -> None: ...

class UnreachableStore(_message.Message):
    __slots__ = ("store_id", "data_address", "message")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    data_address: str
    message: str
    def __init__(self, store_id: _Optional[bytes] = ..., data_address: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ScrubStoresResponse(_message.Message):
    __slots__ = ("stores", "unreachable")
    STORES_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    stores: _containers.RepeatedCompositeFieldContainer[_common_pb2.ScrubStatus]
    unreachable: _containers.RepeatedCompositeFieldContainer[UnreachableStore]
    def __init__(self, stores: _Optional[_Iterable[_Union[_common_pb2.ScrubStatus, _Mapping]]] = ..., unreachable: _Optional[_Iterable[_Union[UnreachableStore, _Mapping]]] = ...) -> None: ...

class CheckCopysetRequest(_message.Message):
    __slots__ = ("header", "name", "volume_id", "copyset_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    name: str
    volume_id: int
    copyset_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., name: _Optional[str] = ..., volume_id: _Optional[int] = ..., copyset_id: _Optional[int] = ...) -> None: ...

class TraceVolumeRequest(_message.Message):
    __slots__ = ("header", "name", "volume_id", "duration_ms")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    name: str
    volume_id: int
    duration_ms: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., name: _Optional[str] = ..., volume_id: _Optional[int] = ..., duration_ms: _Optional[int] = ...) -> None: ...

class VolumeTrace(_message.Message):
    __slots__ = ("stores", "unreachable")
    STORES_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    stores: _containers.RepeatedCompositeFieldContainer[_common_pb2.StoreTrace]
    unreachable: _containers.RepeatedCompositeFieldContainer[UnreachableStore]
    def __init__(self, stores: _Optional[_Iterable[_Union[_common_pb2.StoreTrace, _Mapping]]] = ..., unreachable: _Optional[_Iterable[_Union[UnreachableStore, _Mapping]]] = ...) -> None: ...

class CopysetCheck(_message.Message):
    __slots__ = ("copyset_id", "chunks", "replicas", "differences", "error")
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    copyset_id: int
    chunks: int
    replicas: int
    differences: _containers.RepeatedCompositeFieldContainer[_common_pb2.ReplicaDifference]
    error: str
    def __init__(self, copyset_id: _Optional[int] = ..., chunks: _Optional[int] = ..., replicas: _Optional[int] = ..., differences: _Optional[_Iterable[_Union[_common_pb2.ReplicaDifference, _Mapping]]] = ..., error: _Optional[str] = ...) -> None: ...

class Attachment(_message.Message):
    __slots__ = ("id", "volume_id", "epoch", "mode", "state", "holder", "attached_at_ms", "node_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    volume_id: int
    epoch: int
    mode: AttachMode
    state: AttachState
    holder: str
    attached_at_ms: int
    node_id: str
    def __init__(self, id: _Optional[int] = ..., volume_id: _Optional[int] = ..., epoch: _Optional[int] = ..., mode: _Optional[_Union[AttachMode, str]] = ..., state: _Optional[_Union[AttachState, str]] = ..., holder: _Optional[str] = ..., attached_at_ms: _Optional[int] = ..., node_id: _Optional[str] = ...) -> None: ...

class Publication(_message.Message):
    __slots__ = ("node_id", "mode", "single_node", "published_at_ms")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SINGLE_NODE_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    mode: AttachMode
    single_node: bool
    published_at_ms: int
    def __init__(self, node_id: _Optional[str] = ..., mode: _Optional[_Union[AttachMode, str]] = ..., single_node: _Optional[bool] = ..., published_at_ms: _Optional[int] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("id", "name", "pool_id", "pool_name", "size_bytes", "stripe_unit_bytes", "stripe_count", "placement_id", "created_at_ms", "version", "attachments", "uuid", "labels", "content", "publications")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STRIPE_UNIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STRIPE_COUNT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    PUBLICATIONS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    pool_id: int
    pool_name: str
    size_bytes: int
    stripe_unit_bytes: int
    stripe_count: int
    placement_id: int
    created_at_ms: int
    version: int
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    uuid: str
    labels: _containers.ScalarMap[str, str]
    content: VolumeContent
    publications: _containers.RepeatedCompositeFieldContainer[Publication]
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., pool_id: _Optional[int] = ..., pool_name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., stripe_unit_bytes: _Optional[int] = ..., stripe_count: _Optional[int] = ..., placement_id: _Optional[int] = ..., created_at_ms: _Optional[int] = ..., version: _Optional[int] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ..., uuid: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., content: _Optional[_Union[VolumeContent, str]] = ..., publications: _Optional[_Iterable[_Union[Publication, _Mapping]]] = ...) -> None: ...

class CreateVolumeRequest(_message.Message):
    __slots__ = ("header", "name", "size_bytes", "pool_name", "stripe_unit_bytes", "stripe_count", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    POOL_NAME_FIELD_NUMBER: _ClassVar[int]
    STRIPE_UNIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STRIPE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    name: str
    size_bytes: int
    pool_name: str
    stripe_unit_bytes: int
    stripe_count: int
    labels: _containers.ScalarMap[str, str]
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., pool_name: _Optional[str] = ..., stripe_unit_bytes: _Optional[int] = ..., stripe_count: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GetVolumeRequest(_message.Message):
    __slots__ = ("header", "name", "volume_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    name: str
    volume_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., name: _Optional[str] = ..., volume_id: _Optional[int] = ...) -> None: ...

class ListVolumesRequest(_message.Message):
    __slots__ = ("header", "after_volume_id", "limit")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    AFTER_VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    after_volume_id: int
    limit: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., after_volume_id: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListVolumesResponse(_message.Message):
    __slots__ = ("volumes", "next_after_volume_id")
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    volumes: _containers.RepeatedCompositeFieldContainer[Volume]
    next_after_volume_id: int
    def __init__(self, volumes: _Optional[_Iterable[_Union[Volume, _Mapping]]] = ..., next_after_volume_id: _Optional[int] = ...) -> None: ...

class ResizeVolumeRequest(_message.Message):
    __slots__ = ("header", "name", "volume_id", "size_bytes")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    name: str
    volume_id: int
    size_bytes: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., name: _Optional[str] = ..., volume_id: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class DeleteVolumeRequest(_message.Message):
    __slots__ = ("header", "name", "volume_id", "force")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    name: str
    volume_id: int
    force: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., name: _Optional[str] = ..., volume_id: _Optional[int] = ..., force: _Optional[bool] = ...) -> None: ...

class DeleteVolumeResponse(_message.Message):
    __slots__ = ("volume_id",)
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    def __init__(self, volume_id: _Optional[int] = ...) -> None: ...

class GetVolumeUsageRequest(_message.Message):
    __slots__ = ("header", "name", "volume_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    name: str
    volume_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., name: _Optional[str] = ..., volume_id: _Optional[int] = ...) -> None: ...

class StoreSpace(_message.Message):
    __slots__ = ("store_id", "allocated_bytes", "unreachable")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    allocated_bytes: int
    unreachable: bool
    def __init__(self, store_id: _Optional[bytes] = ..., allocated_bytes: _Optional[int] = ..., unreachable: _Optional[bool] = ...) -> None: ...

class VolumeUsage(_message.Message):
    __slots__ = ("volume_id", "size_bytes", "allocated_bytes", "stores")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORES_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    size_bytes: int
    allocated_bytes: int
    stores: _containers.RepeatedCompositeFieldContainer[StoreSpace]
    def __init__(self, volume_id: _Optional[int] = ..., size_bytes: _Optional[int] = ..., allocated_bytes: _Optional[int] = ..., stores: _Optional[_Iterable[_Union[StoreSpace, _Mapping]]] = ...) -> None: ...

class AttachVolumeRequest(_message.Message):
    __slots__ = ("header", "name", "volume_id", "mode", "holder", "refuse_when_attached", "node_id", "published", "continues_attachment_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    REFUSE_WHEN_ATTACHED_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    CONTINUES_ATTACHMENT_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    name: str
    volume_id: int
    mode: AttachMode
    holder: str
    refuse_when_attached: bool
    node_id: str
    published: bool
    continues_attachment_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., name: _Optional[str] = ..., volume_id: _Optional[int] = ..., mode: _Optional[_Union[AttachMode, str]] = ..., holder: _Optional[str] = ..., refuse_when_attached: _Optional[bool] = ..., node_id: _Optional[str] = ..., published: _Optional[bool] = ..., continues_attachment_id: _Optional[int] = ...) -> None: ...

class AttachVolumeResponse(_message.Message):
    __slots__ = ("attachment", "map", "fenced")
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    attachment: Attachment
    map: VolumeMap
    fenced: _containers.RepeatedCompositeFieldContainer[Attachment]
    def __init__(self, attachment: _Optional[_Union[Attachment, _Mapping]] = ..., map: _Optional[_Union[VolumeMap, _Mapping]] = ..., fenced: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ...) -> None: ...

class DetachVolumeRequest(_message.Message):
    __slots__ = ("header", "volume_id", "attachment_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    volume_id: int
    attachment_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., volume_id: _Optional[int] = ..., attachment_id: _Optional[int] = ...) -> None: ...

class DetachVolumeResponse(_message.Message):
    __slots__ = ("was_attached",)
    WAS_ATTACHED_FIELD_NUMBER: _ClassVar[int]
    was_attached: bool
    def __init__(self, was_attached: _Optional[bool] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node_id", "zone", "registered_at_ms", "volumes_max")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_MAX_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    zone: str
    registered_at_ms: int
    volumes_max: int
    def __init__(self, node_id: _Optional[str] = ..., zone: _Optional[str] = ..., registered_at_ms: _Optional[int] = ..., volumes_max: _Optional[int] = ...) -> None: ...

class RegisterNodeRequest(_message.Message):
    __slots__ = ("header", "node_id", "zone", "volumes_max")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_MAX_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    node_id: str
    zone: str
    volumes_max: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., node_id: _Optional[str] = ..., zone: _Optional[str] = ..., volumes_max: _Optional[int] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class PublishVolumeRequest(_message.Message):
    __slots__ = ("header", "volume_id", "node_id", "mode", "single_node")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SINGLE_NODE_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    volume_id: int
    node_id: str
    mode: AttachMode
    single_node: bool
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., volume_id: _Optional[int] = ..., node_id: _Optional[str] = ..., mode: _Optional[_Union[AttachMode, str]] = ..., single_node: _Optional[bool] = ...) -> None: ...

class UnpublishVolumeRequest(_message.Message):
    __slots__ = ("header", "volume_id", "node_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    volume_id: int
    node_id: str
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., volume_id: _Optional[int] = ..., node_id: _Optional[str] = ...) -> None: ...

class UnpublishVolumeResponse(_message.Message):
    __slots__ = ("was_published",)
    WAS_PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    was_published: bool
    def __init__(self, was_published: _Optional[bool] = ...) -> None: ...

class SetVolumeContentRequest(_message.Message):
    __slots__ = ("header", "volume_id", "content")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    volume_id: int
    content: VolumeContent
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., volume_id: _Optional[int] = ..., content: _Optional[_Union[VolumeContent, str]] = ...) -> None: ...

class VolumeMap(_message.Message):
    __slots__ = ("volume_id", "map_version", "encoded")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    map_version: int
    encoded: bytes
    def __init__(self, volume_id: _Optional[int] = ..., map_version: _Optional[int] = ..., encoded: _Optional[bytes] = ...) -> None: ...

class GetVolumeMapRequest(_message.Message):
    __slots__ = ("header", "volume_id", "attachment_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    volume_id: int
    attachment_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., volume_id: _Optional[int] = ..., attachment_id: _Optional[int] = ...) -> None: ...

class WatchVolumeMapRequest(_message.Message):
    __slots__ = ("header", "volume_id", "attachment_id", "known_map_version")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_ID_FIELD_NUMBER: _ClassVar[int]
    KNOWN_MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    volume_id: int
    attachment_id: int
    known_map_version: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., volume_id: _Optional[int] = ..., attachment_id: _Optional[int] = ..., known_map_version: _Optional[int] = ...) -> None: ...

class AttachmentLost(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class VolumeMapEvent(_message.Message):
    __slots__ = ("map", "lost")
    MAP_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    map: VolumeMap
    lost: AttachmentLost
    def __init__(self, map: _Optional[_Union[VolumeMap, _Mapping]] = ..., lost: _Optional[_Union[AttachmentLost, _Mapping]] = ...) -> None: ...
