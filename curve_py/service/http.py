"""The HTTP port of a service: /metrics for Prometheus and /healthz for whoever restarts it.

Read-only and without secrets: it shows counters, no names and no data, and changes nothing.
Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from curve_py.errors import ConfigError
from curve_py.volume_map import split_address


@dataclass(frozen=True, slots=True)
class Health:
    ok: bool
    text: str


class _Server(uvicorn.Server):
    """Leaves the signals to the service, and sleeps while nobody asks: uvicorn's own loop looks ten
    times a second whether it is to end.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)  # makes the headers that every answer has
        await self._ending.wait()

    def end(self) -> None:
        self.should_exit = True
        self._ending.set()


class HttpPort:
    """Serves `registry` and `health` until closed. Does nothing when the address is empty."""

    def __init__(self, registry: CollectorRegistry, health: Callable[[], Health]) -> None:
        self.app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self._registry = registry
        self._health = health
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.app.add_api_route("/metrics", self._metrics, methods=["GET"])
        self.app.add_api_route("/healthz", self._healthz, methods=["GET"])

    async def start(self, address: str) -> str:
        """Returns the address that is listened on. Raises ConfigError."""
        if not address:
            return ""
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise ConfigError(
                f"The HTTP port {address} cannot be used: {error.strerror or error}."
            ) from None
        config = uvicorn.Config(
            self.app, log_config=None, access_log=False, lifespan="off", date_header=False
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        return f"{shown}:{listener.getsockname()[1]}"

    async def close(self) -> None:
        if self._server and self._task:
            self._server.end()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _metrics(self) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _healthz(self) -> Response:
        health = self._health()
        return Response(health.text + "\n", 200 if health.ok else 503, media_type="text/plain")
