// Large writes on real stores: they go to their place at once, and are read, overwritten, sent to
// those that lag, found after a restart, torn and damaged there like what stands in the log.
#include "native/copyset/external.h"

#include "native/copyset/inspect.h"
#include "native/copyset/spine_test.h"

namespace curve::copyset {
namespace {

struct ExternalTest : Spine {
  ExternalTest() {
    options.checkpoint_idle_ns = options.checkpoint_interval_ns = 600'000'000'000;
    options.scrub_bytes_per_second = 0;
    options.wal.idle_publish_ns = 600'000'000'000;
  }
  void start_volume() {
    form();
    fence(5, 1);
    open_client(5, 1);
  }
  void write(uint64_t offset, const std::vector<std::byte>& data) {
    ASSERT_EQ(
        io(client::IoType::kWrite, offset, {const_cast<std::byte*>(data.data()), data.size()}),
        Code::kOk);
    if (expected.size() < offset + data.size()) expected.resize(offset + data.size());
    std::copy(data.begin(), data.end(), expected.begin() + static_cast<ptrdiff_t>(offset));
  }
  void zero(uint64_t offset, uint64_t bytes) {
    ASSERT_EQ(io(client::IoType::kDiscard, offset, {}, bytes), Code::kOk);
    std::fill_n(expected.begin() + static_cast<ptrdiff_t>(offset), bytes, std::byte{0});
  }
  void expect_all() {
    for (uint64_t at = 0; at < expected.size(); at += kIoBytesMax) {
      const uint64_t bytes = std::min<uint64_t>(kIoBytesMax, expected.size() - at);
      std::vector<std::byte> got(bytes);
      ASSERT_EQ(io(client::IoType::kRead, at, got), Code::kOk);
      EXPECT_TRUE(std::equal(got.begin(), got.end(), expected.begin() + static_cast<ptrdiff_t>(at)))
          << at;
    }
  }
  // R6: an entry may be applied before its payload is durable here.
  void placed(uint64_t bytes) {
    run_until([] {},
              [&] {
                for (int i = 0; i < 3; ++i)
                  if (counters(i).direct_bytes < bytes) return false;
                return in_step();
              });
  }
  void expect_equal_replicas() {
    run_until([] {}, [&] { return in_step(); });
    EXPECT_TRUE(contents(0) == contents(1));
    EXPECT_TRUE(contents(2) == contents(1));
  }
  void everything_in_its_place() {
    run_until([] {}, [&] { return in_step(); });
    checkpoint_all();
    checkpoint_all();
    expect_equal_replicas();
    std::set<std::pair<ChunkKey, uint32_t>> blocks;
    for (const auto& [where, crc] : contents(0))
      blocks.emplace(std::get<1>(where), std::get<2>(where) / kSectorsPerBlock);
    for (int i = 0; i < 3; ++i) {
      const ServerStatus status = servers[i]->status(false);
      EXPECT_EQ(status.blocks_total - status.blocks_free - status.blocks_pending_free,
                blocks.size());
      EXPECT_EQ(status.blocks_reserved, 0u);
      const Outcome consistent = servers[i]->check();
      EXPECT_TRUE(consistent.ok());
    }
  }
  // The sectors of `content` in the data file of a store get another bit.
  int damage(int i, std::span<const std::byte> content) {
    const std::vector<int64_t> found = places(i, "data", content);
    for (int64_t at : found) flip(i, "data", at + 77);
    return static_cast<int>(found.size());
  }
  // Through a small write beside it, members learn what all have of what was written before.
  void small_write_and_checkpoints(uint64_t offset, int without = -1) {
    write(offset, pattern(kSectorBytes, static_cast<uint32_t>(offset)));
    for (int i = 0; i < 3; ++i)
      if (i != without) checkpoint(i);
  }
  CopysetId copyset_of(uint32_t chunk) {
    return base::copyset_id(kPool, base::copyset_index(5, chunk, kCopysets));
  }
  std::vector<std::byte> expected;
};

TEST_F(ExternalTest, WholeBlocksGoToTheirPlaceAtOnce) {
  start_volume();
  const uint64_t before = servers[0]->status(false).wal_head_position;
  for (uint32_t i = 0; i < 8; ++i) write(i << 20, pattern(1u << 20, i));
  placed(8u << 20);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(counters(i).direct_bytes, 8u << 20);
  EXPECT_LT(servers[0]->status(false).wal_head_position - before, 1u << 20);
  expect_all();
  everything_in_its_place();
  expect_all();
  EXPECT_EQ(sum(&ServerCounters::corrupt_reads), 0u);
}

TEST_F(ExternalTest, WhatIsSmallerOrNotAlignedGoesToTheLog) {
  start_volume();
  write(0, pattern(kBlockBytes - kSectorBytes, 1));
  write(kSectorBytes, pattern(kBlockBytes, 2));
  write(512, pattern(1u << 19, 3));
  run_until([] {}, [&] { return in_step(); });
  EXPECT_EQ(sum(&ServerCounters::direct_bytes), 0u);
  expect_all();
  everything_in_its_place();
}

TEST_F(ExternalTest, NewerWritesAndDiscardsCount) {
  start_volume();
  write(0, pattern(1u << 20, 1));
  write(3 * kSectorBytes, pattern(kSectorBytes, 2));
  write(kBlockBytes + 512, pattern(512, 3));
  zero(2 * kBlockBytes, 5 * kSectorBytes);
  zero(3 * kBlockBytes, kBlockBytes);
  write(4 * kBlockBytes, pattern(2 * kBlockBytes, 4));
  zero(6 * kBlockBytes, kBlockBytes);
  write(6 * kBlockBytes, pattern(kBlockBytes, 5));
  expect_all();
  everything_in_its_place();
  expect_all();
}

// R5: the entry stays for followers that lag, so that what comes behind it goes to another block.
TEST_F(ExternalTest, AFollowerThatWasAwayGetsItFromItsBlocks) {
  start_volume();
  write(0, pattern(4u << 20, 1));
  run_until([] {}, [&] { return in_step(); });
  checkpoint_all();
  const int away = (leader_of(copyset_of(0)) + 1) % 3;
  stop_server(away);
  write(0, pattern(2u << 20, 2));
  for (uint32_t i = 0; i < 300; ++i)  // more than what is kept in memory
    write((3u << 20) + i * kSectorBytes, pattern(kSectorBytes, i));
  for (int i = 0; i < 3; ++i)
    if (i != away) checkpoint(i);
  write(5 * kSectorBytes, pattern(3 * kSectorBytes, 3));
  for (int i = 0; i < 3; ++i)
    if (i != away) checkpoint(i);
  expect_all();
  open_server(away);
  introduce(away);
  expect_equal_replicas();
  EXPECT_EQ(sum(&ServerCounters::syncs_started), 0u);
  EXPECT_EQ(sum(&ServerCounters::corrupt_reads), 0u);
  everything_in_its_place();
  expect_all();
}

TEST_F(ExternalTest, WhatEverybodyHasIsWrittenToInItsPlace) {
  start_volume();
  write(0, pattern(1u << 20, 1));
  placed(1u << 20);
  run_until([] {}, [&] { return in_step(); });
  checkpoint_all();
  small_write_and_checkpoints(2u << 20);
  const auto sector = std::span(expected).subspan(5 * kSectorBytes, kSectorBytes);
  std::vector<std::vector<int64_t>> before;
  for (int i = 0; i < 3; ++i) before.push_back(places(i, "data", sector));
  small_write_and_checkpoints(4 * kSectorBytes);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(places(i, "data", sector), before[static_cast<size_t>(i)]);
  expect_all();
  everything_in_its_place();
}

// R7: what somebody lacks stays in the log of the others.
TEST_F(ExternalTest, WhatSomebodyLacksIsNotWrittenTo) {
  start_volume();
  const int away = (leader_of(copyset_of(0)) + 1) % 3;
  stop_server(away);
  write(0, pattern(1u << 20, 1));
  small_write_and_checkpoints(2u << 20, away);
  small_write_and_checkpoints((2u << 20) + kSectorBytes, away);
  small_write_and_checkpoints(4 * kSectorBytes, away);
  small_write_and_checkpoints(20 * kSectorBytes, away);
  open_server(away);
  introduce(away);
  expect_equal_replicas();
  EXPECT_EQ(sum(&ServerCounters::syncs_started), 0u);
  everything_in_its_place();
  expect_all();
}

TEST_F(ExternalTest, ARestartFindsWhatTheLogNames) {
  start_volume();
  write(0, pattern(2u << 20, 1));
  write(kBlockBytes, pattern(kSectorBytes, 2));
  run_until([] {}, [&] { return in_step(); });
  restart(5, 1);
  expect_all();
  write(0, pattern(kBlockBytes, 3));
  restart(5, 1);
  expect_all();
  everything_in_its_place();
  restart(5, 1);
  expect_all();
  EXPECT_EQ(sum(&ServerCounters::corrupt_reads), 0u);
}

// R4: a payload that was in flight cuts the log of its copyset only, and is no damage.
TEST_F(ExternalTest, ATornPayloadCutsItsCopysetOnly) {
  start_volume();
  write(0, pattern(1u << 20, 1));
  // Another copyset's entry, behind it in the log.
  uint32_t other = 1;
  while (copyset_of(other) == copyset_of(0)) ++other;
  run_until([] {}, [&] { return in_step(); });
  const CopysetId id = copyset_of(0);
  std::map<CopysetId, Index> last;
  const int store = (leader_of(id) + 1) % 3;
  for (const CopysetStatus& status : servers[store]->status(true).copysets)
    last[status.copyset] = status.last;
  close_client();
  stop_servers();
  ASSERT_EQ(damage(store, std::span(expected).subspan(37 * kSectorBytes, kSectorBytes)), 1);
  open_server(store);
  EXPECT_FALSE(servers[store]->status(false).wal_damaged);
  for (const CopysetStatus& status : servers[store]->status(true).copysets) {
    EXPECT_FALSE(status.damaged);
    if (status.copyset == id)
      EXPECT_LT(status.last, last[id]);
    else
      EXPECT_EQ(status.last, last[status.copyset]);
  }
  EXPECT_TRUE(servers[store]->check().ok());
  // Once more: what was cut says the same.
  stop_server(store);
  open_server(store);
  for (const CopysetStatus& status : servers[store]->status(true).copysets)
    EXPECT_FALSE(status.damaged);
  introduce(store);
  for (int i = 0; i < 3; ++i) {
    if (i == store) continue;
    open_server(i);
    introduce(i);
  }
  open_client(5, 1);
  expect_all();
  expect_equal_replicas();
  everything_in_its_place();
  expect_all();
}

// R11: what was promised is not cut. It comes from a peer, also into the map.
TEST_F(ExternalTest, DamageIsAnsweredFromAPeer) {
  options.wal.idle_publish_ns = 1'000'000;
  start_volume();
  write(0, pattern(1u << 20, 1));
  placed(1u << 20);
  const int leader = leader_of(copyset_of(0));
  ASSERT_EQ(damage(leader, std::span(expected).subspan(20 * kSectorBytes, kSectorBytes)), 1);
  expect_all();
  EXPECT_EQ(counters(leader).damaged_sectors, 1u);
  write(16 * kSectorBytes, pattern(kSectorBytes, 2));  // so that the block is copied
  everything_in_its_place();
  expect_all();
}

TEST_F(ExternalTest, TheDumpSaysWhereItIs) {
  start_volume();
  write(0, pattern(2 * kBlockBytes, 1));
  run_until([] {}, [&] { return in_step(); });
  close_client();
  stop_servers();
  size_t lines = 0;
  auto dumped = dump_wal(StorePaths::in(directory / "0"), [&](const std::string& line) {
    if (line.find("\"blocks\":[") != std::string::npos) ++lines;
    return true;
  });
  EXPECT_TRUE(dumped.ok());
  EXPECT_EQ(lines, 1u);
}

TEST(Annotation, OnlyWhatItSays) {
  std::vector<std::byte> good(12);
  good[0] = std::byte{1};
  good[4] = std::byte{7};
  ASSERT_TRUE(decode_external(good));
  EXPECT_EQ(decode_external(good)->count, 2u);
  EXPECT_EQ(decode_external(good)->blocks[0], 7u);
  for (size_t bytes : {0, 3, 4, 11, 72, 1000}) {
    std::vector<std::byte> bad(bytes);
    if (bytes) bad[0] = std::byte{1};
    EXPECT_FALSE(decode_external(bad)) << bytes;
  }
  good[0] = std::byte{2};
  EXPECT_FALSE(decode_external(good));
}

}  // namespace
}  // namespace curve::copyset
