"""Where a volume's writes spend their time, stage by stage, as its chunkservers and clients saw it.

Records, and the call behind `Volumes.trace`. Blocks; any thread. The stages are those of
native/copyset/store_server.h (TraceStage): client, network, queue, commit and answer one after the
other make the total; log and follower go on side by side within commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from curve_py.client.inspections import UnreachableStore, unreachable_stores
from curve_py.errors import InvalidError
from curve_py.proto import common_pb2
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import MetaClient
from curve_py.types import TRACE_MS_MAX, uuid_text

STAGES = ("client", "network", "queue", "log", "follower", "commit", "answer", "total")


@dataclass(slots=True)
class StageTimes:
    """A histogram of nanoseconds: buckets by their lower bound, each 1/64 wide at most."""

    count: int = 0
    sum_ns: int = 0
    max_ns: int = 0
    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, stage: common_pb2.TraceStage) -> None:
        self.count += stage.count
        self.sum_ns += stage.sum_ns
        self.max_ns = max(self.max_ns, stage.max_ns)
        for lower_ns, count in zip(stage.bucket_ns, stage.bucket_counts, strict=True):
            self.buckets[lower_ns] += count

    @property
    def mean_ns(self) -> float:
        return self.sum_ns / self.count if self.count else 0.0

    def percentile_ns(self, percent: float) -> int:
        """Lower bound of the bucket that holds it; 0 when nothing was measured."""
        wanted = self.count * percent / 100
        seen = 0
        for lower_ns in sorted(self.buckets):
            seen += self.buckets[lower_ns]
            if seen >= wanted:
                return lower_ns
        return 0

    def per_bound(self, bounds_ns: Sequence[int]) -> list[int]:
        """How many lie below the first bound, between it and the second ..., from the last on."""
        counts = [0] * (len(bounds_ns) + 1)
        for lower_ns, count in self.buckets.items():
            counts[sum(lower_ns >= bound for bound in bounds_ns)] += count
        return counts


@dataclass(frozen=True, slots=True)
class VolumeTrace:
    """`whole`: of the writes, those whose client said its part; only they count in the stages
    client, network and total."""

    writes: int
    whole: int
    writes_by_store: dict[str, int]
    stages: dict[str, StageTimes]
    unreachable: tuple[UnreachableStore, ...]


def trace(client: MetaClient, name: str, seconds: float) -> VolumeTrace:
    """Takes that long. Raises CurveError."""
    milliseconds = round(seconds * 1000)
    if not 0 < milliseconds <= TRACE_MS_MAX:
        raise InvalidError(f"A trace takes more than 0 and at most {TRACE_MS_MAX // 1000} seconds.")
    request = pb.TraceVolumeRequest(name=name, duration_ms=milliseconds)
    answer = client.call("TraceVolume", request)
    stages = {name: StageTimes() for name in STAGES}
    for store in answer.stores:
        for stage in store.stages:
            if stage.name in stages:
                stages[stage.name].add(stage)
    return VolumeTrace(
        writes=sum(store.writes for store in answer.stores),
        whole=sum(store.whole for store in answer.stores),
        writes_by_store={uuid_text(store.store_id): store.writes for store in answer.stores},
        stages=stages,
        unreachable=unreachable_stores(answer.unreachable),
    )
