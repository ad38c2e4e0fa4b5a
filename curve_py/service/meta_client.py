"""Calls to the metaservers that find the leader and retry (R16: a retry keeps its request id).

Owns: who is believed to lead, and when to try again. Knows every method of curve.v1.MetaService by
its name. `MetaClient` blocks and may be used by several threads; `AsyncMetaClient` is of one loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc

from curve_py.errors import (
    BusyError,
    CurveError,
    CurveTimeoutError,
    InvalidError,
    NotLeaderError,
    UnavailableError,
)
from curve_py.proto import meta_pb2_grpc
from curve_py.service.channel import AsyncSignedChannel, SignedChannel
from curve_py.service.rpc_errors import from_rpc_error
from curve_py.types import PROTOCOL_VERSION, new_uuid

DEFAULT_TIMEOUT_SECONDS = 30.0
# One try of a call that is answered at once, so that a stopped server does not take all the time.
_TRY_SECONDS = 2.0
_SLOW_TRY_SECONDS = 5.0
_PAUSE_SECONDS = 0.05
_PAUSE_SECONDS_MAX = 0.5
# Calls that take as long as disks take, or as somebody wants: as long as the connection lives.
# Keepalive ends it when the server is stopped.
_LONG_TRY_SECONDS = 24 * 3600.0
_LONG_METHODS = frozenset({"CheckCopyset", "TraceVolume"})
_SLOW_METHODS = frozenset({"AttachVolume", "CreatePool", "UnpublishVolume"})


class _Route:
    """Whom to ask next."""

    def __init__(self, addresses: Sequence[str]) -> None:
        if not addresses:
            raise InvalidError("No metaserver address is given.")
        self.addresses = list(addresses)
        self.current = self.addresses[0]

    def failed(self, address: str, error: CurveError) -> bool:
        """Turns to another server. True: it is a hint worth following at once."""
        hint = getattr(error, "leader_address", "")
        if hint and hint != address:
            self.current = hint
            return True
        if self.current == address:
            known = self.addresses
            position = known.index(address) if address in known else -1
            self.current = known[(position + 1) % len(known)]
        return False


class _Attempts:
    """The time that a call has, cut into tries."""

    def __init__(self, route: _Route, method: str, timeout: float) -> None:
        self._route = route
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._is_long = method in _LONG_METHODS
        self._try_seconds = _SLOW_TRY_SECONDS if method in _SLOW_METHODS else _TRY_SECONDS
        self._began = 0.0
        self._pause = _PAUSE_SECONDS
        self._hints = 0
        self._unfinished: CurveTimeoutError | None = None

    def try_seconds(self) -> float:
        self._began = time.monotonic()
        if self._is_long:
            return _LONG_TRY_SECONDS
        return max(0.001, min(self._try_seconds, self._deadline - time.monotonic()))

    def pause_after(self, address: str, error: CurveError) -> float:
        """Seconds to wait before the next try. Raises when there is no next."""
        if not isinstance(error, NotLeaderError | UnavailableError | BusyError | CurveTimeoutError):
            raise error
        hinted = self._route.failed(address, error) if not isinstance(error, BusyError) else False
        if isinstance(error, CurveTimeoutError) and error.remedy:
            self._unfinished = error  # the leader itself said why
        now = time.monotonic()
        if self._is_long and now - self._began > self._timeout:
            self._deadline = now + self._timeout  # it was served until now
        left = self._deadline - now
        if left <= 0:
            if self._unfinished is not None:
                raise self._unfinished
            raise UnavailableError(
                f"No metaserver served the request within {self._timeout:g} s: {error.message}",
                "Check that a majority of the metaservers runs.",
            ) from None
        self._hints += 1
        if hinted and self._hints <= 3:
            return 0.0
        pause = min(self._pause, left)
        self._pause = min(self._pause * 1.5, _PAUSE_SECONDS_MAX)
        return pause


def _with_header(request: Any) -> Any:
    """Fills in the header; an id that the caller has set stays."""
    request.header.protocol_version = PROTOCOL_VERSION
    if not request.header.request_id:
        request.header.request_id = new_uuid()
    return request


class MetaClient:
    """Blocking calls to whichever metaserver leads."""

    def __init__(self, addresses: Sequence[str], secret: bytes) -> None:
        self._route = _Route(addresses)
        self._secret = secret
        self._lock = threading.Lock()
        self._channels: dict[str, tuple[SignedChannel, Any]] = {}

    def call(self, method: str, request: Any, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> Any:
        """The answer to `method`, e.g. call("GetVolume", GetVolumeRequest(name="a")).

        Retries until `timeout` seconds are over. Raises CurveError.
        """
        _with_header(request)
        attempts = _Attempts(self._route, method, timeout)
        while True:
            address = self._route.current
            try:
                stub = self._stub(address)
                return getattr(stub, method)(request, timeout=attempts.try_seconds())
            except grpc.RpcError as error:
                time.sleep(attempts.pause_after(address, from_rpc_error(error, address)))

    def ask(self, address: str, method: str, request: Any, timeout: float = 2.0) -> Any:
        """One try with one server, e.g. GetNodeStatus. Raises CurveError."""
        try:
            return getattr(self._stub(address), method)(_with_header(request), timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, address) from None

    def stream(self, method: str, request: Any) -> Iterator[Any]:
        """The events of one stream from the leader. Raises CurveError when it breaks: start anew.

        `close` of the iterator, or of the client, ends it.
        """
        address = self._route.current
        call = getattr(self._stub(address), method)(_with_header(request))
        try:
            yield from call
        except grpc.RpcError as error:
            translated = from_rpc_error(error, address)
            self._route.failed(address, translated)
            raise translated from None
        finally:
            call.cancel()

    def close(self) -> None:
        with self._lock:
            channels = list(self._channels.values())
            self._channels.clear()
        for channel, _ in channels:
            channel.close()

    def __enter__(self) -> MetaClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stub(self, address: str) -> Any:
        with self._lock:
            if address not in self._channels:
                channel = SignedChannel(address, self._secret)
                self._channels[address] = (channel, meta_pb2_grpc.MetaServiceStub(channel))
            return self._channels[address][1]


class AsyncMetaClient:
    """The same for asyncio."""

    def __init__(self, addresses: Sequence[str], secret: bytes) -> None:
        self._route = _Route(addresses)
        self._secret = secret
        self._channels: dict[str, tuple[AsyncSignedChannel, Any]] = {}

    async def call(
        self,
        method: str,
        request: Any,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,  # noqa: ASYNC109
    ) -> Any:
        """The answer to `method`. Retries until `timeout` seconds are over. Raises CurveError."""
        _with_header(request)
        attempts = _Attempts(self._route, method, timeout)
        while True:
            address = self._route.current
            try:
                stub = self._stub(address)
                return await getattr(stub, method)(request, timeout=attempts.try_seconds())
            except grpc.RpcError as error:
                await asyncio.sleep(attempts.pause_after(address, from_rpc_error(error, address)))

    async def ask(
        self,
        address: str,
        method: str,
        request: Any,
        timeout: float = 2.0,  # noqa: ASYNC109
    ) -> Any:
        """One try with one server. Raises CurveError."""
        try:
            stub = self._stub(address)
            return await getattr(stub, method)(_with_header(request), timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, address) from None

    async def stream(self, method: str, request: Any) -> AsyncIterator[Any]:
        """The events of one stream from the leader.

        Raises CurveError when it breaks: start anew.
        """
        address = self._route.current
        call = getattr(self._stub(address), method)(_with_header(request))
        try:
            async for event in call:
                yield event
        except grpc.RpcError as error:
            translated = from_rpc_error(error, address)
            self._route.failed(address, translated)
            raise translated from None
        finally:
            call.cancel()

    async def close(self) -> None:
        channels = list(self._channels.values())
        self._channels.clear()
        for channel, _ in channels:
            await channel.close()

    async def __aenter__(self) -> AsyncMetaClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _stub(self, address: str) -> Any:
        if address not in self._channels:
            channel = AsyncSignedChannel(address, self._secret)
            self._channels[address] = (channel, meta_pb2_grpc.MetaServiceStub(channel))
        return self._channels[address][1]
