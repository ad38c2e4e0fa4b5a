"""The native raft node (`curve_py._native.metanode.MetaNode`) as the domain's RaftNode.

Owns: the translation of tuples to events and of errors. No call blocks. Thread: the asyncio loop;
the native thread is behind a bounded queue and an eventfd.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curve_py.errors import BusyError, ConfigError
from metaserver.domain import ports

_EVENTS: dict[str, Callable[..., ports.RaftEvent]] = {
    cls.__name__: cls
    for cls in (
        ports.Committed,
        ports.ProposalFailed,
        ports.LeaderChanged,
        ports.ReadReady,
        ports.ReadFailed,
        ports.InstallSnapshot,
        ports.SnapshotWanted,
        ports.Stopped,
    )
}


def open_native(
    *,
    data_dir: Path,
    node_id: bytes,
    listen: str,
    members: list[tuple[bytes, str]],
    secret: bytes,
    bootstrap: bool,
    wal_bytes: int,
) -> NativeRaftNode:
    """Raises CurveError, also where the native part is not installed."""
    try:
        native = importlib.import_module("curve_py._native.metanode")
    except ImportError as error:
        raise ConfigError(
            f"The native part of the metaserver cannot be loaded: {error}.",
            "Install the package again: pip install .",
        ) from None
    return NativeRaftNode(
        native.MetaNode(
            data_dir=str(data_dir),
            node_id=node_id,
            listen=listen,
            members=members,
            secret=secret,
            bootstrap=bootstrap,
            wal_bytes=wal_bytes,
        )
    )


class NativeRaftNode:
    """Implements ports.RaftNode."""

    def __init__(self, native: Any) -> None:
        self._native = native

    def start(self) -> None:
        self._native.start()

    def stop(self) -> None:
        self._native.stop()

    def fileno(self) -> int:
        return int(self._native.fileno())

    def poll(self, max_events: int) -> list[ports.RaftEvent]:
        return [_EVENTS[name](*fields) for name, *fields in self._native.poll(max_events)]

    def propose(self, command: bytes) -> int:
        try:
            return int(self._native.propose(command))
        except BusyError:
            raise ports.QueueFullError from None

    def read_index(self) -> int:
        try:
            return int(self._native.read_index())
        except BusyError:
            raise ports.QueueFullError from None

    def transfer(self, node_id: bytes) -> None:
        self._native.transfer(node_id)

    def snapshot_begin(self, index: int, term: int) -> None:
        self._native.snapshot_begin(index, term)

    def snapshot_write(self, data: bytes) -> None:
        self._native.snapshot_write(data)

    def snapshot_commit(self) -> None:
        self._native.snapshot_commit()

    def status(self) -> ports.NodeView:
        view: dict[str, Any] = self._native.status()
        return ports.NodeView(
            role=str(view["role"]),
            term=int(view["term"]),
            leader_id=view.get("leader_id") or None,
            commit_index=int(view["commit_index"]),
            applied_index=int(view["applied_index"]),
            first_index=int(view["first_index"]),
            last_index=int(view["last_index"]),
            wal_bytes=int(view["wal_bytes"]),
            lag_entries=tuple(
                (bytes(member["node_id"]), int(member["lag_entries"]))
                for member in view.get("members", ())
            ),
        )
