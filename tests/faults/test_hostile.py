"""Hostile bytes against every port: servers survive, and serve their real clients afterwards."""

from __future__ import annotations

import os
import random
import struct
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from faults_harness import Nbd, Servers, checked_load, connect, curve, more, send_and_drain

from curve_py.client import Cluster
from curve_py.errors import CurveError, UnauthenticatedError
from curve_py.proto import chunkserver_pb2, meta_pb2
from curve_py.proto.chunkserver_pb2_grpc import ChunkserverAdminStub
from curve_py.proto.meta_pb2_grpc import MetaServiceStub
from curve_py.volume_map import crc32c

_FRAME = struct.Struct("<HBBIIIQ")  # docs/formats/wire.md
_MAGIC = 0xC5B7
HELLO, PROOF, WRITE, PEER_APPEND, SNAPSHOT_CHUNK = 1, 3, 17, 49, 60


def frame(
    kind: int, body: bytes = b"", version: int = 1, body_bytes: int | None = None, payload: int = 0
) -> bytes:
    size = len(body) if body_bytes is None else body_bytes
    head = _FRAME.pack(_MAGIC, version, kind, size, payload, 0, 1)
    checksum = crc32c(head + body)
    return _FRAME.pack(_MAGIC, version, kind, size, payload, checksum, 1) + body


def hello(role: int = 1) -> bytes:
    return frame(HELLO, bytes([role]) + bytes(7) + os.urandom(16) + bytes(16) + bytes(48))


def hostile_frames() -> dict[str, list[bytes]]:
    rng = random.Random(7)
    flipped = bytearray(hello())
    flipped[40] ^= 1
    return {
        "random": [rng.randbytes(3000)],
        "random after the magic": [struct.pack("<HB", _MAGIC, 1) + rng.randbytes(500)],
        "huge body": [frame(HELLO, body_bytes=0xFFFFFFFF)],
        "huge payload": [frame(HELLO, bytes(88), payload=0xFFFFFFFF)],
        "largest body that is legal later": [frame(HELLO, bytes(600))],
        "another version": [frame(HELLO, bytes(88), version=9)],
        "a bad checksum": [bytes(flipped)],
        "a short hello": [frame(HELLO, bytes(10))],
        "role 0": [hello(0)],
        "role 255": [hello(255)],
        "a request before the handshake": [frame(WRITE, bytes(48))],
        "an append before the handshake": [frame(PEER_APPEND, bytes(64))],
        "a snapshot before the handshake": [frame(SNAPSHOT_CHUNK, bytes(64))],
        "a wrong proof": [hello(), frame(PROOF, os.urandom(32))],
        "a wrong proof of a store": [hello(2), frame(PROOF, os.urandom(32))],
        "a proof without a hello": [frame(PROOF, bytes(32))],
        "a wrong proof, then requests": [
            hello(),
            frame(PROOF, bytes(32)),
            frame(WRITE, bytes(48)) * 50,
        ],
        "much data": [rng.randbytes(1 << 20)],
        "half a header": [hello()[:10]],
        "half a hello": [hello()[:60]],
        "nothing": [],
    }


@pytest.fixture
def whole(healthy: Servers) -> Iterator[Servers]:
    """Afterwards no process has ended, and real clients are served."""
    before = {name: healthy.pid(name) for name in healthy.names}
    yield healthy
    assert {name: healthy.pid(name) for name in healthy.names} == before
    with (
        healthy.connect() as cluster,
        checked_load(cluster, f"after-{random.randrange(1 << 30)}", 16) as (writer, reader, _),
    ):
        more(writer, 20)
        more(reader, 20)


def test_frames_on_data_and_peer_ports(whole: Servers) -> None:
    """Whoever has not proved to hold the secret is closed, whatever it sends or does not send."""
    ports = {c.name: c.data_address for c in whole.chunkservers[:1]}
    ports |= {m.name: m.peer_address for m in whole.metaservers[:1]}
    for name, address in ports.items():
        for what, parts in hostile_frames().items():
            answer = send_and_drain(address, parts)  # ends only because the server closes
            assert len(answer) <= 1024, f"{name}: {what}"
            assert bytes([4]) not in kinds(answer), f"{name} welcomed: {what}"


def kinds(answer: bytes) -> bytes:
    """Types of the frames in an answer."""
    found, at = b"", 0
    while at + _FRAME.size <= len(answer):
        _, _, kind, body, payload, _, _ = _FRAME.unpack_from(answer, at)
        found += bytes([kind])
        at += _FRAME.size + body + payload
    return found


def test_many_silent_connections(whole: Servers) -> None:
    address = whole.chunkservers[1].data_address
    silent = [connect(address) for _ in range(200)]
    try:
        with (
            whole.connect() as cluster,
            checked_load(cluster, "beside-silence", 16) as (writer, _, _),
        ):
            more(writer, 20)
        for each in silent:
            assert each.recv(1) == b""  # closed by the server
    finally:
        for each in silent:
            each.close()


def test_grpc_ports(whole: Servers) -> None:
    rng = random.Random(3)
    meta, chunkserver = whole.metaservers[0], whole.chunkservers[0]
    for address in (meta.grpc_address, chunkserver.admin_address):
        send_and_drain(address, [rng.randbytes(4096)], finish=True)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        send_and_drain(address, [preface, rng.randbytes(9000)], finish=True)
        send_and_drain(address, [preface, b"\xff\xff\xff\x00\x00" + bytes(4)], finish=True)
        send_and_drain(address, [preface[:7]], finish=True)
    with grpc.insecure_channel(meta.grpc_address) as channel:
        stub = MetaServiceStub(channel)
        for metadata in (
            (),
            (("curve-auth-mac", "zz"), ("curve-auth-version", "1")),
            (
                ("curve-auth-version", "1"),
                ("curve-auth-time", "-99999999999999999999"),
                ("curve-auth-nonce", "00" * 16),
                ("curve-auth-mac", "00" * 32),
            ),
        ):
            assert refusal(stub.ListVolumes, meta_pb2.ListVolumesRequest(), metadata) == (
                grpc.StatusCode.UNAUTHENTICATED
            )
        raw = channel.unary_unary("/curve.v1.MetaService/CreateVolume")
        assert refusal(raw, rng.randbytes(100)) == grpc.StatusCode.UNAUTHENTICATED
        assert refusal(raw, bytes(64 << 20)) is not None
        assert refusal(channel.unary_unary("/curve.v1.MetaService/Nothing"), b"") is not None
    with grpc.insecure_channel(chunkserver.admin_address) as channel:
        admin = ChunkserverAdminStub(channel)
        assert refusal(admin.GetStoreStatus, chunkserver_pb2.GetStoreStatusRequest()) == (
            grpc.StatusCode.UNAUTHENTICATED
        )


def refusal(call: object, request: object, metadata: tuple[tuple[str, str], ...] = ()) -> object:
    """Status code of a call that must not succeed."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=metadata, timeout=30)  # type: ignore[operator]
    return caught.value.code()


def test_http_ports(whole: Servers) -> None:
    rng = random.Random(5)
    for address in (whole.metaservers[0].http_address, whole.chunkservers[0].http_address):
        for parts in (
            [rng.randbytes(2000)],
            [b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"y" * (1 << 20)],
            [b"GET /metrics HTTP/1.1\r\nContent-Length: -5\r\n\r\n"],
            [b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
            [b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
        ):
            assert b"root:" not in send_and_drain(address, parts, finish=True)
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            assert b"curve_" in answer.read()


def test_nbd_port(whole: Servers) -> None:
    rng = random.Random(11)
    with whole.connect() as cluster:
        cluster.volumes().create("hostile-nbd", "64MiB")
        address = f"unix:{whole.path}/hostile-nbd.sock"
        curve(whole, "volume", "export", "hostile-nbd", "--nbd", address)
        survivor = Nbd(address, "hostile-nbd")
        survivor.write(4096, b"s" * 4096)
        flags, option = struct.pack(">I", 3), b"IHAVEOPT"
        for parts in (
            [rng.randbytes(4096)],
            [struct.pack(">I", 0xFFFFFFFF)],
            [flags, rng.randbytes(4096)],
            [flags, option + struct.pack(">II", 1, 0xFFFFFFFF)],
            [flags, option + struct.pack(">II", 7, 0x7FFFFFFF), bytes(100_000)],
            [flags, option + struct.pack(">II", 6, 6) + struct.pack(">IH", 0xFFFFFFF0, 1)],
            [flags, option + struct.pack(">II", 10, 8) + b"\xff" * 8],
            [flags, option + struct.pack(">II", 1, 11) + b"hostile-nbd", rng.randbytes(5000)],
            [flags, option + struct.pack(">II", 1, 7) + b"unknown"],
            [flags, (option + struct.pack(">II", 0x7777, 0)) * 2000],
        ):
            send_and_drain(address, parts, finish=True)
        for command, offset, size in (
            (1, 0, 0xFFFFFFFF),
            (0, 0, 0xFFFFFFFF),
            (0, 1 << 63, 4096),
            (0, (1 << 64) - 4096, 8192),
            (4, 64 << 20, 1 << 20),
            (0, 1, 7),
            (99, 0, 0),
        ):
            client = Nbd(address, "hostile-nbd")
            client.send(command, offset, size)
            client.socket.shutdown(1)
            while client.socket.recv(65536):
                pass
            client.socket.close()
        assert survivor.read(4096, 4096) == b"s" * 4096
        survivor.close()
        curve(whole, "volume", "unexport", "hostile-nbd")
        cluster.volumes().delete("hostile-nbd")


def test_a_wrong_secret_is_refused(whole: Servers) -> None:
    addresses = [m.grpc_address for m in whole.metaservers]
    with Cluster.connect(metaservers=addresses, secret=bytes(32)) as stranger:
        with pytest.raises(UnauthenticatedError, match="secret"):
            stranger.status()
        with pytest.raises(CurveError):
            stranger.volumes().create("stranger", "1GiB")
