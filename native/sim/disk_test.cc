// What the virtual disk promises: content like a real file, durability as io.h says, tearing at 512
// bytes, and nothing else.
#include "native/sim/disk.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

namespace curve::sim {
namespace {

struct alignas(4096) Buffer {
  std::byte bytes[16384];
};

// One node without a process; tests act on its loop directly.
struct Machine {
  explicit Machine(uint64_t seed) : world(seed), node(world.add_node("node")) { start(); }
  void start() {
    world.start(node, [](io::Loop&) { return std::make_unique<Process>(); });
    io::FileOptions options;
    options.create = true;
    auto opened = io::File::open(*node.loop, "/f", options);
    ASSERT_TRUE(opened.ok());
    file = std::move(*opened);
    ASSERT_EQ(file.allocate_zeroed_sync(1 << 20), 0);
  }
  void crash(CrashKind kind) {
    world.crash(node, kind);
    // The Loop is gone: the handle must not be used; forget it as a dead process would.
    new (&file) io::File();
  }
  void reopen() {
    world.restart(node);
    auto opened = io::File::open(*node.loop, "/f", {});
    ASSERT_TRUE(opened.ok());
    file = std::move(*opened);
  }
  ~Machine() { file = io::File(); }
  int32_t wait(io::FileOp& op) {
    bool done = false;
    op.owner = &done;
    op.done = [](io::Op* o) { *static_cast<bool*>(o->owner) = true; };
    submit(op);
    EXPECT_TRUE(world.run_until([&] { return done; }, kSecond));
    return op.result;
  }
  void write(uint64_t offset, uint8_t value, size_t bytes, bool durable) {
    std::memset(buffer.bytes, value, bytes);
    iovec iov{buffer.bytes, bytes};
    io::FileOp op;
    op.offset_bytes = offset;
    op.iov = {&iov, 1};
    op.durable = durable;
    submit = [&](io::FileOp& o) { file.write(&o); };
    EXPECT_EQ(wait(op), static_cast<int32_t>(bytes));
  }
  void sync() {
    io::FileOp op;
    submit = [&](io::FileOp& o) { file.sync(&o); };
    EXPECT_EQ(wait(op), 0);
  }
  // The value of each 512-byte part.
  std::vector<int> parts(uint64_t offset, size_t bytes) {
    EXPECT_EQ(file.read_sync(offset, {buffer.bytes, bytes}), 0);
    std::vector<int> out;
    for (size_t at = 0; at < bytes; at += kPartBytes) {
      for (size_t i = 1; i < kPartBytes; ++i)
        EXPECT_EQ(buffer.bytes[at], buffer.bytes[at + i]) << "torn inside 512 bytes";
      out.push_back(static_cast<int>(buffer.bytes[at]));
    }
    return out;
  }
  World world;
  Node& node;
  io::File file;
  Buffer buffer;
  std::function<void(io::FileOp&)> submit;
};

TEST(Disk, DurableWritesSurviveEveryPowerCut) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Machine m(seed);
    m.write(0, 1, 8192, true);
    m.write(4096, 2, 4096, false);  // unstable below
    m.write(4096, 3, 4096, true);
    m.crash(CrashKind::kPower);
    m.reopen();
    EXPECT_EQ(m.parts(0, 4096), std::vector<int>(8, 1));
    EXPECT_EQ(m.parts(4096, 4096), std::vector<int>(8, 3)) << "an older unstable write came back";
  }
}

TEST(Disk, UnsyncedWritesAreKeptLostOrTorn) {
  std::set<std::vector<int>> seen;
  int kept = 0, lost = 0;
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    Machine m(seed);
    m.write(0, 1, 4096, true);
    m.write(0, 2, 4096, false);
    EXPECT_EQ(m.parts(0, 4096), std::vector<int>(8, 2));
    m.crash(CrashKind::kPower);
    m.reopen();
    const auto parts = m.parts(0, 4096);
    for (int part : parts) EXPECT_TRUE(part == 1 || part == 2);
    kept += parts == std::vector<int>(8, 2);
    lost += parts == std::vector<int>(8, 1);
    seen.insert(parts);
  }
  EXPECT_GT(kept, 10);
  EXPECT_GT(lost, 10);
  EXPECT_GT(seen.size(), 10u) << "no torn ones";
}

TEST(Disk, SyncCoversWhatCompletedBeforeItBegan) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Machine m(seed);
    m.write(0, 1, 16384, false);
    m.sync();
    m.write(8192, 2, 4096, false);
    m.crash(CrashKind::kPower);
    m.reopen();
    EXPECT_EQ(m.parts(0, 8192), std::vector<int>(16, 1));
    EXPECT_EQ(m.parts(12288, 4096), std::vector<int>(8, 1));
    for (int part : m.parts(8192, 4096)) EXPECT_TRUE(part == 1 || part == 2);
  }
}

TEST(Disk, SyncThatBeganEarlierDoesNotCoverALaterWrite) {
  int lost = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Machine m(seed);
    io::FileOp sync;
    sync.done = [](io::Op*) {};
    m.file.sync(&sync);  // begins now
    m.write(0, 2, 4096, false);
    m.world.run_for(kSecond);
    m.crash(CrashKind::kPower);
    m.reopen();
    lost += m.parts(0, 4096) == std::vector<int>(8, 0);
  }
  EXPECT_GT(lost, 5);
}

TEST(Disk, KillKeepsWhatCompletedAndTearsWhatIsInFlight) {
  std::set<std::vector<int>> seen;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Machine m(seed);
    m.write(0, 1, 4096, false);
    io::FileOp op;
    std::memset(m.buffer.bytes, 2, 4096);
    iovec iov{m.buffer.bytes, 4096};
    op.offset_bytes = 4096;
    op.iov = {&iov, 1};
    op.durable = true;
    op.done = [](io::Op*) { FAIL() << "completed after the crash"; };
    m.file.write(&op);
    m.crash(CrashKind::kKill);
    m.world.run_for(kSecond);
    m.reopen();
    EXPECT_EQ(m.parts(0, 4096), std::vector<int>(8, 1));
    seen.insert(m.parts(4096, 4096));
  }
  EXPECT_GT(seen.size(), 5u);
  EXPECT_TRUE(seen.count(std::vector<int>(8, 0)));
  EXPECT_TRUE(seen.count(std::vector<int>(8, 2)));
}

TEST(Disk, LockIsExclusiveAndReleasedByClose) {
  Machine m(1);
  auto second = io::File::open(*m.node.loop, "/f", {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Code::kLocked);
  m.file = io::File();
  EXPECT_TRUE(io::File::open(*m.node.loop, "/f", {}).ok());
}

TEST(Disk, ReadBeyondTheEndIsAnError) {
  Machine m(1);
  EXPECT_EQ(m.file.read_sync(1 << 20, {m.buffer.bytes, 4096}), -EIO);
}

TEST(Disk, DiscardedRangeReadsAsZerosOrAsBefore) {
  std::set<int> seen;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Machine m(seed);
    m.write(0, 9, 8192, true);
    io::FileOp op;
    m.submit = [&](io::FileOp& o) { m.file.discard(&o, 0, 8192); };
    EXPECT_EQ(m.wait(op), 0);
    const auto parts = m.parts(0, 8192);
    for (int part : parts) EXPECT_EQ(part, parts[0]);
    seen.insert(parts[0]);
  }
  EXPECT_EQ(seen, (std::set<int>{0, 9}));
}

TEST(Disk, FlippedBitIsOneBit) {
  Machine m(1);
  m.write(4096, 5, 4096, true);
  std::string where;
  ASSERT_TRUE(m.node.disk->flip_bit("/f", 0, 1 << 20, &where));
  EXPECT_EQ(m.file.read_sync(4096, {m.buffer.bytes, 4096}), 0);
  int bits = 0;
  for (size_t i = 0; i < 4096; ++i) {
    bits += __builtin_popcount(static_cast<unsigned>(m.buffer.bytes[i] ^ std::byte{5}));
  }
  EXPECT_EQ(bits, 1);
}

TEST(Disk, WhatTheLogDoesNotCoverYetDoesNotRot) {
  Machine m(1);
  m.node.disk->set_lossy("/f", 0);
  m.node.disk->set_log("/log", 4096, 0);
  io::FileOptions options;
  options.create = true;
  auto opened = io::File::open(*m.node.loop, "/log", options);
  ASSERT_TRUE(opened.ok());
  io::File log = std::move(*opened);
  ASSERT_EQ(log.allocate_zeroed_sync(1 << 20), 0);
  const auto append = [&] {
    std::swap(log, m.file);
    m.write(0, 1, 4096, true);
    std::swap(log, m.file);
  };
  const auto rots = [&] { return m.node.disk->flip_bit("/f", 4096, 8192, nullptr); };
  m.write(4096, 5, 4096, true);
  append();
  EXPECT_FALSE(rots());
  append();
  EXPECT_TRUE(rots());
  m.write(4096, 5, 4096, false);  // not told to anybody: nothing has to cover it
  m.submit = [&](io::FileOp& o) { m.file.sync(&o); };
  io::FileOp sync;
  EXPECT_EQ(m.wait(sync), 0);
  EXPECT_TRUE(rots());
}

}  // namespace
}  // namespace curve::sim
