"""From heartbeats to what the scheduler sees, and what is left over on stores.

Pure; looks at what does not change any more, so it may run off the loop (thousands of replicas take
tens of ms).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from curve_py.proto import common_pb2 as pb
from metaserver.domain.entities import ChunkserverLife, Copyset, MoveStep
from metaserver.domain.health_view import CopysetView, HealthView, StoreState, StoreView
from metaserver.domain.scheduler import Tables
from metaserver.service.health import TARGET_PATIENCE_SECONDS, Heard


@dataclass(frozen=True, slots=True)
class Leftover:
    """A replica on a store that is no member of its copyset."""

    store_id: bytes
    copyset_id: int
    config_index: int  # of a committed configuration without it; 0: that of genesis
    leader_term: int  # of the leader that has said so


def assess(
    tables: Tables, heard: Heard, still_seconds: Mapping[int, float] | None = None
) -> HealthView:
    """`still_seconds`: of fill_watch.py; matters to the scheduler only."""
    stores = {
        store_id: _store_view(heard, store_id)
        for store_id, chunkserver in tables.chunkservers.items()
        if chunkserver.life is not ChunkserverLife.REMOVED
    }
    up = frozenset(s for s, view in stores.items() if view.state is StoreState.UP)
    copysets = {
        copyset.copyset_id: _copyset_view(heard, copyset, up)
        for copyset in tables.copysets.values()
    }
    filled = {
        move.copyset_id: _bytes_there(heard, move.target, move.copyset_id)
        for move in tables.moves.values()
        if move.step is not MoveStep.CANCEL
    }
    return HealthView(stores, copysets, filled, still_seconds or {})


def is_same(tables: Tables, now: Heard, before: Heard) -> bool:
    """Of both, `assess` makes the same view."""
    return (
        now.since == before.since
        and now.leaders == before.leaders
        and now.heartbeats.keys() == before.heartbeats.keys()
        and all(
            heartbeat.replicas is before.heartbeats[store_id].replicas
            and heartbeat.incarnation == before.heartbeats[store_id].incarnation
            and heartbeat.report.usage == before.heartbeats[store_id].report.usage
            and heartbeat.report.failure == before.heartbeats[store_id].report.failure
            for store_id, heartbeat in now.heartbeats.items()
        )
        and _standing(now, tables.chunkservers) == _standing(before, tables.chunkservers)
    )


def _standing(heard: Heard, stores: Iterable[bytes]) -> list[tuple[StoreState, bool]]:
    return [(heard.state_of(store_id), _is_stalled(heard, store_id)) for store_id in stores]


def _is_stalled(heard: Heard, store_id: bytes) -> bool:
    patience = min(heard.gone_after_seconds, TARGET_PATIENCE_SECONDS)
    return heard.state_of(store_id) is StoreState.DOWN and heard.silent_seconds(store_id) > patience


def _store_view(heard: Heard, store_id: bytes) -> StoreView:
    state = heard.state_of(store_id)
    heartbeat = heard.heartbeats.get(store_id)
    stalled = _is_stalled(heard, store_id)
    why = ""
    if state is StoreState.GONE:
        why = f"is gone (silent for more than {heard.gone_after_seconds:g} s)"
    elif state is StoreState.FAILED and heartbeat is not None:
        why = f"has failed ({heartbeat.report.failure.rstrip('.')})"
    elif state is not StoreState.UP:
        why = "is silent"
    if heartbeat is None:
        return StoreView(state, why, stalled)
    usage = heartbeat.report.usage
    return StoreView(
        state,
        why,
        stalled,
        usage.capacity_bytes,
        usage.used_bytes + usage.reserved_bytes,
        frozenset(heartbeat.replicas),
    )


def _copyset_view(heard: Heard, copyset: Copyset, up: frozenset[bytes]) -> CopysetView:
    healthy = []
    size = 0
    for store_id in copyset.replicas:
        report = heard.report_of(store_id, copyset.copyset_id) if store_id in up else None
        if report is None:
            continue
        size = max(size, report.used_bytes)
        if report.role != pb.REPLICA_ROLE_SYNCING and not report.damaged:
            healthy.append(store_id)
    known = heard.leader_of(copyset.copyset_id)
    return CopysetView(known[1] if known else None, frozenset(healthy), size)


def _bytes_there(heard: Heard, store_id: bytes, copyset_id: int) -> int:
    report = heard.report_of(store_id, copyset_id)
    if report is None:
        return 0
    if report.role == pb.REPLICA_ROLE_SYNCING:
        return report.sync_bytes_done
    return report.used_bytes


def find_leftovers(tables: Tables, heard: Heard) -> list[Leftover]:
    """Replicas that no table and no move knows, of which a leader has committed that they are out.

    A replica that may be a member by a later configuration refuses to go: an old report does no
    harm.
    """
    found = []
    for store_id, heartbeat in heard.heartbeats.items():
        chunkserver = tables.chunkservers.get(store_id)
        if chunkserver is None or heard.state_of(store_id) is not StoreState.UP:
            continue
        for copyset_id in heartbeat.replicas:
            copyset = tables.copysets.get(copyset_id)
            move = tables.moves.get(copyset_id)
            if copyset is None or store_id in copyset.replicas:
                continue
            if move is not None and store_id == move.target:
                continue
            report = _settled_without(heard, copyset_id, store_id)
            if report is not None:
                found.append(Leftover(store_id, copyset_id, report.config_index, report.term))
    return found


def _settled_without(heard: Heard, copyset_id: int, store_id: bytes) -> pb.ReplicaReport | None:
    """What the leader reports, if its configuration is committed and does not have the store."""
    leader = heard.leader_of(copyset_id)
    report = heard.report_of(leader[1], copyset_id) if leader else None
    if leader is None or report is None or report.role != pb.REPLICA_ROLE_LEADER:
        return None
    members = {leader[1], *(peer.store_id for peer in report.peers)}
    if not report.config_committed or store_id in members:
        return None
    return report
