"""curve status: the cluster at one glance."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from curve_py.cli.local.agent import LocalAgent
from curve_py.cli.local.processes import Processes
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.cli.task.words import progress_sentence
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory
from curve_py.client.records import ChunkserverInfo, ClusterStatus
from curve_py.sizes import format_size


def run(dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """Show services, capacity and health of the cluster."""
    output = Output(json)
    directory = ClusterDirectory(dir)
    with Cluster.connect(directory.path) as cluster:
        status = cluster.status()
    services = _services(directory, status)
    output.table(
        {
            "directory": str(directory.path),
            "cluster_id": status.cluster_id,
            "services": services,
            "volume_count": status.volume_count,
            "volume_bytes": status.volume_bytes,
            "attachment_count": status.attachment_count,
            "deletions_pending": status.deletions_pending,
            "capacity_bytes": status.capacity_bytes,
            "used_bytes": status.used_bytes,
            "copysets_total": status.copysets_total,
            "copysets_with_leader": status.copysets_with_leader,
            "copysets_degraded": status.copysets_degraded,
            "copysets_at_risk": status.copysets_at_risk,
            "recovery": asdict(status.recovery),
        },
        ("service", "role", "state", "#pid", "address", "metrics"),
        [
            (s["name"], s["role"], s["state"], s["pid"] or "-", s["address"], s["http_address"])
            for s in services
        ],
    )
    if not json:
        output.result(
            {},
            f"copysets   {status.copysets_total}, {status.copysets_with_leader} with a leader, "
            f"{status.copysets_degraded} degraded, {status.copysets_at_risk} at risk",
            f"recovery   {progress_sentence(status.recovery)}",
            *(f"           {note}" for note in status.recovery.notes),
            f"space      {format_size(status.used_bytes)} used of "
            f"{format_size(status.capacity_bytes)}, replicas counted",
            f"volumes    {status.volume_count} of {format_size(status.volume_bytes)} in sum, "
            f"{status.attachment_count} attachments",
        )


def _services(directory: ClusterDirectory, status: ClusterStatus) -> list[dict[str, Any]]:
    description = directory.load()
    processes = Processes(directory)
    up = {c.data_address: c for c in status.chunkservers if c.life != "removed"}
    rows = []
    for meta in description.metaservers:
        pid = processes.pid(meta.name)
        leads = meta.grpc_address == status.leader_address
        rows.append(
            {
                "name": meta.name,
                "role": "leader" if leads else "follower",
                "state": "up" if pid else "down",
                "pid": pid,
                "address": meta.grpc_address,
                "http_address": meta.http_address,
            }
        )
    for local in description.chunkservers:
        seen = up.get(local.data_address)
        pid = processes.pid(local.name)
        rows.append(
            {
                "name": local.name,
                "role": "chunkserver",
                "state": _state(seen, pid),
                "pid": pid,
                "address": local.data_address,
                "http_address": local.http_address,
            }
        )
    agent = LocalAgent(directory)
    if state := agent.state:
        rows.append(
            {
                "name": "agent",
                "role": "agent",
                "state": state,
                "pid": agent.pid,
                "address": str(agent.socket),
                "http_address": "",
            }
        )
    return rows


def _state(seen: ChunkserverInfo | None, pid: int | None) -> str:
    """What the metaserver says, or "down" where the process is known not to run."""
    condition = seen.condition if seen else "unknown"
    return condition if pid or condition.startswith("gone") else "down"
