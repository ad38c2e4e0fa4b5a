"""`curve-chunkserver --config F`: one store, served until SIGTERM or SIGINT.

Owns: the order of starting (format, open, data port, admin port, HTTP, heartbeats) and of stopping.
It starts and serves with no metaserver up. Thread: the asyncio loop; the store has its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import sys
from collections.abc import Sequence

import grpc

from chunkserver.admin_servicer import AdminServicer
from chunkserver.heartbeat import Heartbeats
from chunkserver.lost import remember, report_lost
from chunkserver.metrics import make_registry
from chunkserver.ports import NativeStore
from chunkserver.settings import ChunkserverSettings
from chunkserver.store import Store, format_store, open_store
from curve_py.config import load_settings
from curve_py.errors import ConfigError, CorruptError, CurveError
from curve_py.proto import meta_pb2 as pb
from curve_py.proto.chunkserver_pb2_grpc import add_ChunkserverAdminServicer_to_server
from curve_py.service import memory
from curve_py.service.http import Health, HttpPort
from curve_py.service.lifecycle import fail, run_service
from curve_py.service.meta_client import AsyncMetaClient
from curve_py.service.secret import load_secret
from curve_py.service.server import GRACE_SECONDS, listen, make_server
from curve_py.service.structured_log import set_up_logging
from curve_py.types import uuid_text
from curve_py.volume_map import split_address

PROGRAM = "curve-chunkserver"
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    try:
        settings = load_settings(
            ChunkserverSettings, PROGRAM, "One chunkserver of a Curve cluster.", arguments
        )
        secret = load_secret(settings.secret_file)
        advertised = numeric_address(settings.data_advertise or settings.data_listen)
        set_up_logging("chunkserver", settings.log_level)
        if settings.format:
            store_id = format_store(settings)
            _log.info(
                "formatted",
                extra={"store": uuid_text(store_id), "path": str(settings.store_path)},
            )
        for sentence in memory.prepare():  # before the store has threads
            _log.info("short of memory it may wait for its own clients", extra={"why": sentence})
        try:
            native = open_store(settings, secret)
        except CorruptError as error:
            report_lost(settings, secret, error)
            raise
        remember(settings, native)
    except CurveError as error:
        return fail(PROGRAM, error)
    return run_service(PROGRAM, lambda stop: serve(settings, secret, native, advertised, stop))


def numeric_address(address: str) -> str:
    """IP:PORT of HOST:PORT, as volume maps need it. Raises ConfigError. Blocks (name service)."""
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
        number = ipaddress.ip_address(found)
    except (OSError, ValueError):
        raise ConfigError(f"The address {address} cannot be resolved.") from None
    if number.is_unspecified:
        raise ConfigError(
            f"{address} is no address that others can use.", "Set data_advertise to IP:PORT."
        )
    return f"[{number}]:{port}" if number.version == 6 else f"{number}:{port}"


async def serve(
    settings: ChunkserverSettings,
    secret: bytes,
    native: NativeStore,
    data_address: str,
    stop: asyncio.Event,
) -> None:
    """Runs one chunkserver until `stop` is set. Raises CurveError."""
    store = Store(native)
    registry = make_registry(native)
    http = HttpPort(registry, lambda: Health(not store.failure, store.failure or "serving"))
    server = make_server(secret, registry)
    client = AsyncMetaClient(settings.metaservers, secret)
    beating: asyncio.Task[None] | None = None
    try:
        store.start()
        http_address = await http.start(settings.http_listen)
        servicer = AdminServicer(store, data_address, http_address)
        add_ChunkserverAdminServicer_to_server(servicer, server)
        admin_address = listen(server, settings.admin_listen)
        await server.start()
        registration = pb.RegisterChunkserverRequest(
            cluster_id=native.cluster_id,
            store_id=native.store_id,
            data_address=data_address,
            admin_address=settings.admin_advertise or admin_address,
            http_address=http_address,
            zone=settings.zone,
            server=settings.server,
            capacity_bytes=int(native.status().get("capacity_bytes", 0)),
        )
        heartbeats = Heartbeats(
            store,
            client,
            registration,
            lambda: servicer.topology_version,
            settings.heartbeat_interval_ms / 1000,
        )
        beating = asyncio.create_task(heartbeats.run())
        _log.info(
            "serving",
            extra={
                "store": uuid_text(native.store_id),
                "data": data_address,
                "admin": admin_address,
                "http": http_address,
            },
        )
        await store.run(stop)
    finally:
        if beating is not None:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        with contextlib.suppress(grpc.RpcError):
            await server.stop(GRACE_SECONDS)
        await store.close()
        await client.close()
        await http.close()


if __name__ == "__main__":
    sys.exit(main())
