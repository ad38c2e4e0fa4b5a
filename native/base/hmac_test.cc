// HMAC-SHA256 against RFC 4231.
#include "native/base/hmac.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace curve::base {
namespace {

std::span<const std::byte> as(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string hex(const Digest& digest) {
  std::string out;
  for (uint8_t b : digest) {
    out.push_back("0123456789abcdef"[b >> 4]);
    out.push_back("0123456789abcdef"[b & 15]);
  }
  return out;
}

TEST(Hmac, Rfc4231) {
  EXPECT_EQ(hex(hmac_sha256(as(std::string(20, '\x0b')), {as("Hi There")})),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hex(hmac_sha256(as("Jefe"), {as("what do ya want for nothing?")})),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hex(hmac_sha256(as(std::string(131, '\xaa')),
                            {as("Test Using Larger Than Block-Size Key - Hash Key First")})),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Hmac, PartsAreConcatenatedAndKeysMatter) {
  const Digest whole = hmac_sha256(as("key"), {as("abcdef")});
  EXPECT_EQ(whole, hmac_sha256(as("key"), {as("ab"), as(""), as("cdef")}));
  EXPECT_NE(whole, hmac_sha256(as("kex"), {as("abcdef")}));
  EXPECT_NE(whole, hmac_sha256({}, {as("abcdef")}));
  EXPECT_EQ(hmac_sha256({}, {}), hmac_sha256({}, {as("")}));
}

TEST(Hmac, ConstantTimeEqual) {
  Digest a = hmac_sha256(as("k"), {});
  Digest b = a;
  EXPECT_TRUE(constant_time_equal(a, b));
  b[31] ^= 1;
  EXPECT_FALSE(constant_time_equal(a, b));
  EXPECT_FALSE(constant_time_equal(as("abc"), as("ab")));
  EXPECT_TRUE(constant_time_equal(as(""), as("")));
}

TEST(SecureRandom, FillsAllOfIt) {
  std::vector<std::byte> a(64), b(64);
  secure_random(a);
  secure_random(b);
  EXPECT_NE(a, b);
  EXPECT_NE(a, std::vector<std::byte>(64));
}

}  // namespace
}  // namespace curve::base
