"""The cluster as it will be once every move that runs, or was just decided, is done.

Owns: expected load and space of each store, expected members of each copyset, failure domains, and
the choice of a target. The scheduler's working copy; one per pass, never shared. Must not know why
something moves. Deterministic given the generator. Thread: whoever runs the pass.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from metaserver.domain.entities import (
    Chunkserver,
    ChunkserverLife,
    Copyset,
    FailureDomain,
    Move,
    MoveStep,
)
from metaserver.domain.health_view import HealthView, StoreState, StoreView
from metaserver.domain.placement import domain_of

Spread = tuple[int, int]  # how many zones, how many servers


@dataclass(slots=True)
class Store:
    """One chunkserver. `load` and `used_bytes` are as they will be."""

    chunkserver: Chunkserver
    view: StoreView
    capacity_bytes: int
    used_bytes: int
    load: int = 0
    filling: int = 0  # replicas that are being filled there
    sending: int = 0  # replicas that are filled from there
    doubted: bool = False  # lately it was given up as a target, because it was not filled

    @property
    def store_id(self) -> bytes:
        return self.chunkserver.store_id

    @property
    def name(self) -> str:
        return f"chunkserver {self.chunkserver.data_address}"

    @property
    def is_usable(self) -> bool:
        """May get replicas, and give some away for balance."""
        return (
            self.chunkserver.life is ChunkserverLife.IN_SERVICE and self.view.state is StoreState.UP
        )

    @property
    def percent(self) -> float:
        return 100 * self.used_bytes / self.capacity_bytes

    def percent_with(self, more_bytes: int) -> float:
        return 100 * (self.used_bytes + more_bytes) / self.capacity_bytes

    def ratio(self, more: float = 0.0) -> float:
        """Replicas per byte of capacity."""
        return (self.load + more) / self.capacity_bytes


class Board:
    """Invariant: `members[c]` has as many stores as copyset c has replicas, all different."""

    def __init__(
        self,
        chunkservers: Mapping[bytes, Chunkserver],
        copysets: Mapping[int, Copyset],
        health: HealthView,
        rng: random.Random,
        barred: Mapping[int, frozenset[bytes]],
    ) -> None:
        """`barred`: stores that are not to get a replica of the copyset for now."""
        self.health = health
        self._barred = barred
        self._rng = rng
        self.stores = {
            store_id: _store(chunkserver, health.store(store_id))
            for store_id, chunkserver in chunkservers.items()
        }
        for store_id in frozenset().union(*barred.values()):
            self.stores[store_id].doubted = True
        self.members = {c.copyset_id: list(c.replicas) for c in copysets.values()}
        self.held: dict[bytes, dict[int, None]] = {store_id: {} for store_id in self.stores}
        self.moving: set[int] = set()
        for copyset_id, members in self.members.items():
            for store_id in members:
                self.held[store_id][copyset_id] = None
                self.stores[store_id].load += 1
        self.usable = [store for store in self.stores.values() if store.is_usable]
        self._widest = self.spread_of(store.store_id for store in self.usable)

    # --- Changing -------------------------------------------------------------------------------

    def adopt(self, move: Move) -> None:
        """A move that runs: as if it were done."""
        self.moving.add(move.copyset_id)
        if move.step is MoveStep.CANCEL:
            return
        there = self.health.filled_bytes.get(move.copyset_id, 0)
        self._exchange(move.copyset_id, move.source, move.target)
        self.stores[move.source].used_bytes -= move.size_bytes
        self.stores[move.target].used_bytes += max(0, move.size_bytes - there)
        if move.step is not MoveStep.REMOVE:
            self.occupy(move.copyset_id, move.target)

    def move(self, copyset_id: int, source: bytes, target: bytes) -> None:
        """One that has just been decided, whether it may start now or has to wait."""
        self.moving.add(copyset_id)
        size = self.size_of(copyset_id)
        self._exchange(copyset_id, source, target)
        self.stores[source].used_bytes -= size
        self.stores[target].used_bytes += size

    def occupy(self, copyset_id: int, target: bytes) -> None:
        """Somebody is being filled, from the copyset's leader."""
        self.stores[target].filling += 1
        sender = self.sender(copyset_id)
        if sender is not None:
            sender.sending += 1

    def _exchange(self, copyset_id: int, source: bytes, target: bytes) -> None:
        self.members[copyset_id].remove(source)
        self.members[copyset_id].append(target)
        del self.held[source][copyset_id]
        self.held[target][copyset_id] = None
        self.stores[source].load -= 1
        self.stores[target].load += 1

    # --- Looking --------------------------------------------------------------------------------

    def size_of(self, copyset_id: int) -> int:
        return self.health.copyset(copyset_id).size_bytes

    def sender(self, copyset_id: int) -> Store | None:
        leader = self.health.copyset(copyset_id).leader
        return self.stores.get(leader) if leader else None

    def is_whole(self, copyset_id: int) -> bool:
        """It is led, and every replica serves: one may be moved without haste."""
        view = self.health.copyset(copyset_id)
        return view.leader is not None and view.healthy.issuperset(self.members[copyset_id])

    def lost_members(self, copyset_id: int) -> list[Store]:
        stores = [self.stores[store_id] for store_id in self.members[copyset_id]]
        return [store for store in stores if store.view.state.is_lost]

    def spread_of(self, store_ids: Iterable[bytes]) -> Spread:
        where = [self.stores[store_id].chunkserver for store_id in store_ids]
        return (len({c.zone for c in where}), len({(c.zone, c.server) for c in where}))

    def spread_with(self, copyset_id: int, source: bytes, target: bytes) -> Spread:
        members = self.members[copyset_id]
        return self.spread_of([*(store for store in members if store != source), target])

    def widest_spread(self, replica_count: int) -> Spread:
        zones, servers = self._widest
        return (min(zones, replica_count), min(servers, replica_count))

    def shares_domain(self, copyset_id: int, level: FailureDomain) -> bool:
        """Two of its replicas are in one domain of that level."""
        members = self.members[copyset_id]
        domains = {domain_of(self.stores[store].chunkserver, level) for store in members}
        return len(domains) < len(members)

    def candidates(self, copyset_id: int, percent_max: float) -> list[Store]:
        """Who could get a replica: usable, no member, nothing left of an earlier one, has room, was
        not given up as a target of this copyset lately.
        """
        size = self.size_of(copyset_id)
        members = self.members[copyset_id]
        return [
            store
            for store in self.usable
            if store.store_id not in members
            and copyset_id not in store.view.reported
            and store.percent_with(size) <= percent_max
            and not self.is_barred(copyset_id, store)
        ]

    def is_barred(self, copyset_id: int, store: Store) -> bool:
        return store.store_id in self._barred.get(copyset_id, ())

    def best_target(
        self, copyset_id: int, source: bytes, candidates: Iterable[Store]
    ) -> Store | None:
        """Who is not doubted first, then the widest spread, then the least load."""
        return min(
            candidates,
            key=lambda store: (
                store.doubted,
                *(-count for count in self.spread_with(copyset_id, source, store.store_id)),
                store.ratio(1),
                self._rng.random(),
            ),
            default=None,
        )


def _store(chunkserver: Chunkserver, view: StoreView) -> Store:
    capacity = view.capacity_bytes or chunkserver.capacity_bytes or 1
    return Store(chunkserver, view, capacity, view.used_bytes)
