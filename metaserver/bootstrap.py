"""Puts a metaserver together from its settings: adapters below, service above. No logic.

Thread: the asyncio loop of the process, which must be running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaserver.adapters.chunkserver_gateway import GrpcChunkserverGateway
from metaserver.adapters.raft_node import open_native
from metaserver.domain.ports import RaftNode
from metaserver.service.duties import Duties
from metaserver.service.health import Health
from metaserver.service.inspections import Inspections
from metaserver.service.metaserver import Metaserver
from metaserver.service.recovery import Recovery, RecoverySettings
from metaserver.service.replicator import Replicator


@dataclass(frozen=True, slots=True)
class Member:
    node_id: bytes
    peer_address: str
    grpc_address: str


@dataclass(frozen=True, slots=True)
class Parts:
    node: RaftNode
    replicator: Replicator
    metaserver: Metaserver
    recovery: Recovery
    inspections: Inspections
    gateway: GrpcChunkserverGateway


def open_node(
    *,
    data_dir: Path,
    node_id: bytes,
    peer_listen: str,
    members: Sequence[Member],
    secret: bytes,
    bootstrap: bool,
    wal_bytes: int,
) -> RaftNode:
    """The native raft node. Raises CurveError."""
    return open_native(
        data_dir=data_dir,
        node_id=node_id,
        listen=peer_listen,
        members=[(member.node_id, member.peer_address) for member in members],
        secret=secret,
        bootstrap=bootstrap,
        wal_bytes=wal_bytes,
    )


def assemble(
    node: RaftNode,
    leader_addresses: Mapping[bytes, str],
    secret: bytes,
    cluster_id: bytes,
    cluster_name: str,
    gone_after_seconds: float,
    recovery_settings: RecoverySettings,
) -> Parts:
    """Everything above the node, not yet running."""
    replicator = Replicator(node, dict(leader_addresses))
    health = Health(
        gone_after_seconds=gone_after_seconds, on_news=replicator.watches.notify_everything
    )
    gateway = GrpcChunkserverGateway(secret)
    metaserver = Metaserver(replicator, health, gateway, cluster_id, cluster_name)
    recovery = Recovery(replicator, gateway, health, recovery_settings)
    replicator.duties = [
        metaserver.found_cluster,
        *Duties(replicator, gateway, health).all(),
        *recovery.all(),
    ]
    inspections = Inspections(replicator, gateway, health)
    return Parts(node, replicator, metaserver, recovery, inspections, gateway)
