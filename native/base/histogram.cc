// See histogram.h.
#include "native/base/histogram.h"

#include <algorithm>
#include <cmath>

namespace curve::base {

uint64_t Histogram::lower_ns(size_t bucket) {
  constexpr size_t kSub = size_t{1} << kSubBits;
  if (bucket < 2 * kSub) return bucket;
  const size_t shift = (bucket >> kSubBits) - 1;
  return (kSub + (bucket & (kSub - 1))) << shift;
}

uint64_t Histogram::percentile_ns(double percent) const {
  if (count_ == 0) return 0;
  const double exact = std::ceil(percent / 100.0 * static_cast<double>(count_));
  const uint64_t rank = std::clamp<uint64_t>(static_cast<uint64_t>(exact), 1, count_);
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
    seen += buckets_[bucket];
    if (seen < rank) continue;
    if (bucket == kBuckets - 1) break;  // open-ended
    return std::clamp(lower_ns(bucket + 1) - 1, min_ns_, max_ns_);
  }
  return max_ns_;
}

void Histogram::merge(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_ns_ += other.sum_ns_;
  min_ns_ = std::min(min_ns_, other.min_ns_);
  max_ns_ = std::max(max_ns_, other.max_ns_);
}

}  // namespace curve::base
