// The only source of randomness in a simulation: splitmix64 streams, split by purpose from one
// seed, so that a change in how often one part draws does not shift every other part. Plain values,
// one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "native/base/types.h"

namespace curve::sim {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  // An independent stream for `purpose`; drawing from it does not change this one.
  Random split(std::string_view purpose) const {
    uint64_t h = 0xcbf29ce484222325ull;  // FNV-1a
    for (char c : purpose) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
    return Random(mix64(state_ ^ mix64(h)));
  }
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15ull;
    return mix64(state_);
  }
  uint64_t below(uint64_t limit) { return limit == 0 ? 0 : next() % limit; }
  uint64_t between(uint64_t low, uint64_t high) {
    return low + below(high - low + 1);
  }  // inclusive
  bool chance(double probability) {
    return static_cast<double>(next() >> 11) * 0x1.0p-53 < probability;
  }
  // Every order of magnitude up to `limit` is about equally likely: 1..limit.
  uint64_t skewed(uint64_t limit) {
    uint64_t bits = 1;
    while (bits < 63 && (1ull << bits) < limit) ++bits;
    return 1 + below(1ull << below(bits + 1)) % limit;
  }
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  uint64_t state_;
};

}  // namespace curve::sim
