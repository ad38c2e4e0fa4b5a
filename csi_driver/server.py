"""The gRPC server on a unix socket, and the funnel that every call goes through.

Owns: the end of each call. Invariants: errors become CSI's status codes; work goes on to its end
when its caller has gone or has waited long enough, so that what it holds (in_flight.py) is given
back only then; logs name the method, the volume and the outcome, never a request: it may carry
secrets. Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry

from csi_driver.failures import CsiError, of_curve_error
from curve_py.errors import ConfigError, CurveError
from curve_py.service.rpc_metrics import RpcMetrics

_log = logging.getLogger(__name__)
_END_SECONDS = 5.0


class Funnel(grpc.aio.ServerInterceptor):
    """Runs each handler as a task of its own."""

    def __init__(self, call_seconds: float, registry: CollectorRegistry) -> None:
        self._call_seconds = call_seconds
        self._metrics = RpcMetrics(registry)
        self._running: set[asyncio.Task[Any]] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._guard(str(handler_call_details.method), handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _guard(self, method: str, handler: Any) -> Any:
        async def run(request: Any, context: Any) -> Any:
            task = asyncio.create_task(self._work(method, handler, request))
            self._running.add(task)
            task.add_done_callback(self._ended)
            try:
                return await asyncio.wait_for(asyncio.shield(task), self._call_seconds)
            except TimeoutError:
                failure = CsiError(
                    grpc.StatusCode.DEADLINE_EXCEEDED, "It takes longer; it goes on, ask again."
                )
            except CsiError as error:
                failure = error
            return await context.abort(failure.status, failure.message)

        return run

    async def _work(self, method: str, handler: Any, request: Any) -> Any:
        """The handler, with its errors as CsiError."""
        began = time.monotonic()
        try:
            result = handler(request, _NoContext())
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:
            failure = _failure_of(method, error)
            self._note(method, request, failure.status.name, failure.message, began)
            raise failure from None
        self._note(method, request, "OK", "", began)
        return result

    def _note(self, method: str, request: Any, outcome: str, message: str, began: float) -> None:
        seconds = time.monotonic() - began
        self._metrics.answered(method, outcome, seconds)
        subject = getattr(request, "volume_id", "") or getattr(request, "name", "")
        fields = {"volume": subject, "outcome": outcome, "ms": round(seconds * 1000, 1)}
        if message:
            fields["error"] = message
        level = logging.DEBUG if outcome == "OK" and not subject else logging.INFO
        _log.log(level, method.rpartition("/")[2], extra=fields)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone: not an error that nobody looked at

    async def close(self) -> None:
        """Gives what runs a little time to end."""
        if self._running:
            await asyncio.wait(self._running, timeout=_END_SECONDS)


class _NoContext:
    """Handlers raise; only those that are not there use their context."""

    def set_code(self, _: Any) -> None: ...

    def set_details(self, _: Any) -> None: ...


def _failure_of(method: str, error: Exception) -> CsiError:
    if isinstance(error, CsiError):
        return error
    if isinstance(error, CurveError):
        return of_curve_error(error)
    if isinstance(error, NotImplementedError):
        return CsiError(grpc.StatusCode.UNIMPLEMENTED, "This driver does not do that.")
    _log.error("a handler failed", exc_info=error, extra={"method": method})
    return CsiError(grpc.StatusCode.INTERNAL, "The driver failed; its log says more.")


def make_server(funnel: Funnel) -> grpc.aio.Server:
    return grpc.aio.server(interceptors=[funnel], options=(("grpc.so_reuseport", 0),))


def listen(server: grpc.aio.Server, socket: Path) -> None:
    """Binds; only the owner may connect. Raises ConfigError."""
    with contextlib.suppress(FileNotFoundError):
        socket.unlink()  # of a driver that was killed
    mask = os.umask(0o077)
    try:
        port = server.add_insecure_port(f"unix:{socket}")
    except RuntimeError:
        port = 0
    finally:
        os.umask(mask)
    if not port:
        raise ConfigError(f"The socket {socket} cannot be used.", "Is its directory there?")
