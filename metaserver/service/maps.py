"""Volume maps from the state (docs/formats/volume-map.md). Thread: the asyncio loop."""

from __future__ import annotations

from curve_py.volume_map import MapCopyset, MapStore, VolumeMap
from metaserver.domain.entities import Attachment, AttachMode, Volume
from metaserver.domain.state import MetaState


def build_map(state: MetaState, volume: Volume, attachment: Attachment) -> VolumeMap:
    """What the holder of `attachment` needs to reach every byte."""
    pool = state.pools[volume.pool_id]
    copysets = list(state.copysets_of(pool))
    members = [state.members_of(copyset) for copyset in copysets]
    store_ids = sorted({store for stores in members for store in stores})
    position = {store: index for index, store in enumerate(store_ids)}
    return VolumeMap(
        map_version=state.map_version(volume),
        volume_id=volume.volume_id,
        placement_id=volume.placement_id,
        size_bytes=volume.size_bytes,
        epoch=attachment.epoch,
        stripe_unit_bytes=volume.stripe_unit_bytes,
        stripe_count=volume.stripe_count,
        pool_id=pool.pool_id,
        read_only=attachment.mode is AttachMode.READ_ONLY,
        stores=tuple(
            MapStore(store, state.chunkservers[store].data_address) for store in store_ids
        ),
        copysets=tuple(
            MapCopyset(
                tuple(position[store] for store in stores),
                stores.index(copyset.preferred_leader),
            )
            for copyset, stores in zip(copysets, members, strict=True)
        ),
    )
