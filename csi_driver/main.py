"""`curve-csi --config F`: the CSI driver's services on one socket, until SIGTERM or SIGINT.

Owns: the order of starting (mount helper, HTTP, gRPC) and of stopping. It keeps no state: it may be
killed and replaced at any time, and touches no I/O. Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence

import grpc
from prometheus_client import CollectorRegistry

from csi_driver.controller import Controller
from csi_driver.devices import Devices
from csi_driver.identity import Identity
from csi_driver.in_flight import InFlight
from csi_driver.mounter.client import Mounter
from csi_driver.node import Node
from csi_driver.proto.csi_pb2_grpc import (
    add_ControllerServicer_to_server,
    add_IdentityServicer_to_server,
    add_NodeServicer_to_server,
)
from csi_driver.server import Funnel, listen, make_server
from csi_driver.settings import CsiSettings
from csi_driver.upkeep import Upkeep
from curve_py.client.agent import AsyncAgentClient
from curve_py.config import load_settings
from curve_py.errors import CurveError, InternalError
from curve_py.service.http import Health, HttpPort
from curve_py.service.lifecycle import fail, run_service
from curve_py.service.meta_client import AsyncMetaClient
from curve_py.service.secret import load_secret
from curve_py.service.server import GRACE_SECONDS
from curve_py.service.structured_log import set_up_logging

PROGRAM = "curve-csi"
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    try:
        settings = load_settings(CsiSettings, PROGRAM, "The CSI driver of Curve.", arguments)
        secret = load_secret(settings.secret_file)
    except CurveError as error:
        return fail(PROGRAM, error)
    set_up_logging("csi", settings.log_level)
    return run_service(PROGRAM, lambda stop: serve(settings, secret, stop))


async def serve(settings: CsiSettings, secret: bytes, stop: asyncio.Event) -> None:
    """Runs the driver until `stop` is set. Raises CurveError."""
    # First of all: nothing is forked once gRPC's threads run.
    mounter = None if settings.mode == "controller" else await Mounter.start()
    registry = CollectorRegistry()
    http = HttpPort(registry, lambda: Health(True, "serving"))
    client = AsyncMetaClient(settings.metaservers, secret)
    agent = AsyncAgentClient(settings.agent_socket)
    funnel = Funnel(settings.call_seconds, registry)
    server = make_server(funnel)
    controller = Controller(client, settings.topology_key)
    has_controller = settings.mode in ("controller", "all")
    identity = Identity(settings.driver_name, has_controller)
    tending: asyncio.Task[None] | None = None
    try:
        http_address = await http.start(settings.http_listen)
        add_IdentityServicer_to_server(identity, server)
        if has_controller:
            add_ControllerServicer_to_server(controller, server)
        if mounter is not None:
            devices = Devices(agent, mounter)
            in_flight = InFlight()
            node = Node(settings, client, devices, mounter, in_flight)
            add_NodeServicer_to_server(node, server)
            upkeep = Upkeep(client, devices, mounter, in_flight, settings.watch_seconds, registry)
            if not await mounter.may_grow_ext4():
                _log.warning("mounted ext4 does not grow here: CAP_SYS_RESOURCE is missing")
            tending = asyncio.create_task(upkeep.run())
        listen(server, settings.socket)
        await server.start()
        _log.info(
            "serving",
            extra={"endpoint": settings.endpoint, "mode": settings.mode, "http": http_address},
        )
        await _until(stop, mounter)
    finally:
        if tending is not None:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
        with contextlib.suppress(grpc.RpcError):
            await server.stop(GRACE_SECONDS)
        await funnel.close()
        if mounter is not None:
            await mounter.close()
        await agent.close()
        await client.close()
        await http.close()
        with contextlib.suppress(OSError):
            settings.socket.unlink()


async def _until(stop: asyncio.Event, mounter: Mounter | None) -> None:
    """Raises CurveError when the mount helper is gone: whoever started us starts us again."""
    waits = [asyncio.create_task(stop.wait())]
    if mounter is not None:
        waits.append(asyncio.create_task(mounter.ended.wait()))
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for each in waits:
        each.cancel()
    if not stop.is_set():
        raise InternalError("The mount helper has ended.", "Start the driver again.")


if __name__ == "__main__":
    sys.exit(main())
