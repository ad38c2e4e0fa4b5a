"""csi.v1.Controller: volumes and their publication to nodes, against the metaservers.

Keeps nothing itself: a volume's normal form of the request that made it is kept with the volume, as
labels; who may attach it is its publications. Invariants: every call can be repeated; an unpublish
is answered only after every copyset has fenced the node (R12, UnpublishVolume). Thread: the asyncio
loop.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from csi_driver.capabilities import Access, parse_access, parse_accesses
from csi_driver.capacity import BYTES_MAX, MIB, check_range, grown_size, in_range, size_for
from csi_driver.failures import CsiError, aborted, already_exists, exhausted, invalid, not_found
from csi_driver.handle import Handle, parse_handle
from csi_driver.in_flight import InFlight
from csi_driver.parameters import KUBERNETES_PREFIX, Parameters, parse_parameters
from csi_driver.pools import Pools
from csi_driver.proto import csi_pb2 as csi
from csi_driver.proto.csi_pb2_grpc import ControllerServicer
from curve_py.client.records import MODE_TO_PROTO
from curve_py.errors import ExistsError, InvalidError, NotFoundError
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient
from curve_py.types import NAME_CHARACTERS_MAX

LABEL_NAME = "csi.name"
LABEL_REQUEST = "csi.request"
LABEL_CLAIM = "kubernetes.claim"
CONTEXT_READ_ONLY = "readOnly"
_LIST_MAX = 1000
_CONTEXT_KEYS = ("autoGrowThreshold", "autoGrowStep", "autoGrowLimit", "trimInterval")
# An unpublish waits for the fence; the sidecars wait longer than this.
_FENCE_SECONDS = 60.0
_Rpc = csi.ControllerServiceCapability.RPC
_CAPABILITIES = (
    _Rpc.CREATE_DELETE_VOLUME,
    _Rpc.PUBLISH_UNPUBLISH_VOLUME,
    _Rpc.LIST_VOLUMES,
    _Rpc.LIST_VOLUMES_PUBLISHED_NODES,
    _Rpc.GET_CAPACITY,
    _Rpc.GET_VOLUME,
    _Rpc.EXPAND_VOLUME,
    _Rpc.PUBLISH_READONLY,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A CreateVolume request, checked and in its normal form."""

    name: str
    capacity: csi.CapacityRange
    accesses: tuple[Access, ...]
    parameters: Parameters
    zones: tuple[str, ...]  # of the topology requirement; empty: none
    claim: str

    @property
    def file_system(self) -> str:
        return next((a.file_system for a in self.accesses if a.file_system), "")

    def normal(self) -> str:
        """What is kept with the volume: the same text for requests that mean the same."""
        return json.dumps(
            {
                "version": 1,
                "required_bytes": self.capacity.required_bytes,
                "limit_bytes": self.capacity.limit_bytes,
                "capabilities": sorted({access.text() for access in self.accesses}),
                "parameters": self.parameters.normal(),
            },
            sort_keys=True,
            separators=(",", ":"),
        )

    def labels(self) -> dict[str, str]:
        labels = {LABEL_NAME: self.name, LABEL_REQUEST: self.normal()}
        if self.claim:
            labels[LABEL_CLAIM] = self.claim
        return labels


class Controller(ControllerServicer):
    def __init__(self, client: AsyncMetaClient, topology_key: str) -> None:
        self._client = client
        self._pools = Pools(client)
        self._topology_key = topology_key
        self._in_flight = InFlight()

    # --- Create, delete -------------------------------------------------------------------------

    async def CreateVolume(
        self, request: csi.CreateVolumeRequest, _: Any
    ) -> csi.CreateVolumeResponse:
        wanted = self._wanted(request)
        name = volume_name(wanted.name)
        with self._in_flight.holding(f"volume {wanted.name}"):
            topology = await self._topology(wanted)
            volume = await self._volume_named(name)
            if volume is None:
                volume = await self._create(name, wanted)
            self._check_serves(volume, wanted)
        answer = self._volume_message(volume)
        answer.accessible_topology.extend(topology)
        return csi.CreateVolumeResponse(volume=answer)

    def _wanted(self, request: csi.CreateVolumeRequest) -> _Wanted:
        if not request.name:
            raise invalid("The request names no volume.")
        if len(request.name) > NAME_CHARACTERS_MAX:
            raise invalid(f"A volume's name has at most {NAME_CHARACTERS_MAX} characters.")
        if request.HasField("volume_content_source"):
            raise invalid("Volumes are not made of snapshots or of other volumes here yet.")
        if request.mutable_parameters:
            raise invalid("This driver has no parameters that can be changed.")
        check_range(request.capacity_range)
        given = request.parameters
        claim = "/".join(
            given[key]
            for part in ("namespace", "name")
            if (key := f"{KUBERNETES_PREFIX}pvc/{part}") in given
        )
        requirement = request.accessibility_requirements
        zones = [topology.segments.get(self._topology_key) for topology in requirement.requisite]
        return _Wanted(
            request.name,
            request.capacity_range,
            parse_accesses(request.volume_capabilities),
            parse_parameters(given),
            tuple(zone for zone in zones if zone),
            claim,
        )

    async def _create(self, name: str, wanted: _Wanted) -> pb.Volume:
        request = pb.CreateVolumeRequest(
            name=name,
            size_bytes=size_for(wanted.capacity, wanted.file_system),
            pool_name=wanted.parameters.pool,
            stripe_unit_bytes=wanted.parameters.stripe_unit_bytes,
            stripe_count=wanted.parameters.stripe_count,
            labels=wanted.labels(),
        )
        try:
            volume: pb.Volume = await self._client.call("CreateVolume", request)
        except ExistsError:  # another controller was quicker
            found = await self._volume_named(name)
            if found is None:
                raise aborted(f"Volume {wanted.name} is just being made or deleted.") from None
            return found
        except NotFoundError as error:  # no such pool
            raise invalid(error.message) from None
        return volume

    def _check_serves(self, volume: pb.Volume, wanted: _Wanted) -> None:
        """Raises CsiError (ALREADY_EXISTS) where the volume is another than the one asked for."""
        kept = volume.labels.get(LABEL_REQUEST)
        if kept is None or volume.labels.get(LABEL_NAME) != wanted.name:
            raise already_exists(
                f"There is a volume '{volume.name}' already, which this driver has not made."
            )
        if kept == wanted.normal():
            return
        made, asked = json.loads(kept), json.loads(wanted.normal())
        for what in ("capabilities", "parameters"):
            if made.get(what) != asked[what]:
                raise already_exists(f"Volume {wanted.name} exists, with other {what}.")
        if not in_range(volume.size_bytes, wanted.capacity):
            raise already_exists(f"Volume {wanted.name} exists, with {volume.size_bytes} bytes.")

    async def DeleteVolume(
        self, request: csi.DeleteVolumeRequest, _: Any
    ) -> csi.DeleteVolumeResponse:
        if not request.volume_id:
            raise invalid("The request names no volume.")
        with self._in_flight.holding(request.volume_id):
            volume = await self._volume(request.volume_id)
            if volume is not None:
                with contextlib.suppress(NotFoundError):
                    await self._client.call(
                        "DeleteVolume", pb.DeleteVolumeRequest(volume_id=volume.id)
                    )
        return csi.DeleteVolumeResponse()

    # --- Publish --------------------------------------------------------------------------------

    async def ControllerPublishVolume(
        self, request: csi.ControllerPublishVolumeRequest, _: Any
    ) -> csi.ControllerPublishVolumeResponse:
        if not request.volume_id or not request.node_id:
            raise invalid("The request names no volume or no node.")
        if not request.HasField("volume_capability"):
            raise invalid("The request has no volume capability.")
        access = parse_access(request.volume_capability)
        mode = access.attach_mode(request.readonly)
        with self._in_flight.holding(request.volume_id):
            volume = await self._existing(request.volume_id)
            await self._client.call(
                "PublishVolume",
                pb.PublishVolumeRequest(
                    volume_id=volume.id,
                    node_id=request.node_id,
                    mode=MODE_TO_PROTO[mode],
                    single_node=access.single_node,
                ),
            )
        reads_only = "true" if request.readonly or access.reads_only else "false"
        return csi.ControllerPublishVolumeResponse(publish_context={CONTEXT_READ_ONLY: reads_only})

    async def ControllerUnpublishVolume(
        self, request: csi.ControllerUnpublishVolumeRequest, _: Any
    ) -> csi.ControllerUnpublishVolumeResponse:
        if not request.volume_id:
            raise invalid("The request names no volume.")
        handle = parse_handle(request.volume_id)
        with self._in_flight.holding(request.volume_id):
            # Also when the volume is gone: a deletion by force may still be fencing the node.
            if handle is not None and await self._is_ours(handle):
                await self._client.call(
                    "UnpublishVolume",
                    pb.UnpublishVolumeRequest(volume_id=handle.volume_id, node_id=request.node_id),
                    _FENCE_SECONDS,
                )
        return csi.ControllerUnpublishVolumeResponse()

    # --- Questions ------------------------------------------------------------------------------

    async def ValidateVolumeCapabilities(
        self, request: csi.ValidateVolumeCapabilitiesRequest, _: Any
    ) -> csi.ValidateVolumeCapabilitiesResponse:
        if not request.volume_id:
            raise invalid("The request names no volume.")
        if not request.volume_capabilities:
            raise invalid("The request has no volume capabilities.")
        volume = await self._existing(request.volume_id)
        try:
            accesses = parse_accesses(request.volume_capabilities)
            made = {access.file_system for access in accesses} - {""}
            if made and not _can_hold(volume, made.pop()):
                raise invalid("The volume holds something else.")
            if request.parameters:
                parse_parameters(request.parameters)
        except CsiError as error:
            return csi.ValidateVolumeCapabilitiesResponse(message=error.message)
        return csi.ValidateVolumeCapabilitiesResponse(
            confirmed=csi.ValidateVolumeCapabilitiesResponse.Confirmed(
                volume_context=request.volume_context,
                volume_capabilities=request.volume_capabilities,
                parameters=request.parameters,
            )
        )

    async def ListVolumes(self, request: csi.ListVolumesRequest, _: Any) -> csi.ListVolumesResponse:
        """Tokens are the last volume's number: right however many come and go between pages."""
        if request.max_entries < 0:
            raise invalid("max_entries cannot be negative.")
        after = 0
        if request.starting_token:
            if not request.starting_token.isascii() or not request.starting_token.isdigit():
                raise aborted(f"'{request.starting_token}' is no token of an earlier page.")
            after = int(request.starting_token)
            if after >= 1 << 63:
                raise aborted(f"'{request.starting_token}' is no token of an earlier page.")
        limit = min(request.max_entries or _LIST_MAX, _LIST_MAX)
        page = await self._client.call(
            "ListVolumes", pb.ListVolumesRequest(after_volume_id=after, limit=limit)
        )
        response = csi.ListVolumesResponse()
        for volume in page.volumes:
            response.entries.add(
                volume=self._volume_message(volume),
                status=csi.ListVolumesResponse.VolumeStatus(
                    published_node_ids=list(published_nodes(volume))
                ),
            )
        if page.next_after_volume_id:
            response.next_token = str(page.next_after_volume_id)
        return response

    async def ControllerGetVolume(
        self, request: csi.ControllerGetVolumeRequest, _: Any
    ) -> csi.ControllerGetVolumeResponse:
        if not request.volume_id:
            raise invalid("The request names no volume.")
        volume = await self._existing(request.volume_id)
        return csi.ControllerGetVolumeResponse(
            volume=self._volume_message(volume),
            status=csi.ControllerGetVolumeResponse.VolumeStatus(
                published_node_ids=list(published_nodes(volume))
            ),
        )

    async def GetCapacity(self, request: csi.GetCapacityRequest, _: Any) -> csi.GetCapacityResponse:
        response = csi.GetCapacityResponse()
        response.minimum_volume_size.value = MIB
        response.maximum_volume_size.value = BYTES_MAX
        try:
            parse_accesses(request.volume_capabilities or [])
        except CsiError:
            if request.volume_capabilities:
                return response  # nothing of that kind can be made
        parameters = parse_parameters(request.parameters)
        pool = await self._pools.find(parameters.pool)
        zone = request.accessible_topology.segments.get(self._topology_key)
        if zone and parameters.pool_zones_only and zone not in pool.zones:
            return response
        response.available_capacity = pool.free_bytes
        return response

    async def ControllerExpandVolume(
        self, request: csi.ControllerExpandVolumeRequest, _: Any
    ) -> csi.ControllerExpandVolumeResponse:
        if not request.volume_id:
            raise invalid("The request names no volume.")
        if not request.HasField("capacity_range"):
            raise invalid("The request does not say how large the volume is to be.")
        with self._in_flight.holding(request.volume_id):
            volume = await self._existing(request.volume_id)
            size = grown_size(request.capacity_range, volume.size_bytes)
            if size > volume.size_bytes:
                volume = await self._client.call(
                    "ResizeVolume", pb.ResizeVolumeRequest(volume_id=volume.id, size_bytes=size)
                )
        # The node's half may be hours away, or have been done by somebody else: it looks itself.
        return csi.ControllerExpandVolumeResponse(
            capacity_bytes=volume.size_bytes, node_expansion_required=True
        )

    async def ControllerGetCapabilities(
        self, request: csi.ControllerGetCapabilitiesRequest, _: Any
    ) -> csi.ControllerGetCapabilitiesResponse:
        return csi.ControllerGetCapabilitiesResponse(
            capabilities=[
                csi.ControllerServiceCapability(rpc=_Rpc(type=kind)) for kind in _CAPABILITIES
            ]
        )

    # --- Volumes --------------------------------------------------------------------------------

    async def _topology(self, wanted: _Wanted) -> list[csi.Topology]:
        """Where the volume can be used; empty: everywhere. Raises CsiError."""
        if not wanted.parameters.pool_zones_only:
            return []
        pool = await self._pools.find(wanted.parameters.pool)
        if wanted.zones and not pool.zones.intersection(wanted.zones):
            raise exhausted(  # Kubernetes looks for another node then
                f"Pool '{pool.name}' has no chunkservers in {', '.join(wanted.zones)}.",
            )
        return [csi.Topology(segments={self._topology_key: zone}) for zone in sorted(pool.zones)]

    async def _volume_named(self, name: str) -> pb.Volume | None:
        try:
            volume: pb.Volume = await self._client.call("GetVolume", pb.GetVolumeRequest(name=name))
        except NotFoundError:
            return None
        return volume

    async def _volume(self, text: str) -> pb.Volume | None:
        """By its CSI id; None also for ids of other drivers and clusters."""
        handle = parse_handle(text)
        if handle is None:
            return None
        try:
            volume: pb.Volume = await self._client.call(
                "GetVolume", pb.GetVolumeRequest(volume_id=handle.volume_id)
            )
        except (NotFoundError, InvalidError):
            return None
        return volume if volume.uuid == handle.uuid else None

    async def _existing(self, text: str) -> pb.Volume:
        volume = await self._volume(text)
        if volume is None:
            raise not_found(f"There is no volume {text} in this cluster.")
        return volume

    async def _is_ours(self, handle: Handle) -> bool:
        return await self._pools.uuid_of(handle.volume_id) == handle.uuid

    def _volume_message(self, volume: pb.Volume) -> csi.Volume:
        return csi.Volume(
            volume_id=str(Handle(volume.id, volume.uuid)),
            capacity_bytes=volume.size_bytes,
            volume_context=context_of(volume),
        )


def published_nodes(volume: pb.Volume) -> Iterator[str]:
    return (publication.node_id for publication in volume.publications)


def volume_name(name: str) -> str:
    """The volume's name in the cluster, for a name that may be any text."""
    allowed = name.isascii() and name[0].isalnum()
    if allowed and all(letter.isalnum() or letter in "._-" for letter in name):
        return name
    return "csi-" + hashlib.sha256(name.encode()).hexdigest()[:48]


def _can_hold(volume: pb.Volume, file_system: str) -> bool:
    held = {pb.VOLUME_CONTENT_EXT4: "ext4", pb.VOLUME_CONTENT_XFS: "xfs"}.get(volume.content)
    return volume.content != pb.VOLUME_CONTENT_RAW and held in (None, file_system)


def context_of(volume: pb.Volume) -> dict[str, str]:
    """What nodes are told of a volume; nothing of one that somebody else has made."""
    try:
        kept = json.loads(volume.labels[LABEL_REQUEST])["parameters"]
        return parse_parameters({k: v for k, v in kept.items() if k in _CONTEXT_KEYS}).context()
    except (KeyError, ValueError, CsiError):
        return {}  # made by somebody else
