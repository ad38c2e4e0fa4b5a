"""What the native store says of itself, as published messages and as numbers for Prometheus. Pure.

A NativeStatus has these keys, `copysets` apart from the rest (ids are UUIDs: 16 bytes, or text):
  capacity_bytes, used_bytes, reserved_bytes, wal_capacity_bytes, wal_used_bytes,
  copysets: [{id, role (follower, candidate, leader, learner, syncing), term, leader (id or None),
              commit_index, applied_index, last_index, config_index, config_settled, damaged,
              used_bytes, sync_bytes_done, sync_bytes_total,
              peers: [{store_id, lag_entries, role (voter, learner), active, syncing}]}],
  failure: a sentence when the store is out of service, else "",
  counters: {name: number that only rises}, gauges: {name: number},
  latency: {operation: {"buckets_us": [upper bounds], "counts": [one more than bounds],
            "sum_us": number}}, for read and write (from frame to answer, where this store leads),
           replicate (from the log index to applied) and wal_append (from write to durable)
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from curve_py.proto import common_pb2 as pb

_ROLES = {
    "follower": pb.REPLICA_ROLE_FOLLOWER,
    "candidate": pb.REPLICA_ROLE_CANDIDATE,
    "leader": pb.REPLICA_ROLE_LEADER,
    "learner": pb.REPLICA_ROLE_LEARNER,
    "syncing": pb.REPLICA_ROLE_SYNCING,
}


_MEMBER_ROLES = {"voter": pb.MEMBER_ROLE_VOTER, "learner": pb.MEMBER_ROLE_LEARNER}


def id_bytes(value: Any) -> bytes:
    """16 bytes of an id in any of its forms; empty for none."""
    if isinstance(value, bytes):
        return value if any(value) else b""
    return uuid.UUID(value).bytes if value else b""


def store_report(status: dict[str, Any]) -> pb.StoreReport:
    """What the metaservers use of it."""
    return pb.StoreReport(
        usage=pb.StoreUsage(
            capacity_bytes=int(status.get("capacity_bytes", 0)),
            used_bytes=int(status.get("used_bytes", 0)),
            reserved_bytes=int(status.get("reserved_bytes", 0)),
            wal_capacity_bytes=int(status.get("wal_capacity_bytes", 0)),
            wal_used_bytes=int(status.get("wal_used_bytes", 0)),
        ),
        replicas=[_replica(copyset) for copyset in status.get("copysets", ())],
        failure=str(status.get("failure", "")),
    )


def report_for_people(status: dict[str, Any]) -> pb.StoreReport:
    """With everything else that the store says."""
    report = store_report(status)
    rest = {key: value for key, value in status.items() if key != "copysets"}
    report.status_json = json.dumps(rest, default=_plain, sort_keys=True)
    return report


def leaders(status: dict[str, Any]) -> dict[int, bytes]:
    """Who leads each copyset as far as this store knows; empty bytes when it does not."""
    return {int(c["id"]): id_bytes(c.get("leader")) for c in status.get("copysets", ())}


def _replica(copyset: dict[str, Any]) -> pb.ReplicaReport:
    return pb.ReplicaReport(
        copyset_id=int(copyset["id"]),
        role=_ROLES.get(str(copyset.get("role", "")), pb.REPLICA_ROLE_UNSPECIFIED),
        term=int(copyset.get("term", 0)),
        leader_store_id=id_bytes(copyset.get("leader")),
        commit_index=int(copyset.get("commit_index", 0)),
        applied_index=int(copyset.get("applied_index", 0)),
        last_index=int(copyset.get("last_index", 0)),
        peers=[_peer(peer) for peer in copyset.get("peers", ())],
        config_index=int(copyset.get("config_index", 0)),
        config_committed=bool(copyset.get("config_settled", False)),
        damaged=bool(copyset.get("damaged", False)),
        used_bytes=int(copyset.get("used_bytes", 0)),
        sync_bytes_done=int(copyset.get("sync_bytes_done", 0)),
        sync_bytes_total=int(copyset.get("sync_bytes_total", 0)),
    )


def _peer(peer: dict[str, Any]) -> pb.PeerLag:
    return pb.PeerLag(
        store_id=id_bytes(peer["store_id"]),
        lag_entries=int(peer["lag_entries"]),
        role=_MEMBER_ROLES.get(str(peer.get("role", "")), pb.MEMBER_ROLE_UNSPECIFIED),
        active=bool(peer.get("active", False)),
        syncing=bool(peer.get("syncing", False)),
    )


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)
