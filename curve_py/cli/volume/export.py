"""curve volume export NAME --nbd ADDRESS."""

from __future__ import annotations

import signal
import time
from typing import Annotated

import typer

from curve_py.cli.local.exports import Exports, export_fields, parse_nbd_address
from curve_py.cli.options import DirOption, JsonOption, ReadOnlyOption, SharedOption
from curve_py.cli.output import Output
from curve_py.client import AttachMode
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import InvalidError, NotFoundError, UnavailableError


def run(
    name: str,
    nbd: Annotated[
        str, typer.Option("--nbd", metavar="ADDRESS", help="unix:PATH or tcp:HOST:PORT.")
    ],
    read_only: ReadOnlyOption = False,
    shared: SharedOption = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and end the export when interrupted.")
    ] = False,
    metrics: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Port of /metrics for a new process.")
    ] = "",
    refuse: Annotated[
        bool,
        typer.Option("--refuse", help="Fail if the volume is attached, instead of taking it over."),
    ] = False,
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Export a volume over NBD, from a process of its own.

    An exclusive export (the default) takes the volume over from whoever has it attached. Volumes
    that are exported at one address share one process; clients choose by the name of the volume.
    """
    if read_only and shared:
        raise InvalidError("--read-only and --shared exclude each other.", "Give one of them.")
    mode = AttachMode.EXCLUSIVE
    if read_only:
        mode = AttachMode.READ_ONLY
    elif shared:
        mode = AttachMode.SHARED
    directory = ClusterDirectory(dir)
    directory.load()
    exports = Exports(directory)
    export = exports.add(name, parse_nbd_address(nbd), str(mode), metrics, refuse)
    output = Output(json)
    output.result(
        {"export": export_fields(export)},
        f"Volume '{name}' is exported at {export.uri} by process {export.pid}.",
    )
    if foreground:
        _stay(exports, name, output)


def _stay(exports: Exports, name: str, output: Output) -> None:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    output.note("Interrupt to end the export.")
    while not stopping:
        time.sleep(0.5)
        if not any(export.volume == name for export in exports.list()):
            raise UnavailableError(f"The export of volume '{name}' has ended.")
    try:
        exports.remove(name)
    except NotFoundError:
        return
