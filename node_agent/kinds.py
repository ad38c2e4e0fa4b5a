"""What types of devices have in common, for Devices: each way to make one of an open volume.

Invariant: everything here blocks for the kernel at most, and runs on threads of its own, never on
the asyncio loop. A kind keeps no state of devices: records, the holder and the kernel do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from curve_py.client.native import VolumeNode
from curve_py.proto import agent_pb2 as pb
from node_agent.handover import Holder
from node_agent.records import Record

# Durable; called before anybody hears of the device.
Keep = Callable[[Record], None]


class Kind(ABC):
    """One type of device. An export is a number of the native node; 0: none."""

    name: ClassVar[str]  # in records
    type: ClassVar[pb.DeviceType]

    def __init__(self, node: VolumeNode, holder: Holder) -> None:
        self._node, self._holder = node, holder

    @abstractmethod
    def path(self, number: int) -> str: ...

    @abstractmethod
    def device_number(self, number: int) -> tuple[int, int]:
        """Major and minor."""

    @abstractmethod
    def size_bytes(self, number: int) -> int:
        """0: there is none."""

    @abstractmethod
    def identity(self, number: int) -> str:
        """The UUID of the volume whose device this is; "" when it is none of ours."""

    @abstractmethod
    def numbers(self) -> list[int]:
        """Of all devices of this type on the machine, whosever they are."""

    @abstractmethod
    def make(self, record: Record, volume: int, size_bytes: int, keep: Keep) -> tuple[int, Record]:
        """The export, and the record with the device's number. Leaves nothing when it raises, but
        perhaps what a kernel call that was cut off still makes. Raises CurveError.
        """

    @abstractmethod
    def why_lost(self, descriptor: int) -> str:
        """Why a device of an earlier agent cannot be taken up; "": it can."""

    @abstractmethod
    def take_up(self, record: Record, volume: int, descriptor: int) -> int:
        """The export in place of the one of an earlier agent: with `volume`, which was opened with
        a new epoch (R12). What that one has not answered is asked again. Raises CurveError.
        """

    @abstractmethod
    def give_up(self, record: Record, descriptor: int) -> int:
        """All I/O to the device of an earlier agent fails from now on. The export that sees to it,
        or 0. Raises CurveError: it has gone.
        """

    @abstractmethod
    def cannot_continue(self, export: int) -> str:
        """After take_up: why requests of the earlier agent would wait for ever; ""."""

    @abstractmethod
    def grow(self, export: int, record: Record, size_bytes: int) -> None:
        """Raises CurveError."""

    @abstractmethod
    def detach(self, record: Record, force: bool) -> None:
        """Raises BusyError while it is open, unless forced: then it goes when the last one closes
        it, and its I/O fails.
        """

    @abstractmethod
    def stop(self, export: int) -> None:
        """Returns when the volume has given back all requests."""

    @abstractmethod
    def ended(self, export: int) -> bool:
        """The kernel has ended it."""

    @abstractmethod
    def revive(self, export: int, record: Record, volume: int) -> int:
        """After it has ended: an export in its place, while the device is there; or 0."""

    @abstractmethod
    def stats(self, export: int) -> dict[str, int]: ...
