// The overlay of one copyset: which committed sectors are still in the WAL, and where (DESIGN.md
// section 6). An index, not a copy. Two generations: `active` takes what is applied now; `frozen`
// is what the background step is moving to the chunk store. Invariant: a sector is looked up in
// active, then frozen, then the chunk store; the first that has it is the newest. One loop thread;
// no allocation per write once the pool has grown.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "native/base/types.h"

namespace curve::copyset {

struct OverlayBlock {
  uint16_t present = 0;   // bit per sector: the overlay has it
  uint16_t zero = 0;      // of those: reads as zeros, nothing in the WAL
  uint16_t external = 0;  // of those: not in the WAL, but in block `physical` of the store (R4)
  uint32_t physical = 0;
  std::array<uint32_t, kSectorsPerBlock>
      wal_sector;  // logical WAL position / kSectorBytes, low 32 bits
  std::array<uint32_t, kSectorsPerBlock> crc;
  std::array<uint32_t, kSectorsPerBlock> index_low;  // low 32 bits of the entry's index
  uint16_t data() const { return present & ~zero; }
  uint16_t logged() const { return data() & ~external; }  // those that stand in the WAL
  bool changed_since(Index index) const;                  // by an entry behind that one
};

class OverlayPool {
 public:
  uint32_t take() {
    if (free_.empty()) {
      blocks_.push_back(std::make_unique<std::array<OverlayBlock, kPerSlab>>());
      const uint32_t base = static_cast<uint32_t>((blocks_.size() - 1) * kPerSlab);
      for (uint32_t i = kPerSlab; i-- > 0;) {
        if (base + i != 0) free_.push_back(base + i);  // 0 means none
      }
    }
    const uint32_t id = free_.back();
    free_.pop_back();
    at(id).present = at(id).zero = at(id).external = 0;
    return id;
  }
  void give_back(uint32_t id) { free_.push_back(id); }
  OverlayBlock& at(uint32_t id) { return (*blocks_[id / kPerSlab])[id % kPerSlab]; }
  const OverlayBlock& at(uint32_t id) const { return (*blocks_[id / kPerSlab])[id % kPerSlab]; }
  size_t used() const { return blocks_.empty() ? 0 : blocks_.size() * kPerSlab - 1 - free_.size(); }

 private:
  static constexpr uint32_t kPerSlab = 1024;
  std::vector<std::unique_ptr<std::array<OverlayBlock, kPerSlab>>> blocks_;
  std::vector<uint32_t> free_;
};

// What the overlay says of one sector.
struct OverlaySector {
  bool present = false, zero = false;
  uint32_t wal_sector = 0, crc = 0;
  uint32_t physical = 0;  // not 0: it stands in this block, in its place there
};

class Overlay {
 public:
  explicit Overlay(OverlayPool& pool) : pool_(pool) {}
  ~Overlay();
  // A committed write: sectors [first, first + crcs.size()) of the chunk stand in the WAL from
  // `wal_position` on.
  void write(const ChunkKey& chunk, uint32_t first_sector, std::span<const uint32_t> crcs,
             uint64_t wal_position, Index index);
  // A committed write of a whole block whose content stands in a block of the store.
  void place(const ChunkKey& chunk, uint32_t block, std::span<const uint32_t> crcs,
             uint32_t physical, Index index);
  void zero(const ChunkKey& chunk, uint32_t first_sector, uint32_t sectors, Index index);
  // The entry `index` moved in the WAL (R7): its sectors that are still the newest follow it, in
  // both generations.
  void moved(const ChunkKey& chunk, uint32_t first_sector, uint32_t sectors, uint64_t wal_position,
             Index index);
  OverlaySector find(const ChunkKey& chunk, uint32_t sector) const;
  // Forgets active sectors of a deleted volume; frozen ones stay until the background step is
  // through.
  void drop_volume(VolumeId volume);
  void drop_active();  // the same for all of them

  void freeze();  // precondition: nothing is frozen
  struct FrozenBlock {
    ChunkKey chunk;
    uint16_t block;
    uint32_t id;
  };
  // Frozen blocks in order (volume, chunk, block), appended to `out`.
  void frozen_blocks(std::vector<FrozenBlock>& out) const;
  const OverlayBlock& block(uint32_t id) const { return pool_.at(id); }
  void drop_frozen();
  // In either generation.
  bool has_block(const ChunkKey& chunk, uint32_t block) const;
  bool changed_since(const ChunkKey& chunk, uint32_t block, Index index) const;
  void visit_blocks(const std::function<void(const ChunkKey&, uint32_t block)>& visit) const;
  // Sectors that read as zeros in either generation, whatever has come behind.
  uint16_t zero_mask(const ChunkKey& chunk, uint32_t block) const;
  bool active_has_data(const ChunkKey& chunk, uint32_t block) const;
  bool has_frozen() const { return frozen_count_ != 0; }
  bool has_active() const { return active_count_ != 0; }

 private:
  using Ids = std::array<uint32_t, kBlocksPerChunk>;
  struct Chunk {  // two generations; which one is active is the overlay's, so that freezing costs
                  // nothing
    std::array<Ids, 2> ids{};
    std::array<uint32_t, 2> blocks{};
  };
  Ids& active(Chunk& chunk) const { return chunk.ids[active_]; }
  Ids& frozen(Chunk& chunk) const { return chunk.ids[active_ ^ 1]; }
  void drop_active(Chunk& chunk);
  OverlayBlock& active_block(const ChunkKey& chunk, uint32_t block);
  OverlayPool& pool_;
  std::unordered_map<ChunkKey, std::unique_ptr<Chunk>> chunks_;
  uint32_t active_count_ = 0, frozen_count_ = 0;
  uint8_t active_ = 0;
  // The chunk used last: sequential and hot access finds it without hashing.
  mutable ChunkKey last_key_{};
  mutable Chunk* last_ = nullptr;
  Chunk* find_chunk(const ChunkKey& chunk) const;
};

}  // namespace curve::copyset
