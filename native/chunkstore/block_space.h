// Which blocks are free, who uses the others, and what is promised (R5, R8). It knows block numbers
// only: no maps, no I/O.
//
// A block is free, taken (allocated, in no map yet), mapped (references > 0) or freed (was mapped,
// waits). Invariants:
//  - R5: a freed block becomes free only by checkpoint_durable() of a checkpoint that began after
//  it was freed, and only when no
//    pin is left on it. A taken block that is given back was in no map and needs no checkpoint.
//  - R8: allocations that were reserved always succeed: free >= reserved, except inside the call
//  that spends it.
// Thread: the loop's. Allocates only where a list of freed blocks outgrows its past.
#pragma once

#include <cassert>
#include <cstdint>
#include <vector>

#include "native/chunkstore/bit_tree.h"

namespace curve::chunkstore {

class BlockSpace {
 public:
  BlockSpace() = default;
  // Blocks 1 .. blocks, all free; the last `kept` are the reserve.
  BlockSpace(uint64_t blocks, uint64_t kept);

  // A free block, now taken; 0 when there is none. `hint` (a block number or 0) is used if it is
  // free. Otherwise the start of a free run of 4 MiB, shifted by `phase` blocks, so that the blocks
  // of one chunk can lie side by side; otherwise the next free one.
  uint32_t allocate(uint32_t hint, uint32_t phase);
  // A free block that nobody has reserved, in order of blocks; 0 when there is none.
  uint32_t take(bool into_reserve);
  bool retake(uint32_t block);     // false: not free
  void give_back(uint32_t block);  // taken -> free at once (or with its last pin)

  void reference(uint32_t block);    // one more map entry names it
  void unreference(uint32_t block);  // one less; the last one frees it (R5)
  uint32_t references(uint32_t block) const { return uses_[block].references; }
  bool is_taken(uint32_t block) const { return uses_[block].taken != 0; }
  bool is_free(uint32_t block) const { return free_.test(block - 1); }

  // While pinned (a read in flight, a retained log record) a block is not used again.
  void pin(uint32_t block) {
    assert(!is_free(block) && uses_[block].pins < kPinsMax);
    ++uses_[block].pins;
  }
  void unpin(uint32_t block);

  void begin_checkpoint();  // what was freed so far waits for this one
  void checkpoint_durable();

  bool reserve(uint64_t blocks, bool into_reserve);
  void unreserve(uint64_t blocks);

  uint64_t total() const { return total_; }
  uint64_t free() const { return free_count_; }
  uint64_t reserved() const { return reserved_; }
  uint64_t available() const {  // to reserve(), without what is kept
    return free_count_ > reserved_ + kept_ ? free_count_ - reserved_ - kept_ : 0;
  }
  uint64_t kept() const { return kept_; }
  uint64_t pending() const { return freed_.size() + covered_.size() + waiting_; }
  uint64_t mapped() const { return mapped_; }
  uint64_t taken() const { return taken_; }

 private:
  struct Use {
    uint16_t references = 0;
    uint16_t pins : 14 = 0;
    uint16_t taken : 1 = 0;
    uint16_t free_when_unpinned : 1 = 0;
  };
  static constexpr uint32_t kPinsMax = 0x3fff;
  static constexpr uint64_t kRunBlocks = 64;  // a word of the bitmap: 4 MiB
  uint32_t claim(uint64_t bit);
  void release(uint32_t block);
  void make_free(uint32_t block);

  uint64_t total_ = 0, kept_ = 0, free_count_ = 0, reserved_ = 0, mapped_ = 0, taken_ = 0,
           waiting_ = 0;
  BitTree free_;   // bit i: block i + 1
  BitTree whole_;  // bit i: all of word i is free
  uint64_t cursor_ = 0, run_cursor_ = 0, take_cursor_ = 0;
  std::vector<Use> uses_;  // by block number
  std::vector<uint32_t> freed_, covered_;
};

}  // namespace curve::chunkstore
