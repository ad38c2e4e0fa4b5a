"""Which chunkservers hold each copyset of a new pool, and which replica should lead.

Owns: balance (replicas and preferred leaders per chunkserver, by capacity) and failure domains.
Decided by the leader before it proposes (R16); the result travels in the command. Pure; a few ms
per thousand copysets: run it off the loop for large pools. Any thread.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from metaserver.domain.entities import Chunkserver, FailureDomain


class ImpossiblePlacementError(Exception):
    """Not enough failure domains; the sentence says what there is and what is needed."""


@dataclass(frozen=True, slots=True)
class Placement:
    failure_domain: FailureDomain
    stores: tuple[bytes, ...]
    copysets: tuple[tuple[int, ...], ...]  # positions in `stores`, preferred leader first


def domain_of(chunkserver: Chunkserver, level: FailureDomain) -> tuple[str, ...]:
    """A server's name counts within its zone, a chunkserver within its server."""
    if level is FailureDomain.ZONE:
        return (chunkserver.zone,)
    if level is FailureDomain.SERVER:
        return (chunkserver.zone, chunkserver.server)
    return (chunkserver.zone, chunkserver.server, chunkserver.store_id.hex())


def choose_domain(
    chunkservers: Sequence[Chunkserver], replica_count: int, wanted: FailureDomain | None
) -> FailureDomain:
    """`wanted`, or the widest that has a domain per replica. Raises ImpossiblePlacementError."""
    levels = [wanted] if wanted else list(FailureDomain)
    for level in levels:
        if len({domain_of(c, level) for c in chunkservers}) >= replica_count:
            return level
    level = levels[-1]
    count = len({domain_of(c, level) for c in chunkservers})
    raise ImpossiblePlacementError(
        f"{replica_count} replicas need as many different {level.value}s and there are {count}."
    )


def place(
    chunkservers: Sequence[Chunkserver],
    copyset_count: int,
    replica_count: int,
    wanted: FailureDomain | None,
    seed: int,
) -> Placement:
    """Balanced copysets over distinct domains: zones first, then servers.

    Raises ImpossiblePlacementError.
    """
    level = choose_domain(chunkservers, replica_count, wanted)
    picker = _Picker(chunkservers, level, random.Random(seed))
    replicas = [picker.pick(replica_count) for _ in range(copyset_count)]
    leaders = _balance_leaders(replicas)
    copysets = tuple(
        (leader, *(position for position in chosen if position != leader))
        for chosen, leader in zip(replicas, leaders, strict=True)
    )
    return Placement(level, tuple(c.store_id for c in chunkservers), copysets)


class _Picker:
    """Takes the least loaded chunkserver of an unused domain, preferring pairs that share few
    copysets.
    """

    def __init__(
        self, chunkservers: Sequence[Chunkserver], level: FailureDomain, rng: random.Random
    ) -> None:
        largest = max((c.capacity_bytes for c in chunkservers), default=0) or 1
        self._weight = [max(c.capacity_bytes / largest, 1e-6) for c in chunkservers]
        self._load = [0] * len(chunkservers)
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._rng = rng
        # Wider domains are avoided while there are unused ones, down to the level that must differ.
        levels = list(FailureDomain)
        self._must = levels.index(level)
        self._domains = [[domain_of(c, wide) for wide in levels] for c in chunkservers]

    def pick(self, replica_count: int) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < replica_count:
            position = min(self._candidates(chosen), key=lambda p: self._cost(p, chosen))
            chosen.append(position)
        for position in chosen:
            self._load[position] += 1
        for first, second in combinations(sorted(chosen), 2):
            self._pairs[first, second] += 1
        return chosen

    def _candidates(self, chosen: list[int]) -> list[int]:
        everything = range(len(self._load))
        for level in range(self._must + 1):
            used = {self._domains[position][level] for position in chosen}
            free = [p for p in everything if self._domains[p][level] not in used]
            if free:
                return free
        raise ImpossiblePlacementError(
            "The chunkservers do not spread over enough failure domains."
        )

    def _cost(self, position: int, chosen: list[int]) -> tuple[float, int, float]:
        shared = sum(self._pairs[min(position, c), max(position, c)] for c in chosen)
        load = (self._load[position] + 1) / self._weight[position]
        return (load, shared, self._rng.random())


def _balance_leaders(replicas: list[list[int]]) -> list[int]:
    """One of each copyset's replicas, so that every chunkserver leads about as many."""
    leads: Counter[int] = Counter()
    leaders = []
    for chosen in replicas:
        leader = min(chosen, key=lambda position: leads[position])
        leads[leader] += 1
        leaders.append(leader)
    moved = True
    while moved:  # each move lowers the sum of squares, so this ends
        moved = False
        for index, chosen in enumerate(replicas):
            other = min(chosen, key=lambda position: leads[position])
            if leads[leaders[index]] - leads[other] >= 2:
                leads[leaders[index]] -= 1
                leads[other] += 1
                leaders[index] = other
                moved = True
    return leaders
