"""Proof of holding the cluster's secret on every gRPC call (docs/formats/control-plane.md).

Owns: the signature over (method, body digest, time, nonce), the window of time and the memory of
nonces. Invariants: no handler runs before its caller is verified; the digest is over the bytes that
travel, before anything parses them; comparison takes constant time; the memory is bounded and
never forgets a nonce that could still be accepted. Thread: the memory belongs to one event loop.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from curve_py.errors import (
    CurveError,
    InternalError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from curve_py.service.rpc_errors import abort
from curve_py.service.rpc_metrics import RpcMetrics

AUTH_VERSION = "1"
WINDOW_MS = 120_000
NONCES_MAX = 200_000
KEY_VERSION = "curve-auth-version"
KEY_TIME = "curve-auth-time"
KEY_NONCE = "curve-auth-nonce"
KEY_MAC = "curve-auth-mac"
_log = logging.getLogger(__name__)
_CONTEXT = b"curve grpc request 1\0"

Metadata = Iterable[tuple[str, str | bytes]]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _mac(secret: bytes, method: str, body: bytes, time_ms: int, nonce: bytes) -> bytes:
    name = method.encode()
    parts = (
        _CONTEXT,
        len(name).to_bytes(4, "little"),
        name,
        time_ms.to_bytes(8, "little"),
        nonce,
        hashlib.sha256(body).digest(),
    )
    return hmac.digest(secret, b"".join(parts), "sha256")


def sign(secret: bytes, method: str, body: bytes) -> tuple[tuple[str, str], ...]:
    """Metadata that proves the secret for this one call. `method` is "/package.Service/Method"."""
    time_ms, nonce = _now_ms(), secrets.token_bytes(16)
    return (
        (KEY_VERSION, AUTH_VERSION),
        (KEY_TIME, str(time_ms)),
        (KEY_NONCE, nonce.hex()),
        (KEY_MAC, _mac(secret, method, body, time_ms, nonce).hex()),
    )


class Verifier:
    """Checks signatures and remembers nonces. One per server."""

    def __init__(
        self,
        secret: bytes,
        *,
        now_ms: Callable[[], int] = _now_ms,
        nonces_max: int = NONCES_MAX,
    ) -> None:
        self._secret = secret
        self._now_ms = now_ms
        self._nonces_max = nonces_max
        self._nonces: set[bytes] = set()
        self._by_time: list[tuple[int, bytes]] = []  # a heap
        # What was signed before this is not accepted: an earlier run, or a memory that was full,
        # has forgotten its nonces.
        self._oldest_ms = now_ms()

    def verify(self, method: str, metadata: Metadata, body: bytes) -> None:
        """Raises UnauthenticatedError, or UnavailableError when the caller should sign anew."""
        time_ms, nonce, mac = self._fields(metadata)
        # Before anything is remembered: strangers must not be able to fill the memory.
        if not hmac.compare_digest(mac, _mac(self._secret, method, body, time_ms, nonce)):
            raise UnauthenticatedError(
                "The request is not signed with this cluster's secret.",
                "Check which cluster and which secret file is used.",
            )
        now_ms = self._now_ms()
        if abs(now_ms - time_ms) > WINDOW_MS:
            raise UnauthenticatedError(
                f"The request was signed {abs(now_ms - time_ms) // 1000} s off this server's time.",
                "Set the clocks of both machines.",
            )
        if time_ms < self._oldest_ms:
            raise UnavailableError(
                "The request was signed before this server began to keep count.", "Sign it again."
            )
        if nonce in self._nonces:
            raise UnauthenticatedError("The request was sent before: a replay.")
        self._remember(now_ms, time_ms, nonce)

    def _fields(self, metadata: Metadata) -> tuple[int, bytes, bytes]:
        values = dict(metadata)
        if KEY_MAC not in values:
            raise UnauthenticatedError(
                "The request is not signed.", "Give the cluster's secret to the program."
            )
        if values.get(KEY_VERSION) != AUTH_VERSION:
            raise UnauthenticatedError(
                f"The request is signed by another version than {AUTH_VERSION}."
            )
        try:
            time_ms = int(str(values[KEY_TIME]))
            nonce = bytes.fromhex(str(values[KEY_NONCE]))
            mac = bytes.fromhex(str(values[KEY_MAC]))
        except (KeyError, ValueError):
            raise UnauthenticatedError("The request's signature is malformed.") from None
        if len(nonce) != 16 or not 0 <= time_ms < 2**63:
            raise UnauthenticatedError("The request's signature is malformed.")
        return time_ms, nonce, mac

    def _remember(self, now_ms: int, time_ms: int, nonce: bytes) -> None:
        while self._by_time and self._by_time[0][0] < now_ms - WINDOW_MS:
            self._nonces.discard(heapq.heappop(self._by_time)[1])
        if len(self._by_time) >= self._nonces_max:
            # Full: forget the oldest, and refuse from now on whatever is as old as that.
            forgotten_ms, forgotten = heapq.heappop(self._by_time)
            self._nonces.discard(forgotten)
            self._oldest_ms = max(self._oldest_ms, forgotten_ms + 1)
        heapq.heappush(self._by_time, (time_ms, nonce))
        self._nonces.add(nonce)


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Verifies each call on its raw bytes, parses them, runs the handler, and maps its errors.

    Without a verifier whoever can connect may call.
    """

    def __init__(self, verifier: Verifier | None, metrics: RpcMetrics | None = None) -> None:
        self._verifier = verifier
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        if handler.request_streaming:
            # Signing a stream of requests is not defined in version 1, so none is let in.
            return grpc.stream_unary_rpc_method_handler(_refuse_stream)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._guard_stream(method, handler),
                request_deserializer=None,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._guard(method, handler),
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )

    def _guard(self, method: str, handler: Any) -> Any:
        async def run(body: bytes, context: Any) -> Any:
            began = time.monotonic()
            try:
                request = self._admit(method, handler, body, context)
                response = await handler.unary_unary(request, context)
            except Exception as error:
                failure = _for_caller(method, error)
                self._note(method, failure.kind, time.monotonic() - began)
                await abort(context, failure)
            self._note(method, "ok", time.monotonic() - began)
            return response

        return run

    def _guard_stream(self, method: str, handler: Any) -> Any:
        async def run(body: bytes, context: Any) -> Any:
            try:
                request = self._admit(method, handler, body, context)
                async for response in handler.unary_stream(request, context):
                    yield response
                self._note(method, "ok", None)
            except Exception as error:
                failure = _for_caller(method, error)
                self._note(method, failure.kind, None)
                await abort(context, failure)

        return run

    def _note(self, method: str, outcome: str, seconds: float | None) -> None:
        if self._metrics is not None:
            self._metrics.answered(method, outcome, seconds)

    def _admit(self, method: str, handler: Any, body: bytes, context: Any) -> Any:
        if self._verifier is not None:
            self._verifier.verify(method, context.invocation_metadata() or (), body)
        try:
            return handler.request_deserializer(body)
        except Exception:
            raise UnsupportedError(f"The request to {method} cannot be parsed.") from None


def _for_caller(method: str, error: Exception) -> CurveError:
    if isinstance(error, CurveError):
        return error
    if isinstance(error, grpc.RpcError | grpc.aio.AbortError):
        raise error
    _log.error("a handler failed", exc_info=error, extra={"method": method})
    return InternalError(f"The server failed in {method}; its log says more.")


async def _refuse_stream(_requests: Any, context: Any) -> None:
    await abort(context, UnauthenticatedError("Streams of requests cannot be signed."))
