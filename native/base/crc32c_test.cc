// The fast CRC against its naive twin and against published vectors (RFC 3720 appendix B.4).
#include "native/base/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

#include "native/base/types.h"

namespace curve::base {
namespace {

uint32_t of(std::string_view text) { return crc32c(std::as_bytes(std::span(text))); }

TEST(Crc32c, PublishedVectors) {
  EXPECT_EQ(of("123456789"), 0xe3069283u);
  EXPECT_EQ(of(""), 0u);
  EXPECT_EQ(of(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(of(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising(32, 0);
  for (int i = 0; i < 32; ++i) rising[i] = static_cast<char>(i);
  EXPECT_EQ(of(rising), 0x46dd794eu);
}

TEST(Crc32c, EqualsItsTwin) {
  std::mt19937_64 random(1);
  std::vector<std::byte> bytes(20000);
  for (auto& b : bytes) b = static_cast<std::byte>(random());
  const std::span<const std::byte> all(bytes);
  std::vector<size_t> sizes = {3 * 128 - 1, 3 * 128,      3 * 1360 - 1, 3 * 1360,
                               4096,        6 * 1360 + 5, 20000};
  for (size_t bytes_count = 0; bytes_count < 70; ++bytes_count) sizes.push_back(bytes_count);
  for (int i = 0; i < 200; ++i) sizes.push_back(random() % 10000);
  for (size_t size : sizes) {
    const size_t at = random() % (bytes.size() - size + 1);  // any alignment
    const auto part = all.subspan(at, size);
    const auto seed = static_cast<uint32_t>(random());
    ASSERT_EQ(crc32c(part, seed), crc32c_table(part, seed)) << size << " bytes at " << at;
    const size_t cut = size ? random() % size : 0;
    ASSERT_EQ(crc32c(part.subspan(cut), crc32c(part.first(cut))), crc32c(part));
  }
}

TEST(Crc32c, ZeroSector) {
  const std::vector<std::byte> zeros(kSectorBytes);
  EXPECT_EQ(crc32c_zero_sector(), crc32c(zeros));
}

}  // namespace
}  // namespace curve::base
