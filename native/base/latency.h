// Latencies in few buckets with fixed bounds, as Prometheus wants them: 17 counters and a sum. For
// quantiles see histogram.h. One thread; copies may be read elsewhere.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace curve::base {

struct Latency {
  // counts[i]: of latencies <= kBoundsUs[i] and above the bound before; the last one: of the rest.
  static constexpr std::array<uint32_t, 17> kBoundsUs = {
      20,     50,     100,     200,     500,     1'000,     2'000,     5'000,     10'000,
      20'000, 50'000, 100'000, 200'000, 500'000, 1'000'000, 2'000'000, 10'000'000};
  std::array<uint64_t, kBoundsUs.size() + 1> counts{};
  uint64_t sum_us = 0;

  void record_ns(uint64_t ns) {
    const uint64_t us = (ns + 999) / 1000;
    size_t i = 0;
    while (i < kBoundsUs.size() && us > kBoundsUs[i]) ++i;
    ++counts[i];
    sum_us += us;
  }
};

}  // namespace curve::base
