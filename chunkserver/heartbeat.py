"""Tells the metaservers' leader who this chunkserver is and how it does.

Owns: which report the leader is known to hold. The next one has only what differs from it (most
replicas are the same from one second to the next); it is whole when the leader holds none, or
another (docs/formats/control-plane.md), and from time to time, so that no mistake lasts. While
nothing of replicas differs every second report is left out.
A chunkserver serves without any metaserver: whatever fails here is logged once and tried again.
Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from chunkserver.ports import NativeStatus
from chunkserver.report import store_report
from chunkserver.store import Store
from curve_py.errors import CurveError, NotFoundError
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient

_log = logging.getLogger(__name__)
_CALL_SECONDS = 2.0
_WHOLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A report that the leader has."""

    number: int
    status: NativeStatus
    topology_version: int


class Heartbeats:
    """Registers, then reports at every interval, until cancelled."""

    def __init__(
        self,
        store: Store,
        client: AsyncMetaClient,
        registration: pb.RegisterChunkserverRequest,
        topology_version: Callable[[], int],
        interval_seconds: float,
    ) -> None:
        self._store = store
        self._client = client
        self._registration = registration
        self._topology_version = topology_version
        self._interval_seconds = interval_seconds
        self._hostname = socket.gethostname()
        self._registered = False
        self._complaint = ""
        self._number = 0  # of the last report
        self._held: _Held | None = None
        self._left_out = False  # the last one
        self._whole_at = 0.0  # when the next whole one is due; monotonic seconds

    async def run(self) -> None:
        while True:
            try:
                await self.beat()
                if self._complaint:
                    _log.info("the metaservers answer again")
                self._complaint = ""
            except NotFoundError:
                self._registered = False  # the next turn registers
                continue
            except CurveError as error:
                if error.message != self._complaint:
                    _log.warning("no metaserver took the heartbeat", extra={"error": str(error)})
                self._complaint = error.message
            await asyncio.sleep(self._interval_seconds)

    async def beat(self) -> None:
        """One heartbeat. Raises CurveError."""
        if not self._registered:
            await self._client.call("RegisterChunkserver", self._registration, _CALL_SECONDS)
            self._registration.header.Clear()
            self._registered = True
        if time.monotonic() >= self._whole_at:
            self._held = None
        status = self._store.native.look()
        self._left_out = not self._left_out and self._holds(status)
        if self._left_out:
            return
        if self._held is None or not await self._report(status, self._held):
            self._held = None
            await self._report(status, None)

    def _holds(self, status: NativeStatus) -> bool:
        """The leader knows what matters of it."""
        held = self._held
        return (
            held is not None
            and held.topology_version == self._topology_version()
            and status.is_like(held.status)
        )

    async def _report(self, status: NativeStatus, since: _Held | None) -> bool:
        """Whether the leader has it now. Numbers are never used twice: a call that fails may yet
        arrive.
        """
        native = self._store.native
        self._number += 1
        held = _Held(self._number, status, self._topology_version())
        before = since.status if since else None
        copysets = status.copysets(before)
        answer = await self._client.call(
            "Heartbeat",
            pb.HeartbeatRequest(
                cluster_id=native.cluster_id,
                store_id=native.store_id,
                incarnation=native.incarnation,
                topology_version=held.topology_version,
                report=store_report(status.summary() | {"copysets": copysets}),
                pid=os.getpid(),
                hostname=self._hostname,
                report_number=held.number,
                report_since=since.number if since else 0,
                gone_copyset_ids=status.gone(before) if before else (),
            ),
            _CALL_SECONDS,
        )
        if answer.report_known != held.number:  # 0: of a metaserver that knows no differences
            return False
        if since is None:
            self._whole_at = time.monotonic() + _WHOLE_SECONDS
        self._held = held
        return True
