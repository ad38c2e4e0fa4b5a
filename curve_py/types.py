"""The names of things in Python: identifiers and limits that every part shares
(native/base/types.h).

Invariant: the numbers here are part of the formats in docs/formats/. Plain values, any thread.
"""

from __future__ import annotations

import uuid
from typing import NewType

StoreId = NewType("StoreId", bytes)  # 16 bytes; a chunkserver's store, or a metaserver's (R1)
CopysetId = NewType("CopysetId", int)  # pool id << 32 | index in the pool
VolumeId = NewType("VolumeId", int)  # never used twice; 0 is no volume
Epoch = NewType("Epoch", int)  # of an attachment (R12)

SECTOR_BYTES = 4096
BLOCK_BYTES = 64 * 1024
CHUNK_BYTES = 16 * 1024 * 1024
REPLICAS_MAX = 7
COPYSETS_MAX = 4096  # of one pool: creating it is one command
STRIPE_COUNT_MAX = 1024
# Chunk indexes are 32-bit; a last row of stripes may be incomplete.
VOLUME_BYTES_MAX = (2**32 - STRIPE_COUNT_MAX) * CHUNK_BYTES
NAME_CHARACTERS_MAX = 128
PROTOCOL_VERSION = 1
TRACE_MS_MAX = 600_000


def uuid_text(value: bytes) -> str:
    """Canonical 8-4-4-4-12 text of 16 bytes; "" for none."""
    return str(uuid.UUID(bytes=value)) if value else ""


def uuid_bytes(text: str) -> bytes:
    """16 bytes of a UUID in text. Raises ValueError."""
    return uuid.UUID(text).bytes


def new_uuid() -> bytes:
    return uuid.uuid4().bytes


def copyset_id(pool_id: int, index: int) -> CopysetId:
    return CopysetId(pool_id << 32 | index)


def copyset_text(value: int) -> str:
    """As people read and write it: pool.index."""
    return f"{value >> 32}.{value & 0xFFFFFFFF}"


def volume_uuid(cluster_id: bytes, volume_id: int) -> str:
    """The UUID of a volume of a cluster, in text, for ever (RFC 4122, version 5)."""
    return str(uuid.uuid5(uuid.UUID(bytes=cluster_id), str(volume_id)))
