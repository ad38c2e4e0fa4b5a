"""The chunkserver's numbers for Prometheus, read from the native store when asked for.

Thread: the asyncio loop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from chunkserver.ports import NativeStore

_SIZES = ("capacity_bytes", "used_bytes", "wal_capacity_bytes", "wal_used_bytes")


class _Store(Collector):
    def __init__(self, native: NativeStore) -> None:
        self._native = native

    def collect(self) -> Iterator[Metric]:
        status = self._native.status()
        for key in _SIZES:
            yield _gauge(key, float(status.get(key, 0)))
        for key, value in status.get("gauges", {}).items():
            yield _gauge(_name(key), float(value))
        for key, value in status.get("counters", {}).items():
            yield CounterMetricFamily(
                f"curve_chunkserver_{_name(key)}", f"native counter {key}", value=float(value)
            )
        yield from _replicas(status)
        yield from _latency(status.get("latency", {}))


def _name(key: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", key)


def _gauge(key: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"curve_chunkserver_{key}", key.replace("_", " "), value=value)


def _replicas(status: dict[str, Any]) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "curve_chunkserver_replicas", "replicas of copysets by role", labels=["role"]
    )
    roles = Counter(str(copyset.get("role")) for copyset in status.get("copysets", ()))
    for role, count in sorted(roles.items()):
        family.add_metric([role], count)
    yield family


def _latency(latency: dict[str, Any]) -> Iterator[Metric]:
    if not latency:
        return
    family = HistogramMetricFamily(
        "curve_chunkserver_latency_seconds", "from request to answer", labels=["operation"]
    )
    for operation, histogram in sorted(latency.items()):
        total = 0
        buckets = []
        bounds = [*(f"{bound / 1e6:g}" for bound in histogram["buckets_us"]), "+Inf"]
        for bound, count in zip(bounds, histogram["counts"], strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric([operation], buckets, histogram["sum_us"] / 1e6)
    yield family


def make_registry(native: NativeStore) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Store(native))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
