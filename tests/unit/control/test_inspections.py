"""Scrub and the check of a volume, asked of the metaservers: real gRPC all the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from metaserver_cluster import Cluster

from curve_py.errors import InvalidError, NotFoundError, UnavailableError
from curve_py.proto import meta_pb2 as pb
from curve_py.service import meta_client
from curve_py.types import uuid_text
from metaserver.service import inspections


@pytest.fixture
async def cluster(
    group: Any, make_store: Any, tmp_path: Path, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(inspections, "_PAUSE_SECONDS", 0.01)
    made = Cluster(group, make_store, tmp_path)
    await made.start_metaservers(3)
    await made.ready(eventually)
    yield made
    await made.close()


async def scrub(cluster: Cluster, *stores: bytes, **fields: Any) -> pb.ScrubStoresResponse:
    request = pb.ScrubStoresRequest(store_ids=stores, **fields)
    answer: pb.ScrubStoresResponse = await cluster.call("ScrubStores", request)
    return answer


async def test_scrub_is_begun_everywhere_or_where_it_is_wanted(cluster: Cluster) -> None:
    idle = await scrub(cluster)
    assert [status.store_id for status in idle.stores] == [s.store_id for s in cluster.stores]
    assert {(s.running, s.blocks_total, s.damaged_sectors) for s in idle.stores} == {(False, 7, 2)}
    one = cluster.stores[1]
    started = await scrub(cluster, one.store_id, start=True, bytes_per_second=9)
    assert [(s.store_id, s.running) for s in started.stores] == [(one.store_id, True)]
    await scrub(cluster, start=True)
    assert [store.scrubs for store in cluster.stores] == [[0], [9, 0], [0]]
    with pytest.raises(NotFoundError, match=f"no store {uuid_text(b'?' * 16)}"):
        await scrub(cluster, one.store_id, b"?" * 16)


async def test_who_does_not_answer_is_named_with_the_reason(cluster: Cluster) -> None:
    """Also when another store listens at its address by now (R1)."""
    await cluster.stop(cluster.stores[1])
    answer = await scrub(cluster, start=True)
    assert [s.store_id for s in answer.stores] == [cluster.stores[n].store_id for n in (0, 2)]
    assert [s.store_id for s in answer.unreachable] == [cluster.stores[1].store_id]
    assert answer.unreachable[0].data_address == "127.0.0.1:9001"
    assert "cannot be reached" in answer.unreachable[0].message


async def check(cluster: Cluster, copyset_id: int, name: str = "a") -> pb.CopysetCheck:
    request = pb.CheckCopysetRequest(name=name, copyset_id=copyset_id)
    answer: pb.CopysetCheck = await cluster.call("CheckCopyset", request)
    return answer


async def test_a_copyset_is_checked_by_its_leader(cluster: Cluster) -> None:
    await cluster.create("a")  # 64 chunks
    copyset = 1 << 32
    leader = next(store for store in cluster.stores if store.leads(copyset))
    other = next(store for store in cluster.stores if store is not leader)
    found = {"store_id": other.store_id, "chunk": 3, "missing": False}
    leader.differences = [{**found, "blocks": 4, "damaged_blocks": 0}]
    answer = await check(cluster, copyset)
    assert (answer.copyset_id, answer.chunks, answer.replicas, answer.error) == (copyset, 64, 3, "")
    assert [(d.store_id, d.chunk, d.blocks) for d in answer.differences] == [(other.store_id, 3, 4)]
    # It leads elsewhere by now: the hint is followed.
    for store in cluster.stores:
        store.leads = lambda c, store=store: store is other
        store.leader_of = lambda c: other.store_id
    answer = await check(cluster, copyset)
    assert (answer.chunks, len(answer.differences), answer.error) == (64, 0, "")


async def test_a_copyset_that_cannot_be_checked_says_why(cluster: Cluster) -> None:
    await cluster.create("a")
    copyset = 1 << 32
    for store in cluster.stores:
        store.leads = lambda c: False
        store.leader_of = lambda c: None
    assert (await check(cluster, copyset)).error == "It cannot be checked: nobody leads it."
    for store in cluster.stores:
        await cluster.stop(store)
    assert "cannot be reached" in (await check(cluster, copyset)).error
    with pytest.raises(InvalidError, match=r"nothing in copyset 1\.99"):
        await check(cluster, copyset + 99)
    with pytest.raises(NotFoundError):
        await check(cluster, copyset, "b")


def test_a_check_lasts_as_long_as_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked anew after a metaserver ended; if none is there it does not wait for a day."""
    now = 0.0
    monkeypatch.setattr(meta_client.time, "monotonic", lambda: now)
    attempts = meta_client._Attempts(meta_client._Route(["a:1", "b:1"]), "CheckCopyset", 30.0)
    lost = UnavailableError("a:1 cannot be reached.")
    assert attempts.try_seconds() == 24 * 3600
    now += 5000  # it was reading all that time
    assert attempts.pause_after("a:1", lost) < 1
    for _ in range(6):
        attempts.try_seconds()
        now += 4
        attempts.pause_after("b:1", lost)
    attempts.try_seconds()
    now += 7
    with pytest.raises(UnavailableError, match="No metaserver served the request within 30 s"):
        attempts.pause_after("a:1", lost)
