"""What only the leader does, again and again, until the world is as the state says.

Owns: genesis of pools (R1), peers tables, fences (R12), deletions. Each pass looks at the state and
starts what is missing; everything it sends is idempotent, so that a new leader just goes on.
Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from curve_py.errors import NoSpaceError
from metaserver.domain.commands import ConfirmDeleted, ConfirmFenced, ConfirmFormed
from metaserver.domain.entities import Chunkserver, ChunkserverLife, Pool
from metaserver.domain.health_view import StoreState
from metaserver.domain.ports import (
    ChunkserverGateway,
    CopysetOutcome,
    Genesis,
    UnreachableError,
)
from metaserver.domain.state import MetaState
from metaserver.service.commander import order_everywhere
from metaserver.service.health import Health
from metaserver.service.passes import PASS_SECONDS, for_each, wait_for
from metaserver.service.replicator import Replicator

_log = logging.getLogger(__name__)

_FENCES_AT_ONCE = 32
_DELETIONS_AT_ONCE = 8


class Duties:
    """One per process; `all` is given to the replicator, which runs them while it leads."""

    def __init__(self, replicator: Replicator, gateway: ChunkserverGateway, health: Health) -> None:
        self._replicator = replicator
        self._gateway = gateway
        self._health = health
        self._complaints: dict[bytes, str] = {}

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        return [self.keep_peers, self.form_pools, self.raise_fences, self.finish_deletions]

    # --- Topology -------------------------------------------------------------------------------

    async def keep_peers(self) -> None:
        """Every chunkserver that is up has the newest table of addresses."""
        with self._replicator.watches.everything() as changed:
            while True:
                changed.clear()
                state = self._replicator.state
                version = state.counters.topology_version
                stale = [
                    chunkserver
                    for chunkserver in state.chunkservers.values()
                    if self._needs_peers(chunkserver.store_id, version)
                ]
                await asyncio.gather(*(self._set_peers(chunkserver) for chunkserver in stale))
                if stale:  # until it says itself that it has the table
                    await asyncio.sleep(PASS_SECONDS)
                else:
                    await wait_for(changed, unfinished=False)

    def _needs_peers(self, store_id: bytes, version: int) -> bool:
        heartbeat = self._health.heartbeat(store_id)
        return (
            heartbeat is not None
            and heartbeat.topology_version != version
            and self._health.state_of(store_id) is StoreState.UP
        )

    async def _set_peers(self, chunkserver: Chunkserver) -> bool:
        state = self._replicator.state
        peers = [
            (c.store_id, c.data_address)
            for c in state.chunkservers.values()
            if c.life is not ChunkserverLife.REMOVED
        ]
        version = state.counters.topology_version
        try:
            await self._gateway.set_peers(
                chunkserver.admin_address, chunkserver.store_id, version, peers
            )
        except UnreachableError as error:
            self._complain(chunkserver.store_id, "peers are not set yet", error)
            return False
        self._complaints.pop(chunkserver.store_id, None)
        return True

    async def form_pools(self) -> None:
        """R1: what was committed as genesis is formed on its chunkservers, and on nobody else."""
        with self._replicator.watches.everything() as changed:
            while True:
                changed.clear()
                formed = await asyncio.gather(
                    *(
                        self._form(pool, store)
                        for pool in self._replicator.state.pools.values()
                        for store in pool.unformed
                    )
                )
                if all(formed):
                    await wait_for(changed, unfinished=False)
                else:
                    await asyncio.sleep(PASS_SECONDS)

    async def _form(self, pool: Pool, store_id: bytes) -> bool:
        state = self._replicator.state
        chunkserver = state.chunkservers[store_id]
        genesis = [
            Genesis(copyset.copyset_id, copyset.replicas, copyset.preferred_leader)
            for copyset in state.copysets_of(pool)
            if store_id in copyset.replicas
        ]
        if not await self._set_peers(chunkserver):
            return False
        try:
            formed = await self._gateway.form_copysets(chunkserver.admin_address, store_id, genesis)
        except UnreachableError as error:
            self._complain(store_id, "copysets are not formed yet", error)
            return False
        if not all(record.copyset_id in formed for record in genesis):
            return False
        await self._replicator.submit(ConfirmFormed(pool.pool_id, store_id))
        return True

    def _complain(self, store_id: bytes, what: str, error: UnreachableError) -> None:
        """Once per chunkserver and reason, not at every try."""
        text = f"{what}: {error}"
        if self._complaints.get(store_id) != text:
            self._complaints[store_id] = text
            _log.warning(what, extra={"store": store_id, "error": str(error)})

    # --- Volumes --------------------------------------------------------------------------------

    async def raise_fences(self) -> None:
        """R12: finishes every attach and detach, also those that an earlier leader began."""
        await for_each(
            self._replicator.watches,
            lambda: self._replicator.state.unfenced_volumes(),
            self._fence,
            _FENCES_AT_ONCE,
        )

    async def _fence(self, volume_id: int) -> bool:
        state = self._replicator.state
        volume = state.volumes.get(volume_id)
        if volume is None or volume.fenced_seq >= volume.fence_seq:
            return False
        pool = state.pools[volume.pool_id]
        if pool.unformed:
            return False
        seq, fence = volume.fence_seq, volume.fence

        async def send(chunkserver: Chunkserver, copyset_ids: list[int]) -> CopysetOutcome:
            return await self._gateway.fence_volume(
                chunkserver.admin_address,
                chunkserver.store_id,
                volume_id,
                (fence.floor, fence.ceiling, fence.revoked),
                copyset_ids,
            )

        def still_wanted() -> bool:
            now = self._replicator.state.volumes.get(volume_id)
            return now is not None and now.fence_seq == seq

        try:
            fenced = await order_everywhere(self._state, self._health, pool, send, still_wanted)
        except NoSpaceError as error:  # told to whoever waits; tried again with the next pass
            self._health.fence_refused[volume_id] = error
            return False
        self._health.fence_refused.pop(volume_id, None)
        if fenced:
            await self._replicator.submit(ConfirmFenced(volume_id, seq))
        return True

    async def finish_deletions(self) -> None:
        """Deleted volumes get their fence at infinity and give their space back."""
        limit = 4 * _DELETIONS_AT_ONCE
        await for_each(
            self._replicator.watches,
            lambda: [d.volume_id for d in self._replicator.state.some_deletions(limit)],
            self._delete,
            _DELETIONS_AT_ONCE,
        )

    async def _delete(self, volume_id: int) -> bool:
        state = self._replicator.state
        deletion = state.deletions.get(volume_id)
        if deletion is None or state.pools[deletion.pool_id].unformed:
            return False

        async def send(chunkserver: Chunkserver, copyset_ids: list[int]) -> CopysetOutcome:
            return await self._gateway.delete_volume(
                chunkserver.admin_address, chunkserver.store_id, volume_id, copyset_ids
            )

        def still_wanted() -> bool:
            return volume_id in self._replicator.state.deletions

        pool = state.pools[deletion.pool_id]
        if await order_everywhere(self._state, self._health, pool, send, still_wanted):
            await self._replicator.submit(ConfirmDeleted(volume_id))
        return True

    def _state(self) -> MetaState:
        return self._replicator.state
