"""One pass over the cluster: which replicas go where, which moves are given up, who should lead,
and why.

Owns: the order of urgency (lost replicas, those of the copysets with the fewest healthy ones first;
then drains, full stores, failure domains, balance, leaders), and the limits. Must not do anything:
it returns decisions. Deterministic given the seed. Thread: any; runs for ms per thousand copysets.

It converges: lost and drained replicas only leave; a move for a failure domain makes the spread
wider, and every other one keeps it; a move for space lowers the fullest, and nothing is put onto a
store above `fill_percent` for balance; after a move for balance, or a change of leader, who gave
still has no smaller share than who got, so that the sum of the squares has fallen. A target that is
alive and not filled is given up and barred for a while: nothing that can wait goes there then.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from curve_py.sizes import format_size
from curve_py.types import copyset_text
from metaserver.domain.board import Board, Store
from metaserver.domain.entities import (
    Chunkserver,
    ChunkserverLife,
    Copyset,
    FinishedMove,
    Move,
    MoveReason,
    MoveStep,
    Pool,
)
from metaserver.domain.health_view import HealthView, StoreState
from metaserver.domain.recovery_plan import (
    CancelMove,
    Decision,
    Limits,
    Plan,
    PreferLeader,
    StartMove,
)
from metaserver.domain.state import MetaState

_NAMED_MAX = 4  # copysets named in a note; the rest are counted


@dataclass(frozen=True, slots=True)
class Tables:
    """The part of the state that matters, as of one moment."""

    chunkservers: Mapping[bytes, Chunkserver]
    pools: Mapping[int, Pool]
    copysets: Mapping[int, Copyset]
    moves: Mapping[int, Move]
    stalled: tuple[FinishedMove, ...] = ()  # those whose target was not filled

    @classmethod
    def of(cls, state: MetaState) -> Tables:
        """Shallow copies: they do not change any more."""
        return cls(
            dict(state.chunkservers),
            dict(state.pools),
            dict(state.copysets),
            dict(state.moves),
            tuple(move for move in state.finished_moves.values() if move.stalled),
        )

    def barred(self, now_ms: int, bar_seconds: float) -> dict[int, frozenset[bytes]]:
        """By copyset: who was given up as its target less than `bar_seconds` ago.

        A clock that was set back bars nobody.
        """
        found: dict[int, frozenset[bytes]] = {}
        for move in self.stalled:
            if 0 <= now_ms - move.ended_at_ms < 1000 * bar_seconds:
                found[move.copyset_id] = found.get(move.copyset_id, frozenset()) | {move.target}
        return found


def plan(tables: Tables, health: HealthView, limits: Limits, seed: int, now_ms: int) -> Plan:
    """What to do now."""
    return _Pass(tables, health, limits, seed, now_ms).run()


@dataclass(slots=True)
class _Pass:
    tables: Tables
    health: HealthView
    limits: Limits
    seed: int
    now_ms: int
    decisions: list[Decision] = field(default_factory=list)
    notes: dict[str, list[int]] = field(default_factory=dict)
    running: int = 0
    queued: int = 0
    queued_bytes: int = 0
    urgent: bool = False  # a replacement or a drain runs, or is wanted and can be done
    board: Board = field(init=False)

    def run(self) -> Plan:
        rng = random.Random(self.seed)
        barred = self.tables.barred(self.now_ms, self.limits.bar_seconds)
        self.board = Board(self.tables.chunkservers, self.tables.copysets, self.health, rng, barred)
        self._look_at_moves()
        self._replace()
        self._drain()
        self._make_room()
        if self._is_calm():
            self._widen()
            self._balance(rng)
        if not self.decisions and not self.queued and not self.tables.moves:
            self._balance_leaders()
        return Plan(tuple(self.decisions), self._sentences(), self.queued, self.queued_bytes)

    # --- Moves that run -------------------------------------------------------------------------

    def _look_at_moves(self) -> None:
        for move in self.tables.moves.values():
            early = move.step in (MoveStep.JOIN, MoveStep.FILL)
            why = self._why_cancel(move) if early else ""
            stalled = self._why_stalled(move) if early and not why else ""
            if stalled or move.stalled:
                self.board.stores[move.target].doubted = True
            if why or stalled:
                self.decisions.append(
                    CancelMove(move.copyset_id, move.move_id, why or stalled, bool(stalled))
                )
                self.board.moving.add(move.copyset_id)
                continue
            self.board.adopt(move)
            self.running += move.step in (MoveStep.JOIN, MoveStep.FILL)
            self.urgent |= move.reason in (MoveReason.REPLACE, MoveReason.DRAIN)

    def _why_cancel(self, move: Move) -> str:
        """Empty: it goes on."""
        source, target = self.board.stores[move.source], self.board.stores[move.target]
        if target.view.state.is_lost or target.view.stalled:
            return f"{target.name} {target.view.why}"
        if target.chunkserver.life is not ChunkserverLife.IN_SERVICE:
            return f"{target.name} is not in service any more"
        healthy = self.health.copyset(move.copyset_id).healthy
        in_service = source.chunkserver.life is ChunkserverLife.IN_SERVICE
        filled = self.health.filled_bytes.get(move.copyset_id, 0)
        early = 2 * filled < move.size_bytes or not filled
        if move.reason is MoveReason.REPLACE and in_service and early and move.source in healthy:
            return f"{source.name} has come back"
        if move.reason is MoveReason.DRAIN and in_service:
            return f"{source.name} is not drained any more"
        others = [s for s in self.board.lost_members(move.copyset_id) if s is not source]
        if move.reason not in (MoveReason.REPLACE, MoveReason.DRAIN) and others:
            return f"makes way: {others[0].name} {others[0].view.why}"
        return ""

    def _why_stalled(self, move: Move) -> str:
        """Empty: its target gets on, or it is not the target that it waits for."""
        still = self.health.still_seconds.get(move.copyset_id, 0.0)
        if still <= self.limits.fill_patience_seconds:
            return ""
        target = self.board.stores[move.target]
        there = format_size(self.health.filled_bytes.get(move.copyset_id, 0))
        return (
            f"{target.name} has got nothing more for {still:.0f} s, {there} of "
            f"{format_size(move.size_bytes)} are there: not there again for "
            f"{self.limits.bar_seconds / 60:.0f} min"
        )

    # --- What is lost ---------------------------------------------------------------------------

    def _replace(self) -> None:
        lost = [store for store in self.board.stores.values() if store.view.state.is_lost]
        wanted = {copyset_id for store in lost for copyset_id in self.board.held[store.store_id]}
        for copyset_id in sorted(
            wanted - self.board.moving,
            key=lambda copyset_id: (len(self.health.copyset(copyset_id).healthy), copyset_id),
        ):
            source = min(self.board.lost_members(copyset_id), key=lambda store: store.store_id)
            why = f"{source.name} {source.view.why}"
            if self.tables.pools[copyset_id >> 32].unformed:
                self._note(f"{why}, and the pool is not formed yet", copyset_id)
            elif self.health.copyset(copyset_id).leader is None:
                self._note(f"{why}, and nobody leads: waits for a majority", copyset_id)
            else:
                self._rebuild(copyset_id, source, MoveReason.REPLACE, why)

    def _rebuild(self, copyset_id: int, source: Store, reason: MoveReason, why: str) -> None:
        """Elsewhere, in as different a place as there is."""
        candidates = self.board.candidates(copyset_id, self.limits.replace_percent)
        target = self.board.best_target(copyset_id, source.store_id, candidates)
        if target is None:
            self._note(f"{why}, and {self._why_nowhere(copyset_id)}", copyset_id)
            return
        self.urgent = True
        self._start(copyset_id, source, target, reason, why)

    def _why_nowhere(self, copyset_id: int) -> str:
        members = self.board.members[copyset_id]
        if all(store.store_id in members for store in self.board.usable):
            return f"there is no other chunkserver for one of {len(members)} replicas: add one"
        barred = [s for s in self.board.usable if self.board.is_barred(copyset_id, s)]
        if barred:
            return (
                f"{barred[0].name} was given up because it was not filled, and no other can take "
                "it: it is tried again later; add one"
            )
        return (
            f"no other chunkserver would stay below {self.limits.replace_percent} % of its space: "
            "add one"
        )

    # --- What is to leave -----------------------------------------------------------------------

    def _drain(self) -> None:
        for store in self.board.stores.values():
            draining = store.chunkserver.life is ChunkserverLife.DRAINING
            if not draining or store.view.state.is_lost:
                continue
            for copyset_id in sorted(self.board.held[store.store_id].keys() - self.board.moving):
                if self.board.is_whole(copyset_id):
                    self._rebuild(copyset_id, store, MoveReason.DRAIN, f"{store.name} is drained")
                else:
                    self._note(
                        f"{store.name} is drained, which waits until all replicas serve", copyset_id
                    )

    def _make_room(self) -> None:
        full = [s for s in self.board.usable if s.percent > self.limits.full_percent]
        emptiest = min((store.percent for store in self.board.usable), default=100.0)
        for source in sorted(full, key=lambda store: (-store.percent, store.store_id)):
            held = self.board.held[source.store_id].keys() - self.board.moving
            for copyset_id in sorted(held, key=lambda c: (-self.board.size_of(c), c)):
                if source.percent <= max(self.limits.full_percent, emptiest):
                    break
                target = self._roomier(copyset_id, source)
                if target is not None:
                    why = f"{source.name} is {source.percent:.0f} % full"
                    self._start(copyset_id, source, target, MoveReason.SPACE, why)
            if source.percent > self.limits.full_percent:
                self._notes_once(
                    f"{source.name} gets {source.percent:.0f} % full and no other has room for "
                    "what it holds: add chunkservers"
                )

    def _roomier(self, copyset_id: int, source: Store) -> Store | None:
        """A store that would afterwards be no fuller than the source, without a worse spread."""
        size = self.board.size_of(copyset_id)
        if not size or not self.board.is_whole(copyset_id):
            return None
        spread = self.board.spread_of(self.board.members[copyset_id])
        limit = source.percent_with(-size)
        fitting = [
            store
            for store in self.board.candidates(copyset_id, limit)
            if self.board.spread_with(copyset_id, source.store_id, store.store_id) >= spread
            and not store.doubted
        ]
        return min(fitting, key=lambda s: (s.percent_with(size), s.store_id), default=None)

    # --- When nothing is urgent -----------------------------------------------------------------

    def _is_calm(self) -> bool:
        """No repair, and no chunkserver silent that may come back."""
        return not self.urgent and all(
            store.view.state is StoreState.UP or store.view.state.is_lost
            for store in self.board.stores.values()
            if store.chunkserver.life is not ChunkserverLife.REMOVED
        )

    def _widen(self) -> None:
        for copyset in self.tables.copysets.values():
            copyset_id = copyset.copyset_id
            if copyset_id in self.board.moving:
                continue
            pool = self.tables.pools[copyset_id >> 32]
            spread = self.board.spread_of(self.board.members[copyset_id])
            narrow = spread < self.board.widest_spread(pool.replica_count)
            if narrow and self._widen_one(copyset_id):
                continue
            if self.board.shares_domain(copyset_id, pool.failure_domain):
                domain = pool.failure_domain.value
                self._note(
                    f"two replicas are in one {domain}, and in no other {domain} is a chunkserver "
                    "that could take one",
                    copyset_id,
                )

    def _widen_one(self, copyset_id: int) -> bool:
        if not self.board.is_whole(copyset_id):
            return False
        best = self.board.spread_of(self.board.members[copyset_id])
        found: tuple[Store, Store] | None = None
        for store_id in self.board.members[copyset_id]:
            candidates = self.board.candidates(copyset_id, self.limits.fill_percent)
            trusted = (store for store in candidates if not store.doubted)
            target = self.board.best_target(copyset_id, store_id, trusted)
            if target is None:
                continue
            spread = self.board.spread_with(copyset_id, store_id, target.store_id)
            if spread > best:
                best, found = spread, (self.board.stores[store_id], target)
        if found is None:
            return False
        why = "its replicas are in fewer zones or servers than they can be"
        self._start(copyset_id, *found, MoveReason.DOMAIN, why)
        return True

    def _balance(self, rng: random.Random) -> None:
        order = list(self.board.members)
        rng.shuffle(order)
        rank = {copyset_id: position for position, copyset_id in enumerate(order)}
        while (found := self._lopsided(rank)) is not None:
            copyset_id, source, target = found
            why = (
                f"{source.name} has {source.load} replicas, {target.name} {target.load} for its "
                "capacity"
            )
            self._start(copyset_id, source, target, MoveReason.BALANCE, why)

    def _lopsided(self, rank: dict[int, int]) -> tuple[int, Store, Store] | None:
        rising = sorted(self.board.usable, key=lambda s: (s.ratio(), s.store_id))
        for source in reversed(rising):
            movable: list[int] | None = None
            for target in rising:
                if source.ratio(-1) < target.ratio(1):
                    break
                if movable is None:
                    held = self.board.held[source.store_id].keys() - self.board.moving
                    movable = sorted(filter(self.board.is_whole, held), key=rank.__getitem__)
                for copyset_id in movable:
                    if self._may_go(copyset_id, source, target):
                        return copyset_id, source, target
        return None

    def _may_go(self, copyset_id: int, source: Store, target: Store) -> bool:
        board = self.board
        return (
            target.store_id not in board.members[copyset_id]
            and not target.doubted
            and copyset_id not in target.view.reported
            and target.percent_with(board.size_of(copyset_id)) <= self.limits.fill_percent
            and board.spread_with(copyset_id, source.store_id, target.store_id)
            >= board.spread_of(board.members[copyset_id])
        )

    def _balance_leaders(self) -> None:
        """By the wishes, not by who leads at the moment: replicas follow their wish themselves."""
        led: dict[bytes, dict[int, None]] = {store_id: {} for store_id in self.board.stores}
        for copyset in self.tables.copysets.values():
            led[copyset.preferred_leader][copyset.copyset_id] = None
        for _ in range(self.limits.leader_changes_max):
            found = self._overworked(led)
            if found is None:
                return
            copyset_id, leader, heir = found
            why = (
                f"{leader.name} is to lead {len(led[leader.store_id])} of its {leader.load} "
                f"copysets, {heir.name} {len(led[heir.store_id])} of {heir.load}"
            )
            del led[leader.store_id][copyset_id]
            led[heir.store_id][copyset_id] = None
            self.decisions.append(PreferLeader(copyset_id, heir.store_id, why))

    def _overworked(self, led: dict[bytes, dict[int, None]]) -> tuple[int, Store, Store] | None:
        """A copyset, who is to lead it, and another that would afterwards still lead no more."""

        def share(store: Store, more: int) -> float:
            return (len(led[store.store_id]) + more) / max(store.load, 1)

        rising = sorted(self.board.usable, key=lambda store: (share(store, 0), store.store_id))
        for leader in reversed(rising):
            for heir in rising:
                if share(heir, 1) > share(leader, -1):
                    break
                for copyset_id in led[leader.store_id]:
                    is_member = heir.store_id in self.board.members[copyset_id]
                    if is_member and self.board.is_whole(copyset_id):
                        return copyset_id, leader, heir
        return None

    # --- Telling --------------------------------------------------------------------------------

    def _start(
        self, copyset_id: int, source: Store, target: Store, reason: MoveReason, why: str
    ) -> None:
        """Now if the limits allow it, else later."""
        urgent = reason in (MoveReason.REPLACE, MoveReason.DRAIN, MoveReason.SPACE)
        share = 1 if urgent else 2  # what is not urgent leaves half of everything free
        per_store = max(1, self.limits.syncs_per_store_max // share)
        sender = self.board.sender(copyset_id)
        size = self.board.size_of(copyset_id)
        self.board.move(copyset_id, source.store_id, target.store_id)
        if (
            self.running >= max(1, self.limits.moves_max // share)
            or target.filling >= per_store
            or (sender is not None and sender.sending >= per_store)
        ):
            self.queued += 1
            self.queued_bytes += size
            return
        self.board.occupy(copyset_id, target.store_id)
        self.running += 1
        pool = self.tables.pools[copyset_id >> 32]
        if self.board.shares_domain(copyset_id, pool.failure_domain):
            why += (
                f"; two of its replicas are then in one {pool.failure_domain.value}, because no "
                "chunkserver elsewhere can take it"
            )
        self.decisions.append(
            StartMove(copyset_id, source.store_id, target.store_id, reason, why, size)
        )

    def _note(self, text: str, copyset_id: int) -> None:
        self.notes.setdefault(text, []).append(copyset_id)

    def _notes_once(self, text: str) -> None:
        self.notes.setdefault(text, [])

    def _sentences(self) -> tuple[str, ...]:
        return tuple(_sentence(text, copysets) for text, copysets in self.notes.items())


def _sentence(text: str, copyset_ids: list[int]) -> str:
    if not copyset_ids:
        return f"{text}."
    named = ", ".join(copyset_text(copyset_id) for copyset_id in copyset_ids[:_NAMED_MAX])
    more = len(copyset_ids) - _NAMED_MAX
    plural = "s" if len(copyset_ids) > 1 else ""
    return f"Copyset{plural} {named}{f' and {more} more' if more > 0 else ''}: {text}."
