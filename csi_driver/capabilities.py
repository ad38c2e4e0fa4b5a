"""Volume capabilities: how a volume is to be used, checked and in our words.

Owns: which access modes there are for file systems and for raw block devices, and which attachment
each needs (R12). Pure functions, any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from csi_driver.failures import invalid
from csi_driver.proto import csi_pb2 as csi
from curve_py.client.records import AttachMode

DEFAULT_FILE_SYSTEM = "ext4"
FILE_SYSTEMS = ("ext4", "xfs")

_Mode = csi.VolumeCapability.AccessMode
_SINGLE_NODE_WRITERS = (
    _Mode.SINGLE_NODE_WRITER,
    _Mode.SINGLE_NODE_SINGLE_WRITER,
    _Mode.SINGLE_NODE_MULTI_WRITER,
)
_READERS = (_Mode.SINGLE_NODE_READER_ONLY, _Mode.MULTI_NODE_READER_ONLY)
_SINGLE_NODE = (*_SINGLE_NODE_WRITERS, _Mode.SINGLE_NODE_READER_ONLY)


@dataclass(frozen=True, slots=True)
class Access:
    """One capability."""

    mode: csi.VolumeCapability.AccessMode.Mode
    file_system: str  # empty: a raw block device
    mount_flags: tuple[str, ...] = ()

    @property
    def is_block(self) -> bool:
        return not self.file_system

    @property
    def reads_only(self) -> bool:
        return self.mode in _READERS

    @property
    def single_node(self) -> bool:
        return self.mode in _SINGLE_NODE

    @property
    def single_writer(self) -> bool:
        """One workload on the node, not only one node."""
        return self.mode == _Mode.SINGLE_NODE_SINGLE_WRITER

    @property
    def mounts_read_only(self) -> bool:
        """By its mount flags, whatever the attachment allows; the last one counts."""
        words = ",".join(self.mount_flags).split(",")
        return [word for word in words if word in ("ro", "rw")][-1:] == ["ro"]

    def attach_mode(self, readonly: bool = False) -> AttachMode:
        if readonly or self.reads_only:
            return AttachMode.READ_ONLY
        return AttachMode.EXCLUSIVE if self.single_node else AttachMode.SHARED

    def text(self) -> str:
        """What must be the same for a volume to serve a request again."""
        kind = f"mount {self.file_system}" if self.file_system else "block"
        return f"{kind} {_Mode.Mode.Name(self.mode)}"


def parse_access(capability: csi.VolumeCapability) -> Access:
    """Raises CsiError (INVALID_ARGUMENT) for what this driver does not do."""
    mode = capability.access_mode.mode
    kind = capability.WhichOneof("access_type")
    if kind is None:
        raise invalid("A volume capability says neither mount nor block.")
    if mode in (_Mode.UNKNOWN, _Mode.MULTI_NODE_SINGLE_WRITER):
        raise invalid(f"The access mode {_mode_name(mode)} is not supported.")
    if mode not in _Mode.Mode.values():
        raise invalid(f"The access mode {mode} is not known.")
    if kind == "block":
        return Access(mode, "")
    if mode == _Mode.MULTI_NODE_MULTI_WRITER:
        raise invalid(
            "A volume is written from many nodes as a raw block device only: ext4 and xfs do not "
            "know of each other."
        )
    file_system = capability.mount.fs_type or DEFAULT_FILE_SYSTEM
    if file_system not in FILE_SYSTEMS:
        raise invalid(f"'{file_system}' is no file system for volumes: ext4 or xfs.")
    flags = tuple(capability.mount.mount_flags)
    for flag in flags:
        if not flag or any(character in flag for character in "\n\0") or flag.startswith("-"):
            raise invalid(f"{flag!r} is no mount flag.")
    return Access(mode, file_system, flags)


def _mode_name(mode: csi.VolumeCapability.AccessMode.Mode) -> str:
    return _Mode.Mode.Name(mode)


def parse_accesses(capabilities: Iterable[csi.VolumeCapability]) -> tuple[Access, ...]:
    """Of a volume; at least one. Raises CsiError."""
    accesses = tuple(parse_access(capability) for capability in capabilities)
    if not accesses:
        raise invalid("The request has no volume capabilities.")
    kinds = {access.file_system for access in accesses}
    if len(kinds - {""}) > 1:
        raise invalid("A volume has one file system, not both ext4 and xfs.")
    return accesses
