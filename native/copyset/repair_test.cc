// Damage that real stores find (R11): bits are flipped in their files while they run, and whoever
// reads gets what was written.
#include <fcntl.h>
#include <unistd.h>

#include "native/chunkstore/chunkstore.h"
#include "native/copyset/repair.h"
#include "native/copyset/spine_test.h"
#include "native/copyset/sync.h"
#include "native/wire/codec.h"
#include "native/wire/connection.h"

namespace curve::copyset {
namespace {

constexpr uint64_t kInLog = kSectorBytes;  // what is written there is not of whole blocks

struct RepairTest : Spine {
  // Where `content` (whole sectors) stands in a file of a store; -1: nowhere.
  int64_t find(int i, const std::string& file, std::span<const std::byte> content) {
    const std::vector<int64_t> found = places(i, file, content);
    return found.empty() ? -1 : found.front();
  }
  void damage(int i, const std::string& file, std::span<const std::byte> sector) {
    const int64_t at = find(i, file, sector);
    ASSERT_GE(at, 0);
    flip(i, file, at + 77);
  }
  CopysetId copyset_of(VolumeId volume, uint32_t chunk) {
    return base::copyset_id(kPool, base::copyset_index(volume, chunk, kCopysets));
  }
  std::span<const std::byte> sector(const std::vector<std::byte>& data, size_t number) {
    return std::span(data).subspan(number * kSectorBytes, kSectorBytes);
  }
  void expect_read(uint64_t offset, const std::vector<std::byte>& data) {
    std::vector<std::byte> got(data.size());
    ASSERT_EQ(io(client::IoType::kRead, offset, got), Code::kOk);
    EXPECT_TRUE(got == data);
  }
  int preferred() { return static_cast<int>(base::copyset_index(5, 0, kCopysets)) % 3; }
  // Whoever led first may not be the one that is to lead, and would give way in the midst of a
  // test.
  void start_volume() {
    form();
    run_until([] {}, [&] { return leader_of(copyset_of(5, 0)) == preferred(); });
    fence(5, 1);
    open_client(5, 1);
  }
};

TEST_F(RepairTest, ADamagedBlockIsAnsweredFromAPeerAndRepaired) {
  start_volume();
  const auto data = pattern(1u << 20, 1);
  ASSERT_EQ(io(client::IoType::kWrite, 0, {const_cast<std::byte*>(data.data()), data.size()}),
            Code::kOk);
  checkpoint_all();
  const int leader = leader_of(copyset_of(5, 0));
  ASSERT_GE(leader, 0);
  for (size_t number : {0, 17, 18, 255}) damage(leader, "data", sector(data, number));
  expect_read(0, data);
  run_until([] {}, [&] { return counters(leader).repaired_sectors == 4; });
  EXPECT_EQ(counters(leader).damaged_sectors, 4u);
  EXPECT_EQ(leader_of(copyset_of(5, 0)), leader) << "leadership stays";
  for (size_t number : {0, 17, 18, 255}) EXPECT_GE(find(leader, "data", sector(data, number)), 0);
  const uint64_t bad = counters(leader).corrupt_reads;
  expect_read(0, data);
  EXPECT_EQ(counters(leader).corrupt_reads, bad);
}

TEST_F(RepairTest, ADamagedPayloadInTheLogIsRepairedWhereItIsRead) {
  start_volume();
  const auto data = pattern(256u << 10, 2);
  ASSERT_EQ(io(client::IoType::kWrite, kInLog, {const_cast<std::byte*>(data.data()), data.size()}),
            Code::kOk);
  const int leader = leader_of(copyset_of(5, 0));
  for (size_t number : {3, 40}) damage(leader, "wal", sector(data, number));
  expect_read(kInLog, data);
  run_until([] {}, [&] { return counters(leader).repaired_sectors == 2; });
  EXPECT_GE(find(leader, "wal", sector(data, 40)), 0);
}

TEST_F(RepairTest, TheBackgroundStepMovesNoDamage) {
  start_volume();
  const auto data = pattern(256u << 10, 3);
  ASSERT_EQ(io(client::IoType::kWrite, kInLog, {const_cast<std::byte*>(data.data()), data.size()}),
            Code::kOk);
  run_until([] {}, [&] { return in_step(); });
  for (int i = 0; i < 3; ++i) damage(i, "wal", sector(data, static_cast<size_t>(5 + i)));
  checkpoint_all();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(counters(i).damaged_sectors, 1u);
    EXPECT_GE(find(i, "data", sector(data, static_cast<size_t>(5 + i))), 0);
  }
  expect_read(kInLog, data);
}

// R4: the same sector is gone from every log. It keeps its checksum; nobody makes up another.
TEST_F(RepairTest, WhatNobodyHoldsIsNotGuessed) {
  start_volume();
  const auto data = pattern(256u << 10, 3);
  ASSERT_EQ(io(client::IoType::kWrite, kInLog, {const_cast<std::byte*>(data.data()), data.size()}),
            Code::kOk);
  run_until([] {}, [&] { return in_step(); });
  const Contents written = contents(0);
  for (int i = 0; i < 3; ++i) damage(i, "wal", sector(data, 5));
  checkpoint_all();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(contents(i) == written) << i;
}

// Two of three copies are damaged, in different sectors and in the same one.
TEST_F(RepairTest, OneCopyIsEnough) {
  start_volume();
  const auto data = pattern(64u << 10, 4);
  ASSERT_EQ(io(client::IoType::kWrite, 0, {const_cast<std::byte*>(data.data()), data.size()}),
            Code::kOk);
  run_until([] {}, [&] { return in_step(); });
  checkpoint_all();
  const int leader = leader_of(copyset_of(5, 0));
  for (size_t number = 0; number < 8; ++number) damage(leader, "data", sector(data, number));
  for (size_t number = 4; number < 12; ++number)
    damage((leader + 1) % 3, "data", sector(data, number));
  expect_read(0, data);
  run_until([] {}, [&] { return counters(leader).repaired_sectors == 8; });
}

// A store that plays a replica and asks another one, byte by byte.
struct Asker {
  wire::Identity self;
  wire::Connection* connection = nullptr;
  bool open = false, closed = false;
  std::vector<std::byte> body;
  base::Buffer payload;
  bool answered = false;

  void dial(io::Loop& loop, base::BufferPool& pool, const io::Address& to, const StoreId& wanted) {
    wire::ConnectionHandler handler;
    handler.owner = this;
    handler.opened = [](void* owner, wire::Connection*) {
      return static_cast<Asker*>(owner)->open = true;
    };
    handler.frame = [](void* owner, wire::Connection*, wire::Frame& frame) {
      auto* self = static_cast<Asker*>(owner);
      if (frame.type != wire::FrameType::kRepairReply && frame.type != wire::FrameType::kSyncReply)
        return;
      self->body.assign(frame.body.begin(), frame.body.end());
      self->payload = std::move(frame.payload);
      self->answered = true;
    };
    handler.closed = [](void* owner, wire::Connection*, Code, int) {
      static_cast<Asker*>(owner)->closed = true;
    };
    connection = wire::Connection::dial(loop, pool, to, self, wanted, 0, handler);
  }
};

// R11 on the side that is asked: never below the index asked for, never from damage.
TEST_F(RepairTest, APeerAnswersWhatItHoldsForSureAndNothingElse) {
  start_volume();
  const auto data = pattern(64u << 10, 5);
  ASSERT_EQ(io(client::IoType::kWrite, 0, {const_cast<std::byte*>(data.data()), data.size()}),
            Code::kOk);
  run_until([] {}, [&] { return in_step(); });
  checkpoint_all();
  const CopysetId copyset = copyset_of(5, 0);
  Index applied = 0;
  for (const CopysetStatus& status : servers[1]->status(true).copysets)
    if (status.copyset == copyset) applied = status.applied;
  Asker asker;
  asker.self.role = wire::PeerRole::kStore;
  asker.self.id.bytes.fill(0xaa);
  asker.self.incarnation = 1;
  asker.self.secret = secret;
  run_until([&] { asker.dial(*loop, pool, addresses[1], servers[1]->store_id()); },
            [&] { return asker.open; });
  RepairReplyBody reply;
  auto ask = [&](Index index, uint16_t mask) {
    RepairRequestBody body;
    body.copyset = copyset;
    body.volume = 5;
    body.index = index;
    body.mask = mask;
    asker.answered = false;
    asker.payload = {};
    run_until(
        [&] { asker.connection->send(wire::FrameType::kRepairRequest, 1, wire::body_bytes(body)); },
        [&] { return asker.answered; });
    ASSERT_TRUE(wire::load_body(asker.body, reply));
  };
  ask(applied + 1, 0xffff);
  EXPECT_EQ(static_cast<Code>(reply.code), Code::kBusy);
  EXPECT_EQ(reply.mask, 0);
  EXPECT_EQ(asker.payload.size(), 0u);
  ask(applied, 0x8001);
  EXPECT_EQ(static_cast<Code>(reply.code), Code::kOk);
  EXPECT_EQ(reply.mask, 0x8001);
  EXPECT_GE(reply.index, applied);
  ASSERT_EQ(asker.payload.size(), kBlockBytes);
  EXPECT_EQ(std::memcmp(asker.payload.data(), data.data(), kSectorBytes), 0);
  EXPECT_EQ(std::memcmp(asker.payload.data() + 15 * kSectorBytes, data.data() + 15 * kSectorBytes,
                        kSectorBytes),
            0);
  damage(1, "data", sector(data, 2));
  ask(applied, 0x000f);
  EXPECT_EQ(reply.mask, 0x000b) << "what is damaged is left out";
  run_until([] {}, [&] { return counters(1).repaired_sectors == 1; });
  run_until([&] { asker.connection->close(); }, [&] { return asker.closed; });
}

// R10: whoever has applied less than the one that asks fills nobody.
TEST_F(RepairTest, NobodyIsFilledWithLessThanItHasApplied) {
  start_volume();
  auto data = pattern(64u << 10, 5);
  ASSERT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);
  run_until([] {}, [&] { return in_step(); });
  const CopysetId copyset = copyset_of(5, 0);
  const int leader = leader_of(copyset);
  ASSERT_GE(leader, 0);
  Index applied = 0;
  for (const CopysetStatus& status : servers[leader]->status(true).copysets)
    if (status.copyset == copyset) applied = status.applied;
  Asker asker;
  asker.self.role = wire::PeerRole::kStore;
  asker.self.id.bytes.fill(0xaa);
  asker.self.incarnation = 1;
  asker.self.secret = secret;
  run_until([&] { asker.dial(*loop, pool, addresses[leader], servers[leader]->store_id()); },
            [&] { return asker.open; });
  const auto ask = [&](Index commit) {
    SyncRequestBody body;
    body.kind = static_cast<uint8_t>(SyncKind::kBegin);
    body.copyset = copyset;
    body.commit = commit;
    asker.answered = false;
    run_until(
        [&] { asker.connection->send(wire::FrameType::kSyncRequest, 1, wire::body_bytes(body)); },
        [&] { return asker.answered; });
    SyncReplyBody reply;
    std::memcpy(&reply, asker.body.data(), sizeof reply);
    return static_cast<Code>(reply.code);
  };
  EXPECT_EQ(ask(applied + 1), Code::kBusy);
  EXPECT_EQ(ask(applied), Code::kOk);
  run_until([&] { asker.connection->close(); }, [&] { return asker.closed; });
}

// ---- scrub

struct ScrubTest : RepairTest {
  void write_volume() {
    start_volume();
    data = pattern(4u << 20, 6);
    ASSERT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);
    run_until([] {}, [&] { return in_step(); });
    checkpoint_all();
  }
  void scrub_all() {
    std::array<uint64_t, 3> before{};
    for (int i = 0; i < 3; ++i) before[i] = servers[i]->status(false).scrub.passes;
    run_until(
        [&] {
          for (int i = 0; i < 3; ++i) servers[i]->scrub(4ull << 30);
        },
        [&] {
          for (int i = 0; i < 3; ++i)
            if (servers[i]->status(false).scrub.passes == before[i]) return false;
          return true;
        });
  }
  // The chunk store of a stopped server.
  void change_store(int i, const std::function<void(chunkstore::ChunkStore&)>& change) {
    auto opened = chunkstore::ChunkStore::open(*loop, pool, directory / std::to_string(i) / "data");
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    change(**opened);
    std::vector<chunkstore::GroupBlob> blobs((*opened)->group_blobs().begin(),
                                             (*opened)->group_blobs().end());
    bool done = false;
    io::Op op;
    op.owner = &done;
    op.done = [](io::Op* each) { *static_cast<bool*>(each->owner) = true; };
    run_until([&] { (*opened)->checkpoint(&op, blobs); }, [&] { return done; });
    EXPECT_EQ(op.result, 0);
  }
  CheckReport check_volume() {
    CheckReport out;
    int answers = 0;
    CheckRequest request;
    request.volume = request.placement_id = 5;
    request.chunks = 2;
    request.copysets = kCopysets;
    run_until(
        [&] {
          for (uint32_t c = 0; c < kCopysets; ++c) {
            request.copyset = base::copyset_id(kPool, c);
            servers[leader_of(request.copyset)]->check_volume(request, [&](CheckReport report) {
              EXPECT_EQ(report.code, Code::kOk);
              out.chunks += report.chunks;
              for (const auto& each : report.differences) out.differences.push_back(each);
              ++answers;
            });
          }
        },
        [&] { return answers == kCopysets; });
    return out;
  }
  std::vector<std::byte> data;
};

TEST_F(ScrubTest, WhatNobodyReadsIsFoundAndRepairedOnEveryStore) {
  write_volume();
  for (int i = 0; i < 3; ++i)
    for (size_t k = 0; k < 5; ++k) damage(i, "data", sector(data, 37 * k + static_cast<size_t>(i)));
  scrub_all();
  run_until([] {},
            [&] {
              return counters(0).repaired_sectors + counters(1).repaired_sectors +
                         counters(2).repaired_sectors ==
                     15;
            });
  for (int i = 0; i < 3; ++i) {
    const ScrubStatus status = servers[i]->status(false).scrub;
    EXPECT_EQ(status.damaged_blocks, 5u);
    EXPECT_EQ(status.blocks_done, 64u);
    EXPECT_FALSE(status.running);
    for (size_t k = 0; k < 5; ++k)
      EXPECT_GE(find(i, "data", sector(data, 37 * k + static_cast<size_t>(i))), 0);
  }
  expect_read(0, data);
  const CheckReport report = check_volume();
  EXPECT_EQ(report.chunks, 2u);
  EXPECT_TRUE(report.differences.empty());
}

// R6: a background pass writes in place, which no page has the checksums of before its checkpoint.
// Where a deletion is applied meanwhile the overlay has them no more either. That is no damage.
TEST_F(ScrubTest, WhatADeletedVolumeLeftIsNoDamage) {
  write_volume();
  close_client();
  delete_volume(5);
  run_until([] {}, [&] { return in_step(); });
  for (int i = 0; i < 3; ++i) damage(i, "data", sector(data, 37));
  scrub_all();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(servers[i]->status(false).scrub.damaged_blocks, 0u);
    EXPECT_EQ(counters(i).damaged_sectors, 0u);
    EXPECT_EQ(counters(i).corrupt_reads, 0u);
    EXPECT_EQ(servers[i]->status(false).scrub.blocks_total, 64u) << "too late: they were dropped";
  }
}

// What no checksum tells: a replica whose map forgot a block, and one that has another value.
struct OddReplica : ScrubTest {
  void make_odd(int odd) {
    write_volume();
    close_client();
    stop_servers();
    change_store(odd, [&](chunkstore::ChunkStore& store) {
      store.clear(copyset_of(5, 0), {5, 0}, 3, 0xffff, 1);
      store.clear(copyset_of(5, 0), {5, 0}, 9, 0x00f0, 1);
    });
    start_servers();
    run_until([] {},
              [&] {
                return leaders() == kCopysets && in_step() &&
                       leader_of(copyset_of(5, 0)) == preferred();
              });
    const CheckReport report = check_volume();
    ASSERT_EQ(report.differences.size(), 1u);
    EXPECT_EQ(report.differences[0].store, servers[odd]->store_id());
    EXPECT_EQ(report.differences[0].blocks, 2u);
    run_until(
        [] {},
        [&] { return in_step() && contents(0) == contents(1) && contents(1) == contents(2); });
    EXPECT_TRUE(check_volume().differences.empty());
    open_client(5, 1);
    expect_read(0, data);
  }
};

TEST_F(OddReplica, IsFoundAndBroughtBack) { make_odd((preferred() + 1) % 3); }

// Another one leads then, and compares again.
TEST_F(OddReplica, ThatLeadsIsFoundAndBroughtBack) { make_odd(preferred()); }

// R5, R10: a store that lost pages starts, serves nothing of its own, and is filled.
TEST_F(ScrubTest, AStoreWithDamagedPagesIsFilledFromItsPeers) {
  write_volume();
  const CopysetId copyset = copyset_of(5, 0);
  const int odd = (leader_of(copyset) + 1) % 3;
  stop_server(odd);
  damage_pages(odd);
  open_server(odd);
  EXPECT_GT(servers[odd]->status(false).pages_lost, 0u);
  introduce(odd);
  expect_read(0, data);  // meanwhile the others serve
  run_until([] {}, [&] { return in_step(); });
  EXPECT_TRUE(contents(0) == contents(1));
  EXPECT_TRUE(contents(2) == contents(1));
  EXPECT_TRUE(check_volume().differences.empty());
  expect_read(0, data);
}

}  // namespace
}  // namespace curve::copyset
