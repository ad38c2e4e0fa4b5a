"""curve internal exporter: the process behind `curve volume export`.

Owns: one NBD server with its volumes, each with an attachment of its own; a control socket
(curve_py/cli/local/exports.py); optionally a port for /metrics. The data path is on the native
thread alone: this loop may stand still without any I/O being slower.
"""

from __future__ import annotations

import asyncio
import contextlib
import json as json_module
import logging
import os
from collections.abc import Coroutine, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from curve_py.cli.local.exports import Export, Exports, short_path
from curve_py.client import AttachMode, Cluster, Volume
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import ConflictError, CurveError, ExistsError, InvalidError
from curve_py.service.http import Health, HttpPort
from curve_py.service.lifecycle import run_service
from curve_py.service.structured_log import set_up_logging

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0  # for requests in flight when an export ends


def run(
    dir: Annotated[Path, typer.Option()],  # noqa: A002
    address: Annotated[str, typer.Option(help="unix:PATH or HOST:PORT")],
    metrics: Annotated[str, typer.Option()] = "",
) -> None:
    """Serve volumes over NBD until told to stop."""
    set_up_logging("exporter", "INFO")
    exporter = Exporter(ClusterDirectory(dir), address, metrics)
    raise typer.Exit(run_service("curve exporter", exporter.serve))


class Exporter:
    """One NBD server and its control socket."""

    def __init__(self, directory: ClusterDirectory, address: str, metrics: str) -> None:
        self._directory = directory
        self._cluster = Cluster.connect(directory.path)
        self._wanted, self._metrics = address, metrics
        self._volumes: dict[str, Volume] = {}
        self._adding: set[str] = set()
        self._server = 0
        self._address = ""
        self._http_address = ""

    async def serve(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then closes exports and detaches. Raises CurveError."""
        node = self._cluster.node()
        path = self._wanted.removeprefix("unix:") if self._wanted.startswith("unix:") else ""
        if path:
            await asyncio.to_thread(_remove_dead_socket, path)
        self._server, self._address = node.nbd_listen(self._wanted)
        registry = CollectorRegistry()
        registry.register(_Collector(self))
        http = HttpPort(registry, lambda: Health(True, "serving"))
        exports = Exports(self._directory)
        control = exports.control_socket(exports.name_of(self._wanted))
        control.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._http_address = await http.start(self._metrics)
            with short_path(control.parent) as folder:
                # Bound under another name, so that the real one appears when it is ready.
                temporary = f"{folder}/{control.stem}.new"
                await asyncio.to_thread(Path(temporary).unlink, missing_ok=True)
                server = await asyncio.start_unix_server(self._converse, temporary)
                os.chmod(temporary, 0o600)
                os.replace(temporary, control)
            _log.info("serving", extra={"nbd": self._address, "http": self._http_address})
            await stop.wait()
            server.close()
        finally:
            control.unlink(missing_ok=True)
            await _end(
                asyncio.to_thread(node.nbd_close, self._server), list(self._volumes.values())
            )
            await asyncio.to_thread(self._cluster.close)
            if path:
                await asyncio.to_thread(Path(path).unlink, missing_ok=True)
            await http.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(json_module.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json_module.loads(line)
            match request["verb"]:
                case "add":
                    return {"export": await self._add(request)}
                case "remove":
                    return await self._remove(request["volume"])
                case "list":
                    return {"exports": [self._fields(name) for name in self._volumes]}
            raise InvalidError(f"There is no verb '{request['verb']}'.")
        except CurveError as error:
            fields = {"kind": str(error.kind), "message": error.message, "remedy": error.remedy}
            return {"error": fields}
        except (ValueError, KeyError, TypeError) as error:
            return {"error": {"kind": "invalid", "message": f"{error!r}", "remedy": ""}}

    async def _add(self, request: dict[str, Any]) -> dict[str, Any]:
        name, mode = request["volume"], AttachMode(request["mode"])
        if name in self._volumes or name in self._adding:
            known = self._volumes.get(name)
            if known is None or not known.fenced:
                raise ExistsError(
                    f"Volume '{name}' is exported at {self._address} already.",
                    f"End that export with `curve volume unexport {name}`.",
                )
            await self._remove(name)
        self._adding.add(name)
        try:
            volume = await asyncio.to_thread(
                self._cluster.volumes().open,
                name,
                mode,
                refuse_when_attached=bool(request.get("refuse_when_attached")),
                holder=f"NBD export {self._address} pid {os.getpid()}"[:128],
            )
            try:
                self._cluster.node().nbd_add(
                    self._server,
                    name,
                    f"Curve volume {name}",
                    volume.handle,
                    mode is AttachMode.READ_ONLY,
                )
            except CurveError:
                await asyncio.to_thread(volume.close)
                raise
            self._volumes[name] = volume
        finally:
            self._adding.discard(name)
        await asyncio.to_thread(self._record)
        _log.info("exported", extra={"volume": name, "mode": str(mode)})
        return self._fields(name)

    async def _remove(self, name: str) -> dict[str, Any]:
        if name in self._adding:
            raise ConflictError(f"Volume '{name}' is being exported right now.", "Try again.")
        removed = []
        forced = 0
        volume = self._volumes.get(name)
        if volume is not None:
            removed.append(self._fields(name))
            del self._volumes[name]
            node = self._cluster.node()
            forced = await _end(asyncio.to_thread(node.nbd_remove, self._server, name), [volume])
            await asyncio.to_thread(volume.close)
            await asyncio.to_thread(self._record)
            _log.info("export ended", extra={"volume": name, "requests_cut_off": forced})
        left = len(self._volumes) + len(self._adding)
        return {"removed": removed, "left": left, "requests_cut_off": forced}

    def _export(self, name: str) -> Export:
        mode = str(self._volumes[name].mode)
        return Export(name, self._address, os.getpid(), mode, self._http_address)

    def _fields(self, name: str) -> dict[str, Any]:
        return asdict(self._export(name))

    def _record(self) -> None:
        exports = Exports(self._directory)
        exports.record(exports.name_of(self._wanted), [self._export(n) for n in self._volumes])

    def metrics(self) -> Iterator[Metric]:
        """What the NBD server and the native clients count."""
        node = self._cluster.node()
        nbd = node.nbd_stats(self._server)
        yield GaugeMetricFamily("curve_nbd_connections", "Connections", nbd["connections"])
        for key in ("requests", "errors", "read_bytes", "written_bytes"):
            yield CounterMetricFamily(f"curve_nbd_{key}", f"NBD {key}", nbd[key])
        families: dict[str, Metric] = {}
        for name, volume in list(self._volumes.items()):
            for key, value in node.stats(volume.handle).items():
                kind = GaugeMetricFamily if key in ("inflight", "longest_ns") else None
                family = families.get(key)
                if family is None:
                    made = kind or CounterMetricFamily
                    family = made(f"curve_client_{key}", f"Client {key}", labels=["volume"])
                    families[key] = family
                family.add_metric([name], value)  # type: ignore[attr-defined]
        yield from families.values()


async def _end(ending: Coroutine[Any, Any, None], volumes: list[Volume]) -> int:
    """Waits for requests in flight to end, but not for ever: what no majority answers then ends
    with an error, as its volume is closed. Returns how many those were.
    """
    task = asyncio.ensure_future(ending)
    done, _ = await asyncio.wait({task}, timeout=_GRACE_SECONDS)
    cut_off = 0
    if not done:
        for volume in volumes:
            with contextlib.suppress(CurveError):  # fenced: its requests end by themselves
                cut_off += volume.stats()["inflight"]
        _log.warning("requests do not end", extra={"requests_cut_off": cut_off})
        await asyncio.gather(*(asyncio.to_thread(volume.close) for volume in volumes))
    await task
    return cut_off


class _Collector:
    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    def collect(self) -> Iterator[Metric]:
        return self._exporter.metrics()

    def describe(self) -> list[Metric]:
        return []


def _remove_dead_socket(path: str) -> None:
    """A socket that nobody listens on is removed; anything else at its place stays."""
    import socket
    import stat

    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConflictError(f"{path} exists and is no socket.", "Remove it, or use another.")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
        raise ConflictError(f"Another process serves {path}.", "Use another path.")
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        os.unlink(path)
