"""What chunkservers said of themselves lately. Soft: only the leader hears it, and it is not
replicated.

Owns: last heartbeats, who leads which copyset, and when a chunkserver counts as down or gone.
Thread: the asyncio loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from curve_py.errors import BusyError, NoSpaceError
from curve_py.proto import common_pb2 as pb
from metaserver.domain.health_view import StoreState

DOWN_AFTER_SECONDS = 5.0
GONE_AFTER_SECONDS = 600.0
# How long the target of a move may be silent before another is looked for.
TARGET_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ReportOrder:
    """Where a report stands among those of its incarnation (docs/formats/control-plane.md).

    `number` 0: they are not counted, and each is whole. `since` 0: it is whole; else it has only
    what differs from report `since`, less the copysets that are `gone` since.
    """

    number: int = 0
    since: int = 0
    gone: tuple[int, ...] = ()


WHOLE = ReportOrder()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last one of a store. `replicas` are all that it has, whatever `report.replicas` named.

    Invariant: `replicas` is what the store had when it made report `number`. As long as nothing of
    it changes it stays the same object.
    """

    received_at: float  # monotonic seconds
    number: int
    incarnation: int
    topology_version: int
    report: pb.StoreReport
    replicas: dict[int, pb.ReplicaReport]
    pid: int
    hostname: str


@dataclass(frozen=True, slots=True)
class Heard:
    """Everything heard so far, as of one moment; any thread may look at it.

    Invariant: heartbeats and their messages are never changed after they were recorded.
    """

    now: float
    since: float  # when this node began to listen
    gone_after_seconds: float
    heartbeats: Mapping[bytes, Heartbeat]
    leaders: Mapping[int, tuple[int, bytes]]  # copyset -> (term, store)

    def silent_seconds(self, store_id: bytes) -> float:
        heartbeat = self.heartbeats.get(store_id)
        return self.now - (heartbeat.received_at if heartbeat else self.since)

    def state_of(self, store_id: bytes) -> StoreState:
        heartbeat = self.heartbeats.get(store_id)
        silent = self.silent_seconds(store_id)
        if silent > max(self.gone_after_seconds, DOWN_AFTER_SECONDS):
            return StoreState.GONE
        if heartbeat is not None and heartbeat.report.failure:
            return StoreState.FAILED
        if silent > DOWN_AFTER_SECONDS:
            return StoreState.DOWN
        return StoreState.UP if heartbeat else StoreState.UNKNOWN

    def leader_of(self, copyset_id: int) -> tuple[int, bytes] | None:
        """(term, store) as reported, of a store that is up and has not said otherwise since."""
        known = self.leaders.get(copyset_id)
        if known is None or self.state_of(known[1]) is not StoreState.UP:
            return None
        report = self.report_of(known[1], copyset_id)
        if report is not None and report.role != pb.REPLICA_ROLE_LEADER:
            return None  # it has lost its majority
        return known

    def report_of(self, store_id: bytes, copyset_id: int) -> pb.ReplicaReport | None:
        heartbeat = self.heartbeats.get(store_id)
        return heartbeat.replicas.get(copyset_id) if heartbeat else None


class Health:
    """Emptied whenever this node begins to lead."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        gone_after_seconds: float = GONE_AFTER_SECONDS,
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_news` is called when a store begins to be heard, was restarted, says that it failed
        or got another table of peers; not for what its replicas do.
        """
        self._now = now
        self._gone_after_seconds = gone_after_seconds
        self._on_news = on_news
        self._heartbeats: dict[bytes, Heartbeat] = {}
        self._leaders: dict[int, tuple[int, bytes]] = {}
        self._since = now()
        self.fence_refused: dict[int, NoSpaceError] = {}  # by volume: its last fence did not fit

    def reset(self) -> None:
        self._heartbeats = {}
        self._leaders = {}
        self.fence_refused.clear()
        self._since = self._now()

    def record(
        self,
        store_id: bytes,
        incarnation: int,
        topology_version: int,
        report: pb.StoreReport,
        pid: int,
        hostname: str,
        order: ReportOrder = WHOLE,
    ) -> int:
        """The number of the report that is held afterwards: another than that of this one when it
        came late, or has differences from one that is not held. Such a one counts for nothing, and
        the store is to send a whole one.
        """
        before = self._heartbeats.get(store_id)
        held = before if before is not None and before.incarnation == incarnation else None
        if held is not None and order.number and order.number <= held.number:
            return held.number
        if order.since and (held is None or order.since != held.number):
            return held.number if held is not None else 0
        named = {replica.copyset_id: replica for replica in report.replicas}
        replicas = _replicas_after(before.replicas if before else {}, named, order)
        was_heard = self.state_of(store_id) in (StoreState.UP, StoreState.FAILED)
        self._heartbeats[store_id] = Heartbeat(
            self._now(),
            order.number,
            incarnation,
            topology_version,
            report,
            replicas,
            pid,
            hostname,
        )
        for replica in report.replicas:
            if replica.role == pb.REPLICA_ROLE_LEADER:
                self.note_leader(replica.copyset_id, replica.term, store_id)
        if (
            not was_heard
            or held is None
            or held.topology_version != topology_version
            or held.report.failure != report.failure
        ):
            self._on_news()
        return order.number

    def check_silent(self, store_id: bytes) -> None:
        """A store that is said to be lost, by a process that cannot open it, must not be heard from
        another process that serves it. Raises BusyError until it is certain.
        """
        heartbeat = self._heartbeats.get(store_id)
        if heartbeat is None or not heartbeat.incarnation:
            return
        if self._live().state_of(store_id) is StoreState.UP:
            raise BusyError(
                "The store was heard a moment ago: only if it stays silent it counts as lost."
            )

    def note_leader(self, copyset_id: int, term: int, store_id: bytes) -> None:
        known = self._leaders.get(copyset_id)
        if known is None or (term >= known[0] and known != (term, store_id)):
            self._leaders[copyset_id] = (term, store_id)

    def heartbeat(self, store_id: bytes) -> Heartbeat | None:
        return self._heartbeats.get(store_id)

    def age_ms(self, store_id: bytes) -> int:
        """Of the last heartbeat; 0 when there was none."""
        heartbeat = self._heartbeats.get(store_id)
        return int((self._now() - heartbeat.received_at) * 1000) if heartbeat else 0

    def state_of(self, store_id: bytes) -> StoreState:
        return self._live().state_of(store_id)

    def leader_of(self, copyset_id: int) -> tuple[int, bytes] | None:
        return self._live().leader_of(copyset_id)

    def heard(self) -> Heard:
        """A view that does not change any more. Costs two shallow copies."""
        live = self._live()
        return replace(live, heartbeats=dict(live.heartbeats), leaders=dict(live.leaders))

    def _live(self) -> Heard:
        return Heard(
            self._now(), self._since, self._gone_after_seconds, self._heartbeats, self._leaders
        )


def _replicas_after(
    before: dict[int, pb.ReplicaReport], named: dict[int, pb.ReplicaReport], order: ReportOrder
) -> dict[int, pb.ReplicaReport]:
    """The same object as before if nothing differs."""
    if not order.since:
        return before if named == before else named
    if not named and not order.gone:
        return before
    gone = frozenset(order.gone)
    return {c: r for c, r in (before | named).items() if c not in gone}
