"""A store that is damaged so that it cannot start is told to the metaservers, which rebuild what it
held at once instead of after `gone_after_seconds`.

Owns: `identity.json` beside the store, written at each good start: whose store this was when it can
no longer say so itself. Nothing is ever formatted or opened because of it.
Invariant (R1): a store is reported lost only when what lies at the configured places still names
it and nothing there names another: wrong devices are no lost store. Blocks; before the loop runs.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from chunkserver.ports import NativeStore
from chunkserver.settings import ChunkserverSettings
from curve_py.errors import CorruptError, CurveError
from curve_py.files import write_durably
from curve_py.proto import common_pb2
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import MetaClient
from curve_py.types import uuid_bytes, uuid_text

_log = logging.getLogger(__name__)

# Superblocks and anchors of the log, two copies each: docs/formats/store.md, wal.md.
_COPY_OFFSETS = (0, 64 * 1024)
_SUPERBLOCK_MAGIC, _ANCHOR_MAGIC = b"CVSTORE1", b"CWAN"
_STORE_ID = slice(16, 32)
# The metaservers do not believe it of a store that they have heard within the last seconds.
_REPORT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Identity:
    store_id: bytes
    cluster_id: bytes


def remember(settings: ChunkserverSettings, native: NativeStore) -> None:
    """After a good start. A directory that cannot be written is no reason not to serve."""
    identity = Identity(native.store_id, native.cluster_id)
    if recall(settings) == identity:
        return
    fields = {"store_id": uuid_text(native.store_id), "cluster_id": uuid_text(native.cluster_id)}
    try:
        write_durably(_path(settings), json.dumps(fields))
    except OSError as error:
        _log.warning("the store's identity is not kept", extra={"error": str(error)})


def recall(settings: ChunkserverSettings) -> Identity | None:
    """None: it was never kept, or is damaged too."""
    try:
        fields = json.loads(_path(settings).read_text())
        return Identity(uuid_bytes(fields["store_id"]), uuid_bytes(fields["cluster_id"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_named(settings: ChunkserverSettings, store_id: bytes) -> bool:
    """Something at the configured places names this store, and nothing names another."""
    named = {
        head[_STORE_ID]
        for path, magic in ((settings.data, _SUPERBLOCK_MAGIC), (settings.wal, _ANCHOR_MAGIC))
        for head in _heads(path)
        if head.startswith(magic) or head[_STORE_ID] == store_id
    }
    return named == {store_id}


def report_lost(settings: ChunkserverSettings, secret: bytes, damage: CorruptError) -> None:
    """Tells the metaservers, if it is sure whose store it is. Returns in bounded time."""
    identity = recall(settings)
    if identity is None or not is_named(settings, identity.store_id):
        _log.warning("nobody is told that the store is lost: it is not certain whose it was")
        return
    request = pb.HeartbeatRequest(
        cluster_id=identity.cluster_id,
        store_id=identity.store_id,
        incarnation=0,
        report=common_pb2.StoreReport(failure=damage.message),
        pid=os.getpid(),
        hostname=socket.gethostname(),
    )
    told = {"store": uuid_text(identity.store_id)}
    try:
        with MetaClient(settings.metaservers, secret) as client:
            client.call("Heartbeat", request, _REPORT_SECONDS)
    except CurveError as error:
        _log.warning("no metaserver was told of the loss", extra={**told, "error": str(error)})
        return
    _log.error("the metaservers were told that the store is lost", extra=told)


def _path(settings: ChunkserverSettings) -> Path:
    return settings.store_path / "identity.json"


def _heads(path: Path) -> list[bytes]:
    """The beginnings of both copies, as far as they can be read."""
    found = []
    try:
        with open(path, "rb") as file:
            for offset in _COPY_OFFSETS:
                file.seek(offset)
                found.append(file.read(_STORE_ID.stop))
    except OSError:
        pass
    return found
