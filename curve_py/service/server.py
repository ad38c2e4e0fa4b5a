"""gRPC servers: one that lets nobody in without the secret, and one on a unix socket that lets in
whoever may open it. Thread: the asyncio loop.
"""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry

from curve_py.errors import ConfigError
from curve_py.service.auth import GuardInterceptor, Verifier
from curve_py.service.channel import MESSAGE_BYTES_MAX
from curve_py.service.rpc_metrics import RpcMetrics
from curve_py.volume_map import split_address

GRACE_SECONDS = 2.0


def make_server(secret: bytes | None, registry: CollectorRegistry | None = None) -> grpc.aio.Server:
    """Without services and ports yet. Its calls are counted in `registry`. Without a secret nobody
    signs: for `listen_unix` only.
    """
    metrics = RpcMetrics(registry) if registry is not None else None
    return grpc.aio.server(
        interceptors=[GuardInterceptor(Verifier(secret) if secret else None, metrics)],
        options=(
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ),
    )


def listen(server: grpc.aio.Server, address: str) -> str:
    """Binds; returns the address with the port that was taken. Raises ConfigError."""
    host, _ = split_address(address)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise ConfigError(
            f"The gRPC port {address} cannot be used.", "Is another process listening there?"
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen_unix(server: grpc.aio.Server, socket: Path) -> None:
    """Binds; only the owner may connect. The socket of a server that was killed is replaced.

    Raises ConfigError.
    """
    mask = os.umask(0o077)
    try:
        socket.unlink(missing_ok=True)
        port = server.add_insecure_port(f"unix:{socket}")
    except (OSError, RuntimeError):
        port = 0
    finally:
        os.umask(mask)
    if not port:
        raise ConfigError(f"The socket {socket} cannot be used.", "Is its directory there?")
