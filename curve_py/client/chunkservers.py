"""Calls to chunkservers themselves (curve.v1.ChunkserverAdmin): scrub, and the check of a volume.

Owns: one signed channel per chunkserver, for as long as it is open. Blocks; one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from curve_py.client.cluster import Cluster
from curve_py.errors import CurveError, NotFoundError, UnavailableError
from curve_py.placement import CHUNK_BYTES
from curve_py.proto import chunkserver_pb2 as pb
from curve_py.proto import chunkserver_pb2_grpc, meta_pb2
from curve_py.service.channel import SignedChannel
from curve_py.service.rpc_errors import from_rpc_error
from curve_py.types import PROTOCOL_VERSION, uuid_text

_CALL_SECONDS = 5.0
_CHECK_SECONDS = 24 * 3600.0
_ATTEMPTS = 20
_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class ScrubInfo:
    """How scrub goes on one store; counts are since the store was made, sectors since its start."""

    store_id: str
    running: bool
    bytes_per_second: int
    passes: int
    started_at_ms: int
    finished_at_ms: int  # 0: no whole pass yet
    blocks_done: int
    blocks_total: int
    damaged_blocks: int
    damaged_pages: int
    chunks_compared: int
    chunks_differ: int
    damaged_sectors: int
    repaired_sectors: int
    repairs_failed: int


@dataclass(frozen=True, slots=True)
class ReplicaDifference:
    copyset_id: int
    store_id: str
    chunk: int
    missing: bool
    blocks: int
    damaged_blocks: int


@dataclass(frozen=True, slots=True)
class CopysetCheck:
    """What the replicas of one copyset hold of a volume."""

    copyset_id: int
    chunks: int
    replicas: int
    differences: tuple[ReplicaDifference, ...]


class Chunkservers:
    """A context manager; knows who is registered when it is made."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        answer = cluster.client.call("ListChunkservers", meta_pb2.ListChunkserversRequest())
        self._addresses = {c.store_id: str(c.admin_address) for c in answer.chunkservers}
        self._channels: dict[bytes, SignedChannel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    @property
    def store_ids(self) -> list[bytes]:
        return sorted(self._addresses)

    def scrub(
        self, store_id: bytes, *, start: bool = False, bytes_per_second: int = 0
    ) -> ScrubInfo:
        """Begins a pass (`start`), and says how it goes. Raises CurveError."""
        request = pb.ScrubRequest(store_id=store_id, start=start, bytes_per_second=bytes_per_second)
        status = self._call(store_id, "Scrub", request, _CALL_SECONDS)
        names = [field.name for field in pb.ScrubStatus.DESCRIPTOR.fields][1:]
        values = {name: getattr(status, name) for name in names}
        return ScrubInfo(store_id=uuid_text(status.store_id), **values)

    def check(self, name: str) -> Iterator[CopysetCheck]:
        """Compares the replicas of each copyset of the volume, one after the other."""
        client = self._cluster.client
        volume = client.call("GetVolume", meta_pb2.GetVolumeRequest(name=name))
        answer = client.call("ListCopysets", meta_pb2.ListCopysetsRequest(pool_id=volume.pool_id))
        leaders = {copyset.id: copyset.leader_store_id for copyset in answer.copysets}
        # A row of stripes has a chunk in each column; what lies behind the end is empty.
        rows = -(-volume.size_bytes // (CHUNK_BYTES * volume.stripe_count))
        chunks = rows * volume.stripe_count
        for copyset_id in sorted(leaders):
            request = pb.CheckVolumeRequest(
                volume_id=volume.id,
                placement_id=volume.placement_id,
                chunks=chunks,
                copysets=len(leaders),
                copyset_id=copyset_id,
            )
            yield self._check_copyset(request, leaders[copyset_id])

    def _check_copyset(self, request: pb.CheckVolumeRequest, leader: bytes) -> CopysetCheck:
        """Follows the copyset's leader."""
        stores = self.store_ids
        trouble = "nobody leads it"
        for attempt in range(_ATTEMPTS):
            store_id = leader or stores[attempt % len(stores)]
            request.store_id = store_id
            try:
                answer = self._call(store_id, "CheckVolume", request, _CHECK_SECONDS)
            except CurveError as error:
                trouble, leader = error.message, b""
                time.sleep(_PAUSE_SECONDS)
                continue
            if answer.led_here and not answer.error:
                return CopysetCheck(
                    request.copyset_id,
                    answer.chunks,
                    answer.replicas,
                    tuple(
                        ReplicaDifference(
                            request.copyset_id,
                            uuid_text(each.store_id),
                            each.chunk,
                            each.missing,
                            each.blocks,
                            each.damaged_blocks,
                        )
                        for each in answer.differences
                    ),
                )
            trouble, leader = answer.error or trouble, answer.leader_store_id
            time.sleep(_PAUSE_SECONDS)
        raise UnavailableError(f"Copyset {request.copyset_id} cannot be checked: {trouble}.")

    def _call(self, store_id: bytes, method: str, request: Any, seconds: float) -> Any:
        address = self._addresses.get(store_id)
        if address is None:
            raise NotFoundError(
                f"There is no store {uuid_text(store_id)}.", "See: curve chunkserver list"
            )
        if store_id not in self._channels:
            self._channels[store_id] = SignedChannel(address, self._cluster.secret)
        stub: Any = chunkserver_pb2_grpc.ChunkserverAdminStub(self._channels[store_id])
        request.store_id = store_id
        request.header.protocol_version = PROTOCOL_VERSION
        try:
            return getattr(stub, method)(request, timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc_error(error, address) from None
