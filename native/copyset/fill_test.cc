// What must not happen while a replica is filled (R10).
#include <vector>

#include "native/copyset/simulated_spine_test.h"

namespace curve::copyset {
namespace {

struct Fill : SimulatedSpine {
  // Volume 5 has `data`, few enough for one pass, in one copyset; one of its followers was away
  // for longer than the logs reach back.
  void leave_one_behind() {
    form();
    fence(5, 1);
    open_client(5, 1);
    copyset = base::copyset_id(kPool, base::copyset_index(5, 0, kCopysets));
    run_until([] {}, [&] { return leader_of(copyset) >= 0 && in_step(); });
    behind = (leader_of(copyset) + 1) % 3;
    stop_server(behind);
    ASSERT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);
    auto more = pattern(4u << 20, 2);
    for (uint32_t chunk = 1, left = 24; left > 0; chunk = chunk % 8 + 1) {
      if (base::copyset_id(kPool, base::copyset_index(5, chunk, kCopysets)) == copyset) continue;
      ASSERT_EQ(io(client::IoType::kWrite, chunk * (16ull << 20), more), Code::kOk);
      --left;
    }
    for (int i = 0; i < 3; ++i)
      if (i != behind) checkpoint(i);
    leader = leader_of(copyset);
  }
  void come_back() {
    open_server(behind);
    introduce(behind);
  }
  // 4 KiB into each block of the chunk.
  void change_all() {
    auto sector = pattern(kSectorBytes, 3);
    for (uint64_t at = 0; at < data.size(); at += kBlockBytes)
      ASSERT_EQ(io(client::IoType::kWrite, at, sector), Code::kOk);
  }
  CopysetStatus status_of(int i) {
    for (const CopysetStatus& status : servers[i]->status(true).copysets)
      if (status.copyset == copyset) return status;
    return {};
  }

  CopysetId copyset = 0;
  int leader = -1, behind = -1;
  std::vector<std::byte> data = pattern(12 * kBlockBytes, 1);
};

// What its leader read for an earlier life of the store comes when the next one has asked for the
// same blocks, which have changed meanwhile.
TEST_F(Fill, AnAnswerToAnEarlierLifeIsNone) {
  options.sync_bytes_inflight_max = 4 * kBlockBytes;
  leave_one_behind();
  slow_disk(leader, 400 * kMillisecond, 10'000);  // 0.4 to 2.5 s a block
  come_back();
  wait(400 * kMillisecond);
  EXPECT_EQ(status_of(behind).sync_bytes_done, 0u);
  EXPECT_GT(status_of(behind).sync_bytes_total, 0u);
  stop_server(behind);
  change_all();
  slow_disk(leader, 400 * kMillisecond, 50'000);  // 2 to 12 s
  come_back();
  run_until([] {}, [&] { return in_step(); });
  EXPECT_GT(counters(behind).syncs_finished, 0u);
  EXPECT_TRUE(contents(behind) == contents(leader));
}

// A comparison stands in the log between S and what its leader wrote before it read the rest for
// the replica that is filled: that one's blocks are newer than the comparison's index.
TEST_F(Fill, WhatIsOfSeveralIndexesIsNotCompared) {
  leave_one_behind();
  come_back();
  servers[behind]->set_limits({4u << 20, 0});
  run_until([] {}, [&] { return status_of(behind).sync_bytes_done > 0; });
  CheckRequest request;
  request.copyset = copyset;
  request.volume = request.placement_id = 5;
  request.chunks = 1;
  request.copysets = kCopysets;
  CheckReport report;
  bool checked = false;
  servers[leader]->check_volume(request, [&](CheckReport result) {
    report = result;
    checked = true;
  });
  change_all();
  EXPECT_TRUE(status_of(behind).syncing);
  run_until([] {}, [&] { return checked; });
  EXPECT_EQ(report.code, Code::kOk);
  EXPECT_EQ(report.chunks, 1u);
  EXPECT_EQ(report.replicas, 3u);
  EXPECT_TRUE(report.differences.empty());
}

}  // namespace
}  // namespace curve::copyset
