// Repair (R11) while what it mends is written: the simulated disk sees whether a buffer changes
// before its write has ended.
#include <vector>

#include "native/copyset/simulated_spine_test.h"

namespace curve::copyset {
namespace {

struct RepairUnderLoad : SimulatedSpine {
  struct Io : client::IoRequest {
    std::vector<std::byte> bytes_of;
    iovec part{};
    bool ended = false;
  };
  void submit(Io& io, client::IoType type, uint64_t offset, std::vector<std::byte> bytes) {
    io.bytes_of = std::move(bytes);
    io.part = {io.bytes_of.data(), io.bytes_of.size()};
    io.type = type;
    io.offset_bytes = offset;
    io.bytes = io.bytes_of.size();
    io.iov = {&io.part, 1};
    io.done = [](client::IoRequest* each) { static_cast<Io*>(each)->ended = true; };
    run_until([&] { client->submit(&io); }, [] { return true; });
  }
};

// One sector comes back from a peer and is written to its place, slowly; a reader waits for another
// one, which nobody has. The first is written anew then, at one moment or another.
TEST_F(RepairUnderLoad, WhatIsBeingWrittenBackIsLeftAlone) {
  form();
  fence(5, 1);
  open_client(5, 1);
  const CopysetId copyset = base::copyset_id(kPool, base::copyset_index(5, 0, kCopysets));
  constexpr uint64_t kMended = 3 * kSectorBytes, kGone = 8 * kSectorBytes;
  auto block = pattern(kBlockBytes, 1);
  ASSERT_EQ(io(client::IoType::kWrite, 0, block), Code::kOk);
  for (uint32_t round = 0; round < 30; ++round) {
    auto mended = pattern(kSectorBytes, 10 + 3 * round),
         gone = pattern(kSectorBytes, 11 + 3 * round);
    ASSERT_EQ(io(client::IoType::kWrite, kMended, mended), Code::kOk);
    ASSERT_EQ(io(client::IoType::kWrite, kGone, gone), Code::kOk);
    run_until([] {}, [&] { return in_step() && leader_of(copyset) >= 0; });
    checkpoint_all();
    const int leader = leader_of(copyset);
    for (int i = 0; i < 3; ++i) EXPECT_GE(damage_all(i, "data", gone), 1);
    EXPECT_GE(damage_all(leader, "data", mended), 1);
    slow_disk(leader, kSecond / 2, 400);  // 16 to 160 ms
    Io read, write;
    submit(read, client::IoType::kRead, 0, std::vector<std::byte>(kBlockBytes));
    wait((20 + 10 * round) * kMillisecond);
    auto newer = pattern(kSectorBytes, 12 + 3 * round);
    submit(write, client::IoType::kWrite, kMended, newer);
    run_until([] {}, [&] { return write.ended; });
    Io rest;
    submit(rest, client::IoType::kWrite, kGone, gone);
    run_until([] {}, [&] { return read.ended && rest.ended; });
    EXPECT_EQ(write.code, Code::kOk);
    EXPECT_EQ(read.code, Code::kOk);
    std::vector<std::byte> got(kSectorBytes);
    ASSERT_EQ(io(client::IoType::kRead, kMended, got), Code::kOk);
    EXPECT_TRUE(got == newer);
  }
  EXPECT_GT(sum(&ServerCounters::repaired_sectors), 0u);
}

}  // namespace
}  // namespace curve::copyset
