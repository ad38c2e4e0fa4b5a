"""The library: clusters and volumes, plain and for asyncio.

    with Cluster.connect() as cluster:
        cluster.volumes().create("data", "10GiB")
        with cluster.volumes().open("data") as volume:
            volume.write(0, b"x" * 4096)
            volume.flush()

What an open volume promises: an acknowledged write is durable on a majority of its replicas and
survives any crash of a minority, and of all at once. I/O waits through failures, it does not fail.
An exclusive attachment that was taken over raises FencedError, for good.
"""

from curve_py.client.async_cluster import AsyncCluster, AsyncVolume, AsyncVolumes
from curve_py.client.cluster import Cluster, Volumes
from curve_py.client.records import (
    AttachmentInfo,
    AttachMode,
    ChunkserverInfo,
    ClusterStatus,
    CopysetInfo,
    PassInfo,
    RecoveryInfo,
    ReplicaInfo,
    TaskInfo,
    TaskList,
    VolumeInfo,
    VolumeUsage,
)
from curve_py.client.volume import Volume

__all__ = [
    "AsyncCluster",
    "AsyncVolume",
    "AsyncVolumes",
    "AttachMode",
    "AttachmentInfo",
    "ChunkserverInfo",
    "Cluster",
    "ClusterStatus",
    "CopysetInfo",
    "PassInfo",
    "RecoveryInfo",
    "ReplicaInfo",
    "TaskInfo",
    "TaskList",
    "Volume",
    "VolumeInfo",
    "VolumeUsage",
    "Volumes",
]
