// A device that fails (R2, R5): a write or sync that returned an error is never tried again and
// nothing is promised on it; an error of a read is no reason to stop.
#include <gtest/gtest.h>

#include "native/chunkstore/store_test.h"
#include "native/sim/disk.h"
#include "native/sim/world.h"

namespace curve::chunkstore {
namespace {

constexpr ChunkKey kChunk{7, 3};

struct FailingDisk : testing::Test {
  struct Process : sim::Process {
    TestStore store;
  };
  sim::World world{1};
  sim::Node& node = world.add_node("node");
  TestStore* store = nullptr;
  bool formatted = false;

  FailingDisk() { start(); }
  void start() {
    world.start(node, [this](io::Loop& loop) -> std::unique_ptr<sim::Process> {
      auto process = std::make_unique<Process>();
      store = &process->store;
      store->loop = &loop;
      store->path = "/data";
      store->run = [this](const std::function<bool()>& done) {
        world.run_until(done, 60 * sim::kSecond);
      };
      if (!formatted) {
        FormatOptions options;
        options.store.bytes = {1};
        options.bytes = kStoreBytesMin;
        EXPECT_TRUE(ChunkStore::format(loop, store->path, options).ok());
        formatted = true;
      }
      store->open();
      return process;
    });
  }
  void expect_out_of_service() {
    node.disk->faults = {};  // it works again: too late
    EXPECT_TRUE((*store)->failed());
    EXPECT_EQ(store->write(1, kChunk, 9, 1, 50, 20), -EIO);
    EXPECT_EQ(store->checkpoint({}), -EIO);
    EXPECT_EQ((*store)->checkpoint_version(), 2u);
  }
  // The last checkpoint is what there is.
  void expect_first_checkpoint() {
    world.crash(node, sim::CrashKind::kPower);
    start();
    EXPECT_EQ(store->read(1, kChunk, 5), Content(kSectorsPerBlock, 41));
    EXPECT_FALSE((*store)->is_mapped(1, kChunk, 6));
  }
};

TEST_F(FailingDisk, AWriteThatFailsTakesTheStoreOutOfService) {
  ASSERT_EQ(store->write(1, kChunk, 5, 0xffff, 41, 9), 0);
  ASSERT_EQ(store->checkpoint({}), 0);
  node.disk->faults.write_error_chance = 1;
  EXPECT_EQ(store->write(1, kChunk, 6, 0xffff, 42, 10), -EIO);
  expect_out_of_service();
  expect_first_checkpoint();
}

TEST_F(FailingDisk, ACheckpointThatFailsIsNone) {
  ASSERT_EQ(store->write(1, kChunk, 5, 0xffff, 41, 9), 0);
  ASSERT_EQ(store->checkpoint({}), 0);
  ASSERT_EQ(store->write(1, kChunk, 6, 0xffff, 42, 10), 0);
  node.disk->faults.write_error_chance = 1;
  EXPECT_EQ(store->checkpoint({}), -EIO);
  expect_out_of_service();
  expect_first_checkpoint();
}

TEST_F(FailingDisk, ARepairThatFailsTakesTheStoreOutOfService) {
  ASSERT_EQ(store->write(1, kChunk, 5, 0xffff, 41, 9), 0);
  ASSERT_EQ(store->checkpoint({}), 0);
  node.disk->faults.write_error_chance = 1;
  Pending<RepairOp> repair(*store);
  repair.op.copyset = 1;
  repair.op.chunk = kChunk;
  repair.op.block = 5;
  repair.op.mask = 1;
  fill_sector(repair.bytes.data, 41);
  repair.op.crc[0] = sector_crc(41);
  repair.op.from = repair.bytes.span();
  (*store)->repair(&repair.op);
  EXPECT_EQ(repair.wait(), -EIO);
  expect_out_of_service();
}

TEST_F(FailingDisk, AReadThatFailsIsAnErrorAndNothingElse) {
  ASSERT_EQ(store->write(1, kChunk, 5, 0xffff, 41, 9), 0);
  node.disk->faults.read_error_chance = 1;
  EXPECT_EQ(store->read(1, kChunk, 5), Content{-EIO});
  node.disk->faults = {};
  EXPECT_FALSE((*store)->failed());
  EXPECT_EQ(store->read(1, kChunk, 5), Content(kSectorsPerBlock, 41));
  EXPECT_EQ(store->checkpoint({}), 0);
}

}  // namespace
}  // namespace curve::chunkstore
