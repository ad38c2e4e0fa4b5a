"""Nobody gets in without the secret: signatures, replays, time, and real gRPC around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from curve_py.errors import (
    ConfigError,
    CurveError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from curve_py.proto import meta_pb2 as pb
from curve_py.proto.meta_pb2_grpc import (
    MetaServiceServicer,
    MetaServiceStub,
    add_MetaServiceServicer_to_server,
)
from curve_py.service import auth
from curve_py.service.channel import AsyncSignedChannel, SignedChannel
from curve_py.service.rpc_errors import from_rpc_error
from curve_py.service.secret import create_secret, load_secret
from curve_py.service.server import listen, make_server

SECRET = b"s" * 32
METHOD = "/curve.v1.MetaService/GetVolume"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(auth, "_now_ms", clock)
    return clock


def verifier(clock: Clock, **options: Any) -> auth.Verifier:
    return auth.Verifier(SECRET, now_ms=clock, **options)


def test_a_signed_request_is_let_in_once(clock: Clock) -> None:
    guard = verifier(clock)
    metadata = auth.sign(SECRET, METHOD, b"body")
    guard.verify(METHOD, metadata, b"body")
    with pytest.raises(UnauthenticatedError, match="replay"):
        guard.verify(METHOD, metadata, b"body")


@pytest.mark.parametrize("part", ["body", "method", "secret", "time", "nonce", "mac"])
def test_whatever_is_changed_is_noticed(clock: Clock, part: str) -> None:
    guard = verifier(clock)
    metadata = dict(auth.sign(b"t" * 32 if part == "secret" else SECRET, METHOD, b"body"))
    if part == "time":
        metadata[auth.KEY_TIME] = str(clock.now + 1)
    if part in ("nonce", "mac"):
        key = auth.KEY_NONCE if part == "nonce" else auth.KEY_MAC
        metadata[key] = f"{int(metadata[key][0], 16) ^ 1:x}" + metadata[key][1:]
    method = "/curve.v1.MetaService/DeleteVolume" if part == "method" else METHOD
    with pytest.raises(UnauthenticatedError, match="not signed with this cluster's secret"):
        guard.verify(method, metadata.items(), b"Body" if part == "body" else b"body")


@pytest.mark.parametrize(
    "change",
    [
        {auth.KEY_MAC: None},
        {auth.KEY_TIME: None},
        {auth.KEY_NONCE: None},
        {auth.KEY_VERSION: "2"},
        {auth.KEY_TIME: "soon"},
        {auth.KEY_TIME: "-1"},
        {auth.KEY_TIME: str(1 << 70)},
        {auth.KEY_NONCE: "00"},
        {auth.KEY_NONCE: "zz" * 16},
        {auth.KEY_MAC: ""},
    ],
)
def test_malformed_signatures_are_refused(clock: Clock, change: dict[str, str | None]) -> None:
    metadata = {**dict(auth.sign(SECRET, METHOD, b"")), **change}
    with pytest.raises(UnauthenticatedError):
        verifier(clock).verify(METHOD, [(k, v) for k, v in metadata.items() if v is not None], b"")


@pytest.mark.parametrize("off_ms", [-auth.WINDOW_MS - 1, auth.WINDOW_MS + 1])
def test_a_stale_time_is_refused(clock: Clock, off_ms: int) -> None:
    guard = verifier(clock)
    clock.now += 10 * auth.WINDOW_MS
    now = clock.now
    clock.now = now + off_ms
    metadata = auth.sign(SECRET, METHOD, b"")
    clock.now = now
    with pytest.raises(UnauthenticatedError, match="clocks"):
        guard.verify(METHOD, metadata, b"")


def test_what_was_signed_before_the_server_started_is_to_be_signed_anew(clock: Clock) -> None:
    """A restarted server has forgotten its nonces, so nothing from before may come again."""
    metadata = auth.sign(SECRET, METHOD, b"")
    clock.now += 1
    guard = verifier(clock)
    with pytest.raises(UnavailableError, match="Sign it again"):
        guard.verify(METHOD, metadata, b"")


def test_a_full_memory_never_lets_a_replay_in(clock: Clock) -> None:
    guard = verifier(clock, nonces_max=10)
    sent = []
    for _ in range(50):
        clock.now += 1
        metadata = auth.sign(SECRET, METHOD, b"")
        guard.verify(METHOD, metadata, b"")
        sent.append(metadata)
    assert len(guard._nonces) == 10
    for metadata in sent:
        with pytest.raises(CurveError):
            guard.verify(METHOD, metadata, b"")
    clock.now += 1
    guard.verify(METHOD, auth.sign(SECRET, METHOD, b""), b"")


def test_strangers_cannot_fill_the_memory(clock: Clock) -> None:
    guard = verifier(clock, nonces_max=10)
    for _ in range(30):
        with pytest.raises(UnauthenticatedError):
            guard.verify(METHOD, auth.sign(b"x" * 32, METHOD, b""), b"")
    assert not guard._nonces


def test_old_nonces_are_forgotten(clock: Clock) -> None:
    guard = verifier(clock)
    for _ in range(5):
        guard.verify(METHOD, auth.sign(SECRET, METHOD, b""), b"")
    clock.now += 2 * auth.WINDOW_MS
    guard.verify(METHOD, auth.sign(SECRET, METHOD, b""), b"")
    assert len(guard._nonces) == 1


# --- Over real gRPC -----------------------------------------------------------------------------


class Recorder(MetaServiceServicer):
    """Notes which handlers ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def GetVolume(self, request: pb.GetVolumeRequest, _: Any) -> pb.Volume:
        self.ran.append(f"GetVolume {request.name}")
        if request.name == "none":
            raise NotFoundError("There is no volume 'none'.", "See: curve volume list")
        if request.name == "bug":
            raise ZeroDivisionError
        return pb.Volume(id=7, name=request.name)

    async def WatchVolumeMap(
        self, request: pb.WatchVolumeMapRequest, _: Any
    ) -> AsyncIterator[pb.VolumeMapEvent]:
        self.ran.append("WatchVolumeMap")
        for number in range(3):
            yield pb.VolumeMapEvent(map=pb.VolumeMap(map_version=number))


@pytest.fixture
async def served() -> AsyncIterator[tuple[Recorder, str]]:
    recorder = Recorder()
    server = make_server(SECRET)
    add_MetaServiceServicer_to_server(recorder, server)
    address = listen(server, "127.0.0.1:0")
    await server.start()
    yield recorder, address
    await server.stop(0)


async def test_signed_calls_and_streams_work(served: tuple[Recorder, str]) -> None:
    recorder, address = served
    channel = AsyncSignedChannel(address, SECRET)
    stub = MetaServiceStub(channel)
    assert (await stub.GetVolume(pb.GetVolumeRequest(name="a"))).id == 7
    versions = [e.map.map_version async for e in stub.WatchVolumeMap(pb.WatchVolumeMapRequest())]
    assert versions == [0, 1, 2]
    assert recorder.ran == ["GetVolume a", "WatchVolumeMap"]
    await channel.close()


async def test_blocking_calls_work(served: tuple[Recorder, str]) -> None:
    _, address = served

    def call() -> Any:
        channel = SignedChannel(address, SECRET)
        try:
            stub = MetaServiceStub(channel)
            events = list(stub.WatchVolumeMap(pb.WatchVolumeMapRequest()))
            return stub.GetVolume(pb.GetVolumeRequest(name="b")).name, len(events)
        finally:
            channel.close()

    assert await asyncio.to_thread(call) == ("b", 3)


async def test_without_the_secret_no_handler_runs(served: tuple[Recorder, str]) -> None:
    recorder, address = served
    unsigned = grpc.aio.insecure_channel(address)
    wrong = AsyncSignedChannel(address, b"w" * 32)
    for channel in (unsigned, wrong):
        stub = MetaServiceStub(channel)
        with pytest.raises(grpc.RpcError) as unary:
            await stub.GetVolume(pb.GetVolumeRequest(name="a"))
        assert unary.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert from_rpc_error(unary.value, address).kind == "unauthenticated"
        with pytest.raises(grpc.RpcError) as stream:
            async for _ in stub.WatchVolumeMap(pb.WatchVolumeMapRequest()):
                pass
        assert stream.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert recorder.ran == []
    await unsigned.close()
    await wrong.close()


async def test_a_recorded_request_cannot_be_sent_again_or_changed(
    served: tuple[Recorder, str],
) -> None:
    recorder, address = served
    channel = grpc.aio.insecure_channel(address)
    raw = channel.unary_unary(METHOD)
    body = pb.GetVolumeRequest(name="a").SerializeToString()
    metadata = auth.sign(SECRET, METHOD, body)
    await raw(body, metadata=metadata)
    other = pb.GetVolumeRequest(name="b").SerializeToString()
    for sent in (body, other):
        with pytest.raises(grpc.RpcError) as refused:
            await raw(sent, metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert recorder.ran == ["GetVolume a"]
    await channel.close()


async def test_bytes_that_are_no_message_are_a_clear_error(served: tuple[Recorder, str]) -> None:
    recorder, address = served
    channel = grpc.aio.insecure_channel(address)
    body = b"\xff\xff\xff"
    with pytest.raises(grpc.RpcError) as refused:
        await channel.unary_unary(METHOD)(body, metadata=auth.sign(SECRET, METHOD, body))
    assert "cannot be parsed" in str(refused.value.details())
    assert recorder.ran == []
    await channel.close()


async def test_a_stream_of_requests_is_not_let_in(served: tuple[Recorder, str]) -> None:
    _, address = served
    channel = grpc.aio.insecure_channel(address)
    call = channel.stream_unary("/curve.v1.MetaService/GetVolume")(iter([b""]))
    with pytest.raises(grpc.RpcError) as refused:
        await call
    assert refused.value.code() is not grpc.StatusCode.OK
    await channel.close()


async def test_errors_keep_their_kind_sentence_and_remedy(served: tuple[Recorder, str]) -> None:
    _, address = served
    channel = AsyncSignedChannel(address, SECRET)
    stub = MetaServiceStub(channel)
    with pytest.raises(grpc.RpcError) as missing:
        await stub.GetVolume(pb.GetVolumeRequest(name="none"))
    error = from_rpc_error(missing.value, address)
    assert isinstance(error, NotFoundError)
    assert (error.message, error.remedy) == (
        "There is no volume 'none'.",
        "See: curve volume list",
    )
    with pytest.raises(grpc.RpcError) as broken:
        await stub.GetVolume(pb.GetVolumeRequest(name="bug"))
    assert from_rpc_error(broken.value, address).kind == "internal"
    await channel.close()


# --- The secret's file --------------------------------------------------------------------------


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = create_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_secret(path) == secret
    with pytest.raises(FileExistsError):
        create_secret(path)


@pytest.mark.parametrize("trouble", ["missing", "mode", "short", "letters", "directory"])
def test_a_bad_secret_file_is_a_sentence(tmp_path: Path, trouble: str) -> None:
    path = tmp_path / "secret"
    if trouble != "missing":
        create_secret(path)
    if trouble == "mode":
        path.chmod(0o644)
    if trouble in ("short", "letters"):
        path.write_text("00" if trouble == "short" else "x" * 64)
    if trouble == "directory":
        path.unlink()
        path.mkdir()
    with pytest.raises(ConfigError, match="secret"):
        load_secret(path)
