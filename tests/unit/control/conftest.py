"""Stand-ins for the native parts, for tests of the Python layers; process tests run the real.

`Group` is a raft group that never fails by itself: tests say who leads and what is lost.
`FakeStore` is a store whose copysets are led where the test says.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from curve_py.errors import CurveIoError
from metaserver.domain.ports import (
    Committed,
    InstallSnapshot,
    LeaderChanged,
    NodeView,
    ProposalFailed,
    QueueFullError,
    RaftEvent,
    ReadFailed,
    ReadReady,
    SnapshotWanted,
)

sys.path.insert(0, str(Path(__file__).parent))  # scheduler_model, metaserver_cluster


class Group:
    """The log that all nodes share, and who leads."""

    def __init__(self) -> None:
        self.log: list[tuple[int, bytes]] = []  # (term, command); index 1 first
        self.term = 0
        self.leader: FakeNode | None = None
        self.nodes: list[FakeNode] = []
        self.holding = False  # proposals are taken but not committed
        self.held: list[tuple[FakeNode, bytes, int]] = []

    def node(self, node_id: bytes) -> FakeNode:
        node = FakeNode(self, node_id)
        self.nodes.append(node)
        return node

    def elect(self, node: FakeNode | None) -> None:
        self.term += 1
        self.leader = node
        held, self.held = self.held, []
        for owner, _, ticket in held:
            owner.push(ProposalFailed(ticket, "lost"))
        for each in self.nodes:
            each.announce_leader()

    def commit(self, owner: FakeNode, command: bytes, ticket: int) -> None:
        self.log.append((self.term, command))
        index = len(self.log)
        for node in self.nodes:
            if node.started:
                node.push(Committed(index, self.term, command, ticket if node is owner else 0))


class FakeNode:
    """ports.RaftNode in memory."""

    def __init__(self, group: Group, node_id: bytes) -> None:
        self.group = group
        self.node_id = node_id
        self.started = False
        self.busy = False
        self.full = ""  # why there is no room for a snapshot, and the log takes no entry
        self.snapshots: list[bytes] = []
        self.snapshot_path: tuple[int, int, str] | None = None
        self._events: list[RaftEvent] = []
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self._ticket = 0
        self._snapshot = b""

    def start(self) -> None:
        self.started = True
        first = 1
        if self.snapshot_path:
            self.push(InstallSnapshot(*self.snapshot_path))
            first = self.snapshot_path[0] + 1
        for index in range(first, len(self.group.log) + 1):
            term, command = self.group.log[index - 1]
            self.push(Committed(index, term, command, 0))
        self.announce_leader()

    def stop(self) -> None:
        self.started = False

    def close(self) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def push(self, event: RaftEvent) -> None:
        self._events.append(event)
        os.eventfd_write(self._descriptor, 1)

    def announce_leader(self) -> None:
        leader = self.group.leader
        if self.started:
            leader_id = leader.node_id if leader else None
            self.push(LeaderChanged(self.group.term, leader_id, leader is self))

    def poll(self, max_events: int) -> list[RaftEvent]:
        events, self._events = self._events[:max_events], self._events[max_events:]
        if not self._events:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._descriptor)
        return events

    def propose(self, command: bytes) -> int:
        if self.busy:
            raise QueueFullError
        self._ticket += 1
        if self.group.leader is not self or self.full:
            self.push(ProposalFailed(self._ticket, "not_leader"))
        elif self.group.holding:
            self.group.held.append((self, command, self._ticket))
        else:
            self.group.commit(self, command, self._ticket)
        return self._ticket

    def read_index(self) -> int:
        self._ticket += 1
        leads = self.group.leader is self
        self.push(ReadReady(self._ticket) if leads else ReadFailed(self._ticket))
        return self._ticket

    def transfer(self, node_id: bytes) -> None:
        if self.group.leader is self:
            heir = next(node for node in self.group.nodes if node.node_id == node_id)
            self.group.elect(heir)

    def want_snapshot(self) -> None:
        self.push(SnapshotWanted(len(self.group.log)))

    def snapshot_begin(self, index: int, term: int) -> None:
        self._snapshot = b""

    def snapshot_write(self, data: bytes) -> None:
        if self.full:
            raise CurveIoError(self.full)
        self._snapshot += data

    def snapshot_commit(self) -> None:
        self.snapshots.append(self._snapshot)

    def status(self) -> NodeView:
        leader = self.group.leader
        return NodeView(
            role="leader" if leader is self else "follower",
            term=self.group.term,
            leader_id=leader.node_id if leader else None,
            commit_index=len(self.group.log),
            applied_index=len(self.group.log),
            first_index=1,
            last_index=len(self.group.log),
            wal_bytes=0,
            lag_entries=tuple((n.node_id, 0) for n in self.group.nodes if n is not self),
        )


class FakeStatus:
    """chunkserver.ports.NativeStatus."""

    def __init__(self, status: dict[str, Any]) -> None:
        self._copysets = {copyset["id"]: copyset for copyset in status.pop("copysets")}
        self._summary = status

    def summary(self) -> dict[str, Any]:
        return self._summary

    def copysets(self, since: FakeStatus | None) -> list[dict[str, Any]]:
        before = since._copysets if since else {}
        return [c for c in self._copysets.values() if before.get(c["id"]) != c]

    def is_like(self, since: FakeStatus) -> bool:
        return self._copysets == since._copysets

    def gone(self, since: FakeStatus) -> list[int]:
        return [copyset for copyset in since._copysets if copyset not in self._copysets]


class FakeStore:
    """chunkserver.ports.NativeStore in memory. `leads` says which copysets it leads."""

    def __init__(self, store_id: bytes, cluster_id: bytes) -> None:
        self.store_id = store_id
        self.cluster_id = cluster_id
        self.incarnation = 1
        self.peers: list[tuple[bytes, str]] = []
        self.formed: dict[int, tuple[list[tuple[bytes, str]], bytes]] = {}
        self.leads: Callable[[int], bool] = lambda copyset: (
            self.formed[copyset][1] == self.store_id if copyset in self.formed else False
        )
        self.leader_of: Callable[[int], bytes | None] = lambda copyset: (
            self.formed[copyset][1] if copyset in self.formed else None
        )
        self.no_space = False  # for fences
        self.fences: dict[tuple[int, int], tuple[int, int, list[int]]] = {}
        self.deleted: set[tuple[int, int]] = set()
        self.joined: set[int] = set()
        self.changes: list[tuple[int, str, bytes, int]] = []
        self.limits = (0, 0)
        self.orders = 0
        self.scrubs: list[int] = []  # rates
        self.differences: list[dict[str, Any]] = []  # what a check finds
        self.deaf = False  # takes orders and never answers
        self._events: list[tuple[Any, ...]] = []
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self._ticket = 0

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def fileno(self) -> int:
        return self._descriptor

    def poll(self, max_events: int) -> list[tuple[Any, ...]]:
        events, self._events = self._events[:max_events], self._events[max_events:]
        if not self._events:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._descriptor)
        return events

    def _answer(self, name: str, *fields: Any) -> int:
        self._ticket += 1
        self.orders += 1
        if not self.deaf:
            self._events.append((name, self._ticket, *fields))
            os.eventfd_write(self._descriptor, 1)
        return self._ticket

    def set_peers(self, peers: list[tuple[bytes, str]]) -> None:
        self.peers = peers

    def form_copysets(self, copysets: list[tuple[int, list[tuple[bytes, str]], bytes]]) -> int:
        for copyset, voters, preferred in copysets:
            self.formed.setdefault(copyset, (voters, preferred))
        return self._answer("FormDone", [copyset for copyset, _, _ in copysets])

    def fence(
        self, volume_id: int, floor: int, ceiling: int, revoked: list[int], copysets: list[int]
    ) -> int:
        led = [copyset for copyset in copysets if self.leads(copyset)]
        if self.no_space:
            return self._answer("FenceDone", [], [c for c in copysets if c not in led], led)
        for copyset in led:
            self.fences[copyset, volume_id] = (floor, ceiling, revoked)
        return self._answer("FenceDone", led, [c for c in copysets if c not in led])

    def delete_volume(self, volume_id: int, copysets: list[int]) -> int:
        led = [copyset for copyset in copysets if self.leads(copyset)]
        self.deleted.update((copyset, volume_id) for copyset in led)
        return self._answer("DeleteDone", led, [c for c in copysets if c not in led])

    def join_copysets(self, copysets: list[int]) -> int:
        self.joined.update(copysets)
        return self._answer("FormDone", copysets)

    def change_members(self, copyset: int, change: str, store_id: bytes, voters_min: int) -> int:
        self.changes.append((copyset, change, store_id, voters_min))
        if not self.leads(copyset):
            return self._answer("MembersDone", False, self.leader_of(copyset), "", 3, [], [])
        members = [store for store, _ in self.formed[copyset][0]]
        return self._answer("MembersDone", True, self.store_id, "", 4, members, [store_id])

    def remove_replica(self, copyset: int, config_index: int, leader_term: int) -> int:
        removed = config_index >= 4 and leader_term == 9
        if removed:
            self.formed.pop(copyset, None)
        return self._answer("RemoveDone", removed)

    def transfer(self, copyset: int, store_id: bytes) -> int:
        leader = self.leader_of(copyset)
        return self._answer("TransferDone", self.leads(copyset), leader)

    def set_limits(self, sync_bytes_per_second: int, syncs_at_once: int) -> None:
        self.limits = (sync_bytes_per_second, syncs_at_once)

    def mapped_bytes(self, volume_id: int) -> int:
        return 65536 * volume_id

    def scrub(self, bytes_per_second: int) -> None:
        self.scrubs.append(bytes_per_second)

    def check(
        self, volume_id: int, placement_id: int, chunks: int, copysets: int, copyset: int
    ) -> int:
        report: dict[str, Any] = {
            "code": "ok",
            "leader": bytes(16),
            "chunks": chunks,
            "replicas": 3,
            "differences": self.differences,
        }
        if not self.leads(copyset):
            report |= {"code": "not_leader", "leader": self.leader_of(copyset) or bytes(16)}
        return self._answer("CheckDone", report)

    def look(self) -> FakeStatus:
        return FakeStatus(self.status())

    def status(self) -> dict[str, Any]:
        return {
            "scrub": {"running": bool(self.scrubs), "blocks_total": 7},
            "counters": {"damaged_sectors": 2},
            "capacity_bytes": 1 << 40,
            "used_bytes": 1 << 30,
            "copysets": [
                {
                    "id": copyset,
                    "role": "leader" if self.leads(copyset) else "follower",
                    "term": 1,
                    "leader": self.leader_of(copyset),
                    "commit_index": 5,
                    "applied_index": 5,
                    "last_index": 5,
                    "peers": [],
                }
                for copyset in self.formed
            ],
        }


@pytest.fixture
def group() -> Iterator[Group]:
    made = Group()
    yield made
    for node in made.nodes:
        node.close()


@pytest.fixture
async def cluster(group: Any, make_store: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """Three metaservers (metaserver_cluster.Cluster)."""
    from metaserver_cluster import Cluster

    made = Cluster(group, make_store, tmp_path)
    await made.start_metaservers(3)
    yield made
    await made.close()


@pytest.fixture
def make_store() -> Callable[[bytes, bytes], FakeStore]:
    return FakeStore


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Waits until a condition (plain or async) holds; the bound only ends a test that hangs."""

    async def wait(condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(20):
            while True:
                value = condition()
                if inspect.isawaitable(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.01)

    return wait
