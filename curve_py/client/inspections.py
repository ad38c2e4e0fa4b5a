"""What chunkservers are asked by way of the metaservers: scrub, and the check of a volume.

Records, and the calls behind `Cluster.scrub` and `Volumes.check`. Blocks; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from curve_py.proto import common_pb2
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import MetaClient
from curve_py.types import uuid_bytes, uuid_text


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
class UnreachableStore:
    """A chunkserver that has not answered the metaserver; `message` is one sentence."""

    store_id: str
    data_address: str
    message: str


@dataclass(frozen=True, slots=True)
class ScrubReport:
    stores: tuple[ScrubInfo, ...]
    unreachable: tuple[UnreachableStore, ...]


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
    error: str  # not empty: why it was not compared to its end


def scrub(
    client: MetaClient, store_ids: Sequence[str], start: bool, bytes_per_second: int
) -> ScrubReport:
    request = pb.ScrubStoresRequest(
        store_ids=[uuid_bytes(store_id) for store_id in store_ids],
        start=start,
        bytes_per_second=bytes_per_second,
    )
    answer = client.call("ScrubStores", request)
    return ScrubReport(
        tuple(_scrub_info(status) for status in answer.stores),
        unreachable_stores(answer.unreachable),
    )


def unreachable_stores(messages: Iterable[pb.UnreachableStore]) -> tuple[UnreachableStore, ...]:
    return tuple(
        UnreachableStore(uuid_text(each.store_id), each.data_address, each.message)
        for each in messages
    )


def copysets_of(client: MetaClient, name: str) -> list[int]:
    """Those of the volume's pool."""
    volume = client.call("GetVolume", pb.GetVolumeRequest(name=name))
    answer = client.call("ListCopysets", pb.ListCopysetsRequest(pool_id=volume.pool_id))
    return sorted(copyset.id for copyset in answer.copysets)


def check(client: MetaClient, name: str, copyset_ids: Sequence[int]) -> Iterator[CopysetCheck]:
    """One copyset after the other."""
    for copyset_id in copyset_ids:
        request = pb.CheckCopysetRequest(name=name, copyset_id=copyset_id)
        answer = client.call("CheckCopyset", request)
        yield CopysetCheck(
            copyset_id,
            answer.chunks,
            answer.replicas,
            tuple(
                ReplicaDifference(
                    copyset_id,
                    uuid_text(each.store_id),
                    each.chunk,
                    each.missing,
                    each.blocks,
                    each.damaged_blocks,
                )
                for each in answer.differences
            ),
            answer.error,
        )


def _scrub_info(status: common_pb2.ScrubStatus) -> ScrubInfo:
    names = [field.name for field in common_pb2.ScrubStatus.DESCRIPTOR.fields][1:]
    values = {name: getattr(status, name) for name in names}
    return ScrubInfo(store_id=uuid_text(status.store_id), **values)
