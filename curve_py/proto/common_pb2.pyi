from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    ERROR_CODE_NOT_LEADER: _ClassVar[ErrorCode]
    ERROR_CODE_UNAVAILABLE: _ClassVar[ErrorCode]
    ERROR_CODE_BUSY: _ClassVar[ErrorCode]
    ERROR_CODE_NOT_FOUND: _ClassVar[ErrorCode]
    ERROR_CODE_EXISTS: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID: _ClassVar[ErrorCode]
    ERROR_CODE_CONFLICT: _ClassVar[ErrorCode]
    ERROR_CODE_FENCED: _ClassVar[ErrorCode]
    ERROR_CODE_NO_PLACEMENT: _ClassVar[ErrorCode]
    ERROR_CODE_UNAUTHENTICATED: _ClassVar[ErrorCode]
    ERROR_CODE_TIMEOUT: _ClassVar[ErrorCode]
    ERROR_CODE_UNSUPPORTED: _ClassVar[ErrorCode]
    ERROR_CODE_INTERNAL: _ClassVar[ErrorCode]
    ERROR_CODE_NO_SPACE: _ClassVar[ErrorCode]

class ReplicaRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLICA_ROLE_UNSPECIFIED: _ClassVar[ReplicaRole]
    REPLICA_ROLE_FOLLOWER: _ClassVar[ReplicaRole]
    REPLICA_ROLE_CANDIDATE: _ClassVar[ReplicaRole]
    REPLICA_ROLE_LEADER: _ClassVar[ReplicaRole]
    REPLICA_ROLE_LEARNER: _ClassVar[ReplicaRole]
    REPLICA_ROLE_SYNCING: _ClassVar[ReplicaRole]

class MemberRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_ROLE_UNSPECIFIED: _ClassVar[MemberRole]
    MEMBER_ROLE_VOTER: _ClassVar[MemberRole]
    MEMBER_ROLE_LEARNER: _ClassVar[MemberRole]
ERROR_CODE_UNSPECIFIED: ErrorCode
ERROR_CODE_NOT_LEADER: ErrorCode
ERROR_CODE_UNAVAILABLE: ErrorCode
ERROR_CODE_BUSY: ErrorCode
ERROR_CODE_NOT_FOUND: ErrorCode
ERROR_CODE_EXISTS: ErrorCode
ERROR_CODE_INVALID: ErrorCode
ERROR_CODE_CONFLICT: ErrorCode
ERROR_CODE_FENCED: ErrorCode
ERROR_CODE_NO_PLACEMENT: ErrorCode
ERROR_CODE_UNAUTHENTICATED: ErrorCode
ERROR_CODE_TIMEOUT: ErrorCode
ERROR_CODE_UNSUPPORTED: ErrorCode
ERROR_CODE_INTERNAL: ErrorCode
ERROR_CODE_NO_SPACE: ErrorCode
REPLICA_ROLE_UNSPECIFIED: ReplicaRole
REPLICA_ROLE_FOLLOWER: ReplicaRole
REPLICA_ROLE_CANDIDATE: ReplicaRole
REPLICA_ROLE_LEADER: ReplicaRole
REPLICA_ROLE_LEARNER: ReplicaRole
REPLICA_ROLE_SYNCING: ReplicaRole
MEMBER_ROLE_UNSPECIFIED: MemberRole
MEMBER_ROLE_VOTER: MemberRole
MEMBER_ROLE_LEARNER: MemberRole

class ErrorDetail(_message.Message):
    __slots__ = ("code", "message", "remedy", "leader_address", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    LEADER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: ErrorCode
    message: str
    remedy: str
    leader_address: str
    retry_after_ms: int
    def __init__(self, code: _Optional[_Union[ErrorCode, str]] = ..., message: _Optional[str] = ..., remedy: _Optional[str] = ..., leader_address: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class RequestHeader(_message.Message):
    __slots__ = ("protocol_version", "request_id")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    request_id: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StoreUsage(_message.Message):
    __slots__ = ("capacity_bytes", "used_bytes", "wal_capacity_bytes", "wal_used_bytes", "reserved_bytes")
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAL_CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAL_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    capacity_bytes: int
    used_bytes: int
    wal_capacity_bytes: int
    wal_used_bytes: int
    reserved_bytes: int
    def __init__(self, capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., wal_capacity_bytes: _Optional[int] = ..., wal_used_bytes: _Optional[int] = ..., reserved_bytes: _Optional[int] = ...) -> None: ...

class PeerLag(_message.Message):
    __slots__ = ("store_id", "lag_entries", "role", "active", "syncing")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    LAG_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    SYNCING_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    lag_entries: int
    role: MemberRole
    active: bool
    syncing: bool
    def __init__(self, store_id: _Optional[bytes] = ..., lag_entries: _Optional[int] = ..., role: _Optional[_Union[MemberRole, str]] = ..., active: _Optional[bool] = ..., syncing: _Optional[bool] = ...) -> None: ...

class ReplicaReport(_message.Message):
    __slots__ = ("copyset_id", "role", "term", "leader_store_id", "commit_index", "applied_index", "last_index", "peers", "config_index", "config_committed", "damaged", "used_bytes", "sync_bytes_done", "sync_bytes_total")
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_STORE_ID_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFIG_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SYNC_BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    SYNC_BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    copyset_id: int
    role: ReplicaRole
    term: int
    leader_store_id: bytes
    commit_index: int
    applied_index: int
    last_index: int
    peers: _containers.RepeatedCompositeFieldContainer[PeerLag]
    config_index: int
    config_committed: bool
    damaged: bool
    used_bytes: int
    sync_bytes_done: int
    sync_bytes_total: int
    def __init__(self, copyset_id: _Optional[int] = ..., role: _Optional[_Union[ReplicaRole, str]] = ..., term: _Optional[int] = ..., leader_store_id: _Optional[bytes] = ..., commit_index: _Optional[int] = ..., applied_index: _Optional[int] = ..., last_index: _Optional[int] = ..., peers: _Optional[_Iterable[_Union[PeerLag, _Mapping]]] = ..., config_index: _Optional[int] = ..., config_committed: _Optional[bool] = ..., damaged: _Optional[bool] = ..., used_bytes: _Optional[int] = ..., sync_bytes_done: _Optional[int] = ..., sync_bytes_total: _Optional[int] = ...) -> None: ...

class StoreReport(_message.Message):
    __slots__ = ("usage", "replicas", "status_json", "failure")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    STATUS_JSON_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    usage: StoreUsage
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaReport]
    status_json: str
    failure: str
    def __init__(self, usage: _Optional[_Union[StoreUsage, _Mapping]] = ..., replicas: _Optional[_Iterable[_Union[ReplicaReport, _Mapping]]] = ..., status_json: _Optional[str] = ..., failure: _Optional[str] = ...) -> None: ...

class TraceStage(_message.Message):
    __slots__ = ("name", "count", "sum_ns", "max_ns", "bucket_ns", "bucket_counts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUM_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_NS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_NS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_COUNTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: int
    sum_ns: int
    max_ns: int
    bucket_ns: _containers.RepeatedScalarFieldContainer[int]
    bucket_counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., count: _Optional[int] = ..., sum_ns: _Optional[int] = ..., max_ns: _Optional[int] = ..., bucket_ns: _Optional[_Iterable[int]] = ..., bucket_counts: _Optional[_Iterable[int]] = ...) -> None: ...

class StoreTrace(_message.Message):
    __slots__ = ("store_id", "writes", "whole", "stages")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    writes: int
    whole: int
    stages: _containers.RepeatedCompositeFieldContainer[TraceStage]
    def __init__(self, store_id: _Optional[bytes] = ..., writes: _Optional[int] = ..., whole: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[TraceStage, _Mapping]]] = ...) -> None: ...

class ScrubStatus(_message.Message):
    __slots__ = ("store_id", "running", "bytes_per_second", "passes", "started_at_ms", "finished_at_ms", "blocks_done", "blocks_total", "damaged_blocks", "damaged_pages", "chunks_compared", "chunks_differ", "damaged_sectors", "repaired_sectors", "repairs_failed")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_DONE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_PAGES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_COMPARED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_DIFFER_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_SECTORS_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_SECTORS_FIELD_NUMBER: _ClassVar[int]
    REPAIRS_FAILED_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    running: bool
    bytes_per_second: int
    passes: int
    started_at_ms: int
    finished_at_ms: int
    blocks_done: int
    blocks_total: int
    damaged_blocks: int
    damaged_pages: int
    chunks_compared: int
    chunks_differ: int
    damaged_sectors: int
    repaired_sectors: int
    repairs_failed: int
    def __init__(self, store_id: _Optional[bytes] = ..., running: _Optional[bool] = ..., bytes_per_second: _Optional[int] = ..., passes: _Optional[int] = ..., started_at_ms: _Optional[int] = ..., finished_at_ms: _Optional[int] = ..., blocks_done: _Optional[int] = ..., blocks_total: _Optional[int] = ..., damaged_blocks: _Optional[int] = ..., damaged_pages: _Optional[int] = ..., chunks_compared: _Optional[int] = ..., chunks_differ: _Optional[int] = ..., damaged_sectors: _Optional[int] = ..., repaired_sectors: _Optional[int] = ..., repairs_failed: _Optional[int] = ...) -> None: ...

class ReplicaDifference(_message.Message):
    __slots__ = ("store_id", "chunk", "missing", "blocks", "damaged_blocks")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    chunk: int
    missing: bool
    blocks: int
    damaged_blocks: int
    def __init__(self, store_id: _Optional[bytes] = ..., chunk: _Optional[int] = ..., missing: _Optional[bool] = ..., blocks: _Optional[int] = ..., damaged_blocks: _Optional[int] = ...) -> None: ...
