// How many blocks (64 KiB) the writes to one copyset may touch in a second. Unlimited but while one
// of its replicas is filled and blocks changed faster than it could be (R10, decision 0015). What a
// write touches is taken when it is proposed, also beyond what is there: the next one waits for it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace curve::copyset {

class WritePace {
 public:
  bool limited() const { return blocks_per_second_ != 0; }
  uint64_t blocks_per_second() const { return blocks_per_second_; }
  // The lower one counts where it is limited already.
  void limit(uint64_t blocks_per_second, uint64_t now_ns) {
    blocks_per_second = std::max(blocks_per_second, kBlocksPerSecondMin);
    if (limited() && blocks_per_second_ <= blocks_per_second) return;
    if (!limited()) budget_ = 0, counted_ns_ = now_ns;
    blocks_per_second_ = blocks_per_second;
  }
  void lift() { blocks_per_second_ = 0; }
  // Nanoseconds from `now_ns` until a write may be proposed; 0: it may.
  uint64_t wait_ns(uint64_t now_ns) {
    if (!limited()) return 0;
    const uint64_t earned = (now_ns - counted_ns_) * blocks_per_second_;  // in billionths
    counted_ns_ = now_ns;
    budget_ = std::min(budget_ + static_cast<int64_t>(std::min(earned, uint64_t{1} << 62) / 1000),
                       kBudgetMax);
    if (budget_ > 0) return 0;
    return (static_cast<uint64_t>(-budget_) * 1000 + 1000) / blocks_per_second_ + 1;
  }
  void take(uint32_t blocks) {
    if (limited()) budget_ -= int64_t{blocks} * kUnit;
  }

 private:
  static constexpr uint64_t kBlocksPerSecondMin = 8;
  static constexpr int64_t kUnit = 1'000'000;       // of the budget: a millionth of a block
  static constexpr int64_t kBudgetMax = 2 * kUnit;  // no burst after a pause
  uint64_t blocks_per_second_ = 0, counted_ns_ = 0;
  int64_t budget_ = 0;
};

}  // namespace curve::copyset
