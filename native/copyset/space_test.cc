// R8 with real stores: who is full, who says so, and what goes on all the same.
#include <span>

#include "native/copyset/spine_test.h"

namespace curve::copyset {
namespace {

struct Space : Spine {
  // Store 0 leads everything. Who leads on a busy machine may change meanwhile: asked again.
  void lead_from_first() {
    form();
    run_until([] {},
              [&] {
                bool leads = true;
                for (const CopysetStatus& status : servers[0]->status(true).copysets)
                  leads = leads && status.role == raft::Role::kLeader;
                for (int i : {1, 2}) {
                  for (const CopysetStatus& status : servers[i]->status(true).copysets) {
                    if (status.role == raft::Role::kLeader)
                      (void)servers[i]->transfer(status.copyset, servers[0]->store_id());
                  }
                }
                return leads;
              });
  }
  // Writes new blocks until there is no space. Every request ends.
  uint64_t fill(uint32_t bytes, uint64_t from = 0) {
    auto data = pattern(bytes, 1);
    uint64_t at = from;
    for (; at < (400u << 20); at += bytes) {
      const Code code = io(client::IoType::kWrite, at, data);
      if (code == Code::kNoSpace) return at;
      EXPECT_EQ(code, Code::kOk);
      if (code != Code::kOk) return at;
    }
    ADD_FAILURE() << "never full";
    return at;
  }
};

struct SmallFollowers : Space {
  SmallFollowers() {
    options.raft.prefer_after_ns = 0;
    data_bytes[1] = data_bytes[2] = 40u << 20;
  }
};

struct TinyStores : Space {
  TinyStores() { data_bytes[0] = data_bytes[1] = data_bytes[2] = 40u << 20; }

  // Writes so many pieces at once, `step` apart; returns how many found no space. Every one ends.
  size_t write_at_once(size_t count, size_t bytes, uint64_t from, uint64_t step) {
    struct Write : client::IoRequest {
      iovec part{};
    };
    auto data = pattern(bytes, 4);
    std::vector<std::unique_ptr<Write>> writes;
    size_t left = count, full = 0;
    for (size_t i = 0; i < count; ++i) {
      Write& write = *writes.emplace_back(std::make_unique<Write>());
      write.type = client::IoType::kWrite;
      write.part = {data.data(), bytes};
      write.iov = {&write.part, 1};
      write.offset_bytes = from + i * step;
      write.bytes = bytes;
      write.owner = &left;
      write.done = [](client::IoRequest* each) { --*static_cast<size_t*>(each->owner); };
    }
    run_until(
        [&] {
          for (auto& write : writes) client->submit(write.get());
        },
        [&] { return left == 0; });
    if (left != 0) abort();  // they are still under way, and this is where they live
    for (auto& write : writes) {
      EXPECT_TRUE(write->code == Code::kOk || write->code == Code::kNoSpace)
          << code_name(write->code);
      full += write->code == Code::kNoSpace;
    }
    return full;
  }
  // 900 new blocks, so many apart: some find no space, more than `least` do, and nobody resigns.
  void fill_each_other(uint64_t blocks_apart, size_t least) {
    form();
    fence(5, 1);
    open_client(5, 1);
    for (const uint64_t from : {0u, 8u << 10}) {
      const size_t full = write_at_once(900, 4096, from, kBlockBytes * blocks_apart);
      EXPECT_GT(full, 0u);
      EXPECT_LT(full, 900u - least);
    }
    run_until([] {}, [&] { return in_step(); });
    EXPECT_EQ(sum(&ServerCounters::resignations), 0u);
  }
};

struct NoReserve : TinyStores {
  NoReserve() { reserve_percent = 0; }
};

// The leader has room, the majority has not: the client is told, and is not kept waiting for ever.
TEST_F(SmallFollowers, AMajorityThatIsFullIsNoSpace) {
  lead_from_first();
  fence(5, 1);
  open_client(5, 1);
  const uint64_t full_at = fill(256 << 10);
  EXPECT_LT(full_at, 40u << 20);
  EXPECT_GT(full_at, 20u << 20);
  auto data = pattern(1 << 20, 2);
  ASSERT_EQ(io(client::IoType::kWrite, 4096, data), Code::kOk);  // overwrites go on
  EXPECT_EQ(io(client::IoType::kWrite, 300u << 20, data), Code::kNoSpace);
  ASSERT_EQ(io(client::IoType::kDiscard, 0, {}, 16u << 20), Code::kOk);
  // A checkpoint has to give it back before it can be used: nobody is told that there is none.
  EXPECT_EQ(io(client::IoType::kWrite, 350u << 20, data), Code::kOk);
}

// Several leaders fill the same followers with all that clients have, at once: what each of them
// may have on its way has its space there.
TEST_F(TinyStores, ManyLeadersFillEachOther) { fill_each_other(8, 500); }

// The same where there is no room for more pages of the map, long before the blocks are used up: a
// page has three or four of what is written here, so that how many writes find space depends on
// which come first.
TEST_F(TinyStores, ManyLeadersFillTheMapsOfEachOther) { fill_each_other(16, 400); }

// What waited for room in the log with blocks set aside once kept the writes before it, which have
// to go first, from being let in: all of them waited for ever.
TEST_F(Space, AWriteThatWaitsForTheLogHasNothingSetAside) {
  stop_servers();
  options.raft.inflight_bytes_max = 1024;
  options.raft.prefer_after_ns = 0;
  start_servers();
  lead_from_first();
  fence(5, 1);
  open_client(5, 1);
  auto data = pattern(256 << 10, 3);
  ASSERT_EQ(io(client::IoType::kWrite, 0, std::span(data).first(4096)), Code::kOk);
  auto reserved = [&] { return servers[0]->status(false).blocks_reserved; };
  const uint64_t before = reserved();
  client::IoRequest writes[2];
  size_t left = 2;
  iovec parts[2] = {{data.data(), data.size()}, {data.data(), 4096}};
  for (int i = 0; i < 2; ++i) {
    writes[i].type = client::IoType::kWrite;
    writes[i].iov = {&parts[i], 1};
    writes[i].offset_bytes = static_cast<uint64_t>(i + 1) << 20;
    writes[i].bytes = parts[i].iov_len;
    writes[i].owner = &left;
    writes[i].done = [](client::IoRequest* each) { --*static_cast<size_t*>(each->owner); };
  }
  // At once, so that its leader is one still when they come.
  int stopped = 0;
  run_until(
      [&] {
        for (int i : {1, 2}) servers[i]->stop([&] { ++stopped; });
        for (auto& write : writes) client->submit(&write);
      },
      [&] { return stopped == 2 && sum(&ServerCounters::waited) > 0; });
  for (int i : {1, 2}) servers[i].reset();
  EXPECT_EQ(reserved(), before + data.size() / kBlockBytes);
  for (int i : {1, 2}) open_server(i);
  for (int i : {1, 2}) introduce(i);
  run_until([] {}, [&] { return left == 0; });
  if (left != 0) abort();  // they are still under way, and this is where they live
  for (auto& write : writes) EXPECT_EQ(write.code, Code::kOk);
}

// Without a reserve nobody can know: a leader that both followers refuse resigns, and one of them
// says that there is no space.
TEST_F(NoReserve, ALeaderWhoseFollowersAreFullResigns) {
  form();
  fence(5, 1);
  open_client(5, 1);
  for (int round = 0; round < 30 && sum(&ServerCounters::resignations) == 0; ++round) {
    EXPECT_GT(write_at_once(60, 1 << 20, 0, kChunkBytes), 0u);
    // (What was written may be more than fits on one store: each write is on two of three.)
    ASSERT_EQ(io(client::IoType::kDiscard, 0, {}, 1u << 30), Code::kOk);
    run_until([] {}, [&] { return in_step(); });
    checkpoint_all();
    checkpoint_all();
  }
  EXPECT_GT(sum(&ServerCounters::resignations), 0u);
}

// R8: the blocks are mapped when the write comes, but a discard before it, applied or still in the
// log, will unmap them: on every replica they are set aside until the write has met the store.
TEST_F(TinyStores, ADiscardedBlockThatIsWrittenAgainHasItsSpace) {
  lead_from_first();
  fence(5, 1);
  open_client(5, 1);
  auto data = pattern(1 << 20, 2);
  auto reserved = [&](uint64_t blocks) {
    for (auto& server : std::span(servers).first(3)) {
      if (server->status(false).blocks_reserved != blocks) return false;
    }
    return true;
  };
  ASSERT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);
  run_until([] {}, [&] { return in_step(); });
  checkpoint_all();
  ASSERT_TRUE(reserved(0));
  ASSERT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);  // in place
  run_until([] {}, [&] { return in_step(); });
  ASSERT_TRUE(reserved(0));
  for (const bool together : {false, true}) {
    client::IoRequest discard;
    size_t left = 1;
    discard.type = client::IoType::kDiscard;
    discard.bytes = data.size();
    discard.owner = &left;
    discard.done = [](client::IoRequest* each) { --*static_cast<size_t*>(each->owner); };
    run_until([&] { client->submit(&discard); }, [&] { return together || left == 0; });
    ASSERT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);
    run_until([] {}, [&] { return left == 0 && in_step(); });
    EXPECT_TRUE(reserved(data.size() / kBlockBytes)) << together;
    checkpoint_all();
    checkpoint_all();
    EXPECT_TRUE(reserved(0));
  }
}

// What stands in the log of a replica that is to be filled needs the blocks that are filled in, not
// others beside them: 400 blocks, and the same 400 once more, are more than the store has.
TEST_F(TinyStores, AReplicaThatIsFilledKeepsNoSpaceFromItself) {
  lead_from_first();
  fence(5, 1);
  open_client(5, 1);
  EXPECT_EQ(write_at_once(400, 4096, 0, kBlockBytes), 0u);
  run_until([] {}, [&] { return in_step(); });
  checkpoint_all();
  EXPECT_EQ(write_at_once(400, 4096, 8192, kBlockBytes), 0u);
  run_until([] {}, [&] { return in_step(); });
  stop_server(2);
  damage_pages(2);
  open_server(2);
  EXPECT_GT(servers[2]->status(false).pages_lost, 0u);
  introduce(2);
  run_until([] {}, [&] { return in_step(); });
  checkpoint_all();
  EXPECT_TRUE(contents(2) == contents(0));
}

// What the log brings back after a restart has its space before new writes get some.
TEST_F(Space, ARestartedStoreKeepsWhatItHasPromised) {
  lead_from_first();
  fence(5, 1);
  open_client(5, 1);
  auto data = pattern(1 << 20, 3);
  // Not of whole blocks, so that all of it is in the log.
  for (uint64_t at = kSectorBytes; at < (12u << 20); at += 1 << 20)
    ASSERT_EQ(io(client::IoType::kWrite, at, data), Code::kOk);
  run_until([] {}, [&] { return in_step(); });
  close_client();
  stop_servers();
  start_servers();
  for (auto& server :
       std::span(servers).first(3)) {  // in its place, or still in the log and set aside
    const ServerStatus status = server->status(false);
    EXPECT_EQ(status.blocks_reserved + status.blocks_total - status.blocks_free,
              (12u << 20) / kBlockBytes + 1);
  }
}

// A checkpoint must always be able to hold the fences: the room for them is 1 MiB here.
TEST_F(TinyStores, MoreFencesThanACheckpointHoldsAreRefused) {
  form();
  std::vector<CopysetId> all;
  for (uint32_t c = 0; c < kCopysets; ++c) all.push_back(base::copyset_id(kPool, c));
  std::vector<Epoch> revoked;
  for (Epoch epoch = 2; epoch < 2000; ++epoch) revoked.push_back(epoch);
  size_t applied = 0, refused = 0;
  for (VolumeId volume = 1; volume < 40; ++volume) {
    int answers = 0;
    run_until(
        [&] {
          for (auto& server : std::span(servers).first(3)) {
            server->fence(volume, 1, 3000, revoked, all, [&](FenceResult result) {
              applied += result.applied.size();
              refused += result.no_space.size();
              ++answers;
            });
          }
        },
        [&] { return answers == 3; });
  }
  EXPECT_GT(applied, 0u);
  EXPECT_GT(refused, 0u);
  EXPECT_EQ(applied + refused, 39 * kCopysets);
  for (auto& server : std::span(servers).first(3)) {
    const ServerStatus status = server->status(false);
    EXPECT_LT(status.fence_bytes, status.fence_bytes_max / 3 * 4);
  }
  checkpoint_all();
  fence(1, 4000);  // of a volume that has one: always
  open_client(1, 4000);
  auto data = pattern(4096, 1);
  EXPECT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);
}

}  // namespace
}  // namespace curve::copyset
