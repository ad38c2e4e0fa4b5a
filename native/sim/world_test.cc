// The world itself: same seed, same trace; turns in the order of io.h; clocks that drift; crashes
// and pauses of nodes.
#include "native/sim/world.h"

#include <gtest/gtest.h>

#include <cstring>

#include "native/sim/disk.h"
#include "native/sim/network.h"

namespace curve::sim {
namespace {

// A process that keeps itself busy with timers, its disk and a peer.
class Chatter : public Process, public io::Listener {
 public:
  Chatter(io::Loop& loop, const std::string& self, const std::string& peer)
      : loop_(loop), peer_(peer) {
    io::FileOptions options;
    options.create = true;
    auto file = io::File::open(loop, "/store", options);
    EXPECT_TRUE(file.ok());
    file_ = std::move(*file);
    EXPECT_EQ(file_.allocate_zeroed_sync(1 << 20), 0);
    EXPECT_TRUE(loop.listen({self}, this).ok());
    timer_.owner = write_.owner = connect_.owner = receive_.owner = send_.owner = this;
    timer_.fire = [](io::Timer* t) { static_cast<Chatter*>(t->owner)->tick(); };
    write_.done = [](io::Op* op) { static_cast<Chatter*>(op->owner)->writing_ = false; };
    connect_.done = [](io::Op* op) { static_cast<Chatter*>(op->owner)->connected(); };
    send_.done = [](io::Op* op) { static_cast<Chatter*>(op->owner)->sending_ = false; };
    receive_.done = [](io::Op* op) { static_cast<Chatter*>(op->owner)->received(); };
    loop.arm(&timer_, loop.now_ns() + kMillisecond);
  }
  void accepted(io::Stream* stream) override {
    if (in_) in_->close();
    in_ = stream;
    if (receiving_) return;  // received() goes on with the new one
    receiving_ = true;
    in_->receive(&receive_, buffer_, false);
  }
  uint64_t bytes = 0;

 private:
  void tick() {
    loop_.arm(&timer_, loop_.now_ns() + 1 + loop_.random_u64() % (5 * kMillisecond));
    if (!writing_) {
      writing_ = true;
      write_.offset_bytes = loop_.random_u64() % 256 * kPageBytes;
      write_.iov = {&iov_, 1};
      loop_.backend();
      file_.write(&write_);
    }
    if (!out_ && !connecting_) {
      connecting_ = true;
      loop_.connect(&connect_, {peer_});
    } else if (out_ && !sending_) {
      sending_ = true;
      send_iov_ = iov_;
      out_->send(&send_, {&send_iov_, 1});
    }
    if (send_.result < 0 && out_ && !sending_) {
      send_.result = 0;
      out_->close();
      out_ = nullptr;
    }
  }
  void connected() {
    connecting_ = false;
    if (connect_.result == 0) out_ = connect_.stream;
  }
  void received() {
    receiving_ = false;
    if (receive_.result > 0) bytes += static_cast<uint64_t>(receive_.result);
    if (receive_.result == 0 || (receive_.result < 0 && receive_.result != -ECANCELED)) {
      in_->close();
      in_ = nullptr;
    }
    if (!in_) return;
    receiving_ = true;
    in_->receive(&receive_, buffer_, false);
  }

  io::Loop& loop_;
  std::string peer_;
  io::File file_;
  io::Timer timer_;
  io::FileOp write_;
  io::ConnectOp connect_;
  io::Op send_, receive_;
  io::Stream *in_ = nullptr, *out_ = nullptr;
  bool writing_ = false, connecting_ = false, sending_ = false, receiving_ = false;
  alignas(4096) std::byte page_[4096] = {};
  std::byte buffer_[1500];
  iovec iov_{page_, sizeof page_}, send_iov_{};
};

uint64_t chatter_hash(uint64_t seed, uint64_t* events = nullptr) {
  World world(seed);
  for (int i = 0; i < 3; ++i) world.add_node("node" + std::to_string(i));
  for (uint32_t i = 0; i < 3; ++i) {
    world.start(world.node(i), [i](io::Loop& loop) {
      return std::make_unique<Chatter>(loop, "node" + std::to_string(i) + ":1",
                                       "node" + std::to_string((i + 1) % 3) + ":1");
    });
  }
  Random random(seed);
  for (int round = 0; round < 40; ++round) {
    world.run_for(random.below(100 * kMillisecond));
    Node& node = world.node(static_cast<uint32_t>(random.below(3)));
    switch (random.below(6)) {
      case 0:
        if (node.state == NodeState::kUp) world.crash(node, CrashKind::kKill);
        break;
      case 1:
        if (node.state == NodeState::kUp) world.crash(node, CrashKind::kPower);
        break;
      case 2:
        if (node.state == NodeState::kDown) world.restart(node);
        break;
      case 3:
        world.network().cut(node.id, (node.id + 1) % 3);
        break;
      case 4:
        world.network().heal_all();
        break;
      case 5:
        world.network().reset_connections(node.id, (node.id + 1) % 3);
        break;
    }
  }
  if (events) *events = world.events();
  return world.trace_hash();
}

TEST(World, SameSeedSameTrace) {
  uint64_t events = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    EXPECT_EQ(chatter_hash(seed, &events), chatter_hash(seed)) << seed;
    EXPECT_GT(events, 500u);
  }
  EXPECT_NE(chatter_hash(1), chatter_hash(2));
}

TEST(World, TurnRunsCompletionsMailTimersHooksInOrder) {
  World world(7);
  Node& node = world.add_node("node");
  node.state = NodeState::kUp;
  auto loop = world.make_loop(node);
  io::FileOptions options;
  options.create = true;
  auto file = io::File::open(*loop, "/f", options);
  ASSERT_TRUE(file.ok());
  static std::string order;
  order.clear();
  io::FileOp sync;
  io::Mail mail;
  io::Timer timer;
  io::TurnHook first, second;
  sync.done = [](io::Op*) { order += 'c'; };
  mail.run = [](io::Mail*) { order += 'm'; };
  timer.fire = [](io::Timer*) { order += 't'; };
  first.run = [](io::TurnHook*) { order += '1'; };
  second.run = [](io::TurnHook*) { order += '2'; };
  loop->add_turn_hook(&first);
  loop->add_turn_hook(&second);
  world.pause(node);  // all of them are due when the node goes on
  file->sync(&sync);
  loop->arm(&timer, loop->now_ns() + 10);
  loop->post(&mail);
  world.run_for(kSecond);
  EXPECT_EQ(order, "");
  world.resume(node);
  world.run_for(kSecond);
  EXPECT_EQ(order.substr(0, 5), "cmt12");
  loop->remove_turn_hook(&first);
  loop->remove_turn_hook(&second);
}

TEST(World, TimersFireInOrderOfTheirDeadlines) {
  World world(3);
  Node& node = world.add_node("node");
  node.state = NodeState::kUp;
  auto loop = world.make_loop(node);
  struct Numbered : io::Timer {
    int number = 0;
  };
  std::vector<Numbered> timers(200);
  static std::vector<std::pair<uint64_t, uint64_t>> fired;  // deadline, time
  fired.clear();
  static io::Loop* the_loop;
  the_loop = loop.get();
  Random random(5);
  for (Numbered& timer : timers) {
    timer.fire = [](io::Timer* t) { fired.emplace_back(t->deadline_ns, the_loop->now_ns()); };
    loop->arm(&timer, loop->now_ns() + random.below(kSecond));
  }
  for (size_t i = 0; i < 50; ++i) loop->arm(&timers[i], loop->now_ns() + random.below(kSecond));
  for (size_t i = 50; i < 100; ++i) loop->disarm(&timers[i]);
  world.run_for(2 * kSecond);
  ASSERT_EQ(fired.size(), 150u);
  for (size_t i = 0; i < fired.size(); ++i) {
    EXPECT_GE(fired[i].second, fired[i].first);
    if (i) {
      EXPECT_GE(fired[i].first, fired[i - 1].first);
    }
  }
}

TEST(World, ClocksDriftWithinTheBoundAndConvertBothWays) {
  WorldOptions options;
  options.drift_ppm_max = 10'000;
  World world(11, options);
  for (int i = 0; i < 8; ++i) {
    Node& node = world.add_node("node" + std::to_string(i));
    const uint64_t from = world.now_ns(), to = from + 1000 * kSecond;
    const double rate = static_cast<double>(node.local(to) - node.local(from)) / 1e12;
    EXPECT_GE(rate, 0.99);
    EXPECT_LE(rate, 1.01);
    for (uint64_t local = node.local(from); local < node.local(from) + 1000; local += 7) {
      const uint64_t at = node.to_world(local);
      EXPECT_GE(node.local(at), local);
      if (at > from) {
        EXPECT_LT(node.local(at - 1), local);
      }
    }
  }
}

TEST(World, CrashInRecoveryIsCaughtAtEveryStep) {
  World world(5);
  Node& node = world.add_node("node");
  static int reached;
  auto boot = [](io::Loop& loop) -> std::unique_ptr<Process> {
    reached = 0;
    io::FileOptions options;
    options.create = true;
    auto file = io::File::open(loop, "/f", options);
    EXPECT_TRUE(file.ok());
    EXPECT_EQ(file->allocate_zeroed_sync(65536), 0);
    reached = 1;
    alignas(4096) static std::byte page[4096];
    std::memset(page, 1, sizeof page);
    EXPECT_EQ(file->write_sync(0, page), 0);
    reached = 2;
    EXPECT_EQ(file->sync_sync(), 0);
    reached = 3;
    return std::make_unique<Process>();
  };
  for (uint64_t step = 1; step <= 3; ++step) {
    node.disk->crash_in_sync_call(step);
    world.start(node, boot);
    EXPECT_EQ(node.state, NodeState::kDown);
    EXPECT_EQ(reached, static_cast<int>(step) - 1);
  }
  world.start(node, boot);  // and the lock was released each time
  EXPECT_EQ(node.state, NodeState::kUp);
  EXPECT_EQ(node.sync_crashes, 3u);
}

}  // namespace
}  // namespace curve::sim
