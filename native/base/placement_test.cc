// Offsets to chunks and copysets: format, so some values are fixed here.
#include "native/base/placement.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

namespace curve::base {
namespace {

TEST(Placement, WithoutStripesChunksAreContiguous) {
  const Layout layout;
  EXPECT_EQ(locate(layout, 0, 4096).chunk, 0u);
  const ChunkRange range = locate(layout, 3ull * kChunkBytes - 4096, 12288);
  EXPECT_EQ(range.chunk, 2u);
  EXPECT_EQ(range.offset_bytes, kChunkBytes - 4096);
  EXPECT_EQ(range.bytes, 4096u);
}

// Every byte of a volume has one place, and no two share it.
TEST(Placement, StripesAreABijection) {
  for (Layout layout : {Layout{64 * 1024, 4}, Layout{1024 * 1024, 3}, Layout{kChunkBytes, 5}}) {
    const uint64_t volume = 2ull * layout.stripe_count * kChunkBytes;
    std::set<std::pair<uint32_t, uint32_t>> places;
    for (uint64_t at = 0; at < volume;) {
      const ChunkRange range = locate(layout, at, layout.stripe_unit_bytes);
      ASSERT_EQ(range.bytes, layout.stripe_unit_bytes);
      ASSERT_TRUE(places.emplace(range.chunk, range.offset_bytes).second);
      ASSERT_LT(range.chunk, 2 * layout.stripe_count);
      at += range.bytes;
    }
    EXPECT_EQ(places.size(), volume / layout.stripe_unit_bytes);
  }
}

TEST(Placement, HashIsFixedAndEven) {
  // The same values are in tests/unit/control/test_placement.py.
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafu);
  EXPECT_EQ(mix64(1), 0x910a2dec89025cc1u);
  EXPECT_EQ(mix64(42), 0xbdd732262feb6e95u);
  EXPECT_EQ(mix64(~0ull), 0xe4d971771b652c20u);
  EXPECT_EQ(copyset_index(1, 0, 64), 30u);
  EXPECT_EQ(copyset_index(42, 7, 64), 0u);
  EXPECT_EQ(copyset_index(1ull << 40, 0xffffffff, 4096), 2546u);
  std::vector<int> hits(64);
  for (uint32_t chunk = 0; chunk < 6400; ++chunk) ++hits[copyset_index(42, chunk, 64)];
  for (int n : hits) EXPECT_NEAR(n, 100, 60);
  EXPECT_EQ(copyset_id(3, 7), 0x300000007u);
}

}  // namespace
}  // namespace curve::base
