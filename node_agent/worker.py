"""The agent's worker: serves the devices and the control interface until SIGTERM or SIGINT.

Owns: the order of starting (memory, lock, devices of an earlier worker, socket) and of stopping.
Started by the holder (holder.py), which starts another when this one ends unasked. Thread: the
asyncio loop; the data path has its own, native.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry

from curve_py.client import AsyncCluster
from curve_py.config import load_settings
from curve_py.errors import ConflictError, CurveError
from curve_py.proto.agent_pb2_grpc import add_NodeAgentServicer_to_server
from curve_py.service import memory
from curve_py.service.lifecycle import fail, run_service
from curve_py.service.secret import load_secret
from curve_py.service.server import GRACE_SECONDS, listen_unix, make_server
from curve_py.service.structured_log import set_up_logging
from node_agent import metrics
from node_agent.devices import Devices
from node_agent.handover import Holder
from node_agent.records import Records
from node_agent.servicer import AgentServicer
from node_agent.settings import AgentSettings

PROGRAM = "curve-agent"
_THREADS_MAX = 64
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """What the holder starts; returns the exit code."""
    try:
        settings = load_settings(AgentSettings, PROGRAM, "The node agent of Curve.", arguments)
        secret = load_secret(settings.secret_file)
        set_up_logging("agent", settings.log_level)
        settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _lock(settings.directory / "lock")
    except CurveError as error:
        return fail(PROGRAM, error)
    except OSError as error:
        return fail(PROGRAM, CurveError(f"{error.strerror or error}: {error.filename or ''}."))
    for sentence in memory.prepare():
        _log.warning("short of memory the devices may stand still", extra={"why": sentence})
    holder = Holder.inherited()
    return run_service(PROGRAM, lambda stop: serve(settings, secret, holder, stop))


def _lock(path: Path) -> None:
    """For as long as this process lives. Raises ConflictError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConflictError(
            f"Another agent works in {path.parent}.", "There is one agent on a node."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())  # for those who find no holder


def _say_unattended() -> None:
    _log.error("the holder was killed: nobody starts another agent when this one ends")


async def serve(
    settings: AgentSettings, secret: bytes, holder: Holder, stop: asyncio.Event
) -> None:
    """Runs the agent until `stop` is set. Raises CurveError."""
    # A device that waits, for a cluster without a quorum, must not hold up the others.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS_MAX))
    registry = CollectorRegistry()
    http = None
    server = make_server(None, registry)
    cluster = AsyncCluster(settings.metaservers, secret)
    records = Records(settings.directory)
    devices = Devices(cluster, settings.node_id, records, holder, settings.device_type)
    try:
        await asyncio.to_thread(records.make)
        await devices.resume()
        metrics.register(registry, devices)
        http_address = ""
        if settings.http_listen:
            # Not before: loading it takes longer than everything else, and I/O waits for us.
            from curve_py.service.http import Health, HttpPort

            http = HttpPort(registry, lambda: Health(True, "serving"))
            http_address = await http.start(settings.http_listen)
        servicer = AgentServicer(devices, settings, holder)
        holder.watch(asyncio.get_running_loop(), _say_unattended)
        add_NodeAgentServicer_to_server(servicer, server)
        listen_unix(server, settings.control_socket)
        await server.start()
        holder.serving()
        _log.info(
            "serving",
            extra={
                "node": settings.node_id,
                "socket": settings.control_socket,
                "http": http_address,
                "replaceable": holder.is_there,
            },
        )
        await stop.wait()
    finally:
        with contextlib.suppress(grpc.RpcError):
            await server.stop(GRACE_SECONDS)
        await devices.close()
        await cluster.close()
        if http is not None:
            await http.close()
        with contextlib.suppress(OSError):
            settings.control_socket.unlink()


if __name__ == "__main__":
    sys.exit(main())
