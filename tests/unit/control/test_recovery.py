"""Moves carried out: the metaserver's duties against a model of chunkservers that keeps the
contract of curve_py/proto/chunkserver.proto, and loses orders and answers.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from curve_py.proto import common_pb2 as pb
from metaserver.domain import commands as cmd
from metaserver.domain.entities import (
    Chunkserver,
    ChunkserverLife,
    Copyset,
    FailureDomain,
    Move,
    MoveReason,
)
from metaserver.domain.health_view import HealthView
from metaserver.domain.ports import ChangeOutcome, MemberChange, UnreachableError
from metaserver.domain.recovery_plan import Limits, Plan, StartMove
from metaserver.domain.scheduler import Tables
from metaserver.service import passes, recovery
from metaserver.service.assess import Leftover, assess, find_leftovers
from metaserver.service.health import Health, ReportOrder
from metaserver.service.journal import Journal
from metaserver.service.recovery import Recovery, RecoverySettings
from metaserver.service.replicator import Replicator

GIB = 1 << 30


@dataclass
class Group:
    """A copyset's committed configuration."""

    voters: set[bytes]
    learners: set[bytes] = field(default_factory=set)
    preferred: bytes = b""
    leader: bytes = b""
    index: int = 1
    filled: set[bytes] = field(default_factory=set)


class World:
    """Chunkservers and their copysets. Also the gateway to them (ports.ChunkserverGateway)."""

    def __init__(self, stores: list[bytes], seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.stores = stores
        self.dead: set[bytes] = set()
        self.failed: dict[bytes, str] = {}
        self.groups: dict[int, Group] = {}
        self.replicas: dict[bytes, set[int]] = {store: set() for store in stores}
        self.limits: dict[bytes, tuple[int, int]] = {}
        self.loss = 0.0  # of orders, and of answers
        self.slow_fills = False
        self.lazy: set[bytes] = set()  # alive, and never filled
        self.deaf: set[bytes] = set()  # it is heard, and takes no orders
        self.violations: list[str] = []
        self.table: Callable[[int], tuple[bytes, ...]] = lambda copyset: ()

    def form(self, state: Any) -> None:
        for copyset in state.copysets.values():
            leader = copyset.preferred_leader
            self.groups[copyset.copyset_id] = Group(
                set(copyset.replicas), preferred=leader, leader=leader
            )
            for store in copyset.replicas:
                self.replicas[store].add(copyset.copyset_id)

    # --- Orders ---------------------------------------------------------------------------------

    async def _reach(self, store: bytes) -> None:
        await asyncio.sleep(0)
        if store in self.dead | self.deaf or self.rng.random() < self.loss:
            raise UnreachableError("lost on the way")

    async def _back(self) -> None:
        await asyncio.sleep(0)
        if self.rng.random() < self.loss:
            raise UnreachableError("the answer is lost")

    async def join_copysets(self, address: str, store: bytes, copysets: list[int]) -> None:
        await self._reach(store)
        self.replicas[store].update(copysets)
        await self._back()

    async def change_members(
        self,
        address: str,
        store: bytes,
        copyset: int,
        change: tuple[MemberChange, bytes],
        voters_min: int,
    ) -> ChangeOutcome:
        await self._reach(store)
        group = self.groups[copyset]
        if group.leader != store or not self.majority(group):
            return ChangeOutcome(False, group.leader or None)
        busy = self._changed(copyset, group, *change, voters_min)
        await self._back()
        return ChangeOutcome(not busy, store, busy)

    def _changed(
        self, copyset: int, group: Group, kind: MemberChange, subject: bytes, voters_min: int
    ) -> str:
        members = group.voters | group.learners
        match kind:
            case MemberChange.ADD_LEARNER if subject not in members:
                if copyset not in self.replicas[subject]:
                    self.violations.append("R1: added before it joined")
                group.learners.add(subject)
            case MemberChange.PROMOTE if subject not in group.voters:
                if subject not in group.learners:
                    return "it is no learner"
                if subject not in group.filled:
                    can = not self.slow_fills and subject not in self.lazy
                    if can and copyset in self.replicas[subject]:
                        group.filled.add(subject)
                    return "it is not filled yet"
                if subject not in self.table(copyset):
                    self.violations.append("promoted before clients can know it")
                group.learners.discard(subject)
                group.voters.add(subject)
            case MemberChange.REMOVE if subject in members:
                if subject == group.leader:
                    self.violations.append("a leader is to remove itself")
                    return "it leads"
                if subject in group.voters and len(group.voters) - 1 < voters_min:
                    self.violations.append("below full replication")
                    return "too few voters"
                group.voters.discard(subject)
                group.learners.discard(subject)
                group.filled.discard(subject)
                if group.preferred == subject:
                    group.preferred = b""
            case MemberChange.PREFER if group.preferred != subject:
                assert subject in members
                group.preferred = subject
            case _:
                return ""
        group.index += 1
        return ""

    async def remove_replica(
        self, address: str, store: bytes, copyset: int, index: int, term: int
    ) -> None:
        await self._reach(store)
        group = self.groups[copyset]
        if store in group.voters | group.learners:
            self.violations.append("a member's replica is to be removed")
            raise UnreachableError("a later configuration has it")
        self.replicas[store].discard(copyset)

    async def transfer_leader(
        self, address: str, store: bytes, copyset: int, to: bytes
    ) -> tuple[bool, bytes | None]:
        await self._reach(store)
        group = self.groups[copyset]
        if group.leader != store:
            return False, group.leader or None
        assert to in group.voters
        if to not in self.dead:
            group.leader = to
        return True, None

    async def set_limits(self, address: str, store: bytes, rate: int, at_once: int) -> None:
        await self._reach(store)
        self.limits[store] = (rate, at_once)

    # --- Time passes ----------------------------------------------------------------------------

    def majority(self, group: Group) -> bool:
        return 2 * len(group.voters - self.dead - self.failed.keys()) > len(group.voters)

    def elect(self) -> None:
        for group in self.groups.values():
            if group.leader in self.dead or group.leader in self.failed:
                alive = sorted(group.voters - self.dead - self.failed.keys())
                group.leader = alive[0] if alive and self.majority(group) else b""

    def report(self, store: bytes) -> pb.StoreReport:
        report = pb.StoreReport(failure=self.failed.get(store, ""))
        report.usage.capacity_bytes = 100 * GIB
        report.usage.used_bytes = GIB * len(self.replicas[store])
        for copyset in sorted(self.replicas[store]):
            group = self.groups[copyset]
            replica = report.replicas.add(copyset_id=copyset, term=1, used_bytes=GIB)
            replica.role = pb.REPLICA_ROLE_FOLLOWER
            if store in group.learners and store not in group.filled:
                replica.role = pb.REPLICA_ROLE_SYNCING
                replica.sync_bytes_done, replica.sync_bytes_total = GIB // 4, GIB
            if group.leader == store and store not in self.failed:
                replica.role = pb.REPLICA_ROLE_LEADER
                replica.config_index, replica.config_committed = group.index, True
                for peer in sorted((group.voters | group.learners) - {store}):
                    unfilled = peer in group.learners and peer not in group.filled
                    replica.peers.add(store_id=peer, active=True, syncing=unfilled)
        return report


class Setup:
    """One metaserver (or several) over a world of chunkservers."""

    def __init__(self, group: Any, count: int, copysets: int, metaservers: int = 1) -> None:
        self.group = group
        self.world = World([bytes([n + 1]) * 16 for n in range(count)])
        self.clock = 0.0
        self.replicators: list[Replicator] = []
        self.recoveries: list[Recovery] = []
        self.healths: list[Health] = []
        self.stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._requests = itertools.count(1)
        self._numbers = itertools.count(1)
        self._held: dict[bytes, tuple[int, dict[int, pb.ReplicaReport]]] = {}  # last reports
        self.copysets = copysets
        for number in range(metaservers):
            node = group.node(bytes([0xA0 + number]) * 16)
            replicator = Replicator(node, {})
            health = Health(lambda: self.clock, gone_after_seconds=20.0)
            settings = RecoverySettings(
                Limits(syncs_per_store_max=2, moves_max=8, fill_patience_seconds=15.0)
            )
            made = Recovery(replicator, self.world, health, settings)  # type: ignore[arg-type]

            async def begin(health: Health = health) -> None:
                health.reset()

            replicator.duties = [begin, *made.all()]
            self.replicators.append(replicator)
            self.recoveries.append(made)
            self.healths.append(health)

    async def start(self) -> None:
        for replicator in self.replicators:
            replicator.start()
            self._tasks.append(asyncio.create_task(replicator.run(self.stop)))
        self.lead(0)
        await self.until(lambda: self.leader.is_serving)
        for number, store in enumerate(self.world.stores):
            await self.leader.submit(
                cmd.RegisterChunkserver(
                    store, f"10.0.0.{number + 1}:1", "a:1", "", "z", f"s{number}", 100 * GIB, 1
                )
            )
        rows = tuple(
            tuple((index + replica) % len(self.world.stores) for replica in range(3))
            for index in range(self.copysets)
        )
        await self.leader.submit(
            cmd.CreatePool(
                b"p" * 16,
                1,
                "default",
                3,
                FailureDomain.CHUNKSERVER,
                tuple(self.world.stores),
                rows,
            )
        )
        for store in self.world.stores:
            await self.leader.submit(cmd.ConfirmFormed(1, store))
        self.world.form(self.state)
        self.world.table = lambda copyset: self.state.members_of(self.state.copysets[copyset])
        self._tasks.append(asyncio.create_task(self._beat()))

    def lead(self, number: int) -> None:
        self.number = number
        self.group.elect(self.group.nodes[number])

    @property
    def leader(self) -> Replicator:
        return self.replicators[self.number]

    @property
    def state(self) -> Any:
        return self.leader.state

    @property
    def journal(self) -> Journal:
        return self.recoveries[self.number].journal

    async def _beat(self) -> None:
        while True:
            self.clock += 0.5
            self.world.elect()
            for copyset, group in self.world.groups.items():
                if self.leader.is_serving and not group.voters <= set(self.world.table(copyset)):
                    self.world.violations.append("a voter is not in the table of clients")
            for store in self.world.stores:
                if store not in self.world.dead:
                    self._hear(store)
            await asyncio.sleep(0.005)

    def _hear(self, store: bytes) -> None:
        """What differs from what the leader holds, or all if it does not hold that."""
        health, report = self.healths[self.number], self.world.report(store)
        replicas = {replica.copyset_id: replica for replica in report.replicas}
        since, before = self._held.pop(store, (0, {}))
        del report.replicas[:]
        report.replicas.extend(r for c, r in replicas.items() if before.get(c) != r)
        order = ReportOrder(next(self._numbers), since, tuple(before.keys() - replicas.keys()))
        if health.record(store, 1, 0, report, 1, "host", order) == order.number:
            self._held[store] = order.number, replicas
        else:
            self._hear(store)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(60):
            while not condition():
                assert not self.world.violations
                await asyncio.sleep(0.005)

    async def drain(self, store: bytes, drain: bool = True) -> None:
        request_id = next(self._requests).to_bytes(16, "big")
        await self.leader.submit(cmd.DrainChunkserver(request_id, store, drain))

    def held(self, store: bytes) -> int:
        return sum(store in copyset.replicas for copyset in self.state.copysets.values())

    def settled(self) -> bool:
        """Table and configurations agree, nothing is under way, nothing is left over."""
        state, world = self.state, self.world
        return not state.moves and all(
            world.groups[c.copyset_id].voters == set(c.replicas)
            and not world.groups[c.copyset_id].learners
            and c.preference_told
            and world.groups[c.copyset_id].preferred == c.preferred_leader
            and all(
                (store in c.replicas) == (c.copyset_id in world.replicas[store])
                for store in world.stores
                if store not in world.dead
            )
            for c in state.copysets.values()
        )

    async def close(self) -> None:
        self.stop.set()
        for task in self._tasks[len(self.replicators) :]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for replicator in self.replicators:
            await replicator.close()
        assert self.world.violations == []


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_PASS_SECONDS", 0.02)
    monkeypatch.setattr(recovery, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(recovery, "_POLL_SECONDS_MAX", 0.05)
    monkeypatch.setattr(passes, "PASS_SECONDS", 0.02)


@pytest.fixture
async def make(group: Any) -> AsyncIterator[Any]:
    made: list[Setup] = []

    async def start(count: int = 4, copysets: int = 8, metaservers: int = 1) -> Setup:
        setup = Setup(group, count, copysets, metaservers)
        made.append(setup)
        await setup.start()
        return setup

    yield start
    for setup in made:
        await setup.close()


async def test_a_chunkserver_that_is_gone_is_replaced_and_cleaned_when_it_returns(
    make: Any,
) -> None:
    setup = await make()
    lost = setup.world.stores[1]
    setup.world.dead.add(lost)
    await setup.until(lambda: setup.held(lost) == 0 and setup.settled())
    assert all("is gone" in move.why for move in setup.state.finished_moves.values())
    assert setup.world.replicas[lost]
    text = [line for record in setup.journal.passes for line in record.decisions]
    assert any("10.0.0.2:1 is gone (silent for more than 20 s)" in line for line in text)
    setup.world.dead.clear()
    await setup.until(lambda: setup.settled() and setup.held(lost) > 0)
    assert not setup.journal.progress().running


async def test_a_failed_store_is_replaced_at_once(make: Any) -> None:
    setup = await make()
    failed = setup.world.stores[0]
    setup.world.failed[failed] = "The disk returned EIO."
    await setup.until(lambda: setup.held(failed) == 0)
    why = {move.why for move in setup.state.finished_moves.values()}
    assert why == {"chunkserver 10.0.0.1:1 has failed (The disk returned EIO)"}


async def test_a_chunkserver_that_comes_back_in_time_only_catches_up(make: Any) -> None:
    setup = await make()
    lost = setup.world.stores[1]
    setup.world.dead.add(lost)
    clock = setup.clock
    await setup.until(lambda: setup.clock > clock + 10)
    setup.world.dead.clear()
    await setup.until(lambda: setup.clock > clock + 40)
    assert not setup.state.moves
    assert not setup.state.finished_moves


async def test_moves_that_have_begun_are_given_up_when_it_comes_back(make: Any) -> None:
    setup = await make()
    setup.world.slow_fills = True
    lost = setup.world.stores[1]
    setup.world.dead.add(lost)
    await setup.until(lambda: any(move.listed for move in setup.state.moves.values()))
    setup.world.dead.clear()
    await setup.until(setup.settled)
    assert setup.held(lost) == 6
    ended = list(setup.state.finished_moves.values())
    assert ended
    assert all("has come back" in move.cancelled for move in ended)


async def test_draining_never_goes_below_full_replication(make: Any) -> None:
    setup = await make(count=5, copysets=16)
    store = setup.world.stores[2]
    await setup.drain(store)
    await setup.until(lambda: setup.held(store) == 0 and setup.settled())
    assert not setup.world.replicas[store]
    await setup.drain(store, False)
    await setup.until(lambda: setup.held(store) >= 8 and setup.settled())
    leads = sum(group.preferred == store for group in setup.world.groups.values())
    assert leads >= 2
    assert setup.state.chunkservers[store].life is ChunkserverLife.IN_SERVICE


async def test_moves_go_on_with_lost_orders_and_a_new_leader(make: Any) -> None:
    """Every order may be lost, every answer too, and the metaservers elect again and again."""
    setup = await make(count=6, copysets=16, metaservers=3)
    setup.world.loss = 0.2
    lost = setup.world.stores[3]
    setup.world.dead.add(lost)
    await setup.drain(setup.world.stores[0])
    for turn in range(1, 6):
        ended = len(setup.state.finished_moves)
        await setup.until(
            lambda ended=ended: len(setup.state.finished_moves) > ended or setup.settled()
        )
        setup.lead(turn % 3)
        await setup.until(lambda: setup.leader.is_serving)
    setup.world.loss = 0.0
    gone = (lost, setup.world.stores[0])
    await setup.until(lambda: not any(map(setup.held, gone)) and setup.settled())


@pytest.mark.parametrize("how", ["lazy", "deaf"])
async def test_a_target_that_is_alive_and_never_filled_is_given_up(make: Any, how: str) -> None:
    """Its peers do not reach it, or the metaservers do not; heartbeats come all the while."""
    setup = await make(count=6, copysets=8, metaservers=3)
    lost, bad = setup.world.stores[1], setup.world.stores[5]
    held = setup.held(bad)
    for copyset, group in setup.world.groups.items():
        if group.leader == bad:  # it is not to matter as a leader
            group.leader = min(setup.state.copysets[copyset].replicas)
    getattr(setup.world, how).add(bad)
    setup.world.dead.add(lost)

    def given_up() -> list[Any]:
        return [move for move in setup.state.finished_moves.values() if move.stalled]

    await setup.until(given_up)
    setup.lead(1)
    await setup.until(lambda: setup.held(lost) == 0 and setup.leader.is_serving)
    await setup.until(lambda: not setup.state.moves)
    assert {move.target for move in given_up()} == {bad}
    assert all("has got nothing more for" in move.cancelled for move in given_up())
    assert setup.held(bad) == held
    assert not any(bad in group.learners for group in setup.world.groups.values())


async def test_limits_are_told_once(make: Any) -> None:
    setup = await make()
    await setup.until(lambda: len(setup.world.limits) == 4)
    assert set(setup.world.limits.values()) == {(64 * 1024 * 1024, 2)}


# --- What is seen ---------------------------------------------------------------------------------


async def test_only_what_a_leader_has_committed_is_left_over(make: Any) -> None:
    setup = await make()
    copyset = next(iter(setup.state.copysets.values()))
    stranger = next(s for s in setup.world.stores if s not in copyset.replicas)
    health = setup.healths[0]
    for task in setup._tasks[1:]:
        task.cancel()
    await setup.leader._step_down()
    report = setup.world.report(stranger)
    report.replicas.add(copyset_id=copyset.copyset_id, role=pb.REPLICA_ROLE_FOLLOWER)
    health.record(stranger, 1, 0, report, 1, "host")
    tables = Tables.of(setup.state)
    leader = setup.world.groups[copyset.copyset_id].leader

    def leftovers(**changes: Any) -> list[Leftover]:
        report = setup.world.report(leader)
        replica = next(r for r in report.replicas if r.copyset_id == copyset.copyset_id)
        for name, value in changes.items():
            setattr(replica, name, value)
        health.record(leader, 1, 0, report, 1, "host")
        return find_leftovers(tables, health.heard())

    assert leftovers() == [Leftover(stranger, copyset.copyset_id, 1, 1)]
    assert leftovers(config_committed=False) == []
    genesis = Leftover(stranger, copyset.copyset_id, 0, 7)
    assert leftovers(config_index=0, term=7) == [genesis]
    setup.world.groups[copyset.copyset_id].learners.add(stranger)
    assert leftovers() == []


def test_damaged_and_unfilled_replicas_do_not_count_as_healthy() -> None:
    clock = 0.0
    health = Health(lambda: clock, gone_after_seconds=20)
    stores = [bytes([n]) * 16 for n in (1, 2, 3, 4)]
    report = pb.StoreReport()
    report.replicas.add(copyset_id=1, role=pb.REPLICA_ROLE_LEADER, term=3, used_bytes=7)
    health.record(stores[0], 1, 0, report, 1, "h")
    report = pb.StoreReport()
    report.replicas.add(copyset_id=1, role=pb.REPLICA_ROLE_SYNCING)
    health.record(stores[1], 1, 0, report, 1, "h")
    report = pb.StoreReport()
    report.replicas.add(copyset_id=1, role=pb.REPLICA_ROLE_FOLLOWER, damaged=True)
    health.record(stores[2], 1, 0, report, 1, "h")
    chunkservers = {s: Chunkserver(s, "a", "b", "", "z", "s", 1, 1) for s in stores}
    copyset = Copyset(1, tuple(stores), stores[0], 1)
    tables = Tables(chunkservers, {}, {1: copyset}, {})
    view = assess(tables, health.heard()).copyset(1)
    assert view.leader == stores[0]
    assert view.healthy == {stores[0]}
    assert view.size_bytes == 7
    clock = 10.0
    assert assess(tables, health.heard()).copyset(1).leader is None


def test_a_leader_that_says_that_it_follows_leads_no_more() -> None:
    """It has lost its majority: nothing is begun there, which would only take places of others."""
    health = Health(lambda: 0.0, gone_after_seconds=20)
    store = bytes([1]) * 16
    report = pb.StoreReport()
    report.replicas.add(copyset_id=1, role=pb.REPLICA_ROLE_LEADER, term=3)
    health.record(store, 1, 0, report, 1, "h")
    tables = Tables(
        {store: Chunkserver(store, "a", "b", "", "z", "s", 1, 1)},
        {},
        {1: Copyset(1, (store,), store, 1)},
        {},
    )
    assert assess(tables, health.heard()).copyset(1).leader == store
    later = pb.StoreReport()
    later.replicas.add(copyset_id=1, role=pb.REPLICA_ROLE_CANDIDATE, term=4)
    health.record(store, 1, 0, later, 1, "h")
    assert assess(tables, health.heard()).copyset(1).leader is None
    assert health.leader_of(1) is None


async def test_what_stands_still_is_not_looked_at_again_and_every_change_is(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = recovery.plan

    def counted(*arguments: Any) -> Plan:
        nonlocal looks
        looks += 1
        return look(*arguments)

    monkeypatch.setattr(recovery, "plan", counted)
    monkeypatch.setattr(recovery, "_STILL_SECONDS", 1e9)
    setup = await make()
    await setup.until(setup.settled)

    async def stands() -> None:
        """Until it has come to rest, and then for many passes."""
        before = -1
        while looks != before:
            before, clock = looks, setup.clock
            await setup.until(lambda clock=clock: setup.clock > clock + 100)

    await stands()
    for change in (
        lambda: setup.world.dead.add(setup.world.stores[1]),  # only silence
        lambda: setup.world.dead.clear(),
        lambda: setup.world.failed.update({setup.world.stores[0]: "EIO"}),
    ):
        before = looks
        change()
        await setup.until(lambda before=before: looks > before)
        await stands()
        assert not setup.state.moves
    assert setup.held(setup.world.stores[0]) == 0
    before = looks
    monkeypatch.setattr(recovery, "_STILL_SECONDS", 5.0)
    await setup.until(lambda: looks > before + 1)


# --- Progress -------------------------------------------------------------------------------------


def test_the_estimate_is_measured_and_honest() -> None:
    clock = 0.0
    journal = Journal(lambda: clock)
    move = Move(9, 1, b"a", b"b", MoveReason.REPLACE, "why", 1000, 0)
    queued = Plan((), ("note",), 1, 1000)

    def look(there: int) -> None:
        journal.note(1, queued, {}, {1: move}, HealthView(filled_bytes={1: there}))

    look(0)
    assert journal.progress().seconds_left is None  # nothing was measured yet
    assert journal.seconds_left(move) is None
    clock = 10.0
    look(500)
    progress = journal.progress()
    assert (progress.running, progress.queued, progress.left_bytes) == (1, 1, 1500)
    assert progress.bytes_per_second == 50
    assert progress.seconds_left == 30
    assert journal.seconds_left(move) == 10
    clock = 20.0
    journal.note(1, queued, {}, {}, HealthView())
    assert journal.progress().left_bytes == 1000
    assert journal.progress().notes == ("note",)


def test_the_journal_keeps_what_is_new_and_not_more() -> None:
    journal = Journal()
    start = StartMove(1 << 32, b"a", b"b", MoveReason.DRAIN, "it is drained", 5)
    for _ in range(3):
        journal.note(1, Plan((), ("stuck",), 0, 0), {}, {}, HealthView())
    journal.note(2, Plan((start,), (), 0, 0), {}, {}, HealthView())
    assert [(r.decisions, r.notes) for r in journal.passes] == [
        ((), ("stuck",)),
        (("copyset 1.0: a replica goes from 61 to 62: it is drained.",), ()),
    ]
    for number in range(1000):
        journal.note(3, Plan((), (str(number),), 0, 0), {}, {}, HealthView())
    assert len(journal.passes) == 200
