from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeviceType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_TYPE_UNSPECIFIED: _ClassVar[DeviceType]
    DEVICE_TYPE_FUSE: _ClassVar[DeviceType]
    DEVICE_TYPE_NBD: _ClassVar[DeviceType]

class DeviceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_STATE_UNSPECIFIED: _ClassVar[DeviceState]
    DEVICE_STATE_SERVING: _ClassVar[DeviceState]
    DEVICE_STATE_LOST: _ClassVar[DeviceState]
    DEVICE_STATE_STARTING: _ClassVar[DeviceState]
DEVICE_TYPE_UNSPECIFIED: DeviceType
DEVICE_TYPE_FUSE: DeviceType
DEVICE_TYPE_NBD: DeviceType
DEVICE_STATE_UNSPECIFIED: DeviceState
DEVICE_STATE_SERVING: DeviceState
DEVICE_STATE_LOST: DeviceState
DEVICE_STATE_STARTING: DeviceState

class Device(_message.Message):
    __slots__ = ("volume_id", "volume_name", "volume_uuid", "device_type", "device", "major", "minor", "link", "size_bytes", "read_only", "shared", "state", "lost_reason", "attachment_id", "epoch", "attached_at_ms")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_UUID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LOST_REASON_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    volume_name: str
    volume_uuid: str
    device_type: DeviceType
    device: str
    major: int
    minor: int
    link: str
    size_bytes: int
    read_only: bool
    shared: bool
    state: DeviceState
    lost_reason: str
    attachment_id: int
    epoch: int
    attached_at_ms: int
    def __init__(self, volume_id: _Optional[int] = ..., volume_name: _Optional[str] = ..., volume_uuid: _Optional[str] = ..., device_type: _Optional[_Union[DeviceType, str]] = ..., device: _Optional[str] = ..., major: _Optional[int] = ..., minor: _Optional[int] = ..., link: _Optional[str] = ..., size_bytes: _Optional[int] = ..., read_only: _Optional[bool] = ..., shared: _Optional[bool] = ..., state: _Optional[_Union[DeviceState, str]] = ..., lost_reason: _Optional[str] = ..., attachment_id: _Optional[int] = ..., epoch: _Optional[int] = ..., attached_at_ms: _Optional[int] = ...) -> None: ...

class AttachDeviceRequest(_message.Message):
    __slots__ = ("volume_name", "volume_id", "device_type", "read_only", "shared", "steal", "volume_uuid", "published")
    VOLUME_NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    STEAL_FIELD_NUMBER: _ClassVar[int]
    VOLUME_UUID_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    volume_name: str
    volume_id: int
    device_type: DeviceType
    read_only: bool
    shared: bool
    steal: bool
    volume_uuid: str
    published: bool
    def __init__(self, volume_name: _Optional[str] = ..., volume_id: _Optional[int] = ..., device_type: _Optional[_Union[DeviceType, str]] = ..., read_only: _Optional[bool] = ..., shared: _Optional[bool] = ..., steal: _Optional[bool] = ..., volume_uuid: _Optional[str] = ..., published: _Optional[bool] = ...) -> None: ...

class DetachDeviceRequest(_message.Message):
    __slots__ = ("volume_name", "volume_id", "force")
    VOLUME_NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    volume_name: str
    volume_id: int
    force: bool
    def __init__(self, volume_name: _Optional[str] = ..., volume_id: _Optional[int] = ..., force: _Optional[bool] = ...) -> None: ...

class DetachDeviceResponse(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: bool
    def __init__(self, found: _Optional[bool] = ...) -> None: ...

class ListDevicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDevicesResponse(_message.Message):
    __slots__ = ("node_id", "devices")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    def __init__(self, node_id: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ...) -> None: ...

class RefreshDeviceRequest(_message.Message):
    __slots__ = ("volume_name", "volume_id")
    VOLUME_NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    volume_name: str
    volume_id: int
    def __init__(self, volume_name: _Optional[str] = ..., volume_id: _Optional[int] = ...) -> None: ...

class DoctorRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DoctorFinding(_message.Message):
    __slots__ = ("name", "ok", "detail", "remedy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    name: str
    ok: bool
    detail: str
    remedy: str
    def __init__(self, name: _Optional[str] = ..., ok: _Optional[bool] = ..., detail: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class DoctorReport(_message.Message):
    __slots__ = ("node_id", "chosen", "reason", "replaceable", "replaceable_detail", "findings", "version")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REPLACEABLE_FIELD_NUMBER: _ClassVar[int]
    REPLACEABLE_DETAIL_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    chosen: DeviceType
    reason: str
    replaceable: bool
    replaceable_detail: str
    findings: _containers.RepeatedCompositeFieldContainer[DoctorFinding]
    version: str
    def __init__(self, node_id: _Optional[str] = ..., chosen: _Optional[_Union[DeviceType, str]] = ..., reason: _Optional[str] = ..., replaceable: _Optional[bool] = ..., replaceable_detail: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[DoctorFinding, _Mapping]]] = ..., version: _Optional[str] = ...) -> None: ...
