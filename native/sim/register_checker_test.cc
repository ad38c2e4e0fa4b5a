// The checker accepts what a register may do and names what it may not. Histories are written as in
// a paper.
#include "native/sim/register_checker.h"

#include <gtest/gtest.h>

#include "native/sim/random.h"

namespace curve::sim {
namespace {

// One unit, or a few; values are numbers of writes, 0 is zeros.
struct History {
  RegisterChecker checker;
  uint64_t write(uint64_t begin, uint64_t end, uint64_t unit = 0, uint64_t count = 1,
                 bool zeros = false) {
    const uint64_t number = checker.begin_write(unit, count, zeros, begin, "w");
    if (end) checker.end_write(number, end);
    return number;
  }
  std::optional<std::string> read(uint64_t value, uint64_t begin, uint64_t end, uint64_t unit = 0) {
    std::array<std::byte, kUnitBytes> bytes{};
    if (value) fill_unit(value, unit, bytes);
    return checker.read(unit, bytes, begin, end, "r");
  }
  bool good() const { return !checker.check(); }
};

TEST(RegisterChecker, AcknowledgedWriteIsSeen) {
  History h;
  const auto a = h.write(1, 2);
  EXPECT_FALSE(h.read(a, 3, 4));
  EXPECT_TRUE(h.good());
}

TEST(RegisterChecker, LostWrite) {
  History h;
  h.write(1, 2);
  EXPECT_FALSE(h.read(0, 3, 4));
  EXPECT_FALSE(h.good());
}

TEST(RegisterChecker, StaleRead) {
  History h;
  const auto a = h.write(1, 2);
  h.write(3, 4);
  EXPECT_FALSE(h.read(a, 5, 6));
  EXPECT_FALSE(h.good());
}

TEST(RegisterChecker, ConcurrentReadMaySeeEither) {
  History h;
  const auto a = h.write(1, 2);
  const auto b = h.write(3, 6);
  EXPECT_FALSE(h.read(a, 4, 5));
  EXPECT_FALSE(h.read(b, 4, 5));
  EXPECT_TRUE(h.good());
}

TEST(RegisterChecker, ReadsDoNotGoBack) {
  History h;
  const auto a = h.write(1, 2);
  const auto b = h.write(3, 9);
  EXPECT_FALSE(h.read(b, 4, 5));
  EXPECT_FALSE(h.read(a, 6, 7));
  EXPECT_FALSE(h.good());
}

TEST(RegisterChecker, UnacknowledgedWriteMayHappenLater) {
  History h;
  const auto a = h.write(1, 0);
  const auto b = h.write(2, 3);
  EXPECT_FALSE(h.read(b, 4, 5));
  EXPECT_FALSE(h.read(a, 6, 7));
  EXPECT_TRUE(h.good());
  const auto c = h.write(8, 9);
  EXPECT_FALSE(h.read(c, 10, 11));
  EXPECT_TRUE(h.good());
  EXPECT_FALSE(h.read(b, 12, 13));  // but what was overwritten does not come back
  EXPECT_FALSE(h.good());
}

TEST(RegisterChecker, WriteThatWasSentAgainMayComeTwiceBeforeItsAnswerOnly) {
  for (bool twice : {true, false}) {
    History h;
    const auto a = h.write(1, 0), b = h.write(2, 9);
    EXPECT_FALSE(h.read(a, 3, 4));
    EXPECT_FALSE(h.read(b, 5, 6));
    h.checker.end_write(a, 10, twice);
    EXPECT_FALSE(h.read(a, 11, 12));
    EXPECT_EQ(h.good(), twice);
    const auto c = h.write(13, 14);
    EXPECT_FALSE(h.read(c, 15, 16));
    EXPECT_EQ(h.good(), twice);
    EXPECT_FALSE(h.read(a, 17, 18));
    EXPECT_FALSE(h.good());
  }
}

TEST(RegisterChecker, FencedWriteDoesNotHappenAfterItsBound) {
  History h;
  const auto a = h.write(1, 0);
  h.checker.bound_write(a, 4);
  const auto b = h.write(5, 6);
  EXPECT_FALSE(h.read(b, 7, 8));
  EXPECT_TRUE(h.good());
  EXPECT_FALSE(h.read(a, 9, 10));
  EXPECT_FALSE(h.good());
}

TEST(RegisterChecker, RetryAfterANewerAcknowledgedWrite) {
  History h;
  const auto a = h.write(1, 4);
  const auto b = h.write(5, 6);
  EXPECT_FALSE(h.read(b, 7, 8));
  EXPECT_FALSE(h.read(a, 9, 10));
  EXPECT_FALSE(h.good());
}

TEST(RegisterChecker, ZerosAreAllowedAfterADiscardOnly) {
  History h;
  h.write(1, 2);
  h.write(3, 4, 0, 1, true);
  EXPECT_FALSE(h.read(0, 5, 6));
  EXPECT_TRUE(h.good());
  h.write(7, 8);
  EXPECT_FALSE(h.read(0, 9, 10));
  EXPECT_FALSE(h.good());
}

TEST(RegisterChecker, DiscardedDataDoesNotComeBack) {
  History h;
  const auto a = h.write(1, 2);
  h.write(3, 4, 0, 1, true);
  EXPECT_FALSE(h.read(a, 5, 6));
  EXPECT_FALSE(h.good());
}

TEST(RegisterChecker, BytesOfNobodyAndOfAnotherPlace) {
  History h;
  const auto a = h.write(1, 2, 0, 2);
  std::array<std::byte, kUnitBytes> bytes;
  fill_unit(a, 0, bytes);
  EXPECT_TRUE(h.checker.read(1, bytes, 3, 4, "r"));
  bytes[100] ^= std::byte{1};
  EXPECT_TRUE(h.checker.read(0, bytes, 3, 4, "r"));
  EXPECT_TRUE(h.read(77, 3, 4));
}

TEST(RegisterChecker, TornSector) {
  History h;
  const auto a = h.write(1, 10, 0, 8), b = h.write(1, 10, 0, 8);
  std::array<std::byte, 2 * kUnitBytes> bytes;
  fill_unit(a, 3, std::span(bytes).first(kUnitBytes));
  fill_unit(b, 4, std::span(bytes).last(kUnitBytes));
  EXPECT_TRUE(h.checker.read(3, bytes, 11, 12, "r"));
  EXPECT_FALSE(h.checker.read(7, {}, 11, 12, "r"));
}

// Histories of a real register, with operations that take effect at a random moment inside, are
// always accepted; with one read bent to an older value they are refused when the bend is certain.
TEST(RegisterChecker, AcceptsEveryHistoryOfARealRegister) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Random random(seed);
    struct Op {
      uint64_t begin, effect, end;
      bool is_write, acknowledged;
      uint64_t number = 0;
    };
    std::vector<Op> ops;
    for (int client = 0; client < 3; ++client) {
      uint64_t at = random.below(50);
      for (int i = 0; i < 12; ++i) {
        Op op{};
        op.begin = at + 1;
        op.effect = op.begin + random.below(30) * 8 + static_cast<uint64_t>(client) + 1;
        op.end = op.effect + 1 + random.below(30);
        op.is_write = random.chance(0.5);
        op.acknowledged = !op.is_write || random.chance(0.8);
        at = op.acknowledged ? op.end : op.begin + random.below(20);
        ops.push_back(op);
      }
    }
    History h;
    std::sort(ops.begin(), ops.end(), [](const Op& a, const Op& b) { return a.begin < b.begin; });
    for (Op& op : ops) {
      if (op.is_write) op.number = h.write(op.begin, op.acknowledged ? op.end : 0);
    }
    std::stable_sort(ops.begin(), ops.end(),
                     [](const Op& a, const Op& b) { return a.effect < b.effect; });
    uint64_t value = 0;
    for (const Op& op : ops) {
      if (op.is_write) {
        value = op.number;
      } else {
        ASSERT_FALSE(h.read(value, op.begin, op.end)) << seed;
      }
    }
    EXPECT_FALSE(h.checker.check()) << seed << " " << *h.checker.check();
  }
}

}  // namespace
}  // namespace curve::sim
