"""Loop devices over FUSE files (native/export/fuse_export.h, loop_device.h).

The descriptor of /dev/fuse is what such a device lives by: it is with the holder before the device
exists, and a successor continues with it. Thread: see kinds.py.
"""

from __future__ import annotations

import os
from dataclasses import replace

from curve_py.proto import agent_pb2 as pb
from node_agent.kinds import Keep, Kind
from node_agent.records import Record

_LOOP_MAJOR = 7


class FuseKind(Kind):
    name = "fuse"
    type = pb.DEVICE_TYPE_FUSE

    def path(self, number: int) -> str:
        return f"/dev/loop{number}"

    def device_number(self, number: int) -> tuple[int, int]:
        return _LOOP_MAJOR, number

    def size_bytes(self, number: int) -> int:
        return self._node.loop_size_bytes(number)

    def identity(self, number: int) -> str:
        return self._node.loop_identity(number)

    def numbers(self) -> list[int]:
        entries = os.listdir("/sys/block")
        return [int(e[4:]) for e in entries if e.startswith("loop") and e[4:].isdigit()]

    def make(self, record: Record, volume: int, size_bytes: int, keep: Keep) -> tuple[int, Record]:
        uuid, read_only = record.volume_uuid, record.read_only
        export = self._node.fuse_start(volume, uuid, read_only)
        try:
            self._holder.put(uuid, self._node.fuse_fd(export))
            made = replace(record, number=self._node.fuse_attach(export, uuid, read_only))
            keep(made)
        except BaseException:
            self._node.fuse_stop(export)
            self._holder.drop(uuid)
            raise
        return export, made

    def why_lost(self, descriptor: int) -> str:
        if descriptor < 0:
            return "The agent and its holder were killed, and the device with them."
        return ""

    def take_up(self, record: Record, volume: int, descriptor: int) -> int:
        uuid, read_only = record.volume_uuid, record.read_only
        return self._node.fuse_start(volume, uuid, read_only, descriptor)

    def give_up(self, record: Record, descriptor: int) -> int:
        os.close(descriptor)  # all that waits there fails
        self._holder.drop(record.volume_uuid)
        return 0

    def cannot_continue(self, export: int) -> str:
        if self._node.fuse_can_resend(export):
            return ""
        # What the last agent had not answered would wait for ever: let it fail instead.
        return "The agent was killed, and this kernel cannot ask a new one again."

    def grow(self, export: int, record: Record, size_bytes: int) -> None:
        self._node.fuse_grew(export)
        self._node.loop_grow(record.number)

    def detach(self, record: Record, force: bool) -> None:
        self._node.loop_detach(record.number, record.volume_uuid, force)

    def stop(self, export: int) -> None:
        self._node.fuse_stop(export)

    def ended(self, export: int) -> bool:
        return self._node.fuse_ended(export)

    def revive(self, export: int, record: Record, volume: int) -> int:
        return 0  # the device has gone with its file system

    def stats(self, export: int) -> dict[str, int]:
        return self._node.fuse_stats(export)
