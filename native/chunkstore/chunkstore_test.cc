// What a store promises, over real files: content, space, checkpoints, refusals.
#include "native/chunkstore/chunkstore.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/chunkstore/real_store_test.h"

namespace curve::chunkstore {
namespace {

constexpr ChunkKey kChunk{7, 3};

struct ChunkStoreTest : testing::Test {
  RealStore real;
  TestStore& store = real.store;
  ChunkStoreTest() {
    real.format();
    store.open();
  }
};

TEST_F(ChunkStoreTest, AnEmptyStoreReadsAsZerosWithoutSpace) {
  EXPECT_EQ(store.read(1, kChunk, 0), Content(kSectorsPerBlock, 0));
  EXPECT_EQ(store->usage().blocks_mapped, 0u);
  EXPECT_EQ(store->incarnation(), 1u);
  EXPECT_EQ(store->checkpoint_version(), 1u);
  EXPECT_TRUE(store->group_blobs().empty());
  EXPECT_FALSE(store->next_page(1, {1, {}, 255}));
}

TEST_F(ChunkStoreTest, WhatIsWrittenIsReadAndTheRestIsZero) {
  EXPECT_EQ(store.write(1, kChunk, 5, 0b1010'0110, 41, 9), 0);
  const Content expected = {0, 41, 41, 0, 0, 41, 0, 41, 0, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(store.read(1, kChunk, 5), expected);
  EXPECT_EQ(store.read(1, kChunk, 5, 2, 4), Content({41, 0, 0, 41}));
  EXPECT_EQ(store.read(1, kChunk, 5, 3, 2), Content({0, 0}));
  EXPECT_EQ(store.read(2, kChunk, 5), Content(kSectorsPerBlock, 0));
  EXPECT_EQ(store->page_index({1, kChunk, 0}), 9u);
  EXPECT_EQ(store->mapped_blocks(1, kChunk.volume), 1u);
  EXPECT_EQ(store.write(1, kChunk, 5, 0b10, 42, 10), 0);  // in place
  EXPECT_EQ(store.read(1, kChunk, 5, 0, 3), Content({0, 42, 41}));
  EXPECT_EQ(store->usage().blocks_mapped, 1u);
}

TEST_F(ChunkStoreTest, ReadsGiveTheChecksums) {
  store.write(1, kChunk, 5, 0b10, 41, 9);
  std::array<uint32_t, 3> crcs{};
  store.read(1, kChunk, 5, 0, 3, crcs.data());
  EXPECT_EQ(crcs[0], base::crc32c_zero_sector());
  EXPECT_EQ(crcs[1], sector_crc(41));
  EXPECT_EQ(crcs[2], base::crc32c_zero_sector());
}

TEST_F(ChunkStoreTest, ACheckpointSurvivesAndSaysWhatTheOwnerGave) {
  store.write(1, kChunk, 0, 0xffff, 11, 1);
  store.write(1, kChunk, 255, 0x8001, 12, 2);
  store.write(9, {8, UINT32_MAX}, 100, 0x1, 13, 3);
  EXPECT_EQ(store->dirty_pages(), 3u);
  EXPECT_EQ(store.checkpoint({{1, bytes_of("one")}, {9, {}}}), 0);
  EXPECT_EQ(store->dirty_pages(), 0u);
  EXPECT_EQ(store->checkpoint_version(), 2u);
  for (int round = 0; round < 3; ++round) {
    store.reopen();
    EXPECT_EQ(store->incarnation(), 2u + static_cast<unsigned>(round));
    EXPECT_EQ(store->checkpoint_version(), 2u + static_cast<unsigned>(round));
    ASSERT_EQ(store->group_blobs().size(), 2u);
    EXPECT_EQ(store->group_blobs()[0].copyset, 1u);
    EXPECT_EQ(store->group_blobs()[0].bytes, bytes_of("one"));
    EXPECT_TRUE(store->group_blobs()[1].bytes.empty());
    EXPECT_EQ(store.read(1, kChunk, 0), Content(kSectorsPerBlock, 11));
    EXPECT_EQ(store.read(1, kChunk, 255, 15, 1), Content({12}));
    EXPECT_EQ(store.read(9, {8, UINT32_MAX}, 100, 0, 2), Content({13, 0}));
    EXPECT_EQ(store->page_index({1, kChunk, 4}), 2u);
    EXPECT_TRUE(store->check().ok());
    store.checkpoint({{1, bytes_of("one")}, {9, {}}});
  }
}

TEST_F(ChunkStoreTest, WithoutACheckpointNothingOfTheMapStays) {
  store.write(1, kChunk, 0, 0xffff, 11, 1);
  store.reopen();
  EXPECT_EQ(store.read(1, kChunk, 0), Content(kSectorsPerBlock, 0));
  EXPECT_EQ(store->usage().blocks_free, store->usage().blocks_total);
}

TEST_F(ChunkStoreTest, BlobsOfManyMebibytesFitAndTooLargeOnesAreRefusedWithoutHarm) {
  const uint64_t most = store->usage().blob_bytes_max;
  EXPECT_GE(most, 1u << 20);
  std::vector<std::byte> large(most - 16 - 100), small(84 - 16 + 16, std::byte{5});
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<std::byte>(i * 7 >> 3);
  EXPECT_EQ(store.checkpoint({{1, large}, {2, small}}), 0);
  EXPECT_EQ(store->usage().blob_bytes, most);
  small.push_back({});
  EXPECT_EQ(store.checkpoint({{1, large}, {2, small}}), -ENOSPC);
  EXPECT_FALSE(store->failed());
  store.reopen();
  EXPECT_EQ(store->group_blobs()[0].bytes, large);
  EXPECT_EQ(store->group_blobs()[1].bytes.size(), 84u);
}

TEST_F(ChunkStoreTest, ClearUnmapsABlockWithItsLastSector) {
  store.write(1, kChunk, 5, 0b111, 41, 9);
  store->clear(1, kChunk, 5, 0b011, 10);
  EXPECT_EQ(store.read(1, kChunk, 5, 0, 4), Content({0, 0, 41, 0}));
  EXPECT_EQ(store->mapped_blocks(1, kChunk.volume), 1u);
  store->clear(1, kChunk, 5, 0b100, 11);
  EXPECT_EQ(store->mapped_blocks(1, kChunk.volume), 0u);
  EXPECT_EQ(store->block_state(1, kChunk, 5).physical, 0u);
  EXPECT_EQ(store->page_index({1, kChunk, 0}), 11u) << "an emptied page keeps its index";
  EXPECT_EQ(store->usage().pages_empty, 1u);
  EXPECT_EQ(store->forget_empty_pages(1, 10), 0u);
  EXPECT_EQ(store->forget_empty_pages(1, 11), 1u);
  EXPECT_FALSE(store->has_page({1, kChunk, 0}));
}

TEST_F(ChunkStoreTest, AFreedBlockWaitsForTheCheckpointAfterIt) {  // R5
  store.write(1, kChunk, 5, 1, 41, 9);
  const uint64_t free = store->usage().blocks_free;
  store->drop_chunk(1, kChunk);
  EXPECT_EQ(store->usage().blocks_free, free);
  EXPECT_EQ(store->usage().blocks_pending_free, 1u);
  EXPECT_EQ(store.checkpoint({}), 0);
  EXPECT_EQ(store->usage().blocks_free, free + 1);
  EXPECT_TRUE(store->check().ok());
}

TEST_F(ChunkStoreTest, APinnedBlockWaitsForItsLastPin) {  // R5
  store.write(1, kChunk, 5, 1, 41, 9);
  const uint32_t block = store->block_state(1, kChunk, 5).physical;
  EXPECT_TRUE(store->pin_block(block));
  EXPECT_TRUE(store->pin_block(block));
  EXPECT_FALSE(store->pin_block(block + 1)) << "it is free";
  EXPECT_FALSE(store->pin_block(0));
  EXPECT_FALSE(store->pin_block(UINT32_MAX));
  store->drop_volume(1, kChunk.volume);
  EXPECT_EQ(store.checkpoint({}), 0);
  EXPECT_EQ(store->usage().blocks_pending_free, 1u);
  EXPECT_FALSE(store->retake_block(block));
  store->unpin_block(block);
  EXPECT_EQ(store->usage().blocks_pending_free, 1u);
  store->unpin_block(block);
  EXPECT_EQ(store->usage().blocks_pending_free, 0u);
  EXPECT_TRUE(store->retake_block(block));
  store->drop_block(block);
  EXPECT_TRUE(store->check().ok());
}

TEST_F(ChunkStoreTest, LargeWritesTakeBlocksAndMapThem) {
  const uint32_t block = store->take_block();
  ASSERT_NE(block, 0u);
  EXPECT_EQ(store->usage().blocks_taken, 1u);
  EXPECT_EQ(store.write_block(block, 77), static_cast<int32_t>(kBlockBytes));
  EXPECT_EQ(store.read(1, kChunk, 9), Content(kSectorsPerBlock, 0));
  std::array<uint32_t, kSectorsPerBlock> crcs;
  crcs.fill(sector_crc(77));
  store.write(1, kChunk, 9, 1, 5, 1);
  EXPECT_TRUE(store->map_block(1, kChunk, 9, block, crcs, 2));
  EXPECT_EQ(store.read(1, kChunk, 9), Content(kSectorsPerBlock, 77));
  EXPECT_EQ(store->usage().blocks_pending_free, 1u);
  EXPECT_EQ(store.checkpoint({}), 0);
  store.reopen();
  EXPECT_EQ(store.read(1, kChunk, 9), Content(kSectorsPerBlock, 77));
  EXPECT_FALSE(store->retake_block(block)) << "it is mapped";
  const uint32_t other = store->take_block();
  store->drop_block(other);
  EXPECT_TRUE(store->retake_block(other));
  EXPECT_FALSE(store->retake_block(other));
  EXPECT_FALSE(store->retake_block(0));
  EXPECT_FALSE(store->retake_block(static_cast<uint32_t>(store->usage().blocks_total) + 1));
}

TEST_F(ChunkStoreTest, BlocksOfAChunkLieSideBySideAlsoWhenChunksGrowTogether) {
  for (uint16_t block = 0; block < 52; ++block)
    for (uint32_t chunk = 0; chunk < 3; ++chunk) store.write(1, {7, chunk}, block, 1, 1, 1);
  for (uint32_t chunk = 0; chunk < 3; ++chunk)
    for (uint16_t block = 1; block < 52; ++block)
      EXPECT_EQ(store->block_state(1, {7, chunk}, block).physical,
                store->block_state(1, {7, chunk}, static_cast<uint16_t>(block - 1)).physical + 1);
}

TEST_F(ChunkStoreTest, ReservationsAreKeptAndTheReserveIsForRecovery) {  // R8
  const Usage all = store->usage();
  const auto kept_of = [](uint64_t all) {  // docs/formats/store.md, reserve_percent
    return static_cast<uint32_t>(std::max(all * 2 / 100, std::min<uint64_t>(136, all / 16)));
  };
  const uint32_t kept = kept_of(all.blocks_total);
  const auto most = static_cast<uint32_t>(all.blocks_total) - kept;
  EXPECT_FALSE(store->reserve(most + 1, 0));
  EXPECT_TRUE(store->reserve(most, 0));
  EXPECT_FALSE(store->reserve(1, 0));
  EXPECT_EQ(store->take_block(), 0u);
  EXPECT_TRUE(store->reserve(kept, 0, true));
  EXPECT_EQ(store->take_block(true), 0u);
  EXPECT_EQ(store.write(1, kChunk, 0, 1, 1, 1), 0) << "what was reserved can be allocated";
  store->unreserve(most + kept, 0);
  const uint32_t pages_kept = kept_of(all.pages_total);
  const auto pages = static_cast<uint32_t>(store->usage().pages_free);
  EXPECT_FALSE(store->reserve(0, pages - pages_kept + 1));
  EXPECT_TRUE(store->reserve(0, pages - pages_kept));
  EXPECT_TRUE(store->reserve(0, pages_kept, true));
  EXPECT_FALSE(store->reserve(0, 1, true));
  EXPECT_TRUE(store->reserve(1, 0));
}

TEST_F(ChunkStoreTest, AFullStoreRefusesNewBlocksAndOverwritesGoOn) {
  uint32_t chunk = 0;
  int32_t result = 0;
  while (result == 0) {
    for (uint16_t block = 0; block < kBlocksPerChunk && result == 0; ++block)
      result = store.write(1, {7, chunk}, block, 1, 1, 1);
    ++chunk;
  }
  EXPECT_EQ(result, -ENOSPC);
  EXPECT_EQ(store->usage().blocks_free, 0u);
  EXPECT_EQ(store.write(1, {7, 0}, 0, 1, 2, 2), 0);
  EXPECT_EQ(store.checkpoint({}), 0);
  EXPECT_EQ(store.read(1, {7, 0}, 0, 0, 1), Content({2}));
  EXPECT_FALSE(store->failed());
  EXPECT_TRUE(store->check().ok());
}

TEST_F(ChunkStoreTest, PagesComeInOrderAlsoWhileTheyChange) {
  for (VolumeId volume : {9, 2, 5})
    for (uint16_t block : {200, 0, 60}) store.write(4, {volume, 1}, block, 1, 1, 1);
  store.write(3, {1, 1}, 0, 1, 1, 1);
  store.write(5, {1, 1}, 0, 1, 1, 1);
  std::vector<std::pair<VolumeId, int>> seen;
  PageId at{4, {}, 255};
  while (auto next = store->next_page(4, at)) {
    at = *next;
    seen.emplace_back(at.chunk.volume, at.page);
    if (at.chunk.volume == 2) store->drop_volume(4, 5);
  }
  const std::vector<std::pair<VolumeId, int>> expected = {{2, 0}, {2, 1}, {2, 3},
                                                          {9, 0}, {9, 1}, {9, 3}};
  EXPECT_EQ(seen, expected);
}

TEST_F(ChunkStoreTest, DropsTakeExactlyTheirPart) {
  for (CopysetId copyset : {1, 2})
    for (VolumeId volume : {7, 8})
      for (uint32_t chunk : {0u, 1u, UINT32_MAX}) {
        store.write(copyset, {volume, chunk}, 0, 1, 1, 1);
        store.write(copyset, {volume, chunk}, 255, 1, 1, 1);
      }
  store->drop_chunk(1, {7, 1});
  EXPECT_EQ(store->mapped_blocks(1, 7), 4u);
  store->drop_volume(1, 7);
  EXPECT_EQ(store->mapped_blocks(1, 7), 0u);
  EXPECT_EQ(store->mapped_blocks(1, 8), 6u);
  store->drop_copyset(1);
  EXPECT_EQ(store->mapped_blocks(1, 8), 0u);
  EXPECT_EQ(store->usage().blocks_mapped, 12u);
  EXPECT_EQ(store->mapped_blocks(2, 7), 6u);
  EXPECT_TRUE(store->check().ok());
}

TEST_F(ChunkStoreTest, AChunkMayBeDroppedWhileItIsWritten) {
  for (bool in_place : {false, true}) {
    for (bool again : {false, true}) {
      if (in_place) store.write(1, kChunk, 5, 1, 40, 1);
      PendingWrite write(store, 1, kChunk, 5, 0xffff, 41, 9);
      store->drop_chunk(1, kChunk);
      if (again) store.write(1, kChunk, 6, 1, 50, 10);
      EXPECT_EQ(write.wait(), 0);
      EXPECT_EQ(store.read(1, kChunk, 5), Content(kSectorsPerBlock, 0));
      store->drop_chunk(1, kChunk);
      EXPECT_EQ(store.checkpoint({}), 0);
      EXPECT_EQ(store->usage().blocks_free, store->usage().blocks_total);
      EXPECT_TRUE(store->check().ok());
    }
  }
}

TEST_F(ChunkStoreTest, ACheckpointWaitsForWritesAndHoldsThem) {
  PendingWrite write(store, 1, kChunk, 5, 0xffff, 41, 9);
  EXPECT_EQ(store.checkpoint({}), 0);
  EXPECT_TRUE(write.is_done());
  store.reopen();
  EXPECT_EQ(store.read(1, kChunk, 5), Content(kSectorsPerBlock, 41));
}

TEST_F(ChunkStoreTest, AReadDuringAWriteOfTheSameBlockIsOldOrNewNeverAnError) {
  store.write(1, kChunk, 5, 0xffff, 1, 1);
  for (uint8_t value = 2; value < 60; ++value) {
    PendingRead before(store, 1, kChunk, 5, 0, 16);
    PendingWrite write(store, 1, kChunk, 5, 0xffff, value, value);
    PendingRead beside(store, 1, kChunk, 5, 0, 16);
    EXPECT_EQ(write.wait(), 0);
    for (PendingRead* read : {&before, &beside}) {
      ASSERT_EQ(read->wait(), 0);
      for (int sector : read->content())
        EXPECT_TRUE(sector == value || sector == value - 1) << sector;
    }
  }
  EXPECT_EQ(store->usage().crc_errors, 0u);
}

TEST_F(ChunkStoreTest, ADamagedSectorIsAnErrorOfThatSectorOnly) {
  store.write(1, kChunk, 5, 0xffff, 41, 9);
  const uint64_t at =
      store->block_offset_bytes(store->block_state(1, kChunk, 5).physical) + 3 * kSectorBytes + 100;
  real.flip(at, 0x10);
  PendingRead bad(store, 1, kChunk, 5, 1, 8);
  EXPECT_EQ(bad.wait(), -EILSEQ);
  EXPECT_EQ(bad.op.bad_sector, 3);
  EXPECT_EQ(store.read(1, kChunk, 5, 0, 3), Content({41, 41, 41}));
  EXPECT_EQ(store->usage().crc_errors, 1u);
  EXPECT_FALSE(store->failed());
  store.write(1, kChunk, 5, 0b1000, 42, 10);  // repaired
  EXPECT_EQ(store.read(1, kChunk, 5, 3, 1), Content({42}));
}

TEST_F(ChunkStoreTest, ASecondProcessIsRefused) {
  base::BufferPool pool;
  auto second = ChunkStore::open(*real.loop, pool, real.path);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Code::kLocked);
}

TEST_F(ChunkStoreTest, FormatRefusesAStoreUntilItIsErased) {
  store.close();
  EXPECT_TRUE(*ChunkStore::exists(*real.loop, real.path));
  FormatOptions options = real.options();
  const Outcome again = ChunkStore::format(*real.loop, real.path, options);
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, Code::kExists);
  EXPECT_NE(again.error().message.find(options.store.text()), std::string::npos)
      << again.error().message;
  EXPECT_EQ(ChunkStore::check_free(*real.loop, real.path).error().code, Code::kExists);
  ASSERT_TRUE(ChunkStore::erase(*real.loop, real.path).ok());
  EXPECT_FALSE(*ChunkStore::exists(*real.loop, real.path));
  EXPECT_TRUE(ChunkStore::check_free(*real.loop, real.path).ok());
  options.store.bytes[0] = 99;
  EXPECT_TRUE(ChunkStore::format(*real.loop, real.path, options).ok());
  store.open();
  EXPECT_EQ(store->store_id().bytes[0], 99);
  EXPECT_EQ(store->checkpoint_version(), 1u);
}

TEST(ChunkStoreFormat, TooSmallSizesAreRefusedWithTheMinimum) {
  RealStore real;
  for (uint64_t bytes : {1ull, 100'000ull, (16ull << 20) - 1}) {
    FormatOptions options = real.options();
    options.bytes = bytes;
    const Outcome outcome = ChunkStore::format(*real.loop, real.path, options);
    ASSERT_FALSE(outcome.ok()) << bytes;
    EXPECT_EQ(outcome.error().code, Code::kNoSpace);
    EXPECT_NE(outcome.error().message.find("16777216"), std::string::npos)
        << outcome.error().message;
  }
  FormatOptions options = real.options();
  options.bytes = 16ull << 20;
  EXPECT_TRUE(ChunkStore::format(*real.loop, real.path, options).ok());
  real.store.open();
  EXPECT_GE(real.store->usage().blocks_total, 200u);
}

TEST(ChunkStoreFormat, WhatIsNoStoreIsRefusedWithAReason) {
  RealStore real;
  base::BufferPool pool;
  auto absent = ChunkStore::open(*real.loop, pool, real.path);
  ASSERT_FALSE(absent.ok());
  real.truncate(0);
  auto empty = ChunkStore::open(*real.loop, pool, real.path);
  ASSERT_FALSE(empty.ok());
  EXPECT_NE(empty.error().message.find("no store"), std::string::npos) << empty.error().message;
  real.truncate(32 << 20);
  auto zeros = ChunkStore::open(*real.loop, pool, real.path);
  ASSERT_FALSE(zeros.ok());
  EXPECT_NE(zeros.error().message.find("no superblock"), std::string::npos)
      << zeros.error().message;
}

}  // namespace
}  // namespace curve::chunkstore
