// R8: space. A block that a write will need is set aside before the write is acknowledged by
// anybody, so that applying it can never run out; ENOSPC is decided by the leader before the log.
//
// Invariants: every write that is appended or applied and not yet in its place has a reservation
// for each block that is not mapped, or that an earlier discard (in the log or in the overlay) may
// still unmap before the write meets the store; a page that a reserved block relies on stays. Not
// what stands in the log of a replica while it is filled: it acknowledges nothing (R10), and has
// its space before it does again (SyncTarget::finish). The leader stops at the reserve of the
// store, followers and recovery may go into it: it holds what is on its way when they fill up
// (room.cc).
#include <algorithm>

#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/copyset/server_state.h"
#include "native/copyset/sync.h"

namespace curve::copyset {

namespace {

uint16_t mask_in_block(uint32_t first, uint32_t sectors, uint32_t block) {
  const uint32_t begin = std::max(first, block * kSectorsPerBlock);
  const uint32_t end = std::min(first + sectors, (block + 1) * kSectorsPerBlock);
  if (begin >= end) return 0;
  return static_cast<uint16_t>(((1u << (end - begin)) - 1) << (begin % kSectorsPerBlock));
}

}  // namespace

// A discard that is in the log and not yet applied: in the overlay it can be seen.
void StoreServer::State::note_zero(Copyset& copyset, const RangeCommand& range, Index index) {
  std::vector<PendingZero>& pending = copyset.pending_zeros[{range.volume, range.chunk}];
  for (const PendingZero& zero : pending) {
    if (zero.index == index && zero.first == range.first_sector && zero.sectors == range.sectors)
      return;
  }
  pending.push_back({index, range.first_sector, range.sectors});
}

// What is mapped of the block now may be unmapped by a discard that was ordered already.
bool StoreServer::State::may_unmap(Copyset& copyset, const ChunkKey& chunk, uint32_t block) {
  uint16_t zeros = copyset.overlay.zero_mask(chunk, block);
  if (!copyset.pending_zeros.empty()) {
    auto it = copyset.pending_zeros.find(chunk);
    if (it != copyset.pending_zeros.end()) {
      std::erase_if(it->second,
                    [&](const PendingZero& zero) { return zero.index <= copyset.applied; });
      for (const PendingZero& zero : it->second)
        zeros |= mask_in_block(zero.first, zero.sectors, block);
      if (it->second.empty()) copyset.pending_zeros.erase(it);
    }
  }
  if (!zeros || CURVE_MUTANT("r8_forget_pending_discards")) return false;
  const auto state = store->block_state(copyset.id, chunk, static_cast<uint16_t>(block));
  return (state.written & ~zeros) == 0;
}

// `fresh` (null on a follower and at start-up) counts what was set aside by this call.
StoreServer::State::Space StoreServer::State::reserve(Copyset& copyset, const ChunkKey& chunk,
                                                      uint32_t first, uint32_t sectors,
                                                      uint32_t* fresh) {
  const bool leader = fresh != nullptr;
  std::vector<uint32_t>& wanted = scratch_blocks;
  wanted.clear();
  const uint32_t last_block = (first + sectors - 1) / kSectorsPerBlock;
  for (uint32_t block = first / kSectorsPerBlock; block <= last_block; ++block) {
    if (copyset.reserved_blocks.contains({chunk, block})) continue;
    const bool stays = store->is_mapped(copyset.id, chunk, static_cast<uint16_t>(block)) &&
                       !may_unmap(copyset, chunk, block);
    if (!stays) wanted.push_back(block);
  }
  if (wanted.empty()) return Space::kOk;
  if (leader) {
    const Space space = majority_room(copyset, wanted.size());
    if (space != Space::kOk) return space;
  }
  for (uint32_t block : wanted) {
    const uint32_t page = block / chunkstore::kBlocksPerPage;
    const BlockKey page_key{chunk, page};
    const bool new_page = !copyset.reserved_pages.contains(page_key) &&
                          !store->has_page({copyset.id, chunk, static_cast<uint8_t>(page)});
    if (!store->reserve(1, new_page ? 1 : 0, !leader)) {
      wants_space = true;
      if (!leader)
        short_of_blocks = std::max(short_of_blocks, static_cast<uint32_t>(wanted.size()));
      return blocks_coming() ? Space::kComing : Space::kFull;
    }
    copyset.reserved_blocks.insert({chunk, block});
    if (new_page) copyset.reserved_pages.insert(page_key);
    if (fresh) ++*fresh;
  }
  if (!leader && wanted.size() >= short_of_blocks) short_of_blocks = 0;
  return Space::kOk;
}

// The background step has put the block in its place (or found nothing to put). It keeps what is
// set aside while a write is on its way that needs it.
void StoreServer::State::settle_block(Copyset& copyset, const ChunkKey& chunk, uint32_t block) {
  if (!copyset.reserved_blocks.contains({chunk, block})) return;
  const bool quiet = copyset.group != nullptr &&
                     copyset.group->raft().last_index() == copyset.applied &&
                     !copyset.overlay.active_has_data(chunk, block);
  const bool stays = store->is_mapped(copyset.id, chunk, static_cast<uint16_t>(block)) &&
                     !may_unmap(copyset, chunk, block);
  if (!quiet && !stays) return;
  copyset.reserved_blocks.erase({chunk, block});
  const bool page = copyset.reserved_pages.erase({chunk, block / chunkstore::kBlocksPerPage}) != 0;
  store->unreserve(1, page ? 1 : 0);
}

// Gives back what was set aside for writes that never came: lost with a leadership, refused behind
// a fence, overwritten by zeros before they met the store. Called with nothing frozen.
void StoreServer::State::sweep_reservations(Copyset& copyset) {
  if (copyset.reserved_blocks.empty() && copyset.reserved_pages.empty()) return;
  std::unordered_set<BlockKey, BlockKeyHash> coming;
  const Index last = copyset.sync && copyset.sync->log_has_no_space()
                         ? copyset.applied
                         : copyset.group->raft().last_index();
  for (Index index = copyset.applied + 1; index <= last; ++index) {
    const replica::Entry* entry = replica->entry_at(*copyset.group, index);
    if (!entry) return;
    if (command_type(entry->head) != CommandType::kWrite) continue;
    const auto range = decode_range(entry->head);
    if (!range) continue;
    const uint32_t last = (range->first_sector + range->sectors - 1) / kSectorsPerBlock;
    for (uint32_t block = range->first_sector / kSectorsPerBlock; block <= last; ++block) {
      coming.insert({{range->volume, range->chunk}, block});
    }
  }
  const size_t blocks = copyset.reserved_blocks.size(), pages = copyset.reserved_pages.size();
  std::erase_if(copyset.reserved_blocks, [&](const BlockKey& key) {
    return !coming.contains(key) && !copyset.overlay.active_has_data(key.chunk, key.block);
  });
  const auto kept_pages = pages_relied_on(copyset);
  std::erase_if(copyset.reserved_pages,
                [&](const BlockKey& key) { return !kept_pages.contains(key); });
  store->unreserve(static_cast<uint32_t>(blocks - copyset.reserved_blocks.size()),
                   static_cast<uint32_t>(pages - copyset.reserved_pages.size()));
}

std::unordered_set<BlockKey, BlockKeyHash> StoreServer::State::pages_relied_on(
    const Copyset& copyset) const {
  std::unordered_set<BlockKey, BlockKeyHash> pages;
  for (const BlockKey& key : copyset.reserved_blocks)
    pages.insert({key.chunk, key.block / chunkstore::kBlocksPerPage});
  return pages;
}

// False: some of what is in the log behind `applied` has no space.
bool StoreServer::State::reserve_logged(Copyset& copyset, Index applied) {
  bool enough = true;
  const Index last = copyset.group->raft().last_index();
  for (Index index = applied + 1; index <= last; ++index) {
    const replica::Entry* entry = replica->entry_at(*copyset.group, index);
    if (!entry || entry->type != raft::EntryType::kData) continue;
    const auto range = decode_range(entry->head);
    if (!range) continue;
    if (command_type(entry->head) == CommandType::kZero) {
      note_zero(copyset, *range, index);
    } else if (command_type(entry->head) == CommandType::kWrite) {
      enough &= reserve(copyset, {range->volume, range->chunk}, range->first_sector, range->sectors,
                        nullptr) == Space::kOk;
    }
  }
  return enough;
}

// Start-up: what the log brought back has its space before anything new gets some. It had it before
// the restart, so there is enough.
void StoreServer::State::reserve_recovered(Copyset& copyset) {
  bool enough = reserve_logged(copyset, copyset.applied);
  copyset.overlay.visit_blocks([&](const ChunkKey& chunk, uint32_t block) {
    if (!copyset.overlay.active_has_data(chunk, block)) return;
    enough &= reserve(copyset, chunk, block * kSectorsPerBlock, 1, nullptr) == Space::kOk;
  });
  if (!enough)
    base::log(base::LogLevel::kError, "recovered_writes_lack_space", {{"copyset", copyset.id}});
}

}  // namespace curve::copyset
