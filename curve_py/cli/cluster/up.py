"""curve up: a cluster of separate processes on this machine, made or started again."""

from __future__ import annotations

import signal
import time
from typing import Annotated

import typer

from curve_py.cli.local.agent import NAME as AGENT
from curve_py.cli.local.agent import LocalAgent
from curve_py.cli.local.cluster import LocalCluster, service_names
from curve_py.cli.local.exports import Exports, export_fields
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client.directory import ClusterDirectory, Description
from curve_py.sizes import parse_size

DEFAULT_STORE_SIZE = "4GiB"


def run(
    dir: DirOption = None,  # noqa: A002
    chunkservers: Annotated[
        int | None, typer.Option(help="How many chunkservers; 3 in a new cluster.")
    ] = None,
    metaservers: Annotated[
        int | None, typer.Option(help="How many metaservers, 1, 3 or 5; 3 in a new cluster.")
    ] = None,
    store_size: Annotated[
        str, typer.Option(metavar="S", help="Size of each new chunkserver's store, like 10GiB.")
    ] = DEFAULT_STORE_SIZE,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and stop the cluster when interrupted.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Start a cluster on this machine, or what is missing of it.

    Run again after a crash or a reboot it starts the services that do not run, with their data.
    Exports are not made again by itself, since one may take a volume away from somebody who has it
    by now: it says which there were, and how to make them.
    """
    output = Output(json)
    directory = ClusterDirectory(dir)
    directory.make()
    cluster = LocalCluster(directory)
    with cluster.locked():
        description = cluster.describe(metaservers, chunkservers, parse_size(store_size))
        started = cluster.start_missing(description)
        with output.progress() as progress:
            cluster.wait_ready(description, progress)
        if LocalAgent(directory).start_again():
            started.append(AGENT)
    ended = Exports(directory).ended()
    output.result(
        {
            "directory": str(directory.path),
            "cluster_id": description.cluster_id,
            "started": started,
            "services": [
                {"name": name, "pid": cluster.processes.pid(name)}
                for name in service_names(description)
            ],
            "exports_ended": [export_fields(export) for export in ended],
        },
        _summary(description, started, directory),
    )
    for export in ended:
        output.note(f"Not exported any more; to export it again: {export.command}")
    if foreground:
        _stay(cluster, description, output)


def _summary(description: Description, started: list[str], directory: ClusterDirectory) -> str:
    what = (
        f"{len(description.metaservers)} metaservers and {len(description.chunkservers)} "
        f"chunkservers run in {directory.path}"
    )
    return f"{what}; nothing was missing." if not started else f"{what} ({len(started)} started)."


def _stay(cluster: LocalCluster, description: Description, output: Output) -> None:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    output.note("Interrupt to stop the cluster.")
    try:
        while not stopping:
            time.sleep(0.2)
            cluster.check_running()
    finally:
        LocalAgent(cluster.directory).stop()
        Exports(cluster.directory).stop_all()
        cluster.stop(description)
