// Three chunkservers and a client on one event loop over loopback: the spine with real files and
// sockets. Faults belong to native/sim and tests/faults; this shows that the parts fit.
#include "native/copyset/spine_test.h"

namespace curve::copyset {
namespace {

TEST_F(Spine, WritesComeBackAlsoInPartsAfterCheckpointAndRestart) {
  form();
  fence(5, 1);
  open_client(5, 1);
  std::vector<std::byte> expected(64u << 20), got(64u << 20);
  auto write = [&](uint64_t offset, std::vector<std::byte> data) {
    ASSERT_EQ(io(client::IoType::kWrite, offset, data), Code::kOk);
    std::memcpy(expected.data() + offset, data.data(), data.size());
  };
  auto check = [&] {
    for (uint64_t at = 0; at < expected.size(); at += 4u << 20) {
      std::span<std::byte> part(got.data() + at, 4u << 20);
      ASSERT_EQ(io(client::IoType::kRead, at, part), Code::kOk);
      ASSERT_EQ(std::memcmp(part.data(), expected.data() + at, part.size()), 0) << "at " << at;
    }
  };
  write(0, pattern(4096, 1));
  write(8192 + 512, pattern(512, 2));            // part of a sector (R14)
  write((16u << 20) - 8192, pattern(65536, 3));  // across chunks
  write(20u << 20, pattern(3u << 20, 4));        // several requests
  write((20u << 20) + 1536, pattern(10240, 5));  // unaligned at both ends
  ASSERT_EQ(io(client::IoType::kWriteZeroes, (21u << 20) + 512, {}, 200 * 1024), Code::kOk);
  std::memset(expected.data() + (21u << 20) + 512, 0, 200 * 1024);
  check();
  checkpoint_all();
  check();
  write(4096, pattern(8192, 6));  // beside what is in the store now
  write((20u << 20) + 512, pattern(512, 7));
  check();
  restart(5, 1);
  check();
}

struct SpineOfOne : Spine {
  SpineOfOne() { count = replicas = 1; }
};

// Memory is what a machine that is short of it, and writes to itself, has to find.
TEST_F(SpineOfOne, KeepsNothingForFollowersThatThereAreNot) {
  form();
  fence(5, 1);
  open_client(5, 1);
  auto data = pattern(1u << 20, 1);
  for (uint64_t at = 0; at < 32u << 20; at += data.size())
    ASSERT_EQ(io(client::IoType::kWrite, at, data), Code::kOk);
  checkpoint_all();
  EXPECT_LT(pool.used_bytes(), 8u << 20);
}

// R10: away for longer than the log of the others reaches back, with things written, discarded and
// fenced meanwhile.
TEST_F(Spine, AReplicaThatWasAwayTooLongIsFilled) {
  form();
  fence(5, 1);
  open_client(5, 1);
  auto first = pattern(8u << 20, 1);
  ASSERT_EQ(io(client::IoType::kWrite, 0, first), Code::kOk);
  stop_server(1);
  auto data = pattern(4u << 20, 2);
  for (int round = 0; round < 24; ++round) {
    const uint64_t at = (round % 6) * (20ull << 20) + (round % 5) * 4096;
    ASSERT_EQ(io(client::IoType::kWrite, at, data), Code::kOk);
  }
  ASSERT_EQ(io(client::IoType::kDiscard, 2u << 20, {}, 3u << 20), Code::kOk);
  for (int i : {0, 2}) checkpoint(i);
  open_server(1);
  introduce(1);
  auto more = pattern(64 * 1024, 3);
  for (int round = 0; round < 20; ++round) {  // foreground writes go on while it is filled
    ASSERT_EQ(io(client::IoType::kWrite, round * (6ull << 20), more), Code::kOk);
  }
  run_until([] {}, [&] { return in_step(); });
  EXPECT_GT(servers[1]->status(false).counters.syncs_finished, 0u);
  EXPECT_TRUE(contents(0) == contents(1));
  EXPECT_TRUE(contents(2) == contents(1));
  stop_servers();  // and it says so after a restart
  start_servers();
  run_until([] {}, [&] { return in_step(); });
  EXPECT_TRUE(contents(0) == contents(1));
}

// R10: the leader has unmapped all of a page, and lists it only for what came into its overlay
// since.
TEST_F(Spine, WhatItsLeaderHasUnmappedIsUnmappedWhereItIsFilled) {
  form();
  fence(5, 1);
  open_client(5, 1);
  auto small = pattern(4096, 1);
  ASSERT_EQ(io(client::IoType::kWrite, 0, small), Code::kOk);
  run_until([] {}, [&] { return in_step(); });
  checkpoint_all();
  stop_server(1);
  auto data = pattern(4u << 20, 2);
  for (int round = 0; round < 24; ++round)
    ASSERT_EQ(io(client::IoType::kWrite, (20ull << 20) * (1 + round % 5), data), Code::kOk);
  ASSERT_EQ(io(client::IoType::kDiscard, 0, {}, kBlockBytes), Code::kOk);
  run_until([] {}, [&] { return contents(0) == contents(2); });
  for (int i : {0, 2}) checkpoint(i);
  ASSERT_EQ(io(client::IoType::kWrite, 3 * kBlockBytes, small), Code::kOk);
  open_server(1);
  introduce(1);
  run_until([] {}, [&] { return in_step(); });
  EXPECT_GT(servers[1]->status(false).counters.syncs_finished, 0u);
  EXPECT_TRUE(contents(0) == contents(1));
}

TEST_F(Spine, WhatWaitsForItsPlaceIsCountedUntilACheckpointHasIt) {
  form();
  fence(5, 1);
  open_client(5, 1);
  checkpoint_all();
  auto data = pattern(4096, 1);
  for (uint64_t block = 0; block < 5; ++block) {
    for (uint64_t sector = 0; sector < 2; ++sector)
      ASSERT_EQ(io(client::IoType::kWrite, block * kBlockBytes + sector * 4096, data), Code::kOk);
  }
  run_until([] {}, [&] { return in_step(); });
  for (int i = 0; i < 3; ++i) {
    EXPECT_GE(servers[i]->status(false).wal_undrained_bytes, 10 * 4096u);
    EXPECT_EQ(servers[i]->status(false).overlay_blocks, 5u);
  }
  checkpoint_all();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(servers[i]->status(false).wal_undrained_bytes, 0u);
    EXPECT_EQ(servers[i]->status(false).overlay_blocks, 0u);
    EXPECT_GT(servers[i]->status(false).wal_used_bytes, 0u);  // what is kept for followers that lag
  }
}

TEST_F(Spine, WritesWaitForRoomInTheLogAndAreNotBounced) {
  form();
  fence(5, 1);
  open_client(5, 1);
  flood(60);
  EXPECT_GT(sum(&ServerCounters::waited), 0u);
  EXPECT_EQ(sum(&ServerCounters::bounced), 0u);
}

TEST_F(Spine, WhatMayNotWaitIsRepeatedByTheClient) {
  stop_servers();
  options.waiting_requests_max = 3;
  start_servers();
  form();
  fence(5, 1);
  open_client(5, 1);
  flood(60);
  EXPECT_GT(sum(&ServerCounters::waited), 0u);
  EXPECT_GT(sum(&ServerCounters::bounced), 0u);
}

// R12: an attachment is answered though clients fill every window of the log all the time.
TEST_F(Spine, FencesDoNotWaitForWritesToEnd) {
  stop_servers();
  options.raft.inflight_bytes_max = 64u << 10;
  start_servers();
  form();
  fence(5, 1);
  open_client(5, 1);
  struct Writer : client::IoRequest {
    client::VolumeClient* client = nullptr;
    bool ended = false, goes_on = true;
    iovec part{};
  };
  auto data = pattern(64 * 1024, 1);
  std::vector<std::unique_ptr<Writer>> writers;
  for (uint64_t i = 0; i < 256; ++i) {
    auto& writer = *writers.emplace_back(std::make_unique<Writer>());
    writer.client = client.get();
    writer.type = client::IoType::kWrite;
    writer.offset_bytes = i * (4ull << 20);
    writer.bytes = data.size();
    writer.part = {data.data(), data.size()};
    writer.iov = {&writer.part, 1};
    writer.done = [](client::IoRequest* request) {
      auto* mine = static_cast<Writer*>(request);
      mine->ended = !mine->goes_on;
      if (mine->goes_on) mine->client->submit(mine);
    };
  }
  run_until(
      [&] {
        for (auto& writer : writers) writer->client->submit(writer.get());
      },
      [&] { return sum(&ServerCounters::waited) > 100; });
  for (VolumeId volume = 6; volume < 12; ++volume) fence(volume, 1);
  run_until(
      [&] {
        for (auto& writer : writers) writer->goes_on = false;
      },
      [&] {
        return std::all_of(writers.begin(), writers.end(),
                           [](const auto& writer) { return writer->ended; });
      });
}

TEST_F(Spine, AFencedClientIsSilencedForReadsAndWrites) {
  form();
  fence(5, 1);
  open_client(5, 1);
  auto data = pattern(4096, 1);
  ASSERT_EQ(io(client::IoType::kWrite, 0, data), Code::kOk);
  fence(5, 2);
  EXPECT_EQ(io(client::IoType::kRead, 0, data), Code::kFenced);
  EXPECT_EQ(io(client::IoType::kWrite, 0, data), Code::kFenced);
}

}  // namespace
}  // namespace curve::copyset
