// The reader of volume maps: what Python wrote for this test (the bytes below), and every way to
// damage it.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/client/volume_client.h"

namespace curve::client {
namespace {

using Bytes = std::vector<std::byte>;

Bytes encode(uint32_t copysets = 2, uint32_t stripe_unit = 1 << 20, uint16_t last_slot = 1,
             uint16_t flags = 1) {
  Bytes out;
  base::Writer w(out);
  for (char c : {'C', 'V', 'M', 'P'}) w.put(c);
  w.put<uint16_t>(1);
  w.put(flags);
  w.put<uint32_t>(76 + 2 * 36 + copysets * 16 + 4);
  for (uint64_t v : {9, 5, 4}) w.put<uint64_t>(v);  // version, volume, placement
  w.put<uint64_t>(1 << 30);
  w.put<uint64_t>(77);  // epoch
  w.put(stripe_unit);
  w.put<uint32_t>(4);
  w.put(copysets);
  w.put<uint32_t>(2);
  w.put<uint64_t>(3);  // pool
  for (uint8_t i = 1; i <= 2; ++i) {
    for (int b = 0; b < 16; ++b) w.put(i);
    w.put<uint16_t>(7000 + i);
    w.put<uint8_t>(i == 1 ? 4 : 6);
    w.put<uint8_t>(0);
    const uint8_t v4[16] = {10, 0, 0, 7},
                  v6[16] = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    w.put(i == 1 ? v4 : v6);
  }
  for (uint32_t c = 0; c < copysets; ++c) {
    w.put<uint8_t>(2);
    w.put<uint8_t>(1);
    w.put<uint16_t>(0);
    w.put(last_slot);
    for (int i = 0; i < 5; ++i) w.put<uint16_t>(0xffff);
  }
  w.put(base::crc32c(out));
  return out;
}

TEST(VolumeMapTest, ReadsWhatTheFormatSays) {
  auto map = decode_volume_map(encode());
  ASSERT_TRUE(map.ok()) << map.error().message;
  EXPECT_EQ(map->version, 9u);
  EXPECT_EQ(map->volume, 5u);
  EXPECT_EQ(map->placement_id, 4u);
  EXPECT_EQ(map->size_bytes, 1u << 30);
  EXPECT_EQ(map->epoch, 77u);
  EXPECT_TRUE(map->read_only);
  EXPECT_EQ(map->layout.stripe_unit_bytes, 1u << 20);
  EXPECT_EQ(map->layout.stripe_count, 4u);
  EXPECT_EQ(map->pool, 3u);
  ASSERT_EQ(map->stores.size(), 2u);
  EXPECT_EQ(map->stores[0].address.text, "10.0.0.7:7001");
  EXPECT_EQ(map->stores[1].address.text, "[2001:db8::1]:7002");
  ASSERT_EQ(map->copysets.size(), 2u);
  EXPECT_EQ(map->copysets[1].stores, (std::vector<uint16_t>{0, 1}));
  EXPECT_EQ(map->copysets[1].preferred, 1u);
}

TEST(VolumeMapTest, RefusesWhatIsOutOfRange) {
  EXPECT_FALSE(decode_volume_map(encode(3)).ok());               // no power of two
  EXPECT_FALSE(decode_volume_map(encode(2, 12345)).ok());        // stripe unit
  EXPECT_FALSE(decode_volume_map(encode(2, 4096)).ok());         // stripe unit
  EXPECT_FALSE(decode_volume_map(encode(2, 65536, 2)).ok());     // no such store
  EXPECT_FALSE(decode_volume_map(encode(2, 65536, 1, 2)).ok());  // unknown flag
}

TEST(VolumeMapTest, RefusesEveryDamage) {
  const Bytes good = encode();
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(decode_volume_map(std::span(good).first(size)).ok());
  for (size_t at = 0; at < good.size(); ++at) {
    Bytes bad = good;
    bad[at] ^= std::byte{0x11};
    EXPECT_FALSE(decode_volume_map(bad).ok()) << at;
  }
  std::mt19937 random(1);
  for (int round = 0; round < 3000;
       ++round) {  // with the checksum right: no crash, and counts stay in range
    Bytes bad = good;
    for (int i = 0; i < 3; ++i) bad[random() % (bad.size() - 4)] = static_cast<std::byte>(random());
    const uint32_t crc = base::crc32c(std::span(bad).first(bad.size() - 4));
    std::memcpy(bad.data() + bad.size() - 4, &crc, 4);
    auto map = decode_volume_map(bad);
    if (!map.ok()) continue;
    for (const auto& copyset : map->copysets) {
      EXPECT_LT(copyset.preferred, copyset.stores.size());
      for (uint16_t store : copyset.stores) EXPECT_LT(store, map->stores.size());
    }
  }
}

}  // namespace
}  // namespace curve::client
