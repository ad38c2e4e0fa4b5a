// A set of small integers with a fast "next member at or behind": a bitmap with summary levels of
// 64 to 1 above it. Invariant: a bit of level n + 1 is set if and only if its word of level n is
// not zero. One thread, no allocation after the constructor.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace curve::chunkstore {

class BitTree {
 public:
  static constexpr uint64_t kNone = UINT64_MAX;

  explicit BitTree(uint64_t size = 0) : size_(size) {
    do {
      size = (size + 63) / 64;
      levels_.emplace_back(size);
    } while (size > 1);
  }
  uint64_t size() const { return size_; }
  uint64_t word(uint64_t index) const { return levels_[0][index]; }
  bool test(uint64_t bit) const { return levels_[0][bit / 64] >> (bit % 64) & 1; }
  void set(uint64_t bit) {
    for (auto& level : levels_) {
      uint64_t& word = level[bit / 64];
      const bool was_zero = word == 0;
      word |= uint64_t{1} << (bit % 64);
      if (!was_zero) return;
      bit /= 64;
    }
  }
  void reset(uint64_t bit) {
    for (auto& level : levels_) {
      uint64_t& word = level[bit / 64];
      word &= ~(uint64_t{1} << (bit % 64));
      if (word != 0) return;
      bit /= 64;
    }
  }
  // The first member >= from, or kNone.
  uint64_t next(uint64_t from) const {
    if (from >= size_) return kNone;
    size_t level = 0;
    while (true) {  // up, until a word has a member at or behind `from`
      const uint64_t index = from / 64;
      if (index >= levels_[level].size()) return kNone;
      const uint64_t rest = levels_[level][index] >> (from % 64);
      if (rest) {
        from += static_cast<uint64_t>(std::countr_zero(rest));
        break;
      }
      if (++level == levels_.size()) return kNone;
      from = index + 1;
    }
    while (level > 0) {  // down to the first member below
      --level;
      from = from * 64 + static_cast<uint64_t>(std::countr_zero(levels_[level][from]));
    }
    return from;
  }

 private:
  uint64_t size_;
  std::vector<std::vector<uint64_t>> levels_;
};

}  // namespace curve::chunkstore
