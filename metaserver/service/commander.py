"""One order to every copyset of a pool, until the leader of each has applied it.

Owns: which chunkserver is asked for which copyset (one message per chunkserver), hints and retries.
Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from curve_py.errors import NoSpaceError
from metaserver.domain.entities import Chunkserver, Copyset, Pool
from metaserver.domain.ports import CopysetOutcome, UnreachableError
from metaserver.domain.state import MetaState
from metaserver.service.health import Health

_log = logging.getLogger(__name__)

Send = Callable[[Chunkserver, list[int]], Awaitable[CopysetOutcome]]
_PAUSE_SECONDS = 0.02
_PAUSE_SECONDS_MAX = 0.5


class Round:
    """The copysets that have not confirmed yet, and whom to ask for each."""

    def __init__(self, copysets: list[Copyset], health: Health) -> None:
        self._members: dict[int, tuple[bytes, ...]] = {c.copyset_id: c.replicas for c in copysets}
        self._ask: dict[int, bytes] = {}
        self.refused: set[int] = set()
        for copyset in copysets:
            leader = health.leader_of(copyset.copyset_id)
            self._ask[copyset.copyset_id] = leader[1] if leader else copyset.preferred_leader

    def follow(self, state: MetaState) -> None:
        """Members may change while the order is under way."""
        for copyset_id in self._ask:
            self._members[copyset_id] = state.members_of(state.copysets[copyset_id])

    @property
    def pending(self) -> int:
        return len(self._ask)

    def by_store(self) -> dict[bytes, list[int]]:
        groups: dict[bytes, list[int]] = {}
        for copyset_id, store_id in self._ask.items():
            groups.setdefault(store_id, []).append(copyset_id)
        return groups

    def applied(self, copyset_id: int) -> None:
        self._ask.pop(copyset_id, None)

    def try_another(self, copyset_id: int, asked: bytes, hint: bytes | None) -> None:
        """Follows the hint, or goes through the members in turn."""
        if copyset_id not in self._ask:
            return
        members = self._members[copyset_id]
        if hint is not None and hint != asked and hint in members:
            self._ask[copyset_id] = hint
            return
        position = members.index(asked) if asked in members else -1
        self._ask[copyset_id] = members[(position + 1) % len(members)]


async def order_everywhere(
    state: Callable[[], MetaState],
    health: Health,
    pool: Pool,
    send: Send,
    still_wanted: Callable[[], bool],
) -> bool:
    """True once every copyset of the pool has applied it; False when it is not wanted any more.

    Raises NoSpaceError when a chunkserver refuses it for want of room.
    """
    round_ = Round(list(state().copysets_of(pool)), health)
    pause = _PAUSE_SECONDS
    while round_.pending:
        if not still_wanted():
            return False
        round_.follow(state())
        before = round_.pending
        groups = round_.by_store()
        await asyncio.gather(
            *(_ask(state(), round_, store_id, ids, send) for store_id, ids in groups.items())
        )
        if round_.pending == 0:
            break
        if round_.refused:
            raise NoSpaceError(
                f"{len(round_.refused)} copysets have no room for the fences of more volumes.",
                "Use larger stores, or another pool.",
            )
        pause = _PAUSE_SECONDS if round_.pending < before else min(pause * 2, _PAUSE_SECONDS_MAX)
        await asyncio.sleep(pause)
    return still_wanted()


async def _ask(
    state: MetaState, round_: Round, store_id: bytes, copyset_ids: list[int], send: Send
) -> None:
    chunkserver = state.chunkservers.get(store_id)
    try:
        if chunkserver is None:
            raise UnreachableError(f"There is no chunkserver {store_id.hex()}.")
        outcome = await send(chunkserver, copyset_ids)
    except UnreachableError as error:
        _log.debug("a chunkserver is asked again", extra={"error": str(error)})
        outcome = CopysetOutcome((), ())
    for copyset_id in outcome.applied:
        round_.applied(copyset_id)
    round_.refused.update(outcome.no_space)
    hints = dict(outcome.not_leader)
    for copyset_id in copyset_ids:
        round_.try_another(copyset_id, store_id, hints.get(copyset_id))
