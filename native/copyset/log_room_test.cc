// Who writes faster than the background step lets the log go, on simulated disks: how fast they are
// is not left to the machine.
#include <algorithm>
#include <memory>
#include <vector>

#include "native/copyset/spine_test.h"
#include "native/sim/world.h"

namespace curve::copyset {
namespace {

struct LogRoom : Spine {
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

  Result<std::unique_ptr<io::Loop>> make_loop() override {
    sim::WorldOptions even;  // nothing but the log keeps anybody waiting
    even.disk.slow_op_chance = even.network.slow_segment_chance = even.slow_turn_chance = 0;
    world = std::make_unique<sim::World>(1, even);
    sim::Node& node = world->add_node("store");
    node.state = sim::NodeState::kUp;
    return world->make_loop(node);
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

  std::unique_ptr<sim::World> world;
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

}  // namespace
}  // namespace curve::copyset
