// The histogram against a sorted list of the same values.
#include "native/base/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace curve::base {
namespace {

TEST(Histogram, Empty) {
  Histogram h;
  EXPECT_EQ(h.count(), 0u);
  EXPECT_EQ(h.percentile_ns(99), 0u);
  EXPECT_EQ(h.min_ns(), 0u);
  EXPECT_EQ(h.mean_ns(), 0);
}

TEST(Histogram, BucketsAreContiguous) {
  for (size_t i = 0; i + 1 < Histogram::kBuckets; ++i) {
    Histogram h;
    h.record(Histogram::lower_ns(i));
    h.record(Histogram::lower_ns(i + 1) - 1);
    ASSERT_EQ(h.bucket_count(i), 2u) << i;
  }
}

TEST(Histogram, PercentilesAreWithinOnePart64OfTheTruth) {
  std::mt19937_64 random(7);
  Histogram h, first_half, second_half;
  std::vector<uint64_t> values;
  for (int i = 0; i < 20000; ++i) {
    const auto value =
        static_cast<uint64_t>(std::exp(std::uniform_real_distribution(0.0, 28.0)(random)));
    values.push_back(value);
    h.record(value);
    (i % 2 ? first_half : second_half).record(value);
  }
  std::sort(values.begin(), values.end());
  for (double percent : {0.0, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
    const auto rank = static_cast<size_t>(std::max(1.0, std::ceil(percent / 100 * values.size())));
    const uint64_t truth = values[rank - 1];
    EXPECT_GE(h.percentile_ns(percent), truth) << percent;
    EXPECT_LE(h.percentile_ns(percent), truth + truth / 64 + 1) << percent;
  }
  EXPECT_EQ(h.percentile_ns(100), values.back());
  EXPECT_EQ(h.min_ns(), values.front());
  first_half.merge(second_half);
  EXPECT_EQ(first_half.percentile_ns(99), h.percentile_ns(99));
  EXPECT_EQ(first_half.sum_ns(), h.sum_ns());
}

TEST(Histogram, HugeValuesAreKept) {
  Histogram h;
  h.record(UINT64_MAX / 4);
  h.record(1);
  EXPECT_EQ(h.max_ns(), UINT64_MAX / 4);
  EXPECT_EQ(h.percentile_ns(100), UINT64_MAX / 4);
  h.reset();
  EXPECT_EQ(h.count(), 0u);
}

}  // namespace
}  // namespace curve::base
