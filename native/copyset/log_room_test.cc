// Room in the log: who writes faster than the background step lets it go, and what it cannot let go
// (R7).
#include <algorithm>
#include <memory>
#include <vector>

#include "native/copyset/simulated_spine_test.h"

namespace curve::copyset {
namespace {

struct LogRoom : SimulatedSpine {
  struct Writer : client::IoRequest {
    LogRoom* test = nullptr;
    bool stopped = false;
  };
  LogRoom() {
    count = replicas = 1;
    wal_bytes = 256u << 20;
    data_bytes[0] = 512u << 20;
    options.background_blocks_max = 1;  // writers are much faster
    options.checkpoint_idle_ns = options.checkpoint_interval_ns = 3600'000'000'000;
  }

  void start() {
    form();
    fence(5, 1);
    open_client(5, 1);
  }

  // 4 KiB here and there in kBlocks blocks, 64 at a time, until `end`.
  void write_until(const std::function<bool()>& end) {
    stop = false;
    for (int i = 0; i < 64; ++i) {
      auto& writer = *writers.emplace_back(std::make_unique<Writer>());
      writer.test = this;
      writer.type = client::IoType::kWrite;
      writer.iov = {&part, 1};
      writer.bytes = part.iov_len;
      writer.done = [](client::IoRequest* request) {
        auto* each = static_cast<Writer*>(request);
        EXPECT_EQ(each->code, Code::kOk);
        each->test->written();
        each->test->stop ? void(each->stopped = true) : each->test->next(*each);
      };
    }
    run_until(
        [&] {
          for (auto& writer : writers) next(*writer);
        },
        end);
    run_until([&] { stop = true; },
              [&] {
                return std::all_of(writers.begin(), writers.end(),
                                   [](const auto& writer) { return writer->stopped; });
              });
    writers.clear();
  }
  void next(Writer& writer) {
    writer.offset_bytes = random.below(kBlocks) * kBlockBytes;
    client->submit(&writer);
  }
  void written() {
    ++writes;
    const uint64_t placed = counters(0).background_blocks;
    longest = std::max(longest, placed - placed_before);
    placed_before = placed;
  }

  static constexpr uint64_t kBlocks = 6000;
  std::vector<std::byte> data = pattern(4096, 1);
  iovec part{data.data(), data.size()};
  std::vector<std::unique_ptr<Writer>> writers;
  sim::Random random{1};
  bool stop = false;
  uint64_t writes = 0, placed_before = 0;
  uint64_t longest = 0;  // blocks that were placed between a write's end and the next one's
};

TEST_F(LogRoom, WritersAreSlowedAsTheLogFillsAndNotStoppedWhenItIsFull) {
  start();
  write_until([&] { return counters(0).checkpoints >= 4; });
  EXPECT_GT(counters(0).waited, 0u);  // they are faster
  EXPECT_GT(counters(0).background_blocks, 3 * kBlocks / 2);
  EXPECT_LT(longest, kBlocks / 32);
  EXPECT_EQ(counters(0).bounced, 0u);
}

TEST_F(LogRoom, WhatARestartFindsInTheLogIsPartOfWhatCame) {
  start();
  const uint64_t capacity = servers[0]->status(false).wal_capacity_bytes;
  auto used = [&] { return servers[0]->status(false).wal_used_bytes; };
  write_until([&] { return used() > capacity / 4; });
  EXPECT_EQ(counters(0).checkpoints, 0u);
  restart(5, 1);
  EXPECT_EQ(counters(0).checkpoints, 0u);
  const auto begun = [&] { return counters(0).background_blocks > 0; };
  write_until([&] { return begun() || used() > capacity / 2; });
  EXPECT_TRUE(begun());
}

// R7: an entry that nobody has committed is in the way, cannot be read, and is in no memory.
struct Reclaim : SimulatedSpine {
  // The first store alone, but for one copyset.
  int members_of(uint32_t copyset) const override { return copyset == 0 ? 3 : 1; }

  void write(uint64_t offset, std::vector<std::byte>& bytes, std::function<bool()> end) {
    written = false;
    part = {bytes.data(), bytes.size()};
    request.type = client::IoType::kWrite;
    request.offset_bytes = offset;
    request.bytes = bytes.size();
    request.iov = {&part, 1};
    request.owner = &written;
    request.done = [](client::IoRequest* each) { *static_cast<bool*>(each->owner) = true; };
    run_until([&] { client->submit(&request); }, std::move(end));
  }
  uint64_t offset_in(bool first) {  // of a chunk there: of a part of a block, for the log has it
    uint32_t chunk = 0;
    while ((base::copyset_index(5, chunk, kCopysets) == 0) != first) ++chunk;
    return chunk * (16ull << 20) + kSectorBytes;
  }
  client::IoRequest request;  // of a store that may never answer
  iovec part{};
  bool written = false;
};

TEST_F(Reclaim, AnEntryThatCannotBeReadStaysAndTheStoreGoesOn) {
  form();
  run_until([] {}, [&] { return leader_of(base::copyset_id(kPool, 0)) == 0; });
  fence(5, 1);
  open_client(5, 1);
  const uint64_t stuck = offset_in(true), other = offset_in(false);
  auto lost = pattern(kSectorBytes, 1), data = pattern(48u << 10, 2);
  const uint64_t before = servers[0]->status(false).wal_used_bytes;
  for (int i : {1, 2}) stop_server(i);
  write(stuck, lost, [&] { return servers[0]->status(false).wal_used_bytes > before; });
  EXPECT_FALSE(written);
  for (int i = 0; i < 100; ++i)  // what is behind it settles it
    ASSERT_EQ(io(client::IoType::kWrite, other, data), Code::kOk);
  close_client();
  stop_server(0);
  open_server(0);
  servers[0]->start();
  EXPECT_EQ(damage_all(0, "wal", lost), 1);
  count = replicas = 1;  // of the stores that the client knows
  open_client(5, 1);
  const auto failed = [&] { return !servers[0]->status(false).failure.empty(); };
  for (const uint64_t passes = counters(0).checkpoints; counters(0).checkpoints < passes + 3;) {
    write(other, data, [&] { return written || failed(); });
    ASSERT_FALSE(failed());
  }
}

}  // namespace
}  // namespace curve::copyset
