// Codecs and identifiers.
#include "native/base/bytes.h"

#include <gtest/gtest.h>

#include "native/base/status.h"

namespace curve::base {
namespace {

TEST(Bytes, WhatIsWrittenIsRead) {
  std::vector<std::byte> bytes;
  Writer writer(bytes);
  StoreId id;
  id.bytes[15] = 7;
  writer.put<uint64_t>(0x0102030405060708);
  writer.put<uint16_t>(0xabcd);
  writer.put(id);
  EXPECT_EQ(bytes.size(), 26u);
  EXPECT_EQ(bytes[0], std::byte{8});  // little-endian
  Reader reader(bytes);
  EXPECT_EQ(reader.get<uint64_t>(), 0x0102030405060708u);
  EXPECT_EQ(reader.get<uint16_t>(), 0xabcd);
  EXPECT_EQ(reader.store_id(), id);
  EXPECT_TRUE(reader.done());
}

TEST(Bytes, AShortReadIsRemembered) {
  std::vector<std::byte> bytes(5);
  bytes[4] = std::byte{1};
  Reader reader(bytes);
  EXPECT_EQ(reader.get<uint32_t>(), 0u);
  EXPECT_EQ(reader.get<uint32_t>(), 0u);
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.left(), 0u);
  EXPECT_EQ(reader.get<uint8_t>(), 0u);
  EXPECT_TRUE(reader.raw(1).empty());
  EXPECT_FALSE(reader.done());
}

TEST(Bytes, RawDoesNotOverflow) {
  std::vector<std::byte> bytes(5);
  Reader reader(bytes);
  EXPECT_EQ(reader.raw(2).size(), 2u);
  EXPECT_TRUE(reader.raw(SIZE_MAX).empty());
  EXPECT_FALSE(reader.ok());
}

TEST(Types, StoreIdAsText) {
  StoreId id;
  EXPECT_TRUE(id.is_none());
  for (int i = 0; i < 16; ++i) id.bytes[i] = static_cast<uint8_t>(i * 17);
  EXPECT_EQ(id.text(), "00112233-4455-6677-8899-aabbccddeeff");
  EXPECT_FALSE(id.is_none());
}

TEST(Status, CodesHaveNames) {
  EXPECT_EQ(code_name(Code::kOk), "ok");
  for (uint16_t number = 0; number <= static_cast<uint16_t>(Code::kDropped); ++number) {
    EXPECT_NE(code_name(static_cast<Code>(number)), "unknown") << number;
  }
  EXPECT_EQ(code_name(static_cast<Code>(60000)), "unknown");
}

TEST(Status, ResultAndOutcome) {
  Result<int> good = 5;
  Result<int> bad = Error{Code::kIo, "the disk is gone"};
  EXPECT_TRUE(good.ok());
  EXPECT_EQ(*good, 5);
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code, Code::kIo);
  Outcome fine;
  EXPECT_TRUE(fine.ok());
  Outcome failed = Error{Code::kLocked, "held"};
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message, "held");
}

}  // namespace
}  // namespace curve::base
