"""Devices of the kernel's nbd (curve_py/client/kernel_nbd.py, native/export/nbd_device.h).

The device is the kernel's, and outlives every agent: what was sent on a connection that has ended
waits for another one. So nothing is with the holder, and an agent that is started after both were
killed takes up its devices too. The record names the device before it is made. Invariant (R13): a
device gets another connection only when nothing is left of what came on the one before: its
process has ended, or its export has (NbdDevice::ended). Thread: see kinds.py.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from curve_py.client import kernel_nbd
from curve_py.errors import BusyError, CurveError, CurveIoError, NotFoundError, UnsupportedError
from curve_py.proto import agent_pb2 as pb
from node_agent.kinds import Keep, Kind
from node_agent.records import Record

_TRIES_MAX = 50
_PAUSE_SECONDS = 0.02


class NbdKind(Kind):
    name = "nbd"
    type = pb.DEVICE_TYPE_NBD

    def path(self, number: int) -> str:
        return kernel_nbd.path_of(number)

    def device_number(self, number: int) -> tuple[int, int]:
        return kernel_nbd.device_number(number)

    def size_bytes(self, number: int) -> int:
        return kernel_nbd.size_bytes(number)

    def identity(self, number: int) -> str:
        return kernel_nbd.identity(number)

    def numbers(self) -> list[int]:
        return []  # a record names each: no strays

    def make(self, record: Record, volume: int, size_bytes: int, keep: Keep) -> tuple[int, Record]:
        if missing := kernel_nbd.missing():
            raise UnsupportedError(missing, "Try: modprobe nbd; see `curve node doctor`.")
        uuid, flags = record.volume_uuid, self._node.nbd_flags(record.read_only)
        for number in kernel_nbd.free_numbers():
            made = replace(record, number=number)
            keep(made)
            try:
                descriptor = kernel_nbd.connect(number, uuid, size_bytes, flags)
                return self._node.nbd_serve(volume, descriptor, record.read_only), made
            except BusyError:  # somebody was quicker
                continue
            except BaseException:
                if kernel_nbd.identity(number) == uuid:
                    self._disconnect(number)
                raise
        raise CurveIoError("Somebody else always takes the nbd device that was free.")

    def why_lost(self, descriptor: int) -> str:
        return ""

    def take_up(self, record: Record, volume: int, descriptor: int) -> int:
        connection = kernel_nbd.reconnect(record.number, record.volume_uuid)
        return self._node.nbd_serve(volume, connection, record.read_only)

    def give_up(self, record: Record, descriptor: int) -> int:
        # It stays, so that its number goes to nobody else while it is mounted somewhere.
        return self.take_up(record, 0, descriptor)

    def cannot_continue(self, export: int) -> str:
        return ""

    def grow(self, export: int, record: Record, size_bytes: int) -> None:
        kernel_nbd.resize(record.number, record.volume_uuid, size_bytes)

    def detach(self, record: Record, force: bool) -> None:
        number, uuid = record.number, record.volume_uuid
        if kernel_nbd.identity(number) != uuid:
            return
        if force:
            self._disconnect(number)
        elif not self._close_last(number, uuid):
            raise BusyError(f"{self.path(number)} is held open.")

    def _close_last(self, number: int, uuid: str) -> bool:
        """The kernel knows who has it open: it goes with the last one, and that is to be us."""
        kernel_nbd.goes_with_last_close(number, uuid, True)
        with contextlib.suppress(BusyError, NotFoundError):
            self._node.open_and_close_device(self.path(number))
            if self._goes(number, uuid):
                kernel_nbd.restore(number)
                return True
        with contextlib.suppress(CurveIoError):  # it may be going just now
            kernel_nbd.goes_with_last_close(number, uuid, False)
        return kernel_nbd.identity(number) != uuid

    def stop(self, export: int) -> None:
        self._node.nbd_stop(export)

    def ended(self, export: int) -> bool:
        return self._node.nbd_ended(export)

    def revive(self, export: int, record: Record, volume: int) -> int:
        if kernel_nbd.identity(record.number) != record.volume_uuid:
            return 0
        try:
            return self.take_up(record, volume, -1)
        except CurveError:  # it was disconnected, and goes with the last one who has it open
            return 0

    def stats(self, export: int) -> dict[str, int]:
        return self._node.nbd_device_stats(export)

    def _goes(self, number: int, uuid: str) -> bool:
        """At once, mostly; unless udev has it open for a moment."""
        for _ in range(_TRIES_MAX):
            if kernel_nbd.identity(number) != uuid:
                return True
            time.sleep(_PAUSE_SECONDS)
        return False

    def _disconnect(self, number: int) -> None:
        with contextlib.suppress(CurveIoError):
            kernel_nbd.disconnect(number)
        kernel_nbd.restore(number)
