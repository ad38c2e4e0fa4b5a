#include "native/copyset/overlay.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include "native/base/mutant.h"

namespace curve::copyset {

Overlay::~Overlay() {
  for (auto& [key, chunk] : chunks_) {
    for (const Ids& ids : chunk->ids) {
      for (uint32_t id : ids) {
        if (id) pool_.give_back(id);
      }
    }
  }
}

Overlay::Chunk* Overlay::find_chunk(const ChunkKey& key) const {
  if (last_ && last_key_ == key) return last_;
  auto it = chunks_.find(key);
  if (it == chunks_.end()) return nullptr;
  last_key_ = key;
  last_ = it->second.get();
  return last_;
}

OverlayBlock& Overlay::active_block(const ChunkKey& key, uint32_t block) {
  Chunk* chunk = find_chunk(key);
  if (!chunk) {
    auto& slot = chunks_[key];
    slot = std::make_unique<Chunk>();
    chunk = slot.get();
    last_key_ = key;
    last_ = chunk;
  }
  uint32_t& id = active(*chunk)[block];
  if (!id) {
    id = pool_.take();
    ++chunk->blocks[active_];
    ++active_count_;
  }
  return pool_.at(id);
}

void Overlay::write(const ChunkKey& key, uint32_t first_sector, std::span<const uint32_t> crcs,
                    uint64_t wal_position, Index index) {
  uint32_t wal_sector = static_cast<uint32_t>(wal_position / kSectorBytes);
  for (size_t i = 0; i < crcs.size(); ++i, ++wal_sector) {
    const uint32_t sector = first_sector + static_cast<uint32_t>(i);
    OverlayBlock& block = active_block(key, sector / kSectorsPerBlock);
    const uint32_t within = sector % kSectorsPerBlock;
    block.present |= 1u << within;
    if (!CURVE_MUTANT("r6_late_discard")) block.zero &= ~(1u << within);
    if (!CURVE_MUTANT("r6_external_hides_newer")) block.external &= ~(1u << within);
    block.wal_sector[within] = wal_sector;
    block.crc[within] = crcs[i];
    block.index_low[within] = static_cast<uint32_t>(index);
  }
}

void Overlay::place(const ChunkKey& key, uint32_t number, std::span<const uint32_t> crcs,
                    uint32_t physical, Index index) {
  OverlayBlock& block = active_block(key, number);
  block.present = block.external = 0xffff;
  block.zero = 0;
  block.physical = physical;
  std::copy(crcs.begin(), crcs.end(), block.crc.begin());
  block.index_low.fill(static_cast<uint32_t>(index));
}

void Overlay::zero(const ChunkKey& key, uint32_t first_sector, uint32_t sectors, Index index) {
  for (uint32_t sector = first_sector; sector < first_sector + sectors; ++sector) {
    OverlayBlock& block = active_block(key, sector / kSectorsPerBlock);
    const uint32_t within = sector % kSectorsPerBlock;
    block.present |= 1u << within;
    block.zero |= 1u << within;
    block.external &= ~(1u << within);
    block.index_low[within] = static_cast<uint32_t>(index);
  }
}

void Overlay::moved(const ChunkKey& key, uint32_t first_sector, uint32_t sectors,
                    uint64_t wal_position, Index index) {
  Chunk* chunk = find_chunk(key);
  if (!chunk) return;
  for (uint32_t i = 0; i < sectors; ++i) {
    const uint32_t sector = first_sector + i, within = sector % kSectorsPerBlock;
    for (uint32_t id :
         {active(*chunk)[sector / kSectorsPerBlock], frozen(*chunk)[sector / kSectorsPerBlock]}) {
      if (!id) continue;
      OverlayBlock& block = pool_.at(id);
      const bool mine =
          (block.logged() >> within & 1) && block.index_low[within] == static_cast<uint32_t>(index);
      if (mine) block.wal_sector[within] = static_cast<uint32_t>(wal_position / kSectorBytes) + i;
    }
  }
}

OverlaySector Overlay::find(const ChunkKey& key, uint32_t sector) const {
  Chunk* chunk = find_chunk(key);
  if (!chunk) return {};
  const uint32_t within = sector % kSectorsPerBlock;
  for (uint32_t id :
       {active(*chunk)[sector / kSectorsPerBlock], frozen(*chunk)[sector / kSectorsPerBlock]}) {
    if (!id) continue;
    const OverlayBlock& block = pool_.at(id);
    if (!(block.present >> within & 1)) continue;
    return {true, (block.zero >> within & 1) != 0, block.wal_sector[within], block.crc[within],
            block.external >> within & 1 ? block.physical : 0};
  }
  return {};
}

void Overlay::drop_active(Chunk& chunk) {
  for (uint32_t& id : active(chunk)) {
    if (!id) continue;
    pool_.give_back(id);
    id = 0;
    --active_count_;
  }
  chunk.blocks[active_] = 0;
}

void Overlay::drop_volume(VolumeId volume) {
  for (auto& [key, chunk] : chunks_) {
    if (key.volume == volume) drop_active(*chunk);
  }
}

void Overlay::drop_active() {
  for (auto& [key, chunk] : chunks_) drop_active(*chunk);
}

void Overlay::freeze() {
  assert(frozen_count_ == 0);
  active_ ^= 1;
  std::swap(active_count_, frozen_count_);
}

void Overlay::frozen_blocks(std::vector<FrozenBlock>& out) const {
  std::vector<std::pair<ChunkKey, Chunk*>> order;
  for (const auto& [key, chunk] : chunks_) {
    if (chunk->blocks[active_ ^ 1]) order.emplace_back(key, chunk.get());
  }
  std::sort(order.begin(), order.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [key, chunk] : order) {
    for (uint32_t block = 0; block < kBlocksPerChunk; ++block) {
      const uint32_t id = frozen(*chunk)[block];
      if (id) out.push_back({key, static_cast<uint16_t>(block), id});
    }
  }
}

bool Overlay::has_block(const ChunkKey& key, uint32_t block) const {
  Chunk* chunk = find_chunk(key);
  return chunk && (chunk->ids[0][block] || chunk->ids[1][block]);
}

bool OverlayBlock::changed_since(Index index) const {
  for (uint32_t mask = present; mask != 0; mask &= mask - 1) {
    const uint32_t behind =
        index_low[static_cast<size_t>(std::countr_zero(mask))] - static_cast<uint32_t>(index);
    if (static_cast<int32_t>(behind) > 0) return true;
  }
  return false;
}

bool Overlay::changed_since(const ChunkKey& key, uint32_t block, Index index) const {
  const Chunk* chunk = find_chunk(key);
  for (uint32_t generation = 0; chunk && generation < 2; ++generation) {
    const uint32_t id = chunk->ids[generation][block];
    if (id != 0 && pool_.at(id).changed_since(index)) return true;
  }
  return false;
}

void Overlay::visit_blocks(
    const std::function<void(const ChunkKey&, uint32_t block)>& visit) const {
  for (const auto& [key, chunk] : chunks_) {
    for (uint32_t block = 0; block < kBlocksPerChunk; ++block) {
      if (chunk->ids[0][block] || chunk->ids[1][block]) visit(key, block);
    }
  }
}

uint16_t Overlay::zero_mask(const ChunkKey& key, uint32_t block) const {
  const Chunk* chunk = find_chunk(key);
  uint16_t zeros = 0;
  for (uint32_t generation = 0; chunk && generation < 2; ++generation) {
    if (const uint32_t id = chunk->ids[generation][block]) zeros |= pool_.at(id).zero;
  }
  return zeros;
}

bool Overlay::active_has_data(const ChunkKey& key, uint32_t block) const {
  Chunk* chunk = find_chunk(key);
  const uint32_t id = chunk ? active(*chunk)[block] : 0;
  return id && pool_.at(id).data();
}

void Overlay::drop_frozen() {
  last_ = nullptr;
  for (auto it = chunks_.begin(); it != chunks_.end();) {
    Chunk& chunk = *it->second;
    if (chunk.blocks[active_ ^ 1]) {
      for (uint32_t& id : frozen(chunk)) {
        if (!id) continue;
        pool_.give_back(id);
        id = 0;
      }
      chunk.blocks[active_ ^ 1] = 0;
    }
    it = chunk.blocks[active_] ? std::next(it) : chunks_.erase(it);
  }
  frozen_count_ = 0;
}

}  // namespace curve::copyset
