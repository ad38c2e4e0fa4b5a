"""Which chunkserver is meant by what a person typed."""

from __future__ import annotations

from curve_py.client import ChunkserverInfo, Cluster
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import InvalidError, NotFoundError

_PREFIX_CHARACTERS_MIN = 4
HELP = "Store id or its first characters, data address, or name in `curve status`."


def find_chunkserver(cluster: Cluster, directory: ClusterDirectory, text: str) -> ChunkserverInfo:
    """Raises NotFoundError, or InvalidError when several are meant."""
    known = cluster.chunkservers()
    address = text
    if directory.exists:
        named = {local.name: local.data_address for local in directory.load().chunkservers}
        address = named.get(text, text)
    found = [c for c in known if address == c.data_address and c.life != "removed"]
    if not found and len(text) >= _PREFIX_CHARACTERS_MIN:
        found = [c for c in known if c.store_id.startswith(text.lower())]
    if not found:
        raise NotFoundError(f"There is no chunkserver '{text}'.", "See: curve chunkserver list")
    if len(found) > 1:
        raise InvalidError(f"'{text}' is the beginning of {len(found)} store ids.", "Give more.")
    return found[0]
