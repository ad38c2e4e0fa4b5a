// Repair in place (R11): only what the map still promises is written, newer content comes last.
#include <gtest/gtest.h>

#include "native/chunkstore/real_store_test.h"

namespace curve::chunkstore {
namespace {

constexpr ChunkKey kChunk{7, 3};

struct PendingRepair : Pending<RepairOp> {
  PendingRepair(TestStore& store_in, uint16_t block, uint16_t mask, int value) : Pending(store_in) {
    for (uint32_t i = 0; i < kSectorsPerBlock; ++i) {
      fill_sector(bytes.data + i * kSectorBytes, value);
      op.crc[i] = sector_crc(value);
    }
    op.copyset = 1;
    op.chunk = kChunk;
    op.block = block;
    op.mask = mask;
    op.from = bytes.span();
    store->repair(&op);
    EXPECT_EQ(runs, 0) << "done ran inside the call";
  }
};

struct RepairTest : testing::Test {
  RealStore real;
  TestStore& store = real.store;
  RepairTest() {
    real.format();
    store.open();
    store.write(1, kChunk, 5, 0xffff, 41, 9);
  }
  uint64_t offset(uint32_t sector) {
    return store->block_offset_bytes(store->block_state(1, kChunk, 5).physical) +
           sector * kSectorBytes;
  }
  void damage(uint32_t sector) { real.flip(offset(sector) + 9, 1); }
};

TEST_F(RepairTest, DamagedSectorsComeBack) {
  damage(0);
  damage(7);
  EXPECT_EQ(store.read(1, kChunk, 5), Content{-EILSEQ});
  PendingRepair repair(store, 5, 0x0081, 41);
  EXPECT_EQ(repair.wait(), 0);
  EXPECT_EQ(repair.op.mask, 0x0081);
  EXPECT_EQ(store.read(1, kChunk, 5), Content(kSectorsPerBlock, 41));
  EXPECT_TRUE(store->check().ok());
}

TEST_F(RepairTest, ASectorThatChangedMeanwhileIsLeftAlone) {
  store.write(1, kChunk, 5, 0x0001, 42, 10);
  store->clear(1, kChunk, 5, 0x0002, 11);
  PendingRepair repair(store, 5, 0x0007, 41);
  EXPECT_EQ(repair.wait(), 0);
  EXPECT_EQ(repair.op.mask, 0x0004);
  Content expected(kSectorsPerBlock, 41);
  expected[0] = 42;
  expected[1] = 0;
  EXPECT_EQ(store.read(1, kChunk, 5), expected);
  PendingRepair nowhere(store, 6, 0xffff, 41);
  EXPECT_EQ(nowhere.wait(), 0);
  EXPECT_EQ(nowhere.op.mask, 0);
}

TEST_F(RepairTest, AWriteThatComesMeanwhileIsTheLastOne) {
  damage(3);
  PendingRepair repair(store, 5, 0x0008, 41);
  PendingWrite write(store, 1, kChunk, 5, 0x0018, 43, 12);
  PendingRead read(store, 1, kChunk, 5, 3, 2);
  EXPECT_EQ(read.wait(), 0);
  EXPECT_EQ(repair.wait(), 0);
  EXPECT_EQ(write.wait(), 0);
  Content expected(kSectorsPerBlock, 41);
  expected[3] = expected[4] = 43;
  EXPECT_EQ(store.read(1, kChunk, 5), expected);
  PendingWrite running(store, 1, kChunk, 5, 0x0001, 44, 13);
  PendingRepair late(store, 5, 0x0002, 41);
  EXPECT_EQ(late.wait(), -EAGAIN);
  EXPECT_EQ(running.wait(), 0);
}

TEST_F(RepairTest, AlsoDuringACheckpointAndWhileTheBlockIsGivenUp) {
  damage(1);
  io::Op checkpoint;
  bool done = false;
  checkpoint.owner = &done;
  checkpoint.done = [](io::Op* op) { *static_cast<bool*>(op->owner) = true; };
  store->checkpoint(&checkpoint, {});
  PendingRepair repair(store, 5, 0x0002, 41);
  EXPECT_EQ(repair.wait(), 0);
  store.run([&] { return done; });
  EXPECT_EQ(checkpoint.result, 0);
  store.reopen();
  EXPECT_EQ(store.read(1, kChunk, 5), Content(kSectorsPerBlock, 41));
  PendingRepair second(store, 5, 0xffff, 41);
  store->drop_chunk(1, kChunk);
  EXPECT_EQ(second.wait(), 0);
  EXPECT_EQ(store.checkpoint({}), 0);
  EXPECT_TRUE(store->check().ok());
  EXPECT_EQ(store->usage().blocks_mapped, 0u);
}

}  // namespace
}  // namespace curve::chunkstore
