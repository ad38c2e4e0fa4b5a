// See block_space.h.
#include "native/chunkstore/block_space.h"

#include <cassert>

#include "native/base/mutant.h"

namespace curve::chunkstore {

BlockSpace::BlockSpace(uint64_t blocks, uint64_t kept)
    : total_(blocks),
      kept_(kept),
      free_count_(blocks),
      free_(blocks),
      whole_(blocks / kRunBlocks),
      uses_(blocks + 1) {
  for (uint64_t bit = 0; bit < blocks; ++bit) free_.set(bit);
  for (uint64_t run = 0; run < blocks / kRunBlocks; ++run) whole_.set(run);
}

uint32_t BlockSpace::claim(uint64_t bit) {
  assert(free_.test(bit));
  free_.reset(bit);
  if (bit / kRunBlocks < whole_.size()) whole_.reset(bit / kRunBlocks);
  --free_count_;
  ++taken_;
  uses_[bit + 1].taken = 1;
  return static_cast<uint32_t>(bit + 1);
}

uint32_t BlockSpace::allocate(uint32_t hint, uint32_t phase) {
  if (free_count_ == 0) return 0;
  if (hint != 0 && hint <= total_ && is_free(hint)) return claim(hint - 1);
  uint64_t run = whole_.next(run_cursor_);
  if (run == BitTree::kNone) run = whole_.next(0);
  if (run != BitTree::kNone) {
    run_cursor_ = run + 1;
    return claim(run * kRunBlocks + phase % kRunBlocks);
  }
  uint64_t bit = free_.next(cursor_);
  if (bit == BitTree::kNone) bit = free_.next(0);
  cursor_ = bit + 1;
  return claim(bit);
}

uint32_t BlockSpace::take(bool into_reserve) {
  if (free_count_ <= reserved_ + (into_reserve ? 0 : kept_)) return 0;
  uint64_t bit = free_.next(take_cursor_);
  if (bit == BitTree::kNone) bit = free_.next(0);
  take_cursor_ = bit + 1;
  return claim(bit);
}

bool BlockSpace::retake(uint32_t block) {
  if (block == 0 || block > total_ || !is_free(block)) return false;
  claim(block - 1);
  return true;
}

void BlockSpace::make_free(uint32_t block) {
  const uint64_t bit = block - 1;
  assert(!free_.test(bit) && uses_[block].references == 0);
  free_.set(bit);
  ++free_count_;
  const uint64_t run = bit / kRunBlocks;
  if (run < whole_.size() && free_.word(run) == UINT64_MAX) whole_.set(run);
}

void BlockSpace::release(uint32_t block) {
  if (uses_[block].pins == 0) return make_free(block);
  uses_[block].free_when_unpinned = 1;
  ++waiting_;
}

void BlockSpace::give_back(uint32_t block) {
  assert(block != 0 && block <= total_ && !is_free(block) && references(block) == 0);
  --taken_;
  uses_[block].taken = 0;
  release(block);
}

void BlockSpace::unpin(uint32_t block) {
  Use& use = uses_[block];
  assert(use.pins > 0);
  if (--use.pins == 0 && use.free_when_unpinned) {
    use.free_when_unpinned = 0;
    --waiting_;
    make_free(block);
  }
}

void BlockSpace::reference(uint32_t block) {
  assert(!is_free(block));
  if (uses_[block].references++ == 0) {
    --taken_;
    ++mapped_;
    uses_[block].taken = 0;
  }
  if (CURVE_MUTANT("r5_count_reference_twice")) ++uses_[block].references;
}

void BlockSpace::unreference(uint32_t block) {
  assert(uses_[block].references > 0);
  if (--uses_[block].references > 0) return;
  --mapped_;
  if (CURVE_MUTANT("r5_reuse_freed_block_at_once")) return make_free(block);
  freed_.push_back(block);
}

void BlockSpace::begin_checkpoint() {
  assert(covered_.empty());
  covered_.swap(freed_);
}

void BlockSpace::checkpoint_durable() {
  for (uint32_t block : covered_) release(block);
  covered_.clear();
}

bool BlockSpace::reserve(uint64_t blocks, bool into_reserve) {
  if (blocks == 0) return true;
  if (free_count_ < reserved_ + blocks + (into_reserve ? 0 : kept_)) return false;
  reserved_ += blocks;
  return true;
}

void BlockSpace::unreserve(uint64_t blocks) {
  assert(reserved_ >= blocks);
  reserved_ -= blocks;
}

}  // namespace curve::chunkstore
