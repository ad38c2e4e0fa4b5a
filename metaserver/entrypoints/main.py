"""`curve-metaserver --config F`: one metaserver, until SIGTERM or SIGINT.

Owns: the order of starting (native node, gRPC, HTTP) and of stopping. Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence

import grpc
import grpc.aio

from curve_py.config import load_settings
from curve_py.errors import ConfigError, CurveError
from curve_py.proto.meta_pb2_grpc import add_MetaServiceServicer_to_server
from curve_py.service.http import Health as HttpHealth
from curve_py.service.http import HttpPort
from curve_py.service.lifecycle import fail, run_service
from curve_py.service.secret import load_secret
from curve_py.service.server import GRACE_SECONDS, listen, make_server
from curve_py.service.structured_log import set_up_logging
from metaserver.bootstrap import Member, Parts, assemble, open_node
from metaserver.domain.ports import RaftNode
from metaserver.entrypoints.meta_servicer import MetaServicer
from metaserver.entrypoints.metrics import make_registry
from metaserver.entrypoints.settings import MetaserverSettings

PROGRAM = "curve-metaserver"
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    try:
        settings = load_settings(
            MetaserverSettings, PROGRAM, "One metaserver of a Curve cluster.", arguments
        )
        secret = load_secret(settings.secret_file)
        _check_directory(settings)
    except CurveError as error:
        return fail(PROGRAM, error)
    set_up_logging("metaserver", settings.log_level)
    return run_service(PROGRAM, lambda stop: serve(settings, secret, stop))


def _check_directory(settings: MetaserverSettings) -> None:
    """R1: an empty store starts only by an explicit bootstrap, and a used one never by it."""
    directory = settings.data_dir
    # wal.new is what a bootstrap leaves that was cut off: it was no member yet.
    used = directory.is_dir() and any(entry.name != "wal.new" for entry in directory.iterdir())
    if used and settings.bootstrap:
        raise ConfigError(
            f"{directory} is not empty, so it cannot be bootstrapped again.",
            "Start without --bootstrap.",
        )
    if not used and not settings.bootstrap:
        raise ConfigError(
            f"{directory} is empty: this metaserver has lost its store or was never set up.",
            "A new cluster is formed with --bootstrap, once, on each of its first metaservers.",
        )
    directory.mkdir(parents=True, exist_ok=True)


async def serve(
    settings: MetaserverSettings,
    secret: bytes,
    stop: asyncio.Event,
    node: RaftNode | None = None,
) -> None:
    """Runs one metaserver until `stop` is set. `node` is given by tests only. Raises CurveError."""
    members = [Member(m.node_id, m.peer_address, m.grpc_address) for m in settings.members]
    if node is None:
        node = open_node(
            data_dir=settings.data_dir,
            node_id=settings.node_id,
            peer_listen=settings.peer_listen,
            members=members,
            secret=secret,
            bootstrap=settings.bootstrap,
            wal_bytes=settings.wal_bytes,
        )
    parts = assemble(
        node,
        {member.node_id: member.grpc_address for member in members},
        secret,
        settings.cluster_id,
        settings.cluster_name,
        settings.gone_after_seconds,
        settings.recovery,
    )
    replicator = parts.replicator
    registry = make_registry(replicator, node)
    http = HttpPort(
        registry,
        lambda: HttpHealth(
            bool(replicator.leader_id), "leader known" if replicator.leader_id else "no leader"
        ),
    )
    server = make_server(secret, registry)
    try:
        replicator.start()
        http_address = await http.start(settings.http_listen)
        servicer = MetaServicer(
            parts.metaserver,
            parts.recovery.journal,
            parts.inspections,
            node,
            settings.node_id,
            members,
            settings.advertised,
            http_address,
        )
        add_MetaServiceServicer_to_server(servicer, server)
        address = listen(server, settings.grpc_listen)
        await server.start()
        _log.info("serving", extra={"grpc": address, "http": http_address})
        await replicator.run(stop)
    finally:
        await _close(parts, server, http)


async def _close(parts: Parts, server: grpc.aio.Server, http: HttpPort) -> None:
    with contextlib.suppress(grpc.RpcError):
        await server.stop(GRACE_SECONDS)
    await parts.replicator.close()
    await parts.gateway.close()
    await http.close()


if __name__ == "__main__":
    sys.exit(main())
