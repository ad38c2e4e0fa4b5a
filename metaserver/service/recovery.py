"""The leader's duties about where replicas are: the scheduler's passes, and what they decided.

Owns: starting, carrying out and ending moves, preferred leaders, leftovers, limits. Every order is
idempotent and every step is a command (docs/formats/metaserver-log.md), so that a new leader goes
on where an old one stopped.
Invariants: R1: the target joins without a vote before it is added; a source is removed only while
as many voters as the pool has replicas remain; a target is in the table of clients before it is
promoted. Thread: the asyncio loop; passes run in a worker thread on shallow copies.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from metaserver.domain import commands as cmd
from metaserver.domain.entities import Chunkserver, Copyset, Move, MoveStep
from metaserver.domain.health_view import HealthView, StoreState
from metaserver.domain.ports import (
    ChangeOutcome,
    ChunkserverGateway,
    MemberChange,
    UnreachableError,
)
from metaserver.domain.recovery_plan import Limits, Plan, command_of
from metaserver.domain.scheduler import Tables, plan
from metaserver.domain.state import MetaState
from metaserver.service.assess import Leftover, assess, find_leftovers, is_same
from metaserver.service.fill_watch import FillWatch
from metaserver.service.health import Health, Heard
from metaserver.service.journal import Journal
from metaserver.service.passes import for_each, wait_for
from metaserver.service.replicator import Replicator

_log = logging.getLogger(__name__)

_PASS_SECONDS = 1.0
_PASS_SHARE = 20  # a pass may take one part in so many of the time
# A pass that would see what the last one saw, and that decided nothing, is left out for so long.
_STILL_SECONDS = 120.0
_POLL_SECONDS = 0.3
_POLL_SECONDS_MAX = 5.0  # of a chunkserver that does not answer
_PREFERENCES_AT_ONCE = 8
_REMOVALS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class _Pass:
    """The last one: what it saw, and whether another could only come to the same."""

    tables: Tables
    heard: Heard
    found_nothing: bool


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    limits: Limits = field(default_factory=Limits)
    sync_bytes_per_second: int = 64 * 1024 * 1024  # taken in by each chunkserver; 0: no limit


class Recovery:
    """One per process; `all` is given to the replicator, which runs them while it leads."""

    def __init__(
        self,
        replicator: Replicator,
        gateway: ChunkserverGateway,
        health: Health,
        settings: RecoverySettings,
    ) -> None:
        self._replicator = replicator
        self._gateway = gateway
        self._health = health
        self._settings = settings
        self._leftovers: list[Leftover] = []
        self._found_leftovers = asyncio.Event()
        self._last: _Pass | None = None
        self._fills = FillWatch()
        self._listening_since = -1.0
        self.journal = Journal()

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        return [self.schedule, self.carry_moves, self.tell_preferences, self.clean_up, self.limit]

    @property
    def _state(self) -> MetaState:
        return self._replicator.state

    # --- Deciding -------------------------------------------------------------------------------

    async def schedule(self) -> None:
        """Decides, commits what was decided, and keeps why."""
        while True:
            began = time.monotonic()
            heard = self._health.heard()
            if heard.since != self._listening_since:  # it leads anew
                self._listening_since = heard.since
                self.journal.reset()
                self._fills.reset()
            tables = Tables.of(self._state)
            if self._stands_still(tables, heard):
                await asyncio.sleep(_PASS_SECONDS)
                continue
            self._last = None  # until this one has ended, and not in an error
            now_ms = time.time_ns() // 1_000_000
            made, view, self._leftovers = await asyncio.to_thread(
                self._look, tables, heard, secrets.randbits(63), now_ms
            )
            took = time.monotonic() - began
            for decision in made.decisions:
                await self._replicator.submit(command_of(decision, now_ms))
            self.journal.note(now_ms, made, tables.chunkservers, self._state.moves, view)
            if self._leftovers:
                self._found_leftovers.set()
            idle = not (made.decisions or made.queued_moves or tables.moves or self._leftovers)
            # Who was given up as a target is barred for a time, which ends by itself.
            self._last = _Pass(tables, heard, idle and not tables.stalled)
            await self._rest(made, took)

    def _stands_still(self, tables: Tables, heard: Heard) -> bool:
        last = self._last
        return (
            last is not None
            and last.found_nothing
            and heard.now - last.heard.now < _STILL_SECONDS
            and tables == last.tables
            and is_same(tables, heard, last.heard)
        )

    async def _rest(self, made: Plan, took: float) -> None:
        """Until the next pass: earlier when half of the moves have ended and others wait."""
        moves = len(self._state.moves)
        shortest = max(_POLL_SECONDS, _PASS_SHARE * took)
        if not made.queued_moves:
            shortest = max(shortest, _PASS_SECONDS)
        await asyncio.sleep(shortest)
        waited = shortest
        while waited < _PASS_SECONDS:
            if 2 * len(self._state.moves) <= moves:
                return
            await asyncio.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS

    def _look(
        self, tables: Tables, heard: Heard, seed: int, now_ms: int
    ) -> tuple[Plan, HealthView, list[Leftover]]:
        view = assess(tables, heard, self._fills.look(tables, heard))
        made = plan(tables, view, self._settings.limits, seed, now_ms)
        return made, view, find_leftovers(tables, heard)

    # --- Moves ----------------------------------------------------------------------------------

    async def carry_moves(self) -> None:
        """Every move, step by step, until it has ended."""
        at_once = 4 * self._settings.limits.moves_max  # no bound of its own
        await for_each(
            self._replicator.watches, lambda: list(self._state.moves), self._carry, at_once
        )

    async def _carry(self, copyset_id: int) -> bool:
        pause = _POLL_SECONDS
        while (move := self._state.moves.get(copyset_id)) is not None:
            try:
                done = await self._step(move)
                pause = _POLL_SECONDS
            except UnreachableError as error:
                done = False
                pause = min(2 * pause, _POLL_SECONDS_MAX)
                self._complain(copyset_id, str(error))
            if done:
                self.journal.waits.pop(copyset_id, None)
            else:
                await asyncio.sleep(pause)
        self.journal.waits.pop(copyset_id, None)
        return True

    async def _step(self, move: Move) -> bool:
        """Whether it got further."""
        match move.step:
            case MoveStep.JOIN:
                await self._join(move)
                if not await self._change(move.copyset_id, MemberChange.ADD_LEARNER, move.target):
                    return False
                await self._advance(move, MoveStep.FILL)
            case MoveStep.FILL:
                if self._lacks_replica(move):
                    await self._join(move)
                if not await self._change(move.copyset_id, MemberChange.PROMOTE, move.target):
                    return False
                await self._advance(move, MoveStep.REMOVE)
            case MoveStep.REMOVE:
                if not await self._release(move):
                    return False
                await self._end(move)
            case MoveStep.CANCEL:
                if not await self._change(
                    move.copyset_id, MemberChange.REMOVE, move.target, move.source
                ):
                    return False
                await self._end(move)
        return True

    async def _join(self, move: Move) -> None:
        target = self._state.chunkservers[move.target]
        await self._gateway.join_copysets(target.admin_address, target.store_id, [move.copyset_id])

    def _lacks_replica(self, move: Move) -> bool:
        """An order to remove an earlier replica may have come late."""
        heartbeat = self._health.heartbeat(move.target)
        return heartbeat is not None and move.copyset_id not in heartbeat.replicas

    async def _release(self, move: Move) -> bool:
        """The source goes, after it has handed over. True once that is committed."""
        copyset = self._state.copysets[move.copyset_id]
        if copyset.preferred_leader == move.source and not await self._change(
            move.copyset_id, MemberChange.PREFER, move.target
        ):
            return False
        return await self._change(move.copyset_id, MemberChange.REMOVE, move.source, move.target)

    async def _advance(self, move: Move, step: MoveStep) -> None:
        await self._replicator.submit(cmd.AdvanceMove(move.copyset_id, move.move_id, step))

    async def _end(self, move: Move) -> None:
        heartbeat = self._health.heartbeat(move.target)
        report = heartbeat.replicas.get(move.copyset_id) if heartbeat else None
        size_bytes = report.used_bytes if report else 0
        if move.step is MoveStep.REMOVE:  # it is filled, though the report may be from before
            size_bytes = max(size_bytes, move.size_bytes)
        await self._replicator.submit(
            cmd.EndMove(
                move.copyset_id,
                move.move_id,
                move.target,
                size_bytes,
                time.time_ns() // 1_000_000,
            )
        )

    # --- Asking leaders -------------------------------------------------------------------------

    async def _change(
        self, copyset_id: int, change: MemberChange, subject: bytes, heir: bytes = b""
    ) -> bool:
        """True once the copyset's leader has committed it, or it held already.

        A leader does not remove itself: it is asked to make `heir` the leader instead.
        """
        copyset = self._state.copysets[copyset_id]
        last: UnreachableError | None = None
        known: set[bytes] = set()
        ask = self._whom_to_ask(copyset)
        while ask:
            store_id = ask.pop(0)
            known.add(store_id)
            try:
                if change is MemberChange.REMOVE and store_id == subject:
                    outcome = await self._hand_over(store_id, copyset_id, heir)
                else:
                    outcome = await self._ask(store_id, copyset_id, (change, subject))
            except UnreachableError as error:
                last = error
                continue
            if outcome.applied:
                return True
            if outcome.busy:
                self._complain(copyset_id, outcome.busy)
                return False
            if outcome.leader is not None and outcome.leader not in known:
                ask = [outcome.leader, *(store for store in ask if store != outcome.leader)]
        if last is not None:
            raise last
        return False

    def _whom_to_ask(self, copyset: Copyset) -> list[bytes]:
        """Who is said to lead first, then all other members that are not known to be down."""
        members = list(self._state.members_of(copyset))
        leader = self._health.leader_of(copyset.copyset_id)
        if leader is not None:
            members = [leader[1], *(store for store in members if store != leader[1])]
        silent = (StoreState.DOWN, StoreState.GONE, StoreState.FAILED)
        return [store for store in members if self._health.state_of(store) not in silent]

    async def _ask(
        self, store_id: bytes, copyset_id: int, change: tuple[MemberChange, bytes]
    ) -> ChangeOutcome:
        return await self._gateway.change_members(
            self._admin_address(store_id),
            store_id,
            copyset_id,
            change,
            self._state.pools[copyset_id >> 32].replica_count,
        )

    async def _hand_over(self, store_id: bytes, copyset_id: int, heir: bytes) -> ChangeOutcome:
        started, leader = await self._gateway.transfer_leader(
            self._admin_address(store_id), store_id, copyset_id, heir
        )
        return ChangeOutcome(False, leader, "leadership is handed over" if started else "")

    def _admin_address(self, store_id: bytes) -> str:
        chunkserver = self._state.chunkservers.get(store_id)
        if chunkserver is None:
            raise UnreachableError(f"There is no chunkserver {store_id.hex()}.")
        return chunkserver.admin_address

    def _complain(self, copyset_id: int, text: str) -> None:
        """Once per copyset and reason, not at every try."""
        if self.journal.waits.get(copyset_id) != text:
            self.journal.waits[copyset_id] = text
            _log.info("a move waits", extra={"copyset": copyset_id, "why": text})

    # --- Preferred leaders ----------------------------------------------------------------------

    async def tell_preferences(self) -> None:
        """What is wished here is in the copyset's configuration; its leader follows by itself."""
        await for_each(
            self._replicator.watches, self._untold, self._tell_preference, _PREFERENCES_AT_ONCE
        )

    def _untold(self) -> list[int]:
        state = self._state
        return [
            copyset.copyset_id
            for copyset in state.copysets.values()
            if not copyset.preference_told and copyset.copyset_id not in state.moves
        ]

    async def _tell_preference(self, copyset_id: int) -> bool:
        wanted = self._state.copysets[copyset_id].preferred_leader
        try:
            if not await self._change(copyset_id, MemberChange.PREFER, wanted):
                return False
        except UnreachableError as error:
            self._complain(copyset_id, str(error))
            return False
        await self._replicator.submit(cmd.ConfirmPreferred(copyset_id, wanted))
        return True

    # --- Stores ---------------------------------------------------------------------------------

    async def clean_up(self) -> None:
        """What a store has kept of copysets that are elsewhere by now is taken off it."""
        while True:
            await self._found_leftovers.wait()
            self._found_leftovers.clear()
            found, self._leftovers = self._leftovers, []
            for first in range(0, len(found), _REMOVALS_AT_ONCE):
                part = found[first : first + _REMOVALS_AT_ONCE]
                await asyncio.gather(*(self._remove(leftover) for leftover in part))

    async def _remove(self, leftover: Leftover) -> None:
        state = self._state
        chunkserver = state.chunkservers[leftover.store_id]
        move = state.moves.get(leftover.copyset_id)
        copyset = state.copysets[leftover.copyset_id]
        if leftover.store_id in copyset.replicas or (
            move is not None and move.target == leftover.store_id
        ):
            return
        try:
            await self._gateway.remove_replica(
                chunkserver.admin_address,
                leftover.store_id,
                leftover.copyset_id,
                leftover.config_index,
                leftover.leader_term,
            )
        except UnreachableError as error:
            self._complain(leftover.copyset_id, str(error))

    async def limit(self) -> None:
        """Every chunkserver that is up knows how much it may do in the background."""
        told: dict[bytes, int] = {}  # store -> incarnation
        with self._replicator.watches.everything() as changed:
            while True:
                changed.clear()
                untold = [
                    (chunkserver, heartbeat.incarnation)
                    for chunkserver in self._state.chunkservers.values()
                    if (heartbeat := self._health.heartbeat(chunkserver.store_id)) is not None
                    and told.get(chunkserver.store_id) != heartbeat.incarnation
                    and self._health.state_of(chunkserver.store_id) is StoreState.UP
                ]
                for chunkserver, incarnation in untold:
                    if await self._set_limits(chunkserver):
                        told[chunkserver.store_id] = incarnation
                    else:
                        await asyncio.sleep(_POLL_SECONDS_MAX)
                await wait_for(changed, unfinished=bool(untold))

    async def _set_limits(self, chunkserver: Chunkserver) -> bool:
        try:
            await self._gateway.set_limits(
                chunkserver.admin_address,
                chunkserver.store_id,
                self._settings.sync_bytes_per_second,
                self._settings.limits.syncs_per_store_max,
            )
        except UnreachableError as error:
            _log.debug("limits are not set yet", extra={"error": str(error)})
            return False
        return True
