// The volume client against three fake stores that refuse, fall silent, reset and lie. The real
// ones are in the spine test (native/copyset) and in the simulation.
#include "native/client/volume_client.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>

#include "native/client/fake_store.h"
#include "native/wire/test_loop.h"

namespace curve::client {
namespace {

using Bytes = std::vector<std::byte>;
using Answer = FakeStore::Answer;
constexpr uint64_t kMillisecond = 1'000'000;
constexpr uint64_t kVolumeBytes = 64u << 20;

struct Io : IoRequest {
  Bytes memory;
  iovec part{};
  bool finished = false;
  Io() {
    done = [](IoRequest* request) {
      auto* io = static_cast<Io*>(request);
      EXPECT_FALSE(io->finished);
      io->finished = true;
    };
  }
  void set(IoType t, uint64_t offset, uint64_t count) {
    type = t;
    offset_bytes = offset;
    bytes = count;
    if (t == IoType::kRead || t == IoType::kWrite) {
      memory.resize(count);
      part = {memory.data(), memory.size()};
      iov = std::span(&part, 1);
    }
  }
};

class VolumeClientTest : public testing::Test {
 protected:
  base::BufferPool pool;
  wire::TestLoop loop;
  Bytes secret = Bytes(32, std::byte{7});
  Truth truth;
  std::vector<std::unique_ptr<FakeStore>> stores;
  std::unique_ptr<VolumeClient> client;
  std::deque<Io> ios;
  ClientOptions options;
  base::Layout layout;

  void SetUp() override {
    for (int i = 0; i < 3; ++i)
      stores.push_back(std::make_unique<FakeStore>(*loop, pool, truth, i, secret));
  }
  void TearDown() override {
    if (client) {
      bool closed = false;
      client->close([&] { closed = true; });
      EXPECT_TRUE(loop.run_until([&] { return closed; }));
      for (auto& io : ios) EXPECT_TRUE(io.finished);
      client.reset();
    }
    for (auto& store : stores) store->stop();
    EXPECT_TRUE(loop.run_until([&] {
      return std::all_of(stores.begin(), stores.end(),
                         [](auto& s) { return s->connections().empty(); });
    }));
    loop.run_for(kMillisecond);
    EXPECT_EQ(pool.used_bytes(), 0u);
  }
  VolumeMap map(uint64_t version = 1, uint64_t size_bytes = kVolumeBytes) {
    VolumeMap m;
    m.version = version;
    m.volume = 5;
    m.placement_id = 5;
    m.size_bytes = size_bytes;
    m.epoch = 3;
    m.pool = 1;
    m.layout = layout;
    for (int i = 0; i < 3; ++i) m.stores.push_back({FakeStore::id_of(i), stores[i]->address()});
    for (uint8_t c = 0; c < 4; ++c) m.copysets.push_back({{0, 1, 2}, static_cast<uint8_t>(c % 3)});
    return m;
  }
  void open() { client = VolumeClient::open(*loop, pool, map(), secret, options); }
  void lead_everything(int store, Term term) {
    for (uint32_t c = 0; c < 4; ++c) truth.leads[base::copyset_id(1, c)] = {store, term};
  }
  Io& start(IoType type, uint64_t offset, uint64_t bytes, int fill = -1) {
    Io& io = ios.emplace_back();
    io.set(type, offset, bytes);
    if (fill >= 0) std::fill(io.memory.begin(), io.memory.end(), static_cast<std::byte>(fill));
    client->submit(&io);
    EXPECT_FALSE(io.finished);  // never from inside submit()
    return io;
  }
  Code wait(Io& io) {
    EXPECT_TRUE(loop.run_until([&] { return io.finished; }));
    return io.code;
  }
  Code run(IoType type, uint64_t offset, uint64_t bytes, int fill = -1) {
    return wait(start(type, offset, bytes, fill));
  }
  bool holds(uint64_t offset, uint64_t bytes, int value) {
    Io& io = start(IoType::kRead, offset, bytes);
    EXPECT_EQ(wait(io), Code::kOk);
    return std::all_of(io.memory.begin(), io.memory.end(),
                       [&](std::byte b) { return b == static_cast<std::byte>(value); });
  }
};

TEST_F(VolumeClientTest, RandomRequestsAgreeWithAnArray) {
  layout = {65536, 3};
  open();
  std::mt19937 random(11);
  Bytes model(kVolumeBytes / 8);
  for (int round = 0; round < 400; ++round) {
    const uint64_t offset = random() % (model.size() / 512) * 512;
    uint64_t bytes = (1 + random() % (round % 10 == 0 ? 8000 : 40)) * 512;
    bytes = std::min<uint64_t>(bytes, model.size() - offset);
    const auto from = model.begin() + static_cast<ptrdiff_t>(offset);
    const int fill = static_cast<int>(random() % 256);
    switch (random() % 5) {
      case 0:
      case 1:
        ASSERT_EQ(run(IoType::kWrite, offset, bytes, fill), Code::kOk);
        std::fill_n(from, bytes, static_cast<std::byte>(fill));
        break;
      case 2: {
        Io& io = ios.emplace_back();
        io.set(IoType::kWriteZeroes, offset, bytes);
        io.no_unmap = random() % 2;
        client->submit(&io);
        ASSERT_EQ(wait(io), Code::kOk);
        std::fill_n(from, bytes, std::byte{0});
        break;
      }
      default: {
        Io& io = start(IoType::kRead, offset, bytes);
        ASSERT_EQ(wait(io), Code::kOk);
        ASSERT_TRUE(std::equal(io.memory.begin(), io.memory.end(), from)) << round;
      }
    }
  }
  EXPECT_EQ(run(IoType::kFlush, 0, 0), Code::kOk);
  EXPECT_EQ(client->stats().checksum_failures, 0u);
  EXPECT_EQ(client->stats().inflight, 0u);
}

TEST_F(VolumeClientTest, ScatteredMemoryIsReadAndWritten) {
  open();
  Bytes a(512, std::byte{1}), b(1024, std::byte{2}), c(4096, std::byte{3});
  iovec parts[] = {{a.data(), a.size()}, {nullptr, 0}, {b.data(), b.size()}, {c.data(), c.size()}};
  Io io;
  io.set(IoType::kWrite, 1536, 5632);
  io.iov = parts;
  client->submit(&io);
  EXPECT_EQ(wait(io), Code::kOk);
  EXPECT_TRUE(holds(1536, 512, 1));
  EXPECT_TRUE(holds(2048, 1024, 2));
  EXPECT_TRUE(holds(3072, 4096, 3));
  EXPECT_TRUE(holds(7168, 512, 0));
}

TEST_F(VolumeClientTest, PooledBuffersAreWrittenWithoutACopy) {
  open();
  const uint64_t offset = kChunkBytes - (1 << 20) - 1536, bytes = (2 << 20) + 5120;
  std::vector<base::Buffer> buffers;
  for (uint64_t at = 0; at < bytes; at += kIoBytesMax) {
    buffers.push_back(pool.take(std::min<uint64_t>(kIoBytesMax, bytes - at)));
    std::fill(buffers.back().span().begin(), buffers.back().span().end(),
              static_cast<std::byte>(buffers.size()));
  }
  Io io;
  io.type = IoType::kWrite;
  io.offset_bytes = offset;
  io.bytes = bytes;
  io.buffers = buffers;
  client->submit(&io);
  EXPECT_EQ(wait(io), Code::kOk);
  EXPECT_TRUE(holds(offset, 1 << 20, 1));
  EXPECT_TRUE(holds(offset + (1 << 20), 1 << 20, 2));
  EXPECT_TRUE(holds(offset + (2 << 20), 5120, 3));
}

// Every byte has its place: from caller's memory and from pooled buffers, with a boundary of chunks
// inside a buffer and inside a sector's neighbourhood.
TEST_F(VolumeClientTest, BufferedWritesAcrossAChunkBoundary) {
  open();
  std::mt19937 random(3);
  for (const uint64_t before :
       {512u, 4096u, 65536u + 1536u, (1u << 20) - 512u, (1u << 20) + 512u}) {
    const uint64_t bytes = before + 70'656, offset = kChunkBytes - before;
    Bytes data(bytes);
    for (std::byte& b : data) b = static_cast<std::byte>(random());
    for (const bool pooled : {true, false}) {
      std::vector<base::Buffer> buffers;
      std::vector<iovec> parts;
      for (uint64_t at = 0; at < bytes; at += kIoBytesMax) {
        const uint64_t n = std::min<uint64_t>(kIoBytesMax, bytes - at);
        buffers.push_back(pool.take(n));
        std::memcpy(buffers.back().data(), data.data() + at, n);
        parts.push_back({data.data() + at, n});
      }
      Io io;
      io.type = IoType::kWrite;
      io.offset_bytes = offset;
      io.bytes = bytes;
      pooled ? void(io.buffers = buffers) : void(io.iov = parts);
      client->submit(&io);
      ASSERT_EQ(wait(io), Code::kOk);
      Io& read = start(IoType::kRead, offset, bytes);
      ASSERT_EQ(wait(read), Code::kOk);
      EXPECT_TRUE(read.memory == data) << before << (pooled ? " pooled" : "");
      ASSERT_EQ(run(IoType::kWrite, offset, bytes, 0), Code::kOk);
    }
  }
}

TEST_F(VolumeClientTest, DiscardLeavesTheEdges) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 65536, 9), Code::kOk);
  ASSERT_EQ(run(IoType::kDiscard, 512, 16384), Code::kOk);
  EXPECT_TRUE(holds(0, 4096, 9));
  EXPECT_TRUE(holds(4096, 12288, 0));
  EXPECT_TRUE(holds(16384, 4096, 9));
  ASSERT_EQ(run(IoType::kDiscard, 512, 1024), Code::kOk);  // nothing whole in it
  uint8_t bits[2] = {0xff, 0xff};
  Io io;
  io.set(IoType::kBlockStatus, 0, 65536);
  io.status_bits = bits;
  client->submit(&io);
  EXPECT_EQ(wait(io), Code::kOk);
  EXPECT_EQ(bits[0], 0xf1);
  EXPECT_EQ(bits[1], 0xff);
}

TEST_F(VolumeClientTest, BlockStatusCrossesChunks) {
  open();
  ASSERT_EQ(run(IoType::kWrite, kChunkBytes - 4096, 8192, 1), Code::kOk);
  std::vector<uint8_t> bits(2 * kChunkBytes / kSectorBytes / 8, 0xff);
  Io io;
  io.set(IoType::kBlockStatus, 0, 2 * kChunkBytes);
  io.status_bits = bits.data();
  client->submit(&io);
  EXPECT_EQ(wait(io), Code::kOk);
  for (size_t i = 0; i < bits.size(); ++i) {
    const size_t middle = bits.size() / 2;
    EXPECT_EQ(bits[i], i == middle - 1 ? 0x80 : i == middle ? 0x01 : 0) << i;
  }
}

TEST_F(VolumeClientTest, FindsTheLeaderByHint) {
  lead_everything(2, 9);
  open();
  EXPECT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  EXPECT_TRUE(holds(0, 4096, 1));
}

TEST_F(VolumeClientTest, FindsTheLeaderWithoutHints) {
  lead_everything(2, 9);
  for (int i : {0, 1})
    stores[i]->decide = [](auto&) {
      return FakeStore::Decision{Answer::kNormal, Code::kNotLeader, {}, 9};
    };
  open();
  EXPECT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  EXPECT_TRUE(holds(0, 4096, 1));
}

TEST_F(VolumeClientTest, WaitsWhileNobodyLeads) {
  bool election = true;
  for (auto& s : stores) {
    s->decide = [&](auto&) {
      return election ? FakeStore::Decision{Answer::kNormal, Code::kNotLeader, {}, 4}
                      : FakeStore::Decision{};
    };
  }
  open();
  Io& io = start(IoType::kWrite, 0, 4096, 1);
  loop.run_for(3000 * kMillisecond);
  EXPECT_FALSE(io.finished);
  size_t probes = 0;
  for (auto& s : stores) probes += s->seen.size();
  EXPECT_LT(probes, 400u);  // it backs off
  lead_everything(1, 5);
  election = false;
  EXPECT_EQ(wait(io), Code::kOk);
}

TEST_F(VolumeClientTest, LearnsANewTermFromTheLeader) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  lead_everything(0, 7);
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 2), Code::kOk);
  EXPECT_TRUE(holds(0, 4096, 2));
}

TEST_F(VolumeClientTest, ALostConnectionIsDialledAgainAndTheWriteRepeated) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  int resets = 3;
  stores[0]->decide = [&](const FakeStore::Request& r) {
    if (r.type == wire::FrameType::kWrite && resets > 0) {
      --resets;
      return FakeStore::Decision{Answer::kReset};
    }
    return FakeStore::Decision{};
  };
  EXPECT_EQ(run(IoType::kWrite, 0, 4096, 2), Code::kOk);
  EXPECT_EQ(resets, 0);
  EXPECT_TRUE(holds(0, 4096, 2));
  EXPECT_GE(client->stats().reconnects, 3u);
}

TEST_F(VolumeClientTest, AKilledLeaderIsFollowedToTheNext) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  stores[0]->stop();
  Io& io = start(IoType::kWrite, 0, 4096, 2);
  loop.run_for(300 * kMillisecond);
  EXPECT_FALSE(io.finished);
  lead_everything(1, 2);
  EXPECT_EQ(wait(io), Code::kOk);
  EXPECT_TRUE(holds(0, 4096, 2));
  stores[0]->start();
  lead_everything(0, 3);
  EXPECT_EQ(run(IoType::kWrite, 0, 4096, 3), Code::kOk);
  EXPECT_TRUE(holds(0, 4096, 3));
}

// R13: the old leader falls silent with a write in hand, another leads, the write is repeated there
// and acknowledged, a newer write is acknowledged; then the old leader wakes.
TEST_F(VolumeClientTest, ASilentLeaderIsLeftAndItsLateAnswerDoesNotCount) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  std::vector<FakeStore::Request> held;
  bool stopped = true;
  stores[0]->decide = [&](const FakeStore::Request& r) {
    if (stopped) held.push_back(r);
    return FakeStore::Decision{stopped ? Answer::kSilent : Answer::kNormal};
  };
  Io& io = start(IoType::kWrite, 0, 4096, 2);
  Io& read = start(IoType::kRead, 0, 4096);
  loop.run_for(200 * kMillisecond);
  EXPECT_FALSE(io.finished);
  lead_everything(2, 2);
  EXPECT_EQ(wait(io), Code::kOk);
  EXPECT_EQ(wait(read), Code::kOk);
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 3), Code::kOk);
  const uint64_t changes = truth.changes;
  ASSERT_FALSE(held.empty());
  stopped = false;
  for (const auto& r : held)
    stores[0]->answer(r, Code::kOk);  // even a wrong answer to an old copy changes nothing
  loop.run_for(20 * kMillisecond);
  EXPECT_EQ(truth.changes, changes);
  EXPECT_TRUE(holds(0, 4096, 3));
}

// R13: while the silent leader still leads, the write is not sent a second time.
TEST_F(VolumeClientTest, ASlowLeaderIsWaitedFor) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  std::vector<FakeStore::Request> held;
  stores[0]->decide = [&](const FakeStore::Request& r) {
    if (r.type != wire::FrameType::kWrite) return FakeStore::Decision{};
    held.push_back(r);
    return FakeStore::Decision{Answer::kSilent};
  };
  Io& io = start(IoType::kWrite, 0, 4096, 2);
  loop.run_for(1500 * kMillisecond);
  EXPECT_FALSE(io.finished);
  ASSERT_EQ(held.size(), 1u);
  stores[0]->answer(held[0], Code::kOk);
  EXPECT_EQ(wait(io), Code::kOk);
}

TEST_F(VolumeClientTest, AConnectionThatIsDeadWithoutAResetIsReplaced) {
  options.dead_connection_ns = 1000 * kMillisecond;
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  const uint64_t before = stores[0]->highest_counter;
  stores[0]->decide = [&](const FakeStore::Request& r) {
    return FakeStore::Decision{r.connection->peer_counter() == before ? Answer::kSilent
                                                                      : Answer::kNormal};
  };
  EXPECT_EQ(run(IoType::kWrite, 0, 4096, 2), Code::kOk);
  EXPECT_GT(stores[0]->highest_counter, before);
}

TEST_F(VolumeClientTest, DamagedDataIsReadAgain) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 65536, 1), Code::kOk);
  int bad = 2;
  for (auto& s : stores) {
    s->decide = [&](const FakeStore::Request& r) {
      return FakeStore::Decision{r.type == wire::FrameType::kRead && bad-- > 0 ? Answer::kBadData
                                                                               : Answer::kNormal};
    };
  }
  EXPECT_TRUE(holds(0, 65536, 1));
  EXPECT_EQ(client->stats().checksum_failures, 2u);
}

TEST_F(VolumeClientTest, RefusalsAreRepeatedOrPassedUp) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  for (Code code :
       {Code::kBusy, Code::kNoVolume, Code::kIo, Code::kCorrupt, Code::kDropped, Code::kNoCopyset,
        Code::kShuttingDown, Code::kNotLeader, static_cast<Code>(999)}) {
    int refusals = 6;
    for (auto& s : stores) {
      s->decide = [&](const FakeStore::Request& r) {
        if (r.type != wire::FrameType::kWrite || refusals-- <= 0) return FakeStore::Decision{};
        return FakeStore::Decision{Answer::kNormal, code, {}, 0};
      };
    }
    EXPECT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk) << code_name(code);
    EXPECT_LE(refusals, 0);
  }
  for (Code code : {Code::kNoSpace, Code::kReadOnly, Code::kInvalid}) {
    for (auto& s : stores) {
      s->decide = [&](const FakeStore::Request& r) {
        if (r.type != wire::FrameType::kWrite) return FakeStore::Decision{};
        return FakeStore::Decision{Answer::kNormal, code, {}, 0};
      };
    }
    EXPECT_EQ(run(IoType::kWrite, 0, 4096, 1), code);
    EXPECT_EQ(run(IoType::kRead, 0, 4096), Code::kOk);
  }
}

TEST_F(VolumeClientTest, AWriteThatArrivesDamagedIsRepeatedAFewTimesOnly) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  int left = 0, seen = 0;
  for (auto& s : stores) {
    s->decide = [&](const FakeStore::Request& r) {
      if (r.type != wire::FrameType::kWrite) return FakeStore::Decision{};
      ++seen;
      return FakeStore::Decision{Answer::kNormal, left-- > 0 ? Code::kBadChecksum : Code::kOk};
    };
  }
  left = 2;  // on its way, twice
  EXPECT_EQ(run(IoType::kWrite, 512, 8192, 2), Code::kOk);
  EXPECT_TRUE(holds(512, 8192, 2));
  left = 1000;  // on every way
  seen = 0;
  EXPECT_EQ(run(IoType::kWrite, 512, 100 * 1024, 3), Code::kBadChecksum);
  EXPECT_EQ(seen, 3);
  EXPECT_TRUE(holds(512, 8192, 2));
  left = 0;
  EXPECT_EQ(run(IoType::kWrite, 0, 4096, 4), Code::kOk);  // and the client goes on
}

TEST_F(VolumeClientTest, DataThatChangedInMemoryIsNotSentAgain) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  std::vector<base::Buffer> buffers{pool.take(200 * 1024)};
  std::memset(buffers[0].data(), 5, buffers[0].size());
  int seen = 0;
  for (auto& s : stores) {
    s->decide = [&](const FakeStore::Request& r) {
      if (r.type != wire::FrameType::kWrite) return FakeStore::Decision{};
      ++seen;
      buffers[0].data()[150'000] ^= std::byte{1};
      return FakeStore::Decision{Answer::kNormal, Code::kBadChecksum};
    };
  }
  Io io;
  io.type = IoType::kWrite;
  io.offset_bytes = 1536;
  io.bytes = buffers[0].size();
  io.buffers = buffers;
  client->submit(&io);
  EXPECT_EQ(wait(io), Code::kBadChecksum);
  EXPECT_EQ(seen, 1);
}

TEST_F(VolumeClientTest, FencedIsForEver) {  // R12
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  for (auto& s : stores) {
    s->decide = [](const FakeStore::Request& r) {
      return FakeStore::Decision{
          Answer::kNormal, r.type == wire::FrameType::kProbe ? Code::kOk : Code::kFenced, {}, 0};
    };
  }
  std::vector<Io*> pending;
  for (int i = 0; i < 20; ++i)
    pending.push_back(&start(i % 2 ? IoType::kWrite : IoType::kRead, i * 8192, 4096, 1));
  for (Io* io : pending) EXPECT_EQ(wait(*io), Code::kFenced);
  EXPECT_TRUE(client->fenced());
  for (auto& s : stores) s->decide = nullptr;
  EXPECT_EQ(run(IoType::kRead, 0, 4096), Code::kFenced);
  EXPECT_EQ(run(IoType::kFlush, 0, 0), Code::kFenced);
}

TEST_F(VolumeClientTest, BadRequestsAreInvalid) {
  open();
  EXPECT_EQ(run(IoType::kRead, 100, 512), Code::kInvalid);
  EXPECT_EQ(run(IoType::kWrite, 0, 100), Code::kInvalid);
  EXPECT_EQ(run(IoType::kWrite, kVolumeBytes, 512), Code::kInvalid);
  EXPECT_EQ(run(IoType::kRead, UINT64_MAX - 511, 1024), Code::kInvalid);
  EXPECT_EQ(run(IoType::kBlockStatus, 512, 4096), Code::kInvalid);
  EXPECT_EQ(run(IoType::kRead, kVolumeBytes, 0), Code::kOk);
}

TEST_F(VolumeClientTest, GrowsInUse) {
  open();
  const uint64_t larger = kVolumeBytes + (32u << 20);
  EXPECT_EQ(run(IoType::kWrite, larger - 4096, 4096, 1), Code::kInvalid);
  client->update_map(map(2, larger));
  EXPECT_EQ(client->size_bytes(), larger);
  EXPECT_EQ(run(IoType::kWrite, larger - 4096, 4096, 1), Code::kOk);
  client->update_map(map(1, kVolumeBytes));  // an old one changes nothing
  EXPECT_EQ(client->size_bytes(), larger);
}

TEST_F(VolumeClientTest, AStoreMovesToAnotherAddress) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  auto moved = std::make_unique<FakeStore>(*loop, pool, truth, 0, secret);
  moved->highest_counter = stores[0]->highest_counter;
  stores[0]->stop();
  std::swap(stores[0], moved);
  client->update_map(map(2));
  EXPECT_EQ(run(IoType::kWrite, 0, 4096, 2), Code::kOk);
  EXPECT_TRUE(holds(0, 4096, 2));
  EXPECT_TRUE(loop.run_until([&] { return moved->connections().empty(); }));
}

TEST_F(VolumeClientTest, ManyRequestsWaitForRoom) {
  options.inflight_pieces_max = 8;
  options.inflight_bytes_max = 1 << 20;
  open();
  std::vector<Io*> pending;
  for (int i = 0; i < 300; ++i)
    pending.push_back(&start(IoType::kWrite, i * 131072, i % 7 ? 4096 : 3 << 20, i));
  for (Io* io : pending) EXPECT_EQ(wait(*io), Code::kOk);
}

TEST_F(VolumeClientTest, CloseEndsWhatIsInFlight) {
  for (auto& s : stores) s->decide = [](auto&) { return FakeStore::Decision{Answer::kSilent}; };
  open();
  std::vector<Io*> pending;
  for (int i = 0; i < 10; ++i) pending.push_back(&start(IoType::kWrite, i * 65536, 4096, 1));
  loop.run_for(50 * kMillisecond);
  bool closed = false;
  client->close([&] { closed = true; });
  ASSERT_TRUE(loop.run_until([&] { return closed; }));
  for (Io* io : pending) {
    EXPECT_TRUE(io->finished);
    EXPECT_EQ(io->code, Code::kShuttingDown);
  }
  client.reset();
}

TEST_F(VolumeClientTest, NonsenseInRepliesDoesNoHarm) {
  open();
  ASSERT_EQ(run(IoType::kWrite, 0, 4096, 1), Code::kOk);
  std::mt19937_64 random(5);
  auto* connection = stores[0]->connections().at(0);
  for (int i = 0; i < 300; ++i) {
    wire::ReplyBody reply;
    reply.code = static_cast<uint16_t>(i % 3 ? 0 : random() % 30);
    reply.term = random() % 2;
    const uint64_t tag = i % 2 ? random() : (1ull << 63 | random() % 100);
    connection->send(wire::FrameType::kReply, tag, wire::body_bytes(reply));
  }
  loop.run_for(20 * kMillisecond);
  connection = stores[0]->connections().at(0);
  connection->send(wire::FrameType::kReply, 1, {});  // too short: the connection goes
  EXPECT_EQ(run(IoType::kWrite, 0, 4096, 2), Code::kOk);
  int bad = 3;  // reads answered with the wrong length
  stores[0]->decide = [&](const FakeStore::Request& r) {
    if (r.type != wire::FrameType::kRead || bad-- <= 0) return FakeStore::Decision{};
    stores[0]->answer(r, Code::kOk);
    return FakeStore::Decision{Answer::kSilent};
  };
  EXPECT_TRUE(holds(0, 4096, 2));
}

}  // namespace
}  // namespace curve::client
