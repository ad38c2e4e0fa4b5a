// Tracing of a volume's writes (trace.h), over three chunkservers and a client.
#include "native/copyset/spine_test.h"

namespace curve::copyset {
namespace {

constexpr VolumeId kVolume = 7, kOther = 8;
constexpr uint64_t kLongNs = 60'000'000'000;

struct TraceTest : Spine {
  struct Answers {
    size_t count = 0;
    uint64_t writes = 0, whole = 0;
    std::vector<base::Histogram> stages = std::vector<base::Histogram>(kTraceStages);
    std::vector<Code> codes;
  };

  void SetUp() override {
    Spine::SetUp();
    form();
    fence(kVolume, 1);
    open_client(kVolume, 1);
  }

  void trace(int i, VolumeId volume, uint64_t duration_ns) {
    servers[i]->trace({volume, duration_ns}, [this](TraceReport report) {
      ++answers.count;
      answers.writes += report.writes;
      answers.whole += report.whole;
      answers.codes.push_back(report.code);
      for (size_t s = 0; s < report.stages.size(); ++s) answers.stages[s].merge(report.stages[s]);
    });
  }
  void trace_all(VolumeId volume, uint64_t duration_ns) {
    for (int i = 0; i < count; ++i) trace(i, volume, duration_ns);
  }
  const base::Histogram& stage(TraceStage which) const {
    return answers.stages[static_cast<size_t>(which)];
  }

  Answers answers;
};

TEST_F(TraceTest, EveryWriteIsThereWithItsStages) {
  trace_all(kVolume, kLongNs);
  uint64_t writes = 0;
  for (uint32_t i = 0; i < 40; ++i) {
    auto data = pattern(i % 4 == 3 ? 512 : 8192, i);  // also what must be merged (R14)
    ASSERT_EQ(io(client::IoType::kWrite, i * 1048576ull, data), Code::kOk);
    ++writes;
  }
  std::vector<std::byte> read(8192);
  ASSERT_EQ(io(client::IoType::kRead, 0, read), Code::kOk);
  stop_servers();
  ASSERT_EQ(answers.count, 3u);
  EXPECT_EQ(answers.writes, writes);
  EXPECT_EQ(answers.whole, writes);
  for (TraceStage each : {TraceStage::kClient, TraceStage::kNetwork, TraceStage::kQueue,
                          TraceStage::kCommit, TraceStage::kAnswer, TraceStage::kTotal})
    EXPECT_EQ(stage(each).count(), writes) << static_cast<int>(each);
  // A majority of three is two of its own log and the two followers'.
  EXPECT_GE(stage(TraceStage::kLog).count() + stage(TraceStage::kFollower).count(), writes);
  const uint64_t parts = stage(TraceStage::kClient).sum_ns() + stage(TraceStage::kQueue).sum_ns() +
                         stage(TraceStage::kNetwork).sum_ns() +
                         stage(TraceStage::kCommit).sum_ns() + stage(TraceStage::kAnswer).sum_ns();
  const uint64_t total = stage(TraceStage::kTotal).sum_ns();
  EXPECT_LE(parts, total + total / 20);
  EXPECT_GE(parts, total - total / 20);
}

TEST_F(TraceTest, AnotherVolumeIsNotTraced) {
  trace_all(kOther, 500'000'000);
  auto data = pattern(8192, 1);
  ASSERT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);
  run_until([] {}, [&] { return answers.count == 3; });
  EXPECT_EQ(answers.writes, 0u);
}

TEST_F(TraceTest, OneAtATimeAndItEndsWithItsServer) {
  trace_all(kVolume, kLongNs);
  trace(0, kOther, 1);
  EXPECT_EQ(answers.codes, std::vector<Code>{Code::kBusy});
  stop_server(0);
  EXPECT_EQ(answers.count, 2u);
  auto data = pattern(8192, 1);
  EXPECT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);
}

// What is under way when a trace, its server or its client ends is nobody's any more.
TEST_F(TraceTest, ItMayEndWhileWritesAreUnderWay) {
  for (uint64_t duration_ns : {0ull, 1'000'000ull, 5'000'000ull, 20'000'000ull}) {
    answers = {};
    trace_all(kVolume, duration_ns);
    flood(8);
    run_until([] {}, [&] { return answers.count == 3; });
  }
  answers = {};
  trace_all(kVolume, kLongNs);
  flood(8);
  stop_server(2);
  flood(8);
  close_client();
  stop_servers();
  EXPECT_EQ(answers.count, 3u);
  EXPECT_GT(answers.whole, 0u);
}

}  // namespace
}  // namespace curve::copyset
