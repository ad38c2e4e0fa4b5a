// For tests: the spine on simulated machines, a store and its disk on each. How fast they are, and
// what they do wrong, is the test's to say and not the machine's. Like all of native/sim it is the
// same run each time.
#pragma once

#include <memory>

#include "native/copyset/spine_test.h"
#include "native/sim/disk.h"
#include "native/sim/world.h"

namespace curve::copyset {

using sim::kMillisecond;
using sim::kSecond;

struct SimulatedSpine : Spine {
  Result<std::unique_ptr<io::Loop>> make_loop() override {
    sim::WorldOptions even;
    even.disk.slow_op_chance = even.network.slow_segment_chance = even.slow_turn_chance = 0;
    world = std::make_unique<sim::World>(1, even);
    for (int i = 0; i < kServersMax; ++i) {
      loops[i] = add_loop();
      ticks[i].owner = loops[i].get();
      // A test calls servers from the client's loop: their own one has to turn for what that began.
      ticks[i].fire = [](io::Timer* tick) {
        auto* loop = static_cast<io::Loop*>(tick->owner);
        loop->arm(tick, loop->now_ns() + kMillisecond);
      };
      loops[i]->arm(&ticks[i], loops[i]->now_ns());
    }
    return add_loop();
  }
  std::unique_ptr<io::Loop> add_loop() {
    sim::Node& node = world->add_node("node" + std::to_string(world->node_count()));
    node.state = sim::NodeState::kUp;
    return world->make_loop(node);
  }
  io::Loop& loop_of(int i) override { return *loops[i]; }
  sim::Disk& disk_of(int i) { return *world->node(static_cast<uint32_t>(i)).disk; }
  void TearDown() override {
    Spine::TearDown();
    for (auto& each : loops) each.reset();
  }

  void wait(uint64_t ns) {
    const uint64_t end = world->now_ns() + ns;
    run_until([] {}, [&] { return world->now_ns() >= end; });
  }
  void slow_disk(int i, uint64_t for_ns, uint64_t factor) {
    disk_of(i).slow_until(world->now_ns() + for_ns, factor);
  }
  // A bit of each copy of that sector in a file of a store; so many there were.
  int damage_all(int i, const std::string& file, std::span<const std::byte> sector) {
    sim::VirtualFile* found = disk_of(i).find(directory / std::to_string(i) / file);
    int copies = 0;
    for (uint64_t page = 0; page < found->page_count(); ++page) {
      std::byte* content = found->page(page);
      if (!content || std::memcmp(content, sector.data(), kSectorBytes) != 0) continue;
      content[77] ^= std::byte{4};
      ++copies;
    }
    return copies;
  }

  std::unique_ptr<sim::World> world;
  std::unique_ptr<io::Loop> loops[kServersMax];
  io::Timer ticks[kServersMax];
};

}  // namespace curve::copyset
