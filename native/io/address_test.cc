// Addresses: what is accepted, what is refused and how it is said.
#include "native/io/address.h"

#include <gtest/gtest.h>

namespace curve::io {
namespace {

TEST(Address, TextComesBack) {
  for (const char* text : {"127.0.0.1:7000", "0.0.0.0:0", "[::1]:65535", "[fe80::1]:1",
                           "unix:/tmp/a b:c", "unix:relative"}) {
    const auto parsed = parse_address(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(address_text(*parsed), text);
  }
}

TEST(Address, NonsenseIsRefusedWithASentence) {
  for (const std::string& text :
       {std::string(), std::string("127.0.0.1"), std::string("127.0.0.1:"),
        std::string("127.0.0.1:65536"), std::string("127.0.0.1:7x"), std::string("localhost:7000"),
        std::string("::1:7000"), std::string("[::1]7000"), std::string("[]:1"),
        std::string(":7000"), std::string("unix:"), "unix:/" + std::string(200, 'x')}) {
    const auto parsed = parse_address(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, Code::kInvalid);
    EXPECT_NE(parsed.error().message.find("write 127.0.0.1:7000"), std::string::npos);
  }
}

}  // namespace
}  // namespace curve::io
