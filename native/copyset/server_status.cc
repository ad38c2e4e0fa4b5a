// What a store tells of itself: status, space per volume; for tests, whether its counts agree and
// what every sector holds. Changes nothing. One loop thread.
#include <set>

#include "native/copyset/background.h"
#include "native/copyset/external.h"
#include "native/copyset/scrub.h"
#include "native/copyset/server_state.h"
#include "native/copyset/sync.h"
#include "native/raft/config.h"

namespace curve::copyset {

uint64_t StoreServer::mapped_blocks(VolumeId volume) const {
  uint64_t blocks = 0;
  for (const auto& [id, copyset] : state_->copysets)
    blocks += state_->store->mapped_blocks(id, volume);
  return blocks;
}

ServerStatus StoreServer::status(bool with_copysets) const {
  const State& state = *state_;
  ServerStatus out;
  out.store = state.identity.id;
  out.cluster = state.store->cluster_id();
  out.incarnation = state.identity.incarnation;
  const chunkstore::Usage usage = state.store->usage();
  out.direct_io = state.store->direct_io();
  out.pages_lost = state.store->pages_lost();
  out.scrub = state.scrub->status();
  out.blocks_total = usage.blocks_total;
  out.blocks_free = usage.blocks_free;
  out.blocks_reserved = usage.blocks_reserved;
  out.blocks_pending_free = usage.blocks_pending_free + state.external->unmapped_blocks();
  out.pages_total = usage.pages_total;
  out.pages_free = usage.pages_free;
  out.wal_capacity_bytes = state.wal->capacity_bytes();
  out.wal_used_bytes = state.wal->used_bytes();
  out.wal_undrained_bytes = state.background->undrained_bytes();
  out.overlay_blocks = state.overlay_pool.used();
  out.fence_bytes = state.blob_bytes();
  out.fence_bytes_max = state.fence_bytes_max();
  out.wal_start_position = state.wal->start_position();
  out.wal_head_position = state.wal->head_position();
  out.wal_torn_tail = state.recovery.torn_tail;
  out.wal_damaged = state.recovery.damaged;
  out.sessions = static_cast<uint32_t>(state.sessions.size());
  out.counters = state.counters;
  out.latency = state.latency;
  out.latency.wal_append = state.replica->append_latency();
  out.counters.wal_appends = state.replica->appends();
  out.failure = state.failed_because;
  out.peers = state.replica->peers();
  if (!with_copysets) return out;
  for (const auto& [id, group] : state.replica->groups()) {
    raft::Group& raft = group->raft();
    CopysetStatus status;
    status.copyset = id;
    status.role = raft.role();
    status.term = raft.term();
    status.leader = raft.leader();
    status.preferred = raft.config().preferred;
    status.first = raft.first_index();
    status.last = raft.last_index();
    status.commit = raft.commit();
    status.applied = raft.applied();
    status.damaged = raft.damaged();
    status.syncing = raft.syncing();
    status.learner = !raft::is_voter(raft.config(), state.identity.id);
    status.config_index = raft.config_index();
    status.config_settled = raft.config_settled();
    status.used_blocks = state.store->mapped_blocks(id);
    const auto own = state.copysets.find(id);
    if (own != state.copysets.end()) status.used_blocks += own->second->reserved_blocks.size();
    const SyncTarget* sync = own == state.copysets.end() ? nullptr : own->second->sync.get();
    status.sync_bytes_done = sync ? sync->bytes_done() : 0;
    status.sync_bytes_total = sync ? sync->bytes_total() : 0;
    status.members.assign(raft.config().members.begin(),
                          raft.config().members.begin() + raft.config().count);
    if (group->is_leader()) status.progress = raft.progress();
    out.copysets.push_back(std::move(status));
  }
  return out;
}

Outcome StoreServer::check() const {
  uint64_t fence_bytes = 0;
  for (const auto& [id, copyset] : state_->copysets) fence_bytes += copyset->fences.encoded_bytes();
  if (fence_bytes != state_->fence_bytes) {
    return Error{Code::kCorrupt, "fences take " + std::to_string(fence_bytes) +
                                     " bytes of a checkpoint, " +
                                     std::to_string(state_->fence_bytes) + " were counted"};
  }
  return state_->store->check();
}

void StoreServer::visit_sectors(
    CopysetId id, const std::function<void(const ChunkKey&, uint32_t, SectorView)>& visit) const {
  auto it = state_->copysets.find(id);
  if (it == state_->copysets.end()) return;
  const Copyset& copyset = *it->second;
  std::set<ChunkKey> chunks;
  chunkstore::PageId at{id, {0, 0}, 255};
  while (auto next = state_->store->next_page(id, at)) {
    at = *next;
    chunks.insert(at.chunk);
  }
  copyset.overlay.visit_blocks([&](const ChunkKey& chunk, uint32_t) { chunks.insert(chunk); });
  for (const ChunkKey& chunk : chunks) {
    for (uint32_t sector = 0; sector < kSectorsPerChunk; ++sector) {
      const OverlaySector found = copyset.overlay.find(chunk, sector);
      SectorView view;
      if (found.present) {
        view.written = !found.zero;
        view.crc = found.crc;
      } else {
        const auto block =
            state_->store->block_state(id, chunk, static_cast<uint16_t>(sector / kSectorsPerBlock));
        view.written = block.physical && (block.written >> (sector % kSectorsPerBlock) & 1);
        view.crc = view.written ? block.crc[sector % kSectorsPerBlock] : 0;
        if (view.written)
          view.data_offset_bytes = state_->store->block_offset_bytes(block.physical) +
                                   sector % kSectorsPerBlock * uint64_t{kSectorBytes};
      }
      if (view.written) visit(chunk, sector, view);
    }
  }
}

}  // namespace curve::copyset
