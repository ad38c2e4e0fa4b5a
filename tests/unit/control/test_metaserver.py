"""The metaserver above the raft node: real gRPC, real chunkserver shells, stand-ins for native
parts.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from metaserver_cluster import CLUSTER, Cluster

from curve_py import volume_map
from curve_py.errors import (
    ConflictError,
    CurveTimeoutError,
    ExistsError,
    FencedError,
    InvalidError,
    NoPlacementError,
    NoSpaceError,
    NotFoundError,
    NotLeaderError,
    UnavailableError,
)
from curve_py.proto import meta_pb2 as pb
from curve_py.types import volume_uuid
from metaserver.domain.entities import Copyset
from metaserver.domain.snapshot import Capture, restore
from metaserver.service.commander import Round
from metaserver.service.health import Health


async def test_the_cluster_gets_its_identity_once(cluster: Cluster) -> None:
    info = await cluster.call("GetClusterInfo", pb.GetClusterInfoRequest())
    assert info.cluster_id == CLUSTER
    cluster.group.elect(cluster.group.nodes[1])
    again = await cluster.call("GetClusterInfo", pb.GetClusterInfoRequest())
    assert (again.cluster_id, again.created_at_ms) == (info.cluster_id, info.created_at_ms)
    assert [m.is_leader for m in again.metaservers] == [False, True, False]


async def test_followers_say_who_leads(cluster: Cluster) -> None:
    await cluster.call("GetClusterInfo", pb.GetClusterInfoRequest())
    follower = cluster.addresses[2]
    with pytest.raises(NotLeaderError) as refused:
        await cluster.client.ask(follower, "ListVolumes", pb.ListVolumesRequest())
    assert refused.value.leader_address == cluster.addresses[0]
    status = await cluster.client.ask(follower, "GetNodeStatus", pb.GetNodeStatusRequest())
    assert status.role == pb.NODE_ROLE_FOLLOWER
    assert status.leader_address == cluster.addresses[0]


async def test_volumes_from_create_to_delete(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    volume = await cluster.create("a")
    assert (volume.name, volume.pool_name, volume.stripe_count) == ("a", "default", 1)
    with pytest.raises(ExistsError):
        await cluster.create("a")
    with pytest.raises(InvalidError):
        await cluster.create("b", 5)
    grown = await cluster.call("ResizeVolume", pb.ResizeVolumeRequest(name="a", size_bytes=2 << 30))
    assert grown.size_bytes == 2 << 30
    with pytest.raises(ConflictError, match="shrink"):
        await cluster.call("ResizeVolume", pb.ResizeVolumeRequest(name="a", size_bytes=1 << 30))
    await cluster.call("DeleteVolume", pb.DeleteVolumeRequest(name="a"))
    with pytest.raises(NotFoundError):
        await cluster.call("GetVolume", pb.GetVolumeRequest(name="a"))

    def deleted_everywhere() -> bool:
        done = {copyset for store in cluster.stores for copyset, _ in store.deleted}
        return len(done) == 8

    await eventually(deleted_everywhere)
    state = await cluster.call("GetClusterStatus", pb.GetClusterStatusRequest())
    assert state.volume_count == 0


async def test_usage_is_asked_of_the_chunkservers(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    await cluster.create("a")
    usage = await cluster.call("GetVolumeUsage", pb.GetVolumeUsageRequest(name="a"))
    assert (usage.size_bytes, usage.allocated_bytes) == (1 << 30, 3 * 65536)
    await cluster.stop(cluster.stores[1])
    usage = await cluster.call("GetVolumeUsage", pb.GetVolumeUsageRequest(name="a"))
    assert usage.allocated_bytes == 2 * 65536
    assert [s.unreachable for s in usage.stores] == [False, True, False]


async def test_a_pool_is_committed_first_and_formed_by_its_members_only(
    cluster: Cluster, eventually: Any
) -> None:
    """R1."""
    await cluster.ready(eventually)
    copysets = (await cluster.call("ListCopysets", pb.ListCopysetsRequest())).copysets
    assert len(copysets) == 8
    for copyset in copysets:
        members = {replica.store_id for replica in copyset.replicas}
        for store in cluster.stores:
            assert (copyset.id in store.formed) == (store.store_id in members)
            assert {voter for voter, _ in store.formed[copyset.id][0]} == members
    assert all(len(store.peers) == 2 for store in cluster.stores)
    leads = [sum(c.preferred_leader == s.store_id for c in copysets) for s in cluster.stores]
    assert max(leads) - min(leads) <= 1


async def test_a_pool_without_enough_chunkservers_is_refused(cluster: Cluster) -> None:
    with pytest.raises(NoPlacementError, match="need as many"):
        await cluster.call("CreatePool", pb.CreatePoolRequest())
    with pytest.raises(InvalidError):
        await cluster.call("CreatePool", pb.CreatePoolRequest(copyset_count=48))


async def test_an_attach_is_answered_after_every_copyset_has_the_fence(
    cluster: Cluster, eventually: Any
) -> None:
    """R12."""
    await cluster.ready(eventually)
    volume = await cluster.create("a")
    first = await cluster.attach("a")
    fences = [f for s in cluster.stores for key, f in s.fences.items() if key[1] == volume.id]
    assert len(fences) == 8
    assert {f[:2] for f in fences} == {(1, 1)}
    decoded = volume_map.decode(first.map.encoded)
    assert (decoded.volume_id, decoded.epoch, len(decoded.copysets)) == (volume.id, 1, 8)
    assert {s.address for s in decoded.stores} == {f"127.0.0.1:{9000 + n}" for n in range(3)}
    assert first.attachment.state == pb.ATTACH_STATE_ACTIVE

    second = await cluster.attach("a")
    assert second.attachment.epoch == 2
    assert [a.id for a in second.fenced] == [first.attachment.id]
    with pytest.raises(FencedError, match="attached elsewhere"):
        await cluster.call(
            "GetVolumeMap",
            pb.GetVolumeMapRequest(volume_id=volume.id, attachment_id=first.attachment.id),
        )


async def test_an_attach_is_not_answered_while_one_copyset_is_silent(
    cluster: Cluster, eventually: Any
) -> None:
    """R12: and it is finished when the copyset answers again, by whoever leads then."""
    await cluster.ready(eventually)
    await cluster.create("a")
    silent = cluster.stores[0]
    silent.leads = lambda _: False
    request = pb.AttachVolumeRequest(name="a", holder="h", mode=pb.ATTACH_MODE_EXCLUSIVE)
    request.header.request_id = b"R" * 16
    with pytest.raises(CurveTimeoutError):
        await cluster.call("AttachVolume", request, 1.0)
    pending = (await cluster.call("GetVolume", pb.GetVolumeRequest(name="a"))).attachments
    assert [a.state for a in pending] == [pb.ATTACH_STATE_PENDING]
    cluster.group.elect(cluster.group.nodes[2])
    silent.leads = lambda copyset: silent.formed[copyset][1] == silent.store_id
    answer = await cluster.call("AttachVolume", request)
    assert answer.attachment.epoch == 1  # the same attach, not another
    assert answer.attachment.state == pb.ATTACH_STATE_ACTIVE


async def test_an_attach_says_that_there_is_no_room_for_its_fence(
    cluster: Cluster, eventually: Any
) -> None:
    """R8: and it goes on when there is."""
    await cluster.ready(eventually)
    await cluster.create("a")
    cluster.stores[0].no_space = True
    request = pb.AttachVolumeRequest(name="a", holder="h", mode=pb.ATTACH_MODE_EXCLUSIVE)
    request.header.request_id = b"R" * 16
    with pytest.raises(NoSpaceError, match="no room for the fences"):
        await cluster.call("AttachVolume", request)
    cluster.stores[0].no_space = False

    async def attached() -> Any:
        with contextlib.suppress(NoSpaceError):
            return await cluster.call("AttachVolume", request)

    answer = await eventually(attached)
    assert answer.attachment.state == pb.ATTACH_STATE_ACTIVE


async def test_hints_lead_to_the_leader(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    await cluster.create("a")
    last = cluster.stores[2]
    for store in cluster.stores:
        store.leads = lambda _, store=store: store is last
        store.leader_of = lambda _: last.store_id
    await cluster.attach("a")
    assert len(last.fences) == 8


async def test_an_attach_goes_on_without_one_chunkserver(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    await cluster.create("a")
    dead, heir = cluster.stores[0], cluster.stores[1]
    await cluster.stop(dead)
    heir.leads = lambda copyset: heir.formed[copyset][1] in (dead.store_id, heir.store_id)
    answer = await cluster.attach("a")
    assert answer.attachment.state == pb.ATTACH_STATE_ACTIVE


async def test_detach_and_refusals(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    volume = await cluster.create("a")
    with pytest.raises(InvalidError):
        await cluster.attach("a", mode=pb.ATTACH_MODE_UNSPECIFIED)
    with pytest.raises(NotFoundError):
        await cluster.attach("none")
    one = await cluster.attach("a", mode=pb.ATTACH_MODE_SHARED)
    two = await cluster.attach("a", mode=pb.ATTACH_MODE_SHARED)
    with pytest.raises(ConflictError, match="attached shared"):
        await cluster.attach("a", refuse_when_attached=True)
    with pytest.raises(ConflictError, match="is attached"):
        await cluster.call("DeleteVolume", pb.DeleteVolumeRequest(name="a"))
    for attached, expected in ((one, True), (one, False), (two, True)):
        answer = await cluster.call(
            "DetachVolume",
            pb.DetachVolumeRequest(volume_id=volume.id, attachment_id=attached.attachment.id),
        )
        assert answer.was_attached is expected

    def shut_out() -> bool:
        return all(f[2] == [2] for s in cluster.stores for f in s.fences.values())

    await eventually(shut_out)
    await cluster.call("DeleteVolume", pb.DeleteVolumeRequest(name="a"))


async def test_a_watcher_sees_a_resize_and_the_loss(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    volume = await cluster.create("a")
    attached = await cluster.attach("a")
    seen: list[pb.VolumeMapEvent] = []
    request = pb.WatchVolumeMapRequest(volume_id=volume.id, attachment_id=attached.attachment.id)

    async def watch() -> None:
        async for event in cluster.client.stream("WatchVolumeMap", request):
            seen.append(event)

    watching = asyncio.create_task(watch())
    await eventually(lambda: len(seen) == 1)
    await cluster.call("ResizeVolume", pb.ResizeVolumeRequest(name="a", size_bytes=2 << 30))
    await eventually(lambda: len(seen) == 2)
    assert volume_map.decode(seen[1].map.encoded).size_bytes == 2 << 30
    assert seen[1].map.map_version > seen[0].map.map_version
    await cluster.attach("a")
    await asyncio.wait_for(watching, 20)
    assert "attached elsewhere" in seen[-1].lost.reason


async def test_a_watch_ends_when_the_leader_changes(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    volume = await cluster.create("a")
    attached = await cluster.attach("a")
    request = pb.WatchVolumeMapRequest(volume_id=volume.id, attachment_id=attached.attachment.id)
    events = cluster.client.stream("WatchVolumeMap", request)
    assert (await anext(events)).map.volume_id == volume.id
    cluster.group.elect(cluster.group.nodes[1])
    with pytest.raises((NotLeaderError, UnavailableError)):
        await anext(events)


async def test_a_lost_proposal_is_retried_and_applied_once(
    cluster: Cluster, eventually: Any
) -> None:
    """R16: it was proposed twice, and came through twice; there is one volume."""
    await cluster.ready(eventually)
    cluster.group.holding = True
    creating = asyncio.create_task(cluster.create("a"))
    await eventually(lambda: cluster.group.held)
    owner, command, _ = cluster.group.held[0]
    cluster.group.holding = False
    cluster.group.elect(cluster.group.nodes[1])
    cluster.group.commit(owner, command, 0)  # it did happen after all
    volume = await creating
    assert volume.name == "a"
    volumes = (await cluster.call("ListVolumes", pb.ListVolumesRequest())).volumes
    assert [v.name for v in volumes] == ["a"]


async def test_a_full_queue_is_an_error_that_is_retried(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    node = cluster.group.nodes[0]
    node.busy = True
    creating = asyncio.create_task(cluster.create("a"))
    await asyncio.sleep(0.2)
    assert not creating.done()
    node.busy = False
    assert (await creating).name == "a"


async def test_requests_that_change_something_need_an_id(cluster: Cluster) -> None:
    request = pb.CreateVolumeRequest(name="a", size_bytes=4096)
    request.header.request_id = b"short"
    with pytest.raises(InvalidError, match="request id"):
        await cluster.call("CreateVolume", request)


async def test_a_snapshot_starts_another_node(
    cluster: Cluster, eventually: Any, tmp_path: Path
) -> None:
    await cluster.ready(eventually)
    for number in range(20):
        await cluster.create(f"v{number}")
    leader = cluster.group.nodes[0]
    leader.want_snapshot()
    await eventually(lambda: leader.snapshots)
    data = leader.snapshots[0]
    assert b"".join(Capture(restore([data])).slices()) == data
    path = tmp_path / "snapshot"
    path.write_bytes(data)

    await cluster.stop(2)
    index = len(cluster.group.log)
    behind = cluster.group.nodes[2]
    behind.snapshot_path = (index, cluster.group.term, str(path))
    await cluster.create("after")
    cluster.start_metaserver(2)
    cluster.group.elect(behind)
    volumes = (await cluster.call("ListVolumes", pb.ListVolumesRequest())).volumes
    assert [v.name for v in volumes] == [*(f"v{n}" for n in range(20)), "after"]


async def test_a_full_disk_is_said_and_waited_for(
    cluster: Cluster, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaserver.service.replicator._SNAPSHOT_RETRY_SECONDS", 0.05)
    await cluster.ready(eventually)
    monkeypatch.setattr("metaserver.service.replicator._HANDING_OVER_SECONDS", 0.05)
    for node in cluster.group.nodes:
        node.full = "Cannot write state-7: No space left on device"
        node.want_snapshot()
    await asyncio.sleep(0.2)
    with pytest.raises(NoSpaceError, match=r"log is full: Cannot write state-7.*Free some space"):
        await cluster.create("refused")
    term = cluster.group.term
    with pytest.raises(NoSpaceError):
        await cluster.create("refused")
    assert cluster.group.term - term <= 3  # they do not hand over to each other for ever
    for node in cluster.group.nodes:
        node.full = ""
    leader = cluster.group.leader
    await eventually(lambda: leader.snapshots)  # nobody asked for it again
    assert (await cluster.create("taken")).name == "taken"


async def test_a_leader_whose_log_is_full_hands_over(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    leader = cluster.group.nodes[0]
    leader.full = "Cannot write state-7: No space left on device"
    leader.want_snapshot()
    await asyncio.sleep(0.2)
    names = [f"v{number}" for number in range(8)]
    created = await asyncio.gather(*map(cluster.create, names))  # all at once: nobody is refused
    assert [volume.name for volume in created] == names
    assert cluster.group.leader is not leader


async def test_lists_come_in_pages(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    for number in range(7):
        await cluster.create(f"v{number}")
    names, after = [], 0
    while True:
        page = await cluster.call(
            "ListVolumes", pb.ListVolumesRequest(after_volume_id=after, limit=3)
        )
        names += [v.name for v in page.volumes]
        after = page.next_after_volume_id
        if not after:
            break
    assert names == [f"v{n}" for n in range(7)]


async def test_metrics_and_health(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    await cluster.create("a")
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://{cluster.http[0]}/metrics")).text
        assert "curve_metaserver_volumes 1.0" in text
        assert "curve_metaserver_serving 1.0" in text
        assert (await http.get(f"http://{cluster.http[1]}/healthz")).status_code == 200
        cluster.group.elect(None)

        async def unwell() -> bool:
            return (await http.get(f"http://{cluster.http[1]}/healthz")).status_code == 503

        await eventually(unwell)


async def test_without_a_leader_a_call_ends_with_a_sentence(cluster: Cluster) -> None:
    await cluster.call("GetClusterInfo", pb.GetClusterInfoRequest())
    cluster.group.elect(None)
    with pytest.raises(UnavailableError, match="No metaserver served"):
        await cluster.call("GetClusterInfo", pb.GetClusterInfoRequest(), 0.5)


def test_a_round_follows_hints_and_else_goes_round() -> None:
    replicas = (b"a" * 16, b"b" * 16, b"c" * 16)
    a, b, c = replicas
    round_ = Round([Copyset(n, replicas, a, 1) for n in (1, 2, 3)], Health())
    assert round_.by_store() == {a: [1, 2, 3]}
    round_.applied(1)
    round_.try_another(1, a, c)
    round_.try_another(2, a, c)  # a hint
    round_.try_another(3, a, None)  # none
    assert round_.by_store() == {c: [2], b: [3]}
    round_.try_another(2, c, c)  # a hint at itself
    round_.try_another(3, b, b"x" * 16)  # a hint at a stranger
    assert round_.by_store() == {a: [2], c: [3]}
    assert round_.pending == 2


async def test_unpublishing_is_answered_once_the_node_is_fenced_everywhere(
    cluster: Cluster, eventually: Any
) -> None:
    """R12: and a retry, which finds nothing left to do, waits for the same fence."""
    await cluster.ready(eventually)
    made = await cluster.call(
        "CreateVolume", pb.CreateVolumeRequest(name="a", size_bytes=1 << 30, labels={"k": "v"})
    )
    assert (dict(made.labels), made.content) == ({"k": "v"}, pb.VOLUME_CONTENT_NEW)
    assert made.uuid == volume_uuid(CLUSTER, made.id)
    with pytest.raises(NotFoundError, match="no node"):
        await cluster.call(
            "PublishVolume",
            pb.PublishVolumeRequest(volume_id=made.id, node_id="n1", mode=pb.ATTACH_MODE_SHARED),
        )
    for _ in range(2):
        await cluster.call("RegisterNode", pb.RegisterNodeRequest(node_id="n1", zone="z"))
    nodes = (await cluster.call("ListNodes", pb.ListNodesRequest())).nodes
    assert [(node.node_id, node.zone) for node in nodes] == [("n1", "z")]
    published = await cluster.call(
        "PublishVolume",
        pb.PublishVolumeRequest(volume_id=made.id, node_id="n1", mode=pb.ATTACH_MODE_EXCLUSIVE),
    )
    assert [(p.node_id, p.single_node) for p in published.publications] == [("n1", True)]
    attached = await cluster.attach("a", node_id="n1", published=True)
    assert attached.attachment.node_id == "n1"
    silent = cluster.stores[0]
    silent.leads = lambda _: False
    request = pb.UnpublishVolumeRequest(volume_id=made.id, node_id="n1")
    for _ in range(2):
        with pytest.raises(CurveTimeoutError):
            await cluster.call("UnpublishVolume", request, 0.7)
        request.header.Clear()
    with pytest.raises(ConflictError, match="not published"):
        await cluster.attach("a", node_id="n1", published=True)
    silent.leads = lambda copyset: silent.formed[copyset][1] == silent.store_id
    assert not (await cluster.call("UnpublishVolume", request)).was_published
    revoked = [f[2] for s in cluster.stores for f in s.fences.values()]
    assert revoked == [[1]] * 8


async def test_content_is_marked(cluster: Cluster, eventually: Any) -> None:
    await cluster.ready(eventually)
    made = await cluster.create("a")
    for content in (pb.VOLUME_CONTENT_UNSPECIFIED, pb.VOLUME_CONTENT_NEW):
        with pytest.raises(InvalidError, match="raw, ext4 or xfs"):
            await cluster.call(
                "SetVolumeContent", pb.SetVolumeContentRequest(volume_id=made.id, content=content)
            )
    marked = await cluster.call(
        "SetVolumeContent",
        pb.SetVolumeContentRequest(volume_id=made.id, content=pb.VOLUME_CONTENT_EXT4),
    )
    assert marked.content == pb.VOLUME_CONTENT_EXT4
