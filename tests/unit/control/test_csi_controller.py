"""The CSI controller on real metaservers over gRPC, with stand-ins for native parts below them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from metaserver_cluster import Cluster

from csi_driver.controller import Controller
from csi_driver.failures import CsiError
from csi_driver.handle import Handle, parse_handle
from csi_driver.proto import csi_pb2 as csi
from curve_py.proto import meta_pb2 as pb
from curve_py.types import volume_uuid

KEY = "topology.test/zone"
GIB = 1 << 30
Mode = csi.VolumeCapability.AccessMode
WRITER = csi.VolumeCapability(
    mount=csi.VolumeCapability.MountVolume(), access_mode=Mode(mode=Mode.SINGLE_NODE_WRITER)
)
SHARED = csi.VolumeCapability(
    block=csi.VolumeCapability.BlockVolume(),
    access_mode=Mode(mode=Mode.MULTI_NODE_MULTI_WRITER),
)


@pytest.fixture
async def cluster(
    group: Any, make_store: Any, tmp_path: Path, eventually: Any
) -> AsyncIterator[Cluster]:
    made = Cluster(group, make_store, tmp_path)
    await made.start_metaservers(1)
    await made.ready(eventually)
    for node in ("n1", "n2"):
        await made.call("RegisterNode", pb.RegisterNodeRequest(node_id=node, zone="z"))
    yield made
    await made.close()


@pytest.fixture
def controller(cluster: Cluster) -> Controller:
    return Controller(cluster.client, KEY)


def request(name: str, size: int = GIB, **fields: Any) -> csi.CreateVolumeRequest:
    fields.setdefault("volume_capabilities", [WRITER])
    wanted = csi.CapacityRange(required_bytes=size)
    return csi.CreateVolumeRequest(name=name, capacity_range=wanted, **fields)


async def create(controller: Controller, name: str, size: int = GIB, **fields: Any) -> csi.Volume:
    return (await controller.CreateVolume(request(name, size, **fields), None)).volume


async def publish(
    controller: Controller, volume: csi.Volume, node: str, capability: csi.VolumeCapability = WRITER
) -> None:
    await controller.ControllerPublishVolume(
        csi.ControllerPublishVolumeRequest(
            volume_id=volume.volume_id, node_id=node, volume_capability=capability
        ),
        None,
    )


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(CsiError) as error:
        await call
    return error.value.status


async def test_the_same_name_is_the_same_volume(controller: Controller) -> None:
    first = await create(controller, "pvc", 2 * GIB, parameters={"trimInterval": "1h"})
    assert first.volume_context == {"trimInterval": "3600s"}
    same = {"parameters": {"trimInterval": "60m", "csi.storage.k8s.io/pvc/name": "data"}}
    assert await create(controller, "pvc", 2 * GIB, **same) == first
    assert await create(controller, "pvc", GIB, **same) == first  # it is large enough
    for other in (
        request("pvc", 3 * GIB, **same),
        request("pvc", 2 * GIB),
        request("pvc", 2 * GIB, volume_capabilities=[SHARED], **same),
    ):
        assert await refused(controller.CreateVolume(other, None)) is (
            grpc.StatusCode.ALREADY_EXISTS
        )
    # The same request is satisfied by what was grown since.
    await controller.ControllerExpandVolume(
        csi.ControllerExpandVolumeRequest(
            volume_id=first.volume_id, capacity_range=csi.CapacityRange(required_bytes=4 * GIB)
        ),
        None,
    )
    assert (await create(controller, "pvc", 2 * GIB, **same)).capacity_bytes == 4 * GIB


async def test_volumes_of_others_are_not_taken(cluster: Cluster, controller: Controller) -> None:
    await cluster.create("theirs")
    call = controller.CreateVolume(request("theirs"), None)
    assert await refused(call) is grpc.StatusCode.ALREADY_EXISTS


async def test_ids_of_another_cluster_touch_nothing(controller: Controller) -> None:
    made = await create(controller, "mine")
    own = parse_handle(made.volume_id)
    assert own is not None
    foreign = str(Handle(own.volume_id, volume_uuid(b"\xfe" * 16, own.volume_id)))
    await controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=foreign), None)
    await publish(controller, made, "n1")
    await controller.ControllerUnpublishVolume(
        csi.ControllerUnpublishVolumeRequest(volume_id=foreign, node_id="n1"), None
    )
    found = await controller.ControllerGetVolume(
        csi.ControllerGetVolumeRequest(volume_id=made.volume_id), None
    )
    assert list(found.status.published_node_ids) == ["n1"]
    call = controller.ControllerGetVolume(csi.ControllerGetVolumeRequest(volume_id=foreign), None)
    assert await refused(call) is grpc.StatusCode.NOT_FOUND


async def test_a_volume_in_use_is_not_deleted(cluster: Cluster, controller: Controller) -> None:
    volume = await create(controller, "used")
    await publish(controller, volume, "n1")
    delete = csi.DeleteVolumeRequest(volume_id=volume.volume_id)
    with pytest.raises(Exception, match="n1"):
        await controller.DeleteVolume(delete, None)
    with pytest.raises(Exception, match="n1"):
        await publish(controller, volume, "n2")
    for node in ("n1", ""):
        await controller.ControllerUnpublishVolume(
            csi.ControllerUnpublishVolumeRequest(volume_id=volume.volume_id, node_id=node), None
        )
    await controller.DeleteVolume(delete, None)
    await controller.DeleteVolume(delete, None)
    assert (await cluster.call("ListVolumes", pb.ListVolumesRequest())).volumes == []


async def test_lists_have_pages_and_published_nodes(controller: Controller) -> None:
    volumes = [
        await create(controller, f"v{number}", volume_capabilities=[SHARED]) for number in range(5)
    ]
    for node in ("n1", "n2"):
        await publish(controller, volumes[3], node, SHARED)
    listed, token = [], ""
    while True:
        page = await controller.ListVolumes(
            csi.ListVolumesRequest(max_entries=2, starting_token=token), None
        )
        listed += list(page.entries)
        token = page.next_token
        if len(listed) == 2:  # the last of a page goes away
            await controller.DeleteVolume(
                csi.DeleteVolumeRequest(volume_id=volumes[1].volume_id), None
            )
        if not token:
            break
    assert [entry.volume.volume_id for entry in listed] == [v.volume_id for v in volumes]
    nodes = [list(entry.status.published_node_ids) for entry in listed]
    assert nodes == [[], [], [], ["n1", "n2"], []]
    for wrong in ("x", "-1", "1" * 30):
        call = controller.ListVolumes(csi.ListVolumesRequest(starting_token=wrong), None)
        assert await refused(call) is grpc.StatusCode.ABORTED


async def test_where_a_volume_can_be_used(controller: Controller) -> None:
    anywhere = await create(controller, "anywhere")
    assert not anywhere.accessible_topology
    near = {"parameters": {"accessibleFrom": "pool-zones"}}
    volume = await create(controller, "near", **near)
    zones = [dict(topology.segments) for topology in volume.accessible_topology]
    assert zones == [{KEY: "default"}]
    for zone, fits in (("default", True), ("mars", False)):
        wanted = csi.TopologyRequirement(requisite=[csi.Topology(segments={KEY: zone})])
        call = controller.CreateVolume(
            request(f"in-{zone}", accessibility_requirements=wanted, **near), None
        )
        if fits:
            await call
        else:
            assert await refused(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
        capacity = await controller.GetCapacity(
            csi.GetCapacityRequest(
                parameters=near["parameters"],
                accessible_topology=csi.Topology(segments={KEY: zone}),
            ),
            None,
        )
        assert (capacity.available_capacity > 0) <= fits
    assert await refused(
        controller.CreateVolume(request("x", parameters={"pool": "none"}), None)
    ) is (grpc.StatusCode.INVALID_ARGUMENT)


async def test_what_can_be_confirmed(cluster: Cluster, controller: Controller) -> None:
    volume = await create(controller, "asked")

    async def confirmed(*capabilities: csi.VolumeCapability) -> bool:
        answer = await controller.ValidateVolumeCapabilities(
            csi.ValidateVolumeCapabilitiesRequest(
                volume_id=volume.volume_id, volume_capabilities=capabilities
            ),
            None,
        )
        return answer.HasField("confirmed")

    assert await confirmed(WRITER, SHARED)
    handle = parse_handle(volume.volume_id)
    assert handle is not None
    await cluster.call(
        "SetVolumeContent",
        pb.SetVolumeContentRequest(volume_id=handle.volume_id, content=pb.VOLUME_CONTENT_XFS),
    )
    assert not await confirmed(WRITER)  # it holds xfs, not ext4
    assert await confirmed(SHARED)
