"""What the metaserver can be asked, in the domain's words: changes, attachments, watches, reads.

Owns: the way of a request from validated arguments to a committed answer. Knows no gRPC.
Invariants: changes are answered after commit (R16); an attach is answered only after every copyset
has applied its fence (R12); reads see everything answered before them. Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from curve_py.errors import (
    CurveTimeoutError,
    ErrorKind,
    FencedError,
    InvalidError,
    NoPlacementError,
    NotFoundError,
    error_of_kind,
)
from curve_py.types import COPYSETS_MAX, REPLICAS_MAX, new_uuid, uuid_text
from curve_py.volume_map import VolumeMap, check_numeric_address, encode, split_address
from metaserver.domain.commands import (
    AttachVolume,
    Command,
    CreatePool,
    DetachVolume,
    InitCluster,
    RegisterChunkserver,
    RegisterNode,
    UnpublishVolume,
)
from metaserver.domain.entities import (
    Attached,
    Attachment,
    Chunkserver,
    ChunkserverLife,
    Cluster,
    FailureDomain,
    Node,
    Pool,
    Reason,
    Refusal,
    Result,
    Unpublished,
    Volume,
)
from metaserver.domain.health_view import StoreState
from metaserver.domain.placement import ImpossiblePlacementError, place
from metaserver.domain.ports import ChunkserverGateway, UnreachableError
from metaserver.service.health import Health
from metaserver.service.maps import build_map
from metaserver.service.replicator import Replicator

_log = logging.getLogger(__name__)

DEFAULT_POOL = "default"
ATTACH_SECONDS = 30.0
_LOOK_AGAIN_SECONDS = 1.0  # for a refused fence, which changes nothing of the volume
_KIND_OF_REASON = {
    Reason.NOT_FOUND: ErrorKind.NOT_FOUND,
    Reason.EXISTS: ErrorKind.EXISTS,
    Reason.INVALID: ErrorKind.INVALID,
    Reason.CONFLICT: ErrorKind.CONFLICT,
    Reason.FENCED: ErrorKind.FENCED,
    Reason.NO_PLACEMENT: ErrorKind.NO_PLACEMENT,
    Reason.FULL: ErrorKind.NO_SPACE,
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class AttachAnswer:
    volume: Volume
    attachment: Attachment
    fenced: tuple[Attachment, ...]


@dataclass(frozen=True, slots=True)
class EncodedMap:
    volume_id: int
    map_version: int
    encoded: bytes


class Metaserver:
    """One per process."""

    def __init__(
        self,
        replicator: Replicator,
        health: Health,
        gateway: ChunkserverGateway,
        cluster_id: bytes,
        cluster_name: str,
    ) -> None:
        self.replicator = replicator
        self.health = health
        self._gateway = gateway
        self._cluster_id = cluster_id
        self._cluster_name = cluster_name

    # --- Cluster and topology -------------------------------------------------------------------

    async def found_cluster(self) -> None:
        """A leader's first duty: the cluster's identity, if there is none yet."""
        self.health.reset()
        if self.replicator.state.cluster is None:
            cluster_id = self._cluster_id or new_uuid()
            await self.change(InitCluster(cluster_id, self._cluster_name, now_ms()))

    def require_cluster(self, cluster_id: bytes) -> Cluster:
        """Raises unless `cluster_id` is this cluster's."""
        cluster = self.replicator.state.cluster
        if cluster is None:
            raise error_of_kind(ErrorKind.UNAVAILABLE, "The cluster has no identity yet.")
        if cluster.cluster_id != cluster_id:
            raise error_of_kind(
                ErrorKind.CONFLICT,
                f"The store is of cluster {uuid_text(cluster_id)}; this is "
                f"{uuid_text(cluster.cluster_id)}.",
                "Check the list of metaservers in the chunkserver's configuration.",
            )
        return cluster

    async def register_chunkserver(self, chunkserver: Chunkserver) -> Chunkserver:
        """Commits it if it is new or has moved."""
        if len(chunkserver.store_id) != 16:
            raise InvalidError("A store id has 16 bytes.")
        check_numeric_address(chunkserver.data_address)
        split_address(chunkserver.admin_address)
        for what, name in (("zone", chunkserver.zone), ("server", chunkserver.server)):
            if not name or len(name) > 128:
                raise InvalidError(f"A chunkserver's {what} is a name of 1 to 128 characters.")
        self.replicator.require_leader()
        known = self.replicator.state.chunkservers.get(chunkserver.store_id)
        if (
            known is not None
            and known.life is not ChunkserverLife.REMOVED
            and known
            == replace(chunkserver, registered_at_ms=known.registered_at_ms, life=known.life)
        ):
            return known
        result = await self.change(
            RegisterChunkserver(
                store_id=chunkserver.store_id,
                data_address=chunkserver.data_address,
                admin_address=chunkserver.admin_address,
                http_address=chunkserver.http_address,
                zone=chunkserver.zone,
                server=chunkserver.server,
                capacity_bytes=chunkserver.capacity_bytes,
                at_ms=now_ms(),
            )
        )
        assert isinstance(result, Chunkserver)
        return result

    async def create_pool(
        self,
        request_id: bytes,
        name: str,
        copyset_count: int,
        replica_count: int,
        domain: FailureDomain | None,
    ) -> Pool:
        """Places its copysets over the chunkservers that are up, and commits that (R1, R16)."""
        if not 1 <= copyset_count <= COPYSETS_MAX or copyset_count & (copyset_count - 1):
            raise InvalidError(
                f"A pool has 1, 2, 4, ... {COPYSETS_MAX} copysets, not {copyset_count}."
            )
        # One place is kept for a replica on its way: the old one leaves after the new one votes.
        if not 1 <= replica_count < REPLICAS_MAX:
            raise InvalidError(f"The number of replicas is 1 to {REPLICAS_MAX - 1}.")
        state = await self.replicator.read_barrier()
        up = [
            chunkserver
            for chunkserver in state.chunkservers.values()
            if self.health.state_of(chunkserver.store_id) is StoreState.UP
            and chunkserver.life is ChunkserverLife.IN_SERVICE
        ]
        if request_id not in state.remembered and state.pool_of_name(name) is None:
            try:
                placement = await asyncio.to_thread(
                    place, up, copyset_count, replica_count, domain, secrets.randbits(63)
                )
            except ImpossiblePlacementError as error:
                raise NoPlacementError(
                    str(error), "Start more chunkservers, or ask for fewer replicas."
                ) from None
            command = CreatePool(
                request_id,
                now_ms(),
                name,
                replica_count,
                placement.failure_domain,
                placement.stores,
                placement.copysets,
            )
        else:  # answered from memory, or refused
            command = CreatePool(
                request_id, now_ms(), name, replica_count, FailureDomain.CHUNKSERVER, (), ()
            )
        result = await self.change(command)
        assert isinstance(result, Pool)
        return result

    async def register_node(self, command: RegisterNode) -> Node:
        """Commits it if it is new or another than before."""
        state = await self.replicator.read_barrier()
        known = state.nodes.get(command.node_id)
        if known is not None and (known.zone, known.volumes_max) == (
            command.zone,
            command.volumes_max,
        ):
            return known
        result = await self.change(command)
        assert isinstance(result, Node)
        return result

    # --- Changes --------------------------------------------------------------------------------

    async def change(self, command: Command) -> Result:
        """Commits it; a refusal is raised as CurveError."""
        result = await self.replicator.submit(command)
        if isinstance(result, Refusal):
            raise error_of_kind(_KIND_OF_REASON[result.reason], result.message, result.remedy)
        return result

    # --- Attachments ----------------------------------------------------------------------------

    async def attach(self, command: AttachVolume, seconds: float) -> AttachAnswer:
        """R12. Asked again with the same request id, it joins the attach that is under way."""
        result = await self.change(command)
        assert isinstance(result, Attached)
        attachment = result.attachment
        try:
            async with asyncio.timeout(min(seconds, ATTACH_SECONDS)):
                volume = await self._fenced_everywhere(attachment)
        except TimeoutError:
            raise CurveTimeoutError(
                "Not every copyset has confirmed yet that earlier attachments are fenced.",
                "Check that a majority of each copyset's chunkservers runs; the attach goes on, "
                "and asking again joins it.",
            ) from None
        return AttachAnswer(volume, attachment, result.fenced)

    async def _fenced_everywhere(self, attachment: Attachment) -> Volume:
        with self.replicator.watches.volume(attachment.volume_id) as changed:
            while True:
                changed.clear()
                self.replicator.require_leader()
                volume, current = self._still_attached(
                    attachment.volume_id, attachment.attachment_id
                )
                if volume.is_active(current):
                    return volume
                if refused := self.health.fence_refused.get(attachment.volume_id):
                    raise refused
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _LOOK_AGAIN_SECONDS)

    def _still_attached(self, volume_id: int, attachment_id: int) -> tuple[Volume, Attachment]:
        volume = self.replicator.state.volumes.get(volume_id)
        if volume is None:
            raise FencedError("The volume was deleted.")
        attachment = volume.attachment(attachment_id)
        if attachment is None:
            newest = max(volume.attachments, key=lambda a: a.epoch, default=None)
            if newest is None:
                raise FencedError(f"Volume '{volume.name}' was detached.")
            raise FencedError(f"Volume '{volume.name}' was attached elsewhere by {newest.holder}.")
        return volume, attachment

    async def detach(self, command: DetachVolume) -> Result:
        """Committed; the fence that shuts the attachment out is raised in the background."""
        return await self.change(command)

    async def unpublish(self, command: UnpublishVolume, seconds: float) -> Unpublished:
        """R12: answered only once the node's fence is everywhere."""
        result = await self.change(command)
        assert isinstance(result, Unpublished)
        try:
            async with asyncio.timeout(min(seconds, ATTACH_SECONDS)):
                await self._fence_reached(result.volume_id, result.fence_seq)
        except TimeoutError:
            raise CurveTimeoutError(
                "Not every copyset has confirmed yet that the node is fenced.",
                "Check that a majority of each copyset's chunkservers runs, and ask again.",
            ) from None
        return result

    async def _fence_reached(self, volume_id: int, fence_seq: int) -> None:
        with self.replicator.watches.volume(volume_id) as changed:
            while True:
                changed.clear()
                self.replicator.require_leader()
                state = self.replicator.state
                volume = state.volumes.get(volume_id)
                if volume is None:
                    if volume_id not in state.deletions:
                        return
                elif volume.fenced_seq >= fence_seq:
                    return
                if refused := self.health.fence_refused.get(volume_id):
                    raise refused
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _LOOK_AGAIN_SECONDS)

    # --- Volume maps ----------------------------------------------------------------------------

    def encode_map(self, volume: Volume, attachment: Attachment) -> EncodedMap:
        volume_map: VolumeMap = build_map(self.replicator.state, volume, attachment)
        return EncodedMap(volume.volume_id, volume_map.map_version, encode(volume_map))

    async def volume_map(self, volume_id: int, attachment_id: int) -> EncodedMap:
        await self.replicator.read_barrier()
        volume, attachment = self._still_attached(volume_id, attachment_id)
        return self.encode_map(volume, attachment)

    async def watch_map(
        self, volume_id: int, attachment_id: int, known_version: int
    ) -> AsyncIterator[EncodedMap]:
        """Every map newer than `known_version`. Raises FencedError at the end of the attachment."""
        await self.replicator.read_barrier()
        with self.replicator.watches.volume(volume_id) as changed:
            while True:
                changed.clear()
                self.replicator.require_leader()
                volume, attachment = self._still_attached(volume_id, attachment_id)
                version = self.replicator.state.map_version(volume)
                if version > known_version:
                    known_version = version
                    yield self.encode_map(volume, attachment)
                    continue
                await changed.wait()

    # --- Reads ----------------------------------------------------------------------------------

    async def get_volume(self, name: str, volume_id: int) -> Volume:
        state = await self.replicator.read_barrier()
        volume = state.find_volume(name, volume_id)
        if volume is None:
            called = f"volume '{name}'" if name else f"volume with the id {volume_id}"
            raise NotFoundError(f"There is no {called}.", "See: curve volume list")
        return volume

    async def list_volumes(self, after_volume_id: int, limit: int) -> Sequence[Volume]:
        state = await self.replicator.read_barrier()
        return state.volumes_after(after_volume_id, limit)

    async def volume_space(self, volume: Volume) -> dict[bytes, int | None]:
        """Bytes allocated for it by store; None where the chunkserver does not answer."""
        state = self.replicator.state
        pool = state.pools[volume.pool_id]
        stores = sorted(
            {store for copyset in state.copysets_of(pool) for store in state.members_of(copyset)}
        )

        async def ask(store_id: bytes) -> int | None:
            address = state.chunkservers[store_id].admin_address
            try:
                return await self._gateway.volume_bytes(address, store_id, volume.volume_id)
            except UnreachableError:
                return None

        answers = await asyncio.gather(*(ask(store_id) for store_id in stores))
        return dict(zip(stores, answers, strict=True))
