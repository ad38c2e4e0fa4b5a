"""What people ask of chunkservers through the metaservers: scrub, the check and the trace of a
volume.

Owns: whom to ask, and what is told of those who do not answer. Changes nothing of the state; any
metaserver that has just led may finish what it was asked. Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from curve_py.errors import InvalidError, NotFoundError
from curve_py.proto import meta_pb2 as pb
from curve_py.types import CHUNK_BYTES, copyset_text, uuid_text
from metaserver.domain.entities import Chunkserver, ChunkserverLife, Volume
from metaserver.domain.ports import (
    CheckOutcome,
    ChunkserverGateway,
    UnreachableError,
    VolumeExtent,
)
from metaserver.service.health import Health
from metaserver.service.replicator import Replicator

_ATTEMPTS = 20
_PAUSE_SECONDS = 0.25


class Inspections:
    """One per process."""

    def __init__(self, replicator: Replicator, gateway: ChunkserverGateway, health: Health) -> None:
        self._replicator = replicator
        self._gateway = gateway
        self._health = health

    # --- Scrub ----------------------------------------------------------------------------------

    async def scrub(
        self, store_ids: Sequence[bytes], start: bool, bytes_per_second: int
    ) -> pb.ScrubStoresResponse:
        """Of these stores, or of all; each is asked once. Raises NotFoundError."""
        state = await self._replicator.read_barrier()
        known = {
            chunkserver.store_id: chunkserver
            for chunkserver in state.chunkservers.values()
            if chunkserver.life is not ChunkserverLife.REMOVED
        }
        for store_id in store_ids:
            if store_id not in known:
                name = uuid_text(store_id) if len(store_id) == 16 else store_id.hex()
                raise NotFoundError(f"There is no store {name}.", "See: curve chunkserver list")
        answer = pb.ScrubStoresResponse()

        async def ask(chunkserver: Chunkserver) -> None:
            address, store_id = chunkserver.admin_address, chunkserver.store_id
            try:
                answer.stores.append(
                    await self._gateway.scrub(address, store_id, start, bytes_per_second)
                )
            except UnreachableError as error:
                answer.unreachable.append(_unreachable(chunkserver, error))

        await asyncio.gather(*(ask(known[store_id]) for store_id in set(store_ids or known)))
        answer.stores.sort(key=lambda status: status.store_id)
        answer.unreachable.sort(key=lambda store: store.store_id)
        return answer

    # --- Where a volume's writes spend their time -----------------------------------------------

    async def trace(self, volume: Volume, duration_ms: int) -> pb.VolumeTrace:
        """Each store that may lead something of it traces what it leads, all at the same time."""
        state = self._replicator.state
        members = {
            store_id
            for copyset in state.copysets.values()
            if copyset.copyset_id >> 32 == volume.pool_id
            for store_id in state.members_of(copyset)
        }
        answer = pb.VolumeTrace()

        async def ask(chunkserver: Chunkserver) -> None:
            address, store_id = chunkserver.admin_address, chunkserver.store_id
            try:
                answer.stores.append(
                    await self._gateway.trace_writes(
                        address, store_id, volume.volume_id, duration_ms
                    )
                )
            except UnreachableError as error:
                answer.unreachable.append(_unreachable(chunkserver, error))

        await asyncio.gather(*(ask(state.chunkservers[store_id]) for store_id in members))
        answer.stores.sort(key=lambda trace: trace.store_id)
        answer.unreachable.sort(key=lambda store: store.store_id)
        return answer

    # --- The check of a volume ------------------------------------------------------------------

    async def check(self, volume: Volume, copyset_id: int) -> pb.CopysetCheck:
        """Its part in one copyset, compared by the copyset's leader. Raises InvalidError."""
        state = self._replicator.state
        pool = state.pools[volume.pool_id]
        if copyset_id not in state.copysets or copyset_id >> 32 != pool.pool_id:
            raise InvalidError(f"The volume has nothing in copyset {copyset_text(copyset_id)}.")
        # A row of stripes has a chunk in each column; what lies behind the end is empty.
        rows = -(-volume.size_bytes // (CHUNK_BYTES * volume.stripe_count))
        extent = VolumeExtent(
            volume.volume_id,
            volume.placement_id,
            rows * volume.stripe_count,
            pool.copyset_count,
        )
        trouble = "nobody leads it"
        hint: bytes | None = None
        for attempt in range(_ATTEMPTS):
            store_id = self._whom_to_ask(copyset_id, hint, attempt)
            try:
                outcome = await self._ask(store_id, extent, copyset_id)
            except UnreachableError as error:
                trouble, hint = str(error).rstrip("."), None
            else:
                if outcome.led and not outcome.error:
                    return pb.CopysetCheck(
                        copyset_id=copyset_id,
                        chunks=outcome.chunks,
                        replicas=outcome.replicas,
                        differences=outcome.differences,
                    )
                trouble = outcome.error if outcome.led else "nobody leads it"
                hint = outcome.leader
            await asyncio.sleep(_PAUSE_SECONDS)
        return pb.CopysetCheck(copyset_id=copyset_id, error=f"It cannot be checked: {trouble}.")

    async def _ask(self, store_id: bytes, extent: VolumeExtent, copyset_id: int) -> CheckOutcome:
        address = self._replicator.state.chunkservers[store_id].admin_address
        return await self._gateway.check_volume(address, store_id, extent, copyset_id)

    def _whom_to_ask(self, copyset_id: int, hint: bytes | None, attempt: int) -> bytes:
        """Who is said to lead, else each member in turn."""
        state = self._replicator.state
        if hint is not None and hint in state.chunkservers:
            return hint
        members = state.members_of(state.copysets[copyset_id])
        leader = self._health.leader_of(copyset_id)
        if leader is not None and attempt == 0:
            return leader[1]
        return members[attempt % len(members)]


def _unreachable(chunkserver: Chunkserver, error: UnreachableError) -> pb.UnreachableStore:
    return pb.UnreachableStore(
        store_id=chunkserver.store_id,
        data_address=chunkserver.data_address,
        message=str(error),
    )
