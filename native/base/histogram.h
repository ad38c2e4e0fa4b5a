// Log-linear histogram of latencies: fixed memory, constant-time recording, quantiles with a
// relative error of at most 1/64 (the idea of HdrHistogram, Gil Tene). Values are nanoseconds; from
// 2^42 ns (73 minutes) they count as the last bucket, min, max and mean stay exact. One thread;
// merge copies taken elsewhere.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace curve::base {

class Histogram {
 public:
  static constexpr uint32_t kSubBits = 6;  // 64 linear buckets per power of two
  static constexpr uint32_t kValueBitsMax = 42;
  static constexpr size_t kBuckets = (kValueBitsMax - kSubBits + 1) << kSubBits;

  void record(uint64_t value_ns) {
    ++buckets_[bucket_of(value_ns)];
    ++count_;
    sum_ns_ += value_ns;
    if (value_ns < min_ns_) min_ns_ = value_ns;
    if (value_ns > max_ns_) max_ns_ = value_ns;
  }
  uint64_t count() const { return count_; }
  uint64_t sum_ns() const { return sum_ns_; }
  uint64_t min_ns() const { return count_ ? min_ns_ : 0; }
  uint64_t max_ns() const { return max_ns_; }
  double mean_ns() const { return count_ ? static_cast<double>(sum_ns_) / count_ : 0; }
  // Smallest value v such that at least `percent` % of all values are <= v; 0 when empty. percent
  // in 0..100.
  uint64_t percentile_ns(double percent) const;
  void merge(const Histogram& other);
  void reset() { *this = Histogram(); }

  // Exposed for exporters: bucket i counts values in [lower_ns(i), lower_ns(i + 1)).
  static uint64_t lower_ns(size_t bucket);
  uint64_t bucket_count(size_t bucket) const { return buckets_[bucket]; }

 private:
  static size_t bucket_of(uint64_t value) {
    if (value >> kValueBitsMax) return kBuckets - 1;
    const uint32_t width = std::bit_width(value);
    if (width <= kSubBits) return value;
    const uint32_t shift = width - kSubBits - 1;  // keeps the top kSubBits + 1 bits
    return (static_cast<size_t>(shift) << kSubBits) + (value >> shift);
  }
  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t sum_ns_ = 0;
  uint64_t min_ns_ = UINT64_MAX;
  uint64_t max_ns_ = 0;
};

}  // namespace curve::base
