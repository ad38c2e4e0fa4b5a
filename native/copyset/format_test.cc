// Formatting that is cut off at any step, with what was not durable lost or torn: either there is a
// store that opens, or none, and then it is made again with another id (R1). No third state.
#include <gtest/gtest.h>

#include "native/chunkstore/chunkstore.h"
#include "native/copyset/store_server.h"
#include "native/sim/disk.h"
#include "native/sim/world.h"

namespace curve::copyset {
namespace {

constexpr uint64_t kStepsMax = 64;
const StorePaths kPaths = StorePaths::in("/store");

StoreId id(uint8_t number) {
  StoreId out;
  out.bytes = {number};
  return out;
}

StoreFormat small(uint8_t number) {
  StoreFormat format;
  format.store = id(number);
  format.cluster = id(99);
  format.data_bytes = 16u << 20;
  format.wal_bytes = 1u << 20;
  format.wal_segment_bytes = 128u << 10;
  return format;
}

// One machine that formats, dies, and comes back.
struct FormatRun {
  sim::World world;
  sim::Node& node;
  base::BufferPool pool;
  std::vector<std::byte> secret = std::vector<std::byte>(32, std::byte{7});

  explicit FormatRun(uint64_t seed) : world(seed), node(world.add_node("store")) {}

  // Runs `body` at a start of the node; true: it came to its end.
  bool boot(const std::function<void(io::Loop&)>& body) {
    bool ended = false;
    world.start(node, [&](io::Loop& loop) -> std::unique_ptr<sim::Process> {
      body(loop);
      ended = true;
      return nullptr;
    });
    return ended;
  }

  void expect_store(io::Loop& loop, uint8_t number) {
    EXPECT_TRUE(*StoreServer::exists(loop, kPaths));
    EXPECT_EQ(StoreServer::format(loop, kPaths, small(9)).error().code, Code::kExists);
    auto opened = StoreServer::open(loop, pool, kPaths, secret, {});
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    EXPECT_EQ((*opened)->store_id(), id(number));
  }
};

TEST(StoreFormatTest, CutOffAnywhereItIsDoneAgainOrItIsDone) {
  uint64_t cut = 0, complete_after_cut = 0;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    for (uint64_t step = 1; step <= kStepsMax; ++step) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", step " + std::to_string(step));
      FormatRun run(seed);
      run.node.disk->crash_in_sync_call(step);
      const bool ended = run.boot([&](io::Loop& loop) {
        const Outcome made = StoreServer::format(loop, kPaths, small(1));
        EXPECT_TRUE(made.ok()) << made.error().message;
      });
      run.node.disk->cancel_sync_crash();
      cut += !ended;
      EXPECT_TRUE(!ended || step > 6) << "formatting has so few steps?";
      run.boot([&](io::Loop& loop) {
        const auto there = StoreServer::exists(loop, kPaths);
        ASSERT_TRUE(there.ok()) << there.error().message;
        EXPECT_TRUE(*there || !ended);
        complete_after_cut += *there && !ended;
        if (!*there) {
          const Outcome made = StoreServer::format(loop, kPaths, small(2));
          ASSERT_TRUE(made.ok()) << made.error().message;
        }
        run.expect_store(loop, *there ? 1 : 2);
      });
    }
  }
  EXPECT_GT(cut, 0u);
  EXPECT_GT(complete_after_cut, 0u);
}

TEST(StoreFormatTest, AForcedOneThatIsCutOffLeavesNoOldStore) {
  for (uint64_t step = 1; step <= kStepsMax; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    FormatRun run(step);
    run.boot([&](io::Loop& loop) {
      ASSERT_TRUE(StoreServer::format(loop, kPaths, small(1)).ok());
      run.expect_store(loop, 1);
    });
    StoreFormat forced = small(2);
    forced.force = true;
    run.node.disk->crash_in_sync_call(step);
    const bool ended = run.boot(
        [&](io::Loop& loop) { EXPECT_TRUE(StoreServer::format(loop, kPaths, forced).ok()); });
    run.node.disk->cancel_sync_crash();
    run.boot([&](io::Loop& loop) {
      if (*StoreServer::exists(loop, kPaths)) {
        auto opened = StoreServer::open(loop, run.pool, kPaths, run.secret, {});
        ASSERT_TRUE(opened.ok()) << opened.error().message;
        EXPECT_TRUE(!ended || (*opened)->store_id() == id(2));
      } else {
        EXPECT_FALSE(ended);
        EXPECT_TRUE(StoreServer::format(loop, kPaths, forced).ok());
      }
    });
  }
}

TEST(StoreFormatTest, ALogThatWasInUseIsNotOverwrittenWhenTheDataIsGone) {
  FormatRun run(1);
  run.boot([&](io::Loop& loop) {
    ASSERT_TRUE(StoreServer::format(loop, kPaths, small(1)).ok());
    run.expect_store(loop, 1);
    ASSERT_TRUE(chunkstore::ChunkStore::erase(loop, kPaths.data).ok());
    const Outcome again = StoreServer::format(loop, kPaths, small(2));
    ASSERT_FALSE(again.ok());
    EXPECT_EQ(again.error().code, Code::kExists);
    EXPECT_NE(again.error().message.find(id(1).text()), std::string::npos) << again.error().message;
  });
}

}  // namespace
}  // namespace curve::copyset
