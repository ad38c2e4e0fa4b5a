"""Chunkservers as the metaserver knows them: registered, drained, removed."""

from __future__ import annotations

from typing import Any

import pytest
from metaserver_cluster import CLUSTER, Cluster

from curve_py.errors import ConflictError, InvalidError, NotFoundError
from curve_py.proto import meta_pb2 as pb


async def test_a_store_of_another_cluster_is_not_registered(
    cluster: Cluster, make_store: Any
) -> None:
    await cluster.call("GetClusterInfo", pb.GetClusterInfoRequest())
    request = pb.RegisterChunkserverRequest(
        cluster_id=b"x" * 16,
        store_id=b"y" * 16,
        data_address="127.0.0.1:1",
        admin_address="127.0.0.1:2",
        zone="z",
        server="s",
    )
    with pytest.raises(ConflictError, match="this is"):
        await cluster.call("RegisterChunkserver", request)
    request.cluster_id = CLUSTER
    request.data_address = "localhost:1"
    with pytest.raises(InvalidError, match="IP number"):
        await cluster.call("RegisterChunkserver", request)


async def test_a_drain_is_refused_when_too_few_are_left(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    request = pb.DrainChunkserverRequest(store_id=cluster.stores[0].store_id)
    with pytest.raises(ConflictError, match="only 2 are in service"):
        await cluster.call("DrainChunkserver", request)
    with pytest.raises(ConflictError, match="still holds replicas of 8 copysets"):
        await cluster.call(
            "RemoveChunkserver", pb.RemoveChunkserverRequest(store_id=request.store_id)
        )
    with pytest.raises(NotFoundError):
        await cluster.call("DrainChunkserver", pb.DrainChunkserverRequest(store_id=b"?" * 16))


async def test_a_drain_is_decided_shown_and_taken_back(cluster: Cluster, eventually: Any) -> None:
    """The new chunkserver does not answer, so that the moves stay as they are decided."""
    await cluster.ready(eventually)
    store = cluster.make_store(bytes([4]) * 16, CLUSTER)
    store.deaf = True
    cluster.stores.append(store)
    cluster.start_chunkserver(store)
    drained = cluster.stores[0].store_id

    async def listed() -> Any:
        servers = (
            await cluster.call("ListChunkservers", pb.ListChunkserversRequest())
        ).chunkservers
        return {c.store_id: c for c in servers} if len(servers) == 4 else None

    await eventually(listed)
    answer = await cluster.call("DrainChunkserver", pb.DrainChunkserverRequest(store_id=drained))
    assert answer.life == pb.CHUNKSERVER_LIFE_DRAINING
    assert answer.assigned_count == 8

    async def decided() -> Any:
        tasks = await cluster.call("ListTasks", pb.ListTasksRequest())
        # Progress is as of the last pass, which may be older than what runs.
        known = tasks.progress.running == len(tasks.running)
        shown = any(t.reason == pb.MOVE_REASON_DRAIN for t in tasks.running)
        return tasks if shown and known else None

    tasks = await eventually(decided)
    drains = [task for task in tasks.running if task.reason == pb.MOVE_REASON_DRAIN]
    assert {(t.source, t.target) for t in drains} == {(drained, store.store_id)}
    assert {t.why for t in drains} == {"chunkserver 127.0.0.1:9000 is drained"}
    assert tasks.progress.running + tasks.progress.queued == 8
    assert not tasks.progress.HasField("seconds_left")
    lines = [line for record in tasks.passes for line in record.decisions]
    assert any(
        "a replica goes from 127.0.0.1:9000 to 127.0.0.1:9003: chunkserver 127.0.0.1:9000 is "
        "drained." in line
        for line in lines
    )
    status = await cluster.call("GetClusterStatus", pb.GetClusterStatusRequest())
    assert status.recovery.running == len(tasks.running)
    await cluster.call(
        "DrainChunkserver", pb.DrainChunkserverRequest(store_id=drained, undrain=True)
    )

    async def cancelled() -> bool:
        tasks = await cluster.call("ListTasks", pb.ListTasksRequest())
        steps = [t.step for t in tasks.running if t.reason == pb.MOVE_REASON_DRAIN]
        return all(step == pb.MOVE_STEP_CANCEL for step in steps)

    await eventually(cancelled)


async def test_a_removed_chunkserver_is_never_let_in_again(
    cluster: Cluster, eventually: Any
) -> None:
    await cluster.start_chunkservers(1)
    store_id = cluster.stores[0].store_id

    async def chunkserver() -> Any:
        servers = (
            await cluster.call("ListChunkservers", pb.ListChunkserversRequest())
        ).chunkservers
        return servers[0] if servers else None

    await eventually(chunkserver)
    await cluster.call("RemoveChunkserver", pb.RemoveChunkserverRequest(store_id=store_id))
    assert (await chunkserver()).life == pb.CHUNKSERVER_LIFE_REMOVED
    registration = pb.RegisterChunkserverRequest(
        cluster_id=CLUSTER,
        store_id=store_id,
        data_address="127.0.0.1:9000",
        admin_address="127.0.0.1:2",
        zone="z",
        server="s",
    )
    beat = pb.HeartbeatRequest(cluster_id=CLUSTER, store_id=store_id)
    for method, request in (("RegisterChunkserver", registration), ("Heartbeat", beat)):
        with pytest.raises(ConflictError, match="was removed"):
            await cluster.call(method, request)


async def test_chunkservers_register_again_with_a_new_leader(
    cluster: Cluster, eventually: Any
) -> None:
    await cluster.ready(eventually)
    cluster.group.elect(cluster.group.nodes[1])

    async def all_up() -> Any:
        status = await cluster.call("GetClusterStatus", pb.GetClusterStatusRequest())
        up = [c.state == pb.CHUNKSERVER_STATE_UP for c in status.chunkservers]
        return status if up == [True] * 3 else None

    status = await eventually(all_up)
    assert status.copysets_with_leader == 8
