from curve_py.proto import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Peer(_message.Message):
    __slots__ = ("store_id", "address")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    address: str
    def __init__(self, store_id: _Optional[bytes] = ..., address: _Optional[str] = ...) -> None: ...

class SetPeersRequest(_message.Message):
    __slots__ = ("header", "store_id", "topology_version", "peers")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    topology_version: int
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., topology_version: _Optional[int] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class SetPeersResponse(_message.Message):
    __slots__ = ("topology_version",)
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    topology_version: int
    def __init__(self, topology_version: _Optional[int] = ...) -> None: ...

class CopysetGenesis(_message.Message):
    __slots__ = ("copyset_id", "voters", "preferred_leader")
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_LEADER_FIELD_NUMBER: _ClassVar[int]
    copyset_id: int
    voters: _containers.RepeatedScalarFieldContainer[bytes]
    preferred_leader: bytes
    def __init__(self, copyset_id: _Optional[int] = ..., voters: _Optional[_Iterable[bytes]] = ..., preferred_leader: _Optional[bytes] = ...) -> None: ...

class FormCopysetsRequest(_message.Message):
    __slots__ = ("header", "store_id", "copysets")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    COPYSETS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    copysets: _containers.RepeatedCompositeFieldContainer[CopysetGenesis]
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., copysets: _Optional[_Iterable[_Union[CopysetGenesis, _Mapping]]] = ...) -> None: ...

class FormCopysetsResponse(_message.Message):
    __slots__ = ("copyset_ids",)
    COPYSET_IDS_FIELD_NUMBER: _ClassVar[int]
    copyset_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, copyset_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class FenceVolumeRequest(_message.Message):
    __slots__ = ("header", "store_id", "volume_id", "floor_epoch", "ceiling_epoch", "revoked_epochs", "copyset_ids")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    FLOOR_EPOCH_FIELD_NUMBER: _ClassVar[int]
    CEILING_EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVOKED_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    COPYSET_IDS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    volume_id: int
    floor_epoch: int
    ceiling_epoch: int
    revoked_epochs: _containers.RepeatedScalarFieldContainer[int]
    copyset_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., volume_id: _Optional[int] = ..., floor_epoch: _Optional[int] = ..., ceiling_epoch: _Optional[int] = ..., revoked_epochs: _Optional[_Iterable[int]] = ..., copyset_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class DeleteVolumeData(_message.Message):
    __slots__ = ("header", "store_id", "volume_id", "copyset_ids")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    COPYSET_IDS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    volume_id: int
    copyset_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., volume_id: _Optional[int] = ..., copyset_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class CopysetLeaderHint(_message.Message):
    __slots__ = ("copyset_id", "leader_store_id")
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_STORE_ID_FIELD_NUMBER: _ClassVar[int]
    copyset_id: int
    leader_store_id: bytes
    def __init__(self, copyset_id: _Optional[int] = ..., leader_store_id: _Optional[bytes] = ...) -> None: ...

class CopysetOutcome(_message.Message):
    __slots__ = ("applied_copyset_ids", "not_leader", "no_space_copyset_ids")
    APPLIED_COPYSET_IDS_FIELD_NUMBER: _ClassVar[int]
    NOT_LEADER_FIELD_NUMBER: _ClassVar[int]
    NO_SPACE_COPYSET_IDS_FIELD_NUMBER: _ClassVar[int]
    applied_copyset_ids: _containers.RepeatedScalarFieldContainer[int]
    not_leader: _containers.RepeatedCompositeFieldContainer[CopysetLeaderHint]
    no_space_copyset_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, applied_copyset_ids: _Optional[_Iterable[int]] = ..., not_leader: _Optional[_Iterable[_Union[CopysetLeaderHint, _Mapping]]] = ..., no_space_copyset_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class GetStoreStatusRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ...) -> None: ...

class StoreStatus(_message.Message):
    __slots__ = ("store_id", "cluster_id", "incarnation", "topology_version", "report", "data_address", "http_address", "pid", "hostname")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    DATA_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    cluster_id: bytes
    incarnation: int
    topology_version: int
    report: _common_pb2.StoreReport
    data_address: str
    http_address: str
    pid: int
    hostname: str
    def __init__(self, store_id: _Optional[bytes] = ..., cluster_id: _Optional[bytes] = ..., incarnation: _Optional[int] = ..., topology_version: _Optional[int] = ..., report: _Optional[_Union[_common_pb2.StoreReport, _Mapping]] = ..., data_address: _Optional[str] = ..., http_address: _Optional[str] = ..., pid: _Optional[int] = ..., hostname: _Optional[str] = ...) -> None: ...

class GetVolumeSpaceRequest(_message.Message):
    __slots__ = ("header", "store_id", "volume_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    volume_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., volume_id: _Optional[int] = ...) -> None: ...

class VolumeSpace(_message.Message):
    __slots__ = ("store_id", "allocated_bytes")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    allocated_bytes: int
    def __init__(self, store_id: _Optional[bytes] = ..., allocated_bytes: _Optional[int] = ...) -> None: ...

class JoinCopysetsRequest(_message.Message):
    __slots__ = ("header", "store_id", "copyset_ids")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    COPYSET_IDS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    copyset_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., copyset_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class JoinCopysetsResponse(_message.Message):
    __slots__ = ("copyset_ids",)
    COPYSET_IDS_FIELD_NUMBER: _ClassVar[int]
    copyset_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, copyset_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ChangeMembersRequest(_message.Message):
    __slots__ = ("header", "store_id", "copyset_id", "add_learner", "promote", "remove", "prefer", "voters_min")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    ADD_LEARNER_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    PREFER_FIELD_NUMBER: _ClassVar[int]
    VOTERS_MIN_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    copyset_id: int
    add_learner: bytes
    promote: bytes
    remove: bytes
    prefer: bytes
    voters_min: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., copyset_id: _Optional[int] = ..., add_learner: _Optional[bytes] = ..., promote: _Optional[bytes] = ..., remove: _Optional[bytes] = ..., prefer: _Optional[bytes] = ..., voters_min: _Optional[int] = ...) -> None: ...

class ChangeMembersResponse(_message.Message):
    __slots__ = ("applied", "leader_store_id", "busy", "config_index", "voters", "learners")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    LEADER_STORE_ID_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    CONFIG_INDEX_FIELD_NUMBER: _ClassVar[int]
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    applied: bool
    leader_store_id: bytes
    busy: str
    config_index: int
    voters: _containers.RepeatedScalarFieldContainer[bytes]
    learners: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, applied: _Optional[bool] = ..., leader_store_id: _Optional[bytes] = ..., busy: _Optional[str] = ..., config_index: _Optional[int] = ..., voters: _Optional[_Iterable[bytes]] = ..., learners: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RemoveReplicaRequest(_message.Message):
    __slots__ = ("header", "store_id", "copyset_id", "config_index", "leader_term")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LEADER_TERM_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    copyset_id: int
    config_index: int
    leader_term: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., copyset_id: _Optional[int] = ..., config_index: _Optional[int] = ..., leader_term: _Optional[int] = ...) -> None: ...

class RemoveReplicaResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: bool
    def __init__(self, removed: _Optional[bool] = ...) -> None: ...

class TransferLeaderRequest(_message.Message):
    __slots__ = ("header", "store_id", "copyset_id", "to_store_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    TO_STORE_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    copyset_id: int
    to_store_id: bytes
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., copyset_id: _Optional[int] = ..., to_store_id: _Optional[bytes] = ...) -> None: ...

class TransferLeaderResponse(_message.Message):
    __slots__ = ("started", "leader_store_id")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    LEADER_STORE_ID_FIELD_NUMBER: _ClassVar[int]
    started: bool
    leader_store_id: bytes
    def __init__(self, started: _Optional[bool] = ..., leader_store_id: _Optional[bytes] = ...) -> None: ...

class SetLimitsRequest(_message.Message):
    __slots__ = ("header", "store_id", "sync_bytes_per_second", "syncs_at_once")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    SYNC_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SYNCS_AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    sync_bytes_per_second: int
    syncs_at_once: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., sync_bytes_per_second: _Optional[int] = ..., syncs_at_once: _Optional[int] = ...) -> None: ...

class SetLimitsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ScrubRequest(_message.Message):
    __slots__ = ("header", "store_id", "start", "bytes_per_second")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    start: bool
    bytes_per_second: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., start: _Optional[bool] = ..., bytes_per_second: _Optional[int] = ...) -> None: ...

class TraceWritesRequest(_message.Message):
    __slots__ = ("header", "store_id", "volume_id", "duration_ms")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    volume_id: int
    duration_ms: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., volume_id: _Optional[int] = ..., duration_ms: _Optional[int] = ...) -> None: ...

class CheckVolumeRequest(_message.Message):
    __slots__ = ("header", "store_id", "volume_id", "placement_id", "chunks", "copysets", "copyset_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    COPYSETS_FIELD_NUMBER: _ClassVar[int]
    COPYSET_ID_FIELD_NUMBER: _ClassVar[int]
    header: _common_pb2.RequestHeader
    store_id: bytes
    volume_id: int
    placement_id: int
    chunks: int
    copysets: int
    copyset_id: int
    def __init__(self, header: _Optional[_Union[_common_pb2.RequestHeader, _Mapping]] = ..., store_id: _Optional[bytes] = ..., volume_id: _Optional[int] = ..., placement_id: _Optional[int] = ..., chunks: _Optional[int] = ..., copysets: _Optional[int] = ..., copyset_id: _Optional[int] = ...) -> None: ...

class CheckVolumeResponse(_message.Message):
    __slots__ = ("led_here", "leader_store_id", "chunks", "replicas", "differences", "error")
    LED_HERE_FIELD_NUMBER: _ClassVar[int]
    LEADER_STORE_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    led_here: bool
    leader_store_id: bytes
    chunks: int
    replicas: int
    differences: _containers.RepeatedCompositeFieldContainer[_common_pb2.ReplicaDifference]
    error: str
    def __init__(self, led_here: _Optional[bool] = ..., leader_store_id: _Optional[bytes] = ..., chunks: _Optional[int] = ..., replicas: _Optional[int] = ..., differences: _Optional[_Iterable[_Union[_common_pb2.ReplicaDifference, _Mapping]]] = ..., error: _Optional[str] = ...) -> None: ...
