"""The metaserver's replicated state machine.

Owns: the tables and what each command does to them. Must not know: time, randomness, the network
(R16). Invariants: a command that was answered is answered the same when it comes again with its
request id; volume ids, epochs and attachment ids are never used twice; fences only rise (R12); a
refused command changes nothing but the memory of requests. Each command costs O(1) in the number of
volumes. Thread: the asyncio loop.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from curve_py.types import uuid_text
from metaserver.domain import commands as cmd
from metaserver.domain import moves, publications
from metaserver.domain.codec import decode_command
from metaserver.domain.entities import (
    NO_EPOCHS,
    Attached,
    Attachment,
    Chunkserver,
    ChunkserverLife,
    Cluster,
    Copyset,
    Deleted,
    Deletion,
    Detached,
    Done,
    FinishedMove,
    Move,
    Node,
    Pool,
    Publication,
    Reason,
    Refusal,
    RefusedError,
    Result,
    Volume,
)
from metaserver.domain.fencing import REVOKED_MAX, conflicting, oldest, raised
from metaserver.domain.limits import check_labels, check_layout, check_name, check_size

# How many answered requests are remembered (R16): a retry later than this many other requests is a
# new request.
REMEMBERED_MAX = 16384


@dataclass(frozen=True, slots=True)
class Remembered:
    command: str  # name of its class
    result: Result


@dataclass(slots=True)
class Counters:
    """Numbers that only rise."""

    version: int = 0  # of the whole state
    topology_version: int = 0
    next_pool_id: int = 1  # pool 0 is the metaservers' own
    next_volume_id: int = 1
    next_attachment_id: int = 1


@dataclass(slots=True)
class Changes:
    """What has changed since somebody looked last: for those who wait. Not part of the state."""

    volumes: set[int] = field(default_factory=set)
    topology: bool = False  # cluster, chunkservers, pools or copysets
    moves: bool = False

    def take(self) -> Changes:
        taken = Changes(self.volumes, self.topology, self.moves)
        self.volumes, self.topology, self.moves = set(), False, False
        return taken


class MetaState:
    """Tables are dicts in order of insertion, which the log decides; so every replica has the same
    order.
    """

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.counters = Counters()
        self.chunkservers: dict[bytes, Chunkserver] = {}
        self.pools: dict[int, Pool] = {}
        self.copysets: dict[int, Copyset] = {}
        self.volumes: dict[int, Volume] = {}
        self.deletions: dict[int, Deletion] = {}
        self.nodes: dict[str, Node] = {}
        self.moves: dict[int, Move] = {}  # by copyset
        self.finished_moves: dict[int, FinishedMove] = {}  # the last ones, by move
        self.remembered: dict[bytes, Remembered] = {}
        self.remembered_order: deque[bytes] = deque()
        # Derived, never in a snapshot:
        self.changes = Changes()
        self.volume_bytes = 0
        self.attachment_count = 0
        self._volume_id_of_name: dict[str, int] = {}
        self._volume_ids: list[int] = []
        self._volumes_of_pool: dict[int, int] = {}
        self._publications_of_node: Counter[str] = Counter()
        self._unfenced: dict[int, None] = {}

    # --- Applying -----------------------------------------------------------------------------

    def apply(self, data: bytes) -> Result:
        """Raises CodecError for bytes that are no command: the caller must stop, not skip."""
        return self.execute(decode_command(data))

    def execute(self, command: cmd.Command) -> Result:
        name = type(command).__name__
        known = self.remembered.get(command.request_id) if command.request_id else None
        if known is not None:
            if known.command == name:
                return known.result
            return Refusal(
                Reason.INVALID,
                "This request id was used for another request.",
                "Make a new id for each request.",
            )
        try:
            result = _HANDLERS[type(command)](self, command)
        except RefusedError as refused:
            result = refused.refusal
        if command.request_id:
            self._remember(command.request_id, Remembered(name, result))
        return result

    def _remember(self, request_id: bytes, remembered: Remembered) -> None:
        self.remembered[request_id] = remembered
        self.remembered_order.append(request_id)
        if len(self.remembered_order) > REMEMBERED_MAX:
            del self.remembered[self.remembered_order.popleft()]

    def next_version(self) -> int:
        self.counters.version += 1
        return self.counters.version

    # --- Reading ------------------------------------------------------------------------------

    def find_volume(self, name: str, volume_id: int) -> Volume | None:
        """By name when there is one, else by id."""
        return self.volumes.get(self._volume_id_of_name.get(name, 0) if name else volume_id)

    def volumes_after(self, volume_id: int, limit: int) -> list[Volume]:
        """In order of id."""
        start = bisect_right(self._volume_ids, volume_id)
        return [self.volumes[i] for i in self._volume_ids[start : start + limit]]

    def volume_count(self, pool_id: int) -> int:
        return self._volumes_of_pool.get(pool_id, 0)

    def published_to(self, node_id: str) -> int:
        """How many volumes are."""
        return self._publications_of_node[node_id]

    def pool_of_name(self, name: str) -> Pool | None:
        return next((pool for pool in self.pools.values() if pool.name == name), None)

    def copysets_of(self, pool: Pool) -> Iterator[Copyset]:
        first = pool.pool_id << 32
        return (self.copysets[first + index] for index in range(pool.copyset_count))

    def members_of(self, copyset: Copyset) -> tuple[bytes, ...]:
        """Whom clients may ask: the replicas, and a target that is on its way to be one. Sorted."""
        move = self.moves.get(copyset.copyset_id)
        if move is None or not move.listed:
            return copyset.replicas
        return tuple(sorted((*copyset.replicas, move.target)))

    def unfenced_volumes(self) -> list[int]:
        """Volumes whose newest fence is not confirmed by every copyset."""
        return list(self._unfenced)

    def some_deletions(self, limit: int) -> list[Deletion]:
        return list(islice(self.deletions.values(), limit))

    def map_version(self, volume: Volume) -> int:
        """Of the volume map: rises with whatever is in it."""
        pool = self.pools[volume.pool_id]
        return max(volume.version, pool.version, self.counters.topology_version)

    # --- Topology -----------------------------------------------------------------------------

    def _init_cluster(self, command: cmd.InitCluster) -> Result:
        if self.cluster is None:
            self.cluster = Cluster(command.cluster_id, command.name, command.at_ms)
            self.next_version()
            self.changes.topology = True
        return self.cluster

    def _register_chunkserver(self, command: cmd.RegisterChunkserver) -> Result:
        known = self.chunkservers.get(command.store_id)
        if known is not None and known.life is ChunkserverLife.REMOVED:
            raise RefusedError(
                Reason.CONFLICT,
                f"The chunkserver {uuid_text(command.store_id)} was removed from the cluster.",
                "Make a new store: a removed one is never let in again.",
            )
        if known is None and len(command.store_id) != 16:
            raise RefusedError(Reason.INVALID, "A store id has 16 bytes.")
        chunkserver = Chunkserver(
            store_id=command.store_id,
            data_address=command.data_address,
            admin_address=command.admin_address,
            http_address=command.http_address,
            zone=command.zone,
            server=command.server,
            capacity_bytes=command.capacity_bytes,
            registered_at_ms=known.registered_at_ms if known else command.at_ms,
            life=known.life if known else ChunkserverLife.IN_SERVICE,
        )
        if chunkserver != known:
            self.chunkservers[command.store_id] = chunkserver
            self.counters.topology_version = self.next_version()
            self.changes.topology = True
        return chunkserver

    def _create_pool(self, command: cmd.CreatePool) -> Result:
        _check(check_name(command.name, "pool"))
        if self.pool_of_name(command.name):
            raise RefusedError(Reason.EXISTS, f"There is a pool '{command.name}' already.")
        count = len(command.placements)
        if not count or count & (count - 1):
            raise RefusedError(
                Reason.INVALID, f"The number of copysets {count} is no power of two."
            )
        for store_id in command.stores:
            if store_id not in self.chunkservers:
                raise RefusedError(Reason.NOT_FOUND, f"There is no chunkserver {store_id.hex()}.")
        for row in command.placements:
            if len(row) != command.replica_count or len(set(row)) != len(row):
                raise RefusedError(
                    Reason.INVALID, "A copyset's replicas are not on different stores."
                )
        pool_id = self.counters.next_pool_id
        self.counters.next_pool_id += 1
        version = self.next_version()
        used = sorted({position for row in command.placements for position in row})
        pool = Pool(
            pool_id=pool_id,
            name=command.name,
            copyset_count=count,
            replica_count=command.replica_count,
            failure_domain=command.failure_domain,
            created_at_ms=command.at_ms,
            version=version,
            unformed=tuple(command.stores[position] for position in used),
        )
        self.pools[pool_id] = pool
        self.changes.topology = True
        for index, row in enumerate(command.placements):
            replicas = tuple(command.stores[position] for position in row)
            copyset_id = pool_id << 32 | index
            self.copysets[copyset_id] = Copyset(
                copyset_id, tuple(sorted(replicas)), replicas[0], version
            )
        return pool

    def _confirm_formed(self, command: cmd.ConfirmFormed) -> Result:
        pool = self.pools.get(command.pool_id)
        if pool is None or command.store_id not in pool.unformed:
            return Done(changed=False)
        rest = tuple(store for store in pool.unformed if store != command.store_id)
        self.pools[pool.pool_id] = replace(pool, unformed=rest)
        self.next_version()
        self.changes.topology = True
        return Done(changed=True)

    # --- Volumes ------------------------------------------------------------------------------

    def _create_volume(self, command: cmd.CreateVolume) -> Result:
        _check(check_name(command.name, "volume"))
        _check(check_size(command.size_bytes))
        _check(check_layout(command.stripe_unit_bytes, command.stripe_count))
        _check(check_labels(command.labels))
        if command.name in self._volume_id_of_name:
            raise RefusedError(Reason.EXISTS, f"There is a volume '{command.name}' already.")
        pool = self.pool_of_name(command.pool_name)
        if pool is None:
            raise RefusedError(Reason.NOT_FOUND, f"There is no pool '{command.pool_name}'.")
        volume_id = self.counters.next_volume_id
        self.counters.next_volume_id += 1
        volume = Volume(
            volume_id=volume_id,
            name=command.name,
            pool_id=pool.pool_id,
            size_bytes=command.size_bytes,
            stripe_unit_bytes=command.stripe_unit_bytes,
            stripe_count=command.stripe_count,
            placement_id=volume_id,  # its own root ancestor
            created_at_ms=command.at_ms,
            version=self.next_version(),
            next_epoch=1,
            fence=NO_EPOCHS,
            fence_seq=0,
            fenced_seq=0,
            attachments=(),
            labels=command.labels,
            content=command.content,
        )
        self.put_volume(volume)
        return volume

    def put_volume(self, volume: Volume) -> None:
        """Puts it in, or in place of its earlier record, with everything derived.

        Its name does not change.
        """
        self.changes.volumes.add(volume.volume_id)
        before = self.volumes.get(volume.volume_id)
        self.volumes[volume.volume_id] = volume
        if before is None:
            self._volume_id_of_name[volume.name] = volume.volume_id
            self._volume_ids.append(volume.volume_id)
            self._volumes_of_pool[volume.pool_id] = self.volume_count(volume.pool_id) + 1
        else:
            self.volume_bytes -= before.size_bytes
            self.attachment_count -= len(before.attachments)
            self._publications_of_node.subtract(p.node_id for p in before.publications)
        self._publications_of_node.update(p.node_id for p in volume.publications)
        self.volume_bytes += volume.size_bytes
        self.attachment_count += len(volume.attachments)
        if volume.fenced_seq < volume.fence_seq:
            self._unfenced[volume.volume_id] = None
        else:
            self._unfenced.pop(volume.volume_id, None)

    def _drop_volume(self, volume: Volume) -> None:
        self.changes.volumes.add(volume.volume_id)
        del self.volumes[volume.volume_id]
        del self._volume_id_of_name[volume.name]
        del self._volume_ids[bisect_right(self._volume_ids, volume.volume_id) - 1]
        self._volumes_of_pool[volume.pool_id] -= 1
        self.volume_bytes -= volume.size_bytes
        self.attachment_count -= len(volume.attachments)
        self._publications_of_node.subtract(p.node_id for p in volume.publications)
        self._unfenced.pop(volume.volume_id, None)

    def _resize_volume(self, command: cmd.ResizeVolume) -> Result:
        volume = self.need_volume(command.name, command.volume_id)
        _check(check_size(command.size_bytes))
        if command.size_bytes < volume.size_bytes:
            raise RefusedError(
                Reason.CONFLICT,
                f"Volume '{volume.name}' has {volume.size_bytes} bytes and cannot shrink to "
                f"{command.size_bytes}: data beyond the new end would be lost.",
                "Copy what you need into a smaller volume.",
            )
        if command.size_bytes > volume.size_bytes:
            volume = replace(volume, size_bytes=command.size_bytes, version=self.next_version())
            self.put_volume(volume)
        return volume

    def _delete_volume(self, command: cmd.DeleteVolume) -> Result:
        volume = self.need_volume(command.name, command.volume_id)
        if (volume.attachments or volume.publications) and not command.force:
            users = {a.holder for a in volume.attachments}
            users |= {f"published to node {p.node_id}" for p in volume.publications}
            holders = ", ".join(sorted(users))
            raise RefusedError(
                Reason.CONFLICT,
                f"Volume '{volume.name}' is attached ({holders}).",
                "Detach it first, or delete it by force.",
            )
        self._drop_volume(volume)
        # R12: the id is never used again and the copysets get a fence at infinity; remembered until
        # all have it.
        self.deletions[volume.volume_id] = Deletion(volume.volume_id, volume.pool_id, volume.name)
        self.next_version()
        return Deleted(volume.volume_id)

    def _confirm_deleted(self, command: cmd.ConfirmDeleted) -> Result:
        if self.deletions.pop(command.volume_id, None) is None:
            return Done(changed=False)
        self.next_version()
        self.changes.volumes.add(command.volume_id)
        return Done(changed=True)

    # --- Attachments (R12) --------------------------------------------------------------------

    def _attach_volume(self, command: cmd.AttachVolume) -> Result:
        volume = self.need_volume(command.name, command.volume_id)
        fenced, displaced = self._put_out(volume, command)
        remaining = tuple(a for a in volume.attachments if a not in fenced)
        epoch = volume.next_epoch
        fence = raised(volume.fence, [*(a.epoch for a in remaining), epoch], epoch)
        if len(fence.revoked) > REVOKED_MAX:
            old = oldest(volume)
            raise RefusedError(
                Reason.CONFLICT,
                f"Volume '{volume.name}' had too many attachments since {old.holder} attached it.",
                f"Detach attachment {old.attachment_id} and attach it again.",
            )
        attachment = Attachment(
            attachment_id=self.counters.next_attachment_id,
            volume_id=volume.volume_id,
            epoch=epoch,
            mode=command.mode,
            holder=command.holder,
            attached_at_ms=command.at_ms,
            fence_seq=volume.fence_seq + 1,
            node_id=command.node_id,
        )
        self.counters.next_attachment_id += 1
        self.put_volume(
            replace(
                volume,
                version=self.next_version(),
                next_epoch=epoch + 1,
                fence=fence,
                fence_seq=volume.fence_seq + 1,
                attachments=(*remaining, attachment),
                content=publications.content_after_attach(volume, command),
                publications=tuple(p for p in volume.publications if p not in displaced),
            )
        )
        return Attached(attachment, fenced)

    def _put_out(
        self, volume: Volume, command: cmd.AttachVolume
    ) -> tuple[tuple[Attachment, ...], tuple[Publication, ...]]:
        """Attachments that an attach fences, and publications that it takes away."""
        own = tuple(a for a in volume.attachments if a.node_id == command.node_id != "")
        if command.continues:
            # The node's newer one is of a successor that died before it was answered.
            before = volume.attachment(command.continues) or next(iter(own), None)
            if before is None or before.mode is not command.mode:
                raise RefusedError(
                    Reason.FENCED,
                    f"Attachment {command.continues} of volume '{volume.name}' has ended.",
                    "Detach what used it, and attach the volume anew.",
                )
            return (before,), ()
        publications.check_published(volume, command)
        displaced = publications.displaced(volume, command.node_id, command.mode)
        put_out = {publication.node_id for publication in displaced}
        others = [a for a in volume.attachments if a not in own]
        conflicts = conflicting(others, command.mode)
        fenced = tuple(a for a in others if a in conflicts or a.node_id in put_out)
        if (fenced or displaced) and command.refuse_when_attached:
            user = (
                f"attached {fenced[0].mode} by {fenced[0].holder}"
                if fenced
                else f"published to node {displaced[0].node_id}"
            )
            raise RefusedError(
                Reason.CONFLICT,
                f"Volume '{volume.name}' is {user}.",
                "Detach it there first, or attach without the wish to be refused.",
            )
        # A node has one attachment: a new one, of an agent that was started again, replaces it.
        return (*own, *fenced), displaced

    def _confirm_fenced(self, command: cmd.ConfirmFenced) -> Result:
        volume = self.volumes.get(command.volume_id)
        if volume is None:
            return Done(changed=False)
        reached = min(command.fence_seq, volume.fence_seq)
        if reached <= volume.fenced_seq:
            return Done(changed=False)
        self.put_volume(replace(volume, fenced_seq=reached, version=self.next_version()))
        return Done(changed=True)

    def _detach_volume(self, command: cmd.DetachVolume) -> Result:
        volume = self.volumes.get(command.volume_id)
        attachment = volume.attachment(command.attachment_id) if volume else None
        if volume is None or attachment is None:
            return Detached(command.volume_id, was_attached=False)
        remaining = tuple(a for a in volume.attachments if a is not attachment)
        volume = replace(volume, version=self.next_version())
        self.put_volume(publications.without_attachments(volume, remaining))
        return Detached(volume.volume_id, was_attached=True)

    def need_volume(self, name: str, volume_id: int) -> Volume:
        volume = self.find_volume(name, volume_id)
        if volume is None:
            called = f"volume '{name}'" if name else f"volume with the id {volume_id}"
            raise RefusedError(Reason.NOT_FOUND, f"There is no {called}.")
        return volume


def _check(complaint: str | None) -> None:
    if complaint:
        raise RefusedError(Reason.INVALID, complaint)


_HANDLERS: dict[type[Any], Callable[[MetaState, Any], Result]] = {
    cmd.InitCluster: MetaState._init_cluster,
    cmd.RegisterChunkserver: MetaState._register_chunkserver,
    cmd.CreatePool: MetaState._create_pool,
    cmd.ConfirmFormed: MetaState._confirm_formed,
    cmd.CreateVolume: MetaState._create_volume,
    cmd.ResizeVolume: MetaState._resize_volume,
    cmd.DeleteVolume: MetaState._delete_volume,
    cmd.ConfirmDeleted: MetaState._confirm_deleted,
    cmd.AttachVolume: MetaState._attach_volume,
    cmd.ConfirmFenced: MetaState._confirm_fenced,
    cmd.DetachVolume: MetaState._detach_volume,
    cmd.RegisterNode: publications.register_node,
    cmd.PublishVolume: publications.publish_volume,
    cmd.UnpublishVolume: publications.unpublish_volume,
    cmd.SetVolumeContent: publications.set_content,
    cmd.DrainChunkserver: moves.drain_chunkserver,
    cmd.RemoveChunkserver: moves.remove_chunkserver,
    cmd.StartMove: moves.start_move,
    cmd.AdvanceMove: moves.advance_move,
    cmd.CancelMove: moves.cancel_move,
    cmd.EndMove: moves.end_move,
    cmd.PreferLeader: moves.prefer_leader,
    cmd.ConfirmPreferred: moves.confirm_preferred,
}
