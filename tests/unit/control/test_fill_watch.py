"""Who holds a move up: the target only while nobody else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from curve_py.proto import common_pb2 as pb
from metaserver.domain.entities import Chunkserver, Move, MoveReason, MoveStep
from metaserver.domain.scheduler import Tables
from metaserver.service.fill_watch import FillWatch
from metaserver.service.health import Health

LEADER, TARGET, OTHER = (bytes([n]) * 16 for n in (1, 2, 3))
COPYSET = 1 << 32
MOVE = Move(7, COPYSET, OTHER, TARGET, MoveReason.REPLACE, "why", 1000, 0, MoveStep.FILL)
BEHIND = pb.PeerLag(store_id=TARGET, active=True, syncing=True, lag_entries=5)


class Watched:
    """Looks once a second at what the leader and the target say."""

    def __init__(self, *moves: Move) -> None:
        self.clock = 0.0
        self.health = Health(lambda: self.clock, gone_after_seconds=20)
        self.moves = {move.copyset_id: move for move in moves or (MOVE,)}
        self.watch = FillWatch()
        self.leads: list[pb.ReplicaReport] = []
        self.holds: list[pb.ReplicaReport] = []
        self.leader(BEHIND)

    def leader(self, *peers: pb.PeerLag) -> None:
        self.leads = [
            pb.ReplicaReport(
                copyset_id=copyset, role=pb.REPLICA_ROLE_LEADER, term=1, peers=list(peers)
            )
            for copyset in self.moves
        ]

    def target(self, copyset_id: int = COPYSET, **fields: Any) -> None:
        fields.setdefault("role", pb.REPLICA_ROLE_SYNCING)
        kept = [report for report in self.holds if report.copyset_id != copyset_id]
        self.holds = [*kept, pb.ReplicaReport(copyset_id=copyset_id, **fields)]

    def look(self, seconds: int = 1, copyset_id: int = COPYSET) -> float:
        for _ in range(seconds):
            self.clock += 1
            if self.leads:
                self.health.record(LEADER, 1, 0, pb.StoreReport(replicas=self.leads), 1, "h")
            self.health.record(TARGET, 1, 0, pb.StoreReport(replicas=self.holds), 1, "h")
            stores = (LEADER, TARGET, OTHER)
            tables = Tables(
                {s: Chunkserver(s, "a", "b", "", "z", "s", 1, 1) for s in stores},
                {},
                {},
                self.moves,
            )
            still = self.watch.look(tables, self.health.heard())
        return still[copyset_id]


def test_time_counts_from_when_the_target_last_got_on() -> None:
    seen = Watched()
    seen.target(sync_bytes_done=10, sync_bytes_total=99)
    assert seen.look() == 0
    assert seen.look(20) == 20
    seen.target(sync_bytes_done=11, sync_bytes_total=99)
    assert seen.look() == 0
    assert seen.look(5) == 5
    seen.target(applied_index=3)
    assert seen.look() == 0
    seen.leader(pb.PeerLag(store_id=TARGET, active=False))  # cut off from its leader
    assert seen.look(9) == 9
    seen.watch.reset()
    assert seen.look() == 0


def test_a_target_that_does_not_even_take_a_replica_is_waited_for() -> None:
    seen = Watched(replace(MOVE, step=MoveStep.JOIN))
    seen.leader()
    assert seen.look(8) == 7
    seen.target()  # it has one; now it is the leader's turn to add it
    assert seen.look(8) == 0


def test_nobody_is_blamed_for_what_he_cannot_help() -> None:
    seen = Watched()
    seen.target(sync_bytes_done=10, sync_bytes_total=99)
    assert seen.look(3) == 2
    # It lacks nothing: what is missing is the order to promote it.
    seen.leader(pb.PeerLag(store_id=TARGET, active=True))
    assert seen.look(30) == 0
    seen.leader(BEHIND)
    assert seen.look(3) == 3
    # Nobody leads.
    seen.leads = []
    assert seen.look(30) == 0
    seen.leader(BEHIND)
    assert seen.look(3) == 2


def test_a_replica_that_waits_for_its_turn_on_the_store_is_not_stuck() -> None:
    first, second = MOVE, replace(MOVE, move_id=8, copyset_id=COPYSET + 1)
    seen = Watched(first, second)
    seen.target(second.copyset_id)  # 0 of 0: not begun
    for done in range(1, 20):
        seen.target(sync_bytes_done=done, sync_bytes_total=99)
        assert seen.look(copyset_id=second.copyset_id) == 0
    assert seen.look(9, second.copyset_id) == 9


def test_beginning_anew_is_getting_on_only_a_few_times() -> None:
    seen = Watched()
    most = 0.0
    for _ in range(12):
        for done in (0, 20, 40):
            seen.target(sync_bytes_done=done, sync_bytes_total=99)
            most = max(most, seen.look())
    assert most > 8
    seen.target(sync_bytes_done=41, sync_bytes_total=99)
    assert seen.look() == 0
