"""curve down: stops devices, exports, chunkservers and metaservers; all data stays."""

from __future__ import annotations

from curve_py.cli.local.agent import LocalAgent
from curve_py.cli.local.cluster import LocalCluster
from curve_py.cli.local.exports import Exports
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.client.directory import ClusterDirectory


def run(dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """Stop the cluster on this machine; its data stays."""
    output = Output(json)
    directory = ClusterDirectory(dir)
    description = directory.load()
    cluster = LocalCluster(directory)
    with cluster.locked():
        agents = LocalAgent(directory).stop()
        exports = Exports(directory).stop_all()
        stopped = agents + cluster.stop(description)
    output.result(
        {"directory": str(directory.path), "stopped": stopped, "exports_stopped": exports},
        f"Stopped {len(stopped)} services and {len(exports)} export processes; "
        f"the data stays in {directory.path}.",
    )
