"""gRPC channels whose every call is signed with the cluster's secret.

A channel here looks like grpc.Channel (or grpc.aio.Channel) to generated stubs. It serializes the
request itself, because the signature is over the bytes that travel. Any thread for SignedChannel;
the asyncio loop for AsyncSignedChannel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from curve_py.service.auth import sign

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
_OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A server that comes back is to be found within a fraction of a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.http2.bdp_probe", 0),  # a ping for each call, to find a window that nobody needs
)


class _Signed:
    """A multicallable that signs. `target` takes raw bytes."""

    def __init__(
        self, target: Any, secret: bytes, method: str, serializer: Callable[[Any], bytes]
    ) -> None:
        self._target = target
        self._secret = secret
        self._method = method
        self._serializer = serializer

    def __call__(self, request: Any, timeout: float | None = None, **options: Any) -> Any:
        body = self._serializer(request)
        metadata = (*(options.pop("metadata", None) or ()), *sign(self._secret, self._method, body))
        return self._target(body, timeout=timeout, metadata=metadata, **options)


class _SigningChannel:
    """Shared by both kinds of channel: the generated stubs call these two."""

    _channel: Any
    _secret: bytes

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        **_: Any,
    ) -> _Signed:
        target = self._channel.unary_unary(method, None, response_deserializer)
        return _Signed(target, self._secret, method, request_serializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        **_: Any,
    ) -> _Signed:
        target = self._channel.unary_stream(method, None, response_deserializer)
        return _Signed(target, self._secret, method, request_serializer)


class SignedChannel(_SigningChannel):
    """For blocking stubs."""

    def __init__(self, address: str, secret: bytes) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._secret = secret

    def close(self) -> None:
        self._channel.close()


class AsyncSignedChannel(_SigningChannel):
    """For asyncio stubs."""

    def __init__(self, address: str, secret: bytes) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._secret = secret

    async def close(self) -> None:
        await self._channel.close()
