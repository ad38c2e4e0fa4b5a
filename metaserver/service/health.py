"""What chunkservers said of themselves lately. Soft: only the leader hears it, and it is not
replicated.

Owns: last heartbeats, who leads which copyset, and when a chunkserver counts as down.
Thread: the asyncio loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from curve_py.proto import common_pb2 as pb

DOWN_AFTER_SECONDS = 5.0


class Liveness(Enum):
    UNKNOWN = "unknown"  # this leader is new and has not heard from it
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last one of a store. `replicas` is `report.replicas` by copyset."""

    received_at: float  # monotonic seconds
    incarnation: int
    topology_version: int
    report: pb.StoreReport
    replicas: dict[int, pb.ReplicaReport]
    pid: int
    hostname: str


class Health:
    """Emptied whenever this node begins to lead."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._heartbeats: dict[bytes, Heartbeat] = {}
        self._leaders: dict[int, tuple[int, bytes]] = {}  # copyset -> (term, store)
        self._since = now()

    def reset(self) -> None:
        self._heartbeats.clear()
        self._leaders.clear()
        self._since = self._now()

    def record(
        self,
        store_id: bytes,
        incarnation: int,
        topology_version: int,
        report: pb.StoreReport,
        pid: int,
        hostname: str,
    ) -> None:
        replicas = {replica.copyset_id: replica for replica in report.replicas}
        self._heartbeats[store_id] = Heartbeat(
            self._now(), incarnation, topology_version, report, replicas, pid, hostname
        )
        for replica in report.replicas:
            if replica.role == pb.REPLICA_ROLE_LEADER:
                self.note_leader(replica.copyset_id, replica.term, store_id)

    def note_leader(self, copyset_id: int, term: int, store_id: bytes) -> None:
        known = self._leaders.get(copyset_id)
        if known is None or term >= known[0]:
            self._leaders[copyset_id] = (term, store_id)

    def heartbeat(self, store_id: bytes) -> Heartbeat | None:
        return self._heartbeats.get(store_id)

    def age_ms(self, store_id: bytes) -> int:
        """Of the last heartbeat; 0 when there was none."""
        heartbeat = self._heartbeats.get(store_id)
        return int((self._now() - heartbeat.received_at) * 1000) if heartbeat else 0

    def liveness(self, store_id: bytes) -> Liveness:
        heartbeat = self._heartbeats.get(store_id)
        since = heartbeat.received_at if heartbeat else self._since
        if self._now() - since > DOWN_AFTER_SECONDS:
            return Liveness.DOWN
        return Liveness.UP if heartbeat else Liveness.UNKNOWN

    def leader_of(self, copyset_id: int) -> tuple[int, bytes] | None:
        """(term, store) as reported, of a store that is not known to be down."""
        known = self._leaders.get(copyset_id)
        if known is None or self.liveness(known[1]) is Liveness.DOWN:
            return None
        return known
