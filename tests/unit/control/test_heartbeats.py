"""Reports with differences: the real sender against the real receiver, with messages that are
lost, late and doubled, and both ends that are started again (docs/formats/control-plane.md).
"""

from __future__ import annotations

import contextlib
import random
from types import SimpleNamespace
from typing import Any

import pytest

from chunkserver import heartbeat
from chunkserver.heartbeat import Heartbeats
from curve_py.errors import UnavailableError
from curve_py.proto import common_pb2
from curve_py.proto import meta_pb2 as pb
from metaserver.domain.health_view import StoreState
from metaserver.service.health import Health, ReportOrder

STORE, OTHER = b"s" * 16, b"o" * 16


class Wire:
    """To a leader that may be another by the next message. `fate` says what becomes of each."""

    def __init__(self, counts: bool = True) -> None:
        self.clock = 0.0
        self.counts = counts
        self.news = 0
        self.newest = (0, 0)  # incarnation and report that this leader has held
        self.late: list[Any] = []
        self.sent: list[Any] = []
        self.fate = lambda: "ok"
        self.health = Health(lambda: self.clock, on_news=self._on_news)

    def _on_news(self) -> None:
        self.news += 1

    async def call(self, method: str, request: Any, timeout: float) -> Any:  # noqa: ASYNC109
        """AsyncMetaClient's."""
        if method != "Heartbeat":
            return None
        self.sent.append(request)
        match self.fate():
            case "lost":
                raise UnavailableError("lost")
            case "late":
                self.late.append(request)
                raise UnavailableError("late")
            case "unanswered":
                self.deliver(request)
                raise UnavailableError("no answer")
            case "doubled":
                self.late.append(request)
            case "elsewhere":
                self.health.reset()
                self.newest = (0, 0)
        return pb.HeartbeatResponse(report_known=self.deliver(request))

    def deliver(self, request: Any) -> int:
        copy = pb.HeartbeatRequest.FromString(request.SerializeToString())
        known = self.health.record(
            copy.store_id,
            copy.incarnation,
            copy.topology_version,
            copy.report,
            copy.pid,
            copy.hostname,
            ReportOrder(copy.report_number, copy.report_since, tuple(copy.gone_copyset_ids)),
        )
        held = self.health.heartbeat(STORE)
        if held is not None:  # nothing brings an older one back
            assert (held.incarnation, held.number) >= self.newest
            self.newest = held.incarnation, held.number
        return known if self.counts else 0


def beats(native: Any, wire: Wire) -> Heartbeats:
    registration = pb.RegisterChunkserverRequest()
    return Heartbeats(SimpleNamespace(native=native), wire, registration, lambda: 7, 1.0)  # type: ignore[arg-type]


def change(native: Any, rng: random.Random) -> None:
    """Copysets come, go, and get other leaders."""
    for _ in range(rng.randrange(3)):
        copyset = rng.randrange(12)
        if rng.random() < 0.3:
            native.formed.pop(copyset, None)
        else:
            native.formed[copyset] = ([], rng.choice((STORE, OTHER)))


def known(wire: Wire) -> dict[int, bytes]:
    held = wire.health.heartbeat(STORE)
    assert held is not None
    return {copyset: report.leader_store_id for copyset, report in held.replicas.items()}


def there(native: Any) -> dict[int, bytes]:
    return {copyset: leader for copyset, (_, leader) in native.formed.items()}


@pytest.mark.parametrize("seed", range(30))
async def test_the_leader_holds_what_the_store_said_last_whatever_is_lost(
    make_store: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_WHOLE_SECONDS", 1e9)  # nothing is healed by the safeguard
    rng = random.Random(seed)
    native, wire = make_store(STORE, b"c" * 16), Wire()
    sender = beats(native, wire)
    said: dict[tuple[int, int], dict[int, bytes]] = {}
    fates = ("ok", "ok", "ok", "lost", "late", "unanswered", "doubled", "elsewhere")
    for _ in range(120):
        wire.clock += 1
        change(native, rng)
        wire.fate = lambda: rng.choice(fates)
        if rng.random() < 0.05:
            native.incarnation += 1
            wire.late.clear()  # its connections ended with it
            sender = beats(native, wire)
        before = len(wire.sent)
        with contextlib.suppress(UnavailableError):
            await sender.beat()
        for request in wire.sent[before:]:
            said[request.incarnation, request.report_number] = there(native)
        while wire.late and rng.random() < 0.5:
            wire.deliver(wire.late.pop(rng.randrange(len(wire.late))))
        held = wire.health.heartbeat(STORE)
        if held is not None:
            assert known(wire) == said[held.incarnation, held.number]
    wire.fate = lambda: "ok"
    await sender.beat()
    await sender.beat()
    assert known(wire) == there(native)


async def test_only_what_differs_is_sent(make_store: Any) -> None:
    native, wire = make_store(STORE, b"c" * 16), Wire()
    native.formed = {copyset: ([], STORE) for copyset in range(100)}
    sender = beats(native, wire)
    for _ in range(5):
        await sender.beat()
    native.formed[5] = ([], OTHER)
    del native.formed[6]
    await sender.beat()
    sizes = [len(request.report.replicas) for request in wire.sent]
    assert sizes == [100, 0, 0, 1]  # where nothing differs every second one is left out
    assert list(wire.sent[3].gone_copyset_ids) == [6]
    assert wire.sent[3].report.usage.capacity_bytes == 1 << 40  # the rest always
    assert known(wire) == there(native)
    assert wire.health.leader_of(5) is None
    assert wire.health.leader_of(4) == (1, STORE)


async def test_now_and_then_a_report_is_whole(
    make_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    native, wire = make_store(STORE, b"c" * 16), Wire()
    native.formed = {1: ([], STORE)}
    monkeypatch.setattr(heartbeat, "_WHOLE_SECONDS", 0.0)
    sender = beats(native, wire)
    for _ in range(3):
        await sender.beat()
    assert [request.report_since for request in wire.sent] == [0, 0, 0]


async def test_a_metaserver_that_counts_no_reports_gets_whole_ones(make_store: Any) -> None:
    native, wire = make_store(STORE, b"c" * 16), Wire(counts=False)
    native.formed = {1: ([], STORE)}
    sender = beats(native, wire)
    for _ in range(3):
        await sender.beat()
    assert [request.report_since for request in wire.sent] == [0, 0, 0]
    assert [len(request.report.replicas) for request in wire.sent] == [1, 1, 1]


async def test_a_new_leader_gets_a_whole_report_at_once(make_store: Any) -> None:
    native, wire = make_store(STORE, b"c" * 16), Wire()
    native.formed = {1: ([], STORE)}
    sender = beats(native, wire)
    await sender.beat()
    wire.health.reset()
    assert wire.health.state_of(STORE) is StoreState.UNKNOWN
    await sender.beat()
    await sender.beat()
    assert [request.report_since for request in wire.sent] == [0, 1, 0]
    assert known(wire) == {1: STORE}


def test_differences_alone_are_no_sign_of_life() -> None:
    """A leader that knows nothing of the store's replicas must not take it to have none."""
    health = Health(lambda: 0.0)
    report = common_pb2.StoreReport()
    assert health.record(STORE, 1, 0, report, 1, "h", ReportOrder(5, 4)) == 0
    assert health.state_of(STORE) is StoreState.UNKNOWN
    assert health.heartbeat(STORE) is None
    assert health.record(STORE, 1, 0, report, 1, "h", ReportOrder(6)) == 6
    assert health.record(STORE, 2, 0, report, 1, "h", ReportOrder(7, 6)) == 0  # another process
    assert health.record(STORE, 1, 0, report, 1, "h", ReportOrder(8, 5)) == 6


async def test_what_is_news_is_told_and_nothing_else(make_store: Any) -> None:
    native, wire = make_store(STORE, b"c" * 16), Wire()
    sender = beats(native, wire)

    async def news() -> int:
        before = wire.news
        await sender.beat()
        await sender.beat()
        return wire.news - before

    assert await news() == 1
    native.formed[1] = ([], STORE)
    assert await news() == 0
    wire.clock += 6  # silent for long enough to count as down
    assert await news() == 1
    native.incarnation += 1
    sender = beats(native, wire)
    assert await news() == 1
