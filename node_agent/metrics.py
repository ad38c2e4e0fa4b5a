"""The agent's numbers for Prometheus, read from the native node when asked for.

Thread: the asyncio loop.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from curve_py.proto import agent_pb2 as pb
from node_agent.devices import Devices

_COUNTERS = ("requests", "errors", "read_bytes", "written_bytes", "resent")


class _Devices(Collector):
    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def collect(self) -> Iterator[Metric]:
        states = dict.fromkeys(pb.DeviceState.values(), 0)
        counters = {
            key: CounterMetricFamily(
                f"curve_agent_device_{key}", f"device {key}", labels=["volume", "device"]
            )
            for key in _COUNTERS
        }
        inflight = GaugeMetricFamily(
            "curve_agent_device_inflight", "requests in flight", labels=["volume", "device"]
        )
        for served in self._devices.served():
            states[served.state] += 1
            if not served.export:
                continue
            labels = [served.record.volume_name, served.device]
            stats = served.kind.stats(served.export)
            for key, family in counters.items():
                family.add_metric(labels, stats[key])
            inflight.add_metric(labels, stats["inflight"])
        yield from counters.values()
        yield inflight
        by_state = GaugeMetricFamily("curve_agent_devices", "devices by state", labels=["state"])
        for state, count in states.items():
            if state != pb.DEVICE_STATE_UNSPECIFIED:
                name = pb.DeviceState.Name(state).removeprefix("DEVICE_STATE_").lower()
                by_state.add_metric([name], count)
        yield by_state


def register(registry: CollectorRegistry, devices: Devices) -> None:
    registry.register(_Devices(devices))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
