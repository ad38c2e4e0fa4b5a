"""A cluster, and its volumes, for programs that block.

Owns: the connection to the metaservers and the native node with the open volumes (one thread,
started with the first). Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from curve_py.client import inspections, tracing
from curve_py.client.attachment import (
    ATTACH_SECONDS,
    MapWatcher,
    attach_request,
    attached,
    detach,
)
from curve_py.client.directory import ClusterDirectory
from curve_py.client.inspections import CopysetCheck, ScrubReport
from curve_py.client.native import VolumeNode, start_node
from curve_py.client.records import (
    AttachMode,
    ChunkserverInfo,
    ClusterStatus,
    CopysetInfo,
    TaskList,
    VolumeInfo,
    VolumeUsage,
    chunkserver_info,
    cluster_status,
    copyset_info,
    task_list,
    volume_info,
    volume_usage,
)
from curve_py.client.tracing import VolumeTrace
from curve_py.client.volume import Volume
from curve_py.errors import InvalidError
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import MetaClient
from curve_py.service.secret import load_secret
from curve_py.sizes import parse_size
from curve_py.types import uuid_bytes


def resolve(
    dir: Path | str | None,  # noqa: A002
    metaservers: Sequence[str] | None,
    secret: bytes | Path | str | None,
) -> tuple[list[str], bytes]:
    """Addresses and secret of a cluster. Raises CurveError."""
    if metaservers is not None:
        if secret is None:
            raise InvalidError(
                "The secret is needed together with the metaservers.",
                "Pass the bytes or the path of the secret file.",
            )
        key = secret if isinstance(secret, bytes) else load_secret(Path(secret))
        return list(metaservers), key
    directory = ClusterDirectory(dir)
    addresses = [metaserver.grpc_address for metaserver in directory.load().metaservers]
    if secret is None:
        return addresses, load_secret(directory.secret_file)
    return addresses, secret if isinstance(secret, bytes) else load_secret(Path(secret))


class Cluster:
    """Made by `connect`; a context manager. Closing it closes its open volumes."""

    def __init__(self, metaservers: Sequence[str], secret: bytes) -> None:
        self.metaservers = tuple(metaservers)
        self._secret = secret
        self._client = MetaClient(metaservers, secret)
        self._node: VolumeNode | None = None
        self._open: list[Volume] = []
        self._lock = threading.Lock()

    @classmethod
    def connect(
        cls,
        dir: Path | str | None = None,  # noqa: A002
        *,
        metaservers: Sequence[str] | None = None,
        secret: bytes | Path | str | None = None,
    ) -> Cluster:
        """The cluster of a directory that `curve up` made (the default one if none is given), or
        the one with these metaservers (HOST:PORT) and this secret (32 bytes, or its file).

        Does not talk to anybody yet. Raises CurveError.
        """
        return cls(*resolve(dir, metaservers, secret))

    def volumes(self) -> Volumes:
        return Volumes(self)

    def status(self) -> ClusterStatus:
        """Blocks. Raises CurveError."""
        return cluster_status(self._client.call("GetClusterStatus", pb.GetClusterStatusRequest()))

    def chunkservers(self) -> list[ChunkserverInfo]:
        answer = self._client.call("ListChunkservers", pb.ListChunkserversRequest())
        return [chunkserver_info(message) for message in answer.chunkservers]

    def drain_chunkserver(self, store_id: str) -> ChunkserverInfo:
        """Begins to empty it; `tasks` says how far that is. Blocks. Raises CurveError."""
        request = pb.DrainChunkserverRequest(store_id=uuid_bytes(store_id))
        return chunkserver_info(self._client.call("DrainChunkserver", request))

    def undrain_chunkserver(self, store_id: str) -> ChunkserverInfo:
        """Takes it back into service. Blocks. Raises CurveError."""
        request = pb.DrainChunkserverRequest(store_id=uuid_bytes(store_id), undrain=True)
        return chunkserver_info(self._client.call("DrainChunkserver", request))

    def remove_chunkserver(self, store_id: str) -> ChunkserverInfo:
        """Takes an empty one out of the cluster for good. Blocks. Raises CurveError."""
        request = pb.RemoveChunkserverRequest(store_id=uuid_bytes(store_id))
        return chunkserver_info(self._client.call("RemoveChunkserver", request))

    def tasks(self) -> TaskList:
        """Replicas on their way, and what the scheduler decided. Blocks. Raises CurveError."""
        return task_list(self._client.call("ListTasks", pb.ListTasksRequest()))

    def scrub(
        self,
        store_ids: Sequence[str] = (),
        *,
        start: bool = False,
        bytes_per_second: int = 0,
    ) -> ScrubReport:
        """How scrub goes on these stores, or on all; with `start` a pass begins there, at that rate
        (0: as before). Blocks. Raises CurveError.
        """
        return inspections.scrub(self._client, store_ids, start, bytes_per_second)

    def copysets(self, copyset_id: int = 0) -> list[CopysetInfo]:
        """All copysets, or one. Blocks. Raises CurveError."""
        request = pb.ListCopysetsRequest(copyset_id=copyset_id)
        answer = self._client.call("ListCopysets", request)
        return [copyset_info(message) for message in answer.copysets]

    @property
    def client(self) -> MetaClient:
        """Calls of curve.v1.MetaService, for what has no method here."""
        return self._client

    @property
    def secret(self) -> bytes:
        return self._secret

    def node(self) -> VolumeNode:
        """The native node, started when first asked for."""
        with self._lock:
            if self._node is None:
                self._node = start_node(self._secret)
            return self._node

    def remember(self, volume: Volume) -> None:
        """`close` closes it too."""
        with self._lock:
            self._open = [v for v in self._open if not v.closed] + [volume]

    def close(self) -> None:
        """Closes the volumes that are open. Idempotent."""
        with self._lock:
            volumes, self._open = self._open, []
            node, self._node = self._node, None
        for volume in volumes:
            volume.close()
        if node is not None:
            node.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Volumes:
    """The volumes of a cluster. Every method blocks and raises CurveError."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client = cluster.client

    def create(
        self,
        name: str,
        size: int | str,
        *,
        stripe_unit_bytes: int = 0,
        stripe_count: int = 0,
    ) -> VolumeInfo:
        """A thin volume; `size` in bytes, or like "10GiB"."""
        request = pb.CreateVolumeRequest(
            name=name,
            size_bytes=parse_size(size),
            stripe_unit_bytes=stripe_unit_bytes,
            stripe_count=stripe_count,
        )
        return volume_info(self._client.call("CreateVolume", request))

    def get(self, name: str) -> VolumeInfo:
        return volume_info(self._client.call("GetVolume", pb.GetVolumeRequest(name=name)))

    def list(self) -> Iterator[VolumeInfo]:
        """In order of creation."""
        after = 0
        while True:
            page = self._client.call("ListVolumes", pb.ListVolumesRequest(after_volume_id=after))
            yield from (volume_info(message) for message in page.volumes)
            after = page.next_after_volume_id
            if not after:
                return

    def usage(self, name: str) -> VolumeUsage:
        """Space that it takes; asks its chunkservers."""
        return volume_usage(
            self._client.call("GetVolumeUsage", pb.GetVolumeUsageRequest(name=name))
        )

    def check(self, name: str) -> tuple[int, Iterator[CopysetCheck]]:
        """How many copysets may hold something of it, and the check of each: every replica is read
        and compared, also while the volume is in use.
        """
        copysets = inspections.copysets_of(self._client, name)
        return len(copysets), inspections.check(self._client, name, copysets)

    def trace(self, name: str, seconds: float) -> VolumeTrace:
        """Where the writes of the next `seconds` spend their time, whoever writes them."""
        return tracing.trace(self._client, name, seconds)

    def resize(self, name: str, size: int | str) -> VolumeInfo:
        """Larger only; open volumes see it at once."""
        request = pb.ResizeVolumeRequest(name=name, size_bytes=parse_size(size))
        return volume_info(self._client.call("ResizeVolume", request))

    def delete(self, name: str, *, force: bool = False) -> None:
        """With `force` also while it is attached: the attachments are fenced for ever."""
        self._client.call("DeleteVolume", pb.DeleteVolumeRequest(name=name, force=force))

    def open(
        self,
        name: str,
        mode: AttachMode = AttachMode.EXCLUSIVE,
        *,
        refuse_when_attached: bool = False,
        holder: str | None = None,
    ) -> Volume:
        """Attaches the volume (R12).

        Attachments that do not go together with this one are fenced, or, with
        `refuse_when_attached`, are the reason for a ConflictError.
        """
        cluster, client = self._cluster, self._client
        request = attach_request(name, mode, holder, refuse_when_attached)
        attachment = attached(client.call("AttachVolume", request, ATTACH_SECONDS))
        opened: list[Volume] = []

        def resize(size_bytes: int) -> None:
            self.resize(name, size_bytes)
            message = client.call(
                "GetVolumeMap",
                pb.GetVolumeMapRequest(
                    volume_id=attachment.volume_id, attachment_id=attachment.attachment_id
                ),
            )
            opened[0].take_map(message.encoded)

        volume = Volume(
            cluster.node(),
            name,
            mode,
            attachment,
            lambda on_map, on_lost: MapWatcher(
                cluster.metaservers, cluster.secret, attachment, on_map, on_lost
            ),
            lambda: detach(client, attachment),
            resize,
        )
        opened.append(volume)
        cluster.remember(volume)
        return volume
