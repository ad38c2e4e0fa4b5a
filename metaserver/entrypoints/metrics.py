"""The metaserver's numbers for Prometheus, read when asked for. Thread: the asyncio loop."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from metaserver.domain.ports import RaftNode
from metaserver.service.replicator import Replicator


class _Metaserver(Collector):
    def __init__(self, replicator: Replicator, node: RaftNode) -> None:
        self._replicator = replicator
        self._node = node

    def collect(self) -> Iterator[Metric]:
        view = self._node.status()
        state = self._replicator.state
        values = {
            "serving": (self._replicator.is_serving, "1 while this node serves as leader"),
            "term": (view.term, "raft term"),
            "commit_index": (view.commit_index, "log index committed"),
            "applied_index": (self._replicator.applied_index, "log index applied"),
            "snapshot_index": (self._replicator.snapshot_index, "log index of the snapshot"),
            "wal_bytes": (view.wal_bytes, "bytes of log kept"),
            "volumes": (len(state.volumes), "volumes"),
            "volume_bytes": (state.volume_bytes, "sum of the volumes' sizes"),
            "attachments": (state.attachment_count, "attachments"),
            "deletions_pending": (len(state.deletions), "volumes being deleted"),
            "fences_pending": (len(state.unfenced_volumes()), "volumes being fenced"),
            "moves": (len(state.moves), "replicas on their way to another chunkserver"),
            "chunkservers": (len(state.chunkservers), "chunkservers registered"),
        }
        for name, (value, about) in values.items():
            yield GaugeMetricFamily(f"curve_metaserver_{name}", about, value=float(value))


def make_registry(replicator: Replicator, node: RaftNode) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Metaserver(replicator, node))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
