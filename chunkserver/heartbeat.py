"""Tells the metaservers' leader who this chunkserver is and how it does.

A chunkserver serves without any metaserver: whatever fails here is logged once and tried again.
Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from chunkserver.report import store_report
from chunkserver.store import Store
from curve_py.errors import CurveError, NotFoundError
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import AsyncMetaClient

_log = logging.getLogger(__name__)
_CALL_SECONDS = 2.0


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
        self._registered = False
        self._complaint = ""

    async def run(self) -> None:
        while True:
            try:
                await self._once()
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

    async def _once(self) -> None:
        if not self._registered:
            await self._client.call("RegisterChunkserver", self._registration, _CALL_SECONDS)
            self._registration.header.Clear()
            self._registered = True
        native = self._store.native
        await self._client.call(
            "Heartbeat",
            pb.HeartbeatRequest(
                cluster_id=native.cluster_id,
                store_id=native.store_id,
                incarnation=native.incarnation,
                topology_version=self._topology_version(),
                report=store_report(native.status()),
                pid=os.getpid(),
                hostname=socket.gethostname(),
            ),
            _CALL_SECONDS,
        )
