// Lines are JSON objects whatever the text in them.
#include "native/base/log.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace curve::base {
namespace {

TEST(Log, OneJsonObjectPerEvent) {
  std::vector<std::string> lines;
  set_log_sink(
      [](void* owner, LogLevel, std::string_view line) {
        static_cast<std::vector<std::string>*>(owner)->emplace_back(line);
      },
      &lines);
  log(LogLevel::kWarning, "wal_torn_tail",
      {{"position", uint64_t{18446744073709551615u}},
       {"delta", int64_t{-3}},
       {"path", std::string("a\"b\\c\n")}});
  log(LogLevel::kDebug, "plain");
  set_log_sink(nullptr, nullptr);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0],
            "{\"level\":\"warning\",\"event\":\"wal_torn_tail\",\"position\":18446744073709551615,"
            "\"delta\":-3,\"path\":\"a\\\"b\\\\c\\u000a\"}");
  EXPECT_EQ(lines[1], "{\"level\":\"debug\",\"event\":\"plain\"}");
}

TEST(Log, StandardErrorAndLevels) {
  testing::internal::CaptureStderr();
  log(LogLevel::kDebug, "hidden");
  log(LogLevel::kError, "shown", {{"n", uint64_t{1}}});
  set_log_level(LogLevel::kDebug);
  log(LogLevel::kDebug, "now_shown");
  set_log_level(LogLevel::kInfo);
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.find("hidden"), std::string::npos);
  EXPECT_EQ(text.rfind("{\"time\":\"2", 0), 0u) << text;
  EXPECT_NE(text.find("Z\",\"level\":\"error\",\"event\":\"shown\",\"n\":1}\n"), std::string::npos);
  EXPECT_NE(text.find("now_shown"), std::string::npos);
}

}  // namespace
}  // namespace curve::base
