// Streams behave as io.h says: ordered bytes, one completion per operation, ends and resets, cuts
// that hold bytes.
#include "native/sim/network.h"

#include <gtest/gtest.h>

#include <cstring>

namespace curve::sim {
namespace {

struct Accept : io::Listener {
  void accepted(io::Stream* stream) override { streams.push_back(stream); }
  std::vector<io::Stream*> streams;
};

struct Wait : io::Op {
  Wait() {
    done = [](io::Op* op) { static_cast<Wait*>(op)->finished = true; };
  }
  bool finished = false;
};
struct WaitConnect : io::ConnectOp {
  WaitConnect() {
    done = [](io::Op* op) { static_cast<WaitConnect*>(op)->finished = true; };
  }
  bool finished = false;
};

struct Pair {
  explicit Pair(uint64_t seed) : world(seed), a(world.add_node("a")), b(world.add_node("b")) {
    for (Node* node : {&a, &b})
      world.start(*node, [](io::Loop&) { return std::make_unique<Process>(); });
    EXPECT_TRUE(b.loop->listen({"b:1"}, &listener).ok());
  }
  void join() {
    WaitConnect op;
    a.loop->connect(&op, {"b:1"});
    ASSERT_TRUE(world.run_until([&] { return op.finished && !listener.streams.empty(); }, kSecond));
    ASSERT_EQ(op.result, 0);
    out = op.stream;
    in = listener.streams[0];
  }
  bool finish(const bool& flag, uint64_t limit = 10 * kSecond) {
    return world.run_until([&] { return flag; }, limit);
  }
  World world;
  Node &a, &b;
  Accept listener;
  io::Stream *out = nullptr, *in = nullptr;
};

std::vector<std::byte> pattern(size_t bytes) {
  std::vector<std::byte> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(mix64(i / 8) >> (i % 8 * 8));
  return data;
}

TEST(Network, BytesArriveInOrderWhateverThePieces) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Pair p(seed);
    p.join();
    const auto data = pattern(3'000'000);
    auto copy = data;
    Wait send, receive;
    iovec iov[3] = {{copy.data(), 1}, {copy.data() + 1, 0}, {copy.data() + 1, copy.size() - 1}};
    p.out->send(&send, iov);
    std::vector<std::byte> got;
    std::vector<std::byte> buffer(100'000);
    bool partial = false;
    while (got.size() < data.size()) {
      receive.finished = false;
      p.in->receive(&receive, buffer, false);
      EXPECT_FALSE(receive.finished) << "done was called from inside the call";
      ASSERT_TRUE(p.finish(receive.finished));
      ASSERT_GT(receive.result, 0);
      partial |= static_cast<size_t>(receive.result) < buffer.size();
      got.insert(got.end(), buffer.begin(), buffer.begin() + receive.result);
    }
    ASSERT_TRUE(p.finish(send.finished));
    EXPECT_EQ(send.result, static_cast<int32_t>(data.size()));
    EXPECT_EQ(got, data);
    EXPECT_TRUE(partial);
  }
}

TEST(Network, ReceiveAllWaitsForAll) {
  Pair p(3);
  p.join();
  auto data = pattern(500'000);
  std::vector<std::byte> buffer(data.size());
  Wait send, receive;
  p.in->receive(&receive, buffer, true);
  iovec first{data.data(), 100'000}, second{data.data() + 100'000, 400'000};
  p.out->send(&send, {&first, 1});
  ASSERT_TRUE(p.finish(send.finished));
  p.world.run_for(kSecond);
  EXPECT_FALSE(receive.finished);
  send.finished = false;
  p.out->send(&send, {&second, 1});
  ASSERT_TRUE(p.finish(receive.finished));
  EXPECT_EQ(receive.result, 500'000);
  EXPECT_EQ(buffer, data);
}

TEST(Network, SendWaitsWhileThePeerDoesNotRead) {
  Pair p(4);
  p.join();
  auto data = pattern(16u << 20);
  Wait send;
  iovec iov{data.data(), data.size()};
  p.out->send(&send, {&iov, 1});
  p.world.run_for(5 * kSecond);
  EXPECT_FALSE(send.finished);
  p.out->close();
  ASSERT_TRUE(p.finish(send.finished));
  EXPECT_LT(send.result, 0);
}

TEST(Network, CloseIsSeenAfterTheData) {
  Pair p(5);
  p.join();
  auto data = pattern(1000);
  Wait send, receive;
  iovec iov{data.data(), data.size()};
  p.out->send(&send, {&iov, 1});
  ASSERT_TRUE(p.finish(send.finished));
  p.out->close();
  std::vector<std::byte> buffer(data.size());
  p.in->receive(&receive, buffer, true);
  ASSERT_TRUE(p.finish(receive.finished));
  EXPECT_EQ(receive.result, 1000);
  receive.finished = false;
  p.in->receive(&receive, buffer, false);
  ASSERT_TRUE(p.finish(receive.finished));
  EXPECT_EQ(receive.result, 0);
  p.in->close();
  p.world.run_for(5 * kSecond);
  EXPECT_EQ(p.world.network().connections(), 0u);
}

TEST(Network, CutHoldsBytesInOneDirectionOnly) {
  Pair p(6);
  p.join();
  p.world.network().cut(p.a.id, p.b.id);
  auto data = pattern(1000);
  Wait send, receive, back, back_receive;
  iovec iov{data.data(), data.size()};
  std::vector<std::byte> buffer(1000), back_buffer(1000);
  p.out->send(&send, {&iov, 1});
  p.in->receive(&receive, buffer, true);
  iovec back_iov{data.data(), data.size()};
  p.in->send(&back, {&back_iov, 1});
  p.out->receive(&back_receive, back_buffer, true);
  p.world.run_for(3 * kSecond);
  EXPECT_TRUE(back_receive.finished);
  EXPECT_FALSE(receive.finished);
  WaitConnect late;
  p.a.loop->connect(&late, {"b:1"});
  p.world.run_for(10 * kSecond);
  EXPECT_TRUE(late.finished);
  EXPECT_EQ(late.result, -ETIMEDOUT);
  p.world.network().heal_all();
  ASSERT_TRUE(p.finish(receive.finished));
  EXPECT_EQ(receive.result, 1000);
}

TEST(Network, ConnectToNobodyIsRefused) {
  Pair p(7);
  WaitConnect op;
  p.a.loop->connect(&op, {"b:2"});
  ASSERT_TRUE(p.finish(op.finished));
  EXPECT_EQ(op.result, -ECONNREFUSED);
}

TEST(Network, CancelledConnectEndsOnce) {
  Pair p(8);
  WaitConnect op;
  p.a.loop->connect(&op, {"b:1"});
  p.a.loop->cancel_connect(&op);
  p.world.run_for(kSecond);
  EXPECT_TRUE(op.finished);
  EXPECT_EQ(op.result, -ECANCELED);
  EXPECT_TRUE(p.listener.streams.empty());
}

TEST(Network, PeerOfAKilledProcessSeesTheEnd) {
  int resets = 0, ends = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Pair p(seed);
    p.join();
    Wait receive;
    std::vector<std::byte> buffer(10);
    p.out->receive(&receive, buffer, false);
    p.world.crash(p.b, CrashKind::kKill);
    ASSERT_TRUE(p.finish(receive.finished));
    resets += receive.result == -ECONNRESET;
    ends += receive.result == 0;
  }
  EXPECT_GT(resets, 0);
  EXPECT_GT(ends, 0);
  EXPECT_EQ(resets + ends, 30);
}

TEST(Network, PowerCutMayLeaveAHalfOpenConnectionUntilTheHostIsBack) {
  int silent = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Pair p(seed);
    p.join();
    Wait receive, send;
    std::vector<std::byte> buffer(10);
    auto data = pattern(10);
    iovec iov{data.data(), data.size()};
    p.out->receive(&receive, buffer, false);
    p.world.crash(p.b, CrashKind::kPower);
    p.out->send(&send, {&iov, 1});
    p.world.run_for(5 * kSecond);
    if (receive.finished) continue;
    ++silent;
    p.world.restart(p.b);
    ASSERT_TRUE(p.finish(receive.finished));
    EXPECT_EQ(receive.result, -ECONNRESET);
  }
  EXPECT_GT(silent, 5);
}

TEST(Network, ResetBreaksBothEnds) {
  Pair p(9);
  p.join();
  Wait one, two;
  std::vector<std::byte> buffer(10), other(10);
  p.out->receive(&one, buffer, false);
  p.in->receive(&two, other, false);
  p.world.network().reset_connections(p.a.id, p.b.id);
  ASSERT_TRUE(p.world.run_until([&] { return one.finished && two.finished; }, kSecond));
  EXPECT_EQ(one.result, -ECONNRESET);
  EXPECT_EQ(two.result, -ECONNRESET);
  Wait send;
  auto data = pattern(10);
  iovec iov{data.data(), data.size()};
  p.out->send(&send, {&iov, 1});
  ASSERT_TRUE(p.finish(send.finished));
  EXPECT_LT(send.result, 0);
}

TEST(Network, PortZeroIsChosen) {
  Pair p(10);
  Accept other;
  auto address = p.b.loop->listen({"b:0"}, &other);
  ASSERT_TRUE(address.ok());
  EXPECT_NE(address->text, "b:0");
  EXPECT_FALSE(p.b.loop->listen({"b:1"}, &other).ok());
  WaitConnect op;
  p.a.loop->connect(&op, *address);
  ASSERT_TRUE(p.finish(op.finished));
  EXPECT_EQ(op.result, 0);
}

}  // namespace
}  // namespace curve::sim
