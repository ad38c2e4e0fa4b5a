"""Calls served, by method and outcome, for Prometheus. Thread: the asyncio loop."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class RpcMetrics:
    """Counts what the guard tells it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "curve_rpc_calls", "gRPC calls served", ["method", "outcome"], registry=registry
        )
        self._seconds = Histogram(
            "curve_rpc_seconds",
            "time to answer a unary gRPC call",
            ["method"],
            buckets=_BUCKETS,
            registry=registry,
        )

    def answered(self, method: str, outcome: str, seconds: float | None) -> None:
        """`outcome` is "ok" or the kind of the error; streams have no time to answer."""
        name = method.rpartition("/")[2]
        self._calls.labels(name, outcome).inc()
        if seconds is not None:
            self._seconds.labels(name).observe(seconds)
