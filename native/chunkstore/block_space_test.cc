// Bits, blocks and pages in memory, each against a naive twin.
#include "native/chunkstore/block_space.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "native/chunkstore/bit_tree.h"
#include "native/chunkstore/page_map.h"

namespace curve::chunkstore {
namespace {

TEST(BitTree, AgreesWithASet) {
  std::mt19937 random(1);
  for (uint64_t size : {1u, 63u, 64u, 65u, 4096u, 4097u, 300'000u}) {
    BitTree tree(size);
    std::set<uint64_t> naive;
    for (int round = 0; round < 3000; ++round) {
      const uint64_t bit = random() % size;
      if (random() % 2) {
        tree.set(bit);
        naive.insert(bit);
      } else {
        tree.reset(bit);
        naive.erase(bit);
      }
      const uint64_t from = random() % (size + 2);
      const auto it = naive.lower_bound(from);
      ASSERT_EQ(tree.next(from), it == naive.end() ? BitTree::kNone : *it) << size << " " << from;
      ASSERT_EQ(tree.test(bit), naive.contains(bit));
    }
  }
}

TEST(BitTree, AnEmptyOneHasNothing) { EXPECT_EQ(BitTree(0).next(0), BitTree::kNone); }

// The rules of block_space.h, written down the slow way.
struct NaiveSpace {
  std::set<uint32_t> free, taken;
  std::map<uint32_t, int> references, pins;
  std::set<uint32_t> freed, covered, waiting;
  void release(uint32_t block) {
    if (pins[block] > 0) {
      waiting.insert(block);
    } else {
      free.insert(block);
    }
  }
};

TEST(BlockSpace, AgreesWithTheRules) {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    std::mt19937 random(seed);
    const uint32_t blocks = 50 + random() % 400;
    BlockSpace space(blocks, 0);
    NaiveSpace naive;
    for (uint32_t block = 1; block <= blocks; ++block) naive.free.insert(block);
    const auto any = [&](const auto& from) {
      auto it = from.begin();
      std::advance(it, random() % from.size());
      return *it;
    };
    bool checkpoint = false;
    for (int round = 0; round < 6000; ++round) {
      switch (random() % 10) {
        case 0:
        case 1:
        case 2: {
          const uint32_t block = random() % 2
                                     ? space.allocate(random() % (blocks + 2), random() % 256)
                                     : space.take(false);
          ASSERT_EQ(block == 0, naive.free.empty());
          if (block == 0) break;
          ASSERT_TRUE(naive.free.erase(block)) << "in use: " << block;
          naive.taken.insert(block);
          break;
        }
        case 3:
          if (naive.taken.empty()) break;
          if (const uint32_t block = any(naive.taken); random() % 4) {
            space.reference(block);
            naive.taken.erase(block);
            naive.references[block] = 1;
          } else {
            space.give_back(block);
            naive.taken.erase(block);
            naive.release(block);
          }
          break;
        case 4:
          if (naive.references.empty()) break;
          if (const uint32_t block = any(naive.references).first; random() % 3 == 0) {
            space.reference(block);
            ++naive.references[block];
          } else {
            space.unreference(block);
            if (--naive.references[block] == 0) {
              naive.references.erase(block);
              naive.freed.insert(block);
            }
          }
          break;
        case 5:
          if (const uint32_t block = 1 + random() % blocks;
              !naive.free.contains(block) && random() % 2) {
            space.pin(block);
            ++naive.pins[block];
          }
          break;
        case 6:
        case 7:
          if (const uint32_t block = 1 + random() % blocks; naive.pins[block] > 0) {
            space.unpin(block);
            if (--naive.pins[block] == 0 && naive.waiting.erase(block)) naive.free.insert(block);
          }
          break;
        case 8:
          if (const uint32_t block = random() % (blocks + 2); random() % 4 == 0) {
            ASSERT_EQ(space.retake(block), naive.free.contains(block));
            if (naive.free.erase(block)) naive.taken.insert(block);
          }
          break;
        default:
          if (random() % 8) break;
          if (checkpoint) {
            space.checkpoint_durable();
            for (uint32_t block : naive.covered) naive.release(block);
            naive.covered.clear();
          } else {
            space.begin_checkpoint();
            naive.covered.swap(naive.freed);
          }
          checkpoint = !checkpoint;
      }
      ASSERT_EQ(space.free(), naive.free.size());
      ASSERT_EQ(space.pending(), naive.freed.size() + naive.covered.size() + naive.waiting.size());
      ASSERT_EQ(space.mapped(), naive.references.size());
      ASSERT_EQ(space.taken(), naive.taken.size());
    }
    for (uint32_t block = 1; block <= blocks; ++block)
      ASSERT_EQ(space.is_free(block), naive.free.contains(block));
  }
}

TEST(PageMap, AgreesWithAnOrderedMap) {
  std::mt19937 random(3);
  constexpr uint32_t kPages = 200;
  PageMap map(kPages);
  std::map<PageId, std::map<uint32_t, uint32_t>> naive;
  const auto any_id = [&] {
    return PageId{random() % 3,
                  {1 + random() % 3, static_cast<uint32_t>(random() % 10)},
                  static_cast<uint8_t>(random() % 5)};
  };
  uint32_t next_value = 1;
  for (int round = 0; round < 60'000; ++round) {
    const PageId id = any_id();
    uint32_t number = map.find(id);
    ASSERT_EQ(number != PageMap::kNone, naive.contains(id));
    if (number == PageMap::kNone) {
      number = map.create(id);
      ASSERT_EQ(number == PageMap::kNone, naive.size() == kPages);
      if (number == PageMap::kNone) continue;
      naive[id];
    }
    Page& page = map.page(number);
    auto& twin = naive[id];
    const uint32_t slot = random() % blocks_in_page(id.page);
    if (Entry* entry = page.find(slot)) {
      ASSERT_EQ(entry->physical, twin.at(slot));
      map.erase(page, slot);
      twin.erase(slot);
    } else {
      ASSERT_FALSE(twin.contains(slot));
      map.insert(page, slot).physical = next_value;
      twin[slot] = next_value++;
    }
    if (random() % 40 == 0) {
      while (page.present) map.erase(page, static_cast<uint32_t>(std::countr_zero(page.present)));
      map.remove(number);
      naive.erase(id);
    }
    if (round % 500 != 0) continue;
    uint64_t empty = 0;
    uint32_t walked = map.first_at_or_after({0, {}, 0});
    for (const auto& [expected, entries] : naive) {
      ASSERT_NE(walked, PageMap::kNone);
      ASSERT_EQ(map.page(walked).id, expected);
      empty += entries.empty();
      for (const auto& [at, value] : entries) ASSERT_EQ(map.page(walked).find(at)->physical, value);
      walked = map.first_after(expected);
    }
    ASSERT_EQ(walked, PageMap::kNone);
    ASSERT_EQ(map.live(), naive.size());
    ASSERT_EQ(map.empty_pages(), empty);
    for (CopysetId copyset = 0; copyset < 3; ++copyset)
      for (VolumeId volume = 1; volume < 4; ++volume) {
        uint64_t blocks = 0;
        for (const auto& [at, entries] : naive)
          if (at.copyset == copyset && at.chunk.volume == volume) blocks += entries.size();
        ASSERT_EQ(map.volume_blocks(copyset, volume), blocks);
      }
  }
}

TEST(PageMap, AFullyMappedTebibyteFitsTheBudget) {  // 1.4 GiB per TiB, overlay included
  constexpr uint64_t kChunks = 4096;                // 64 GiB: a 16th
  PageMap map(kChunks * kPagesPerChunk);
  for (uint32_t chunk = 0; chunk < kChunks; ++chunk)
    for (uint8_t part = 0; part < kPagesPerChunk; ++part) {
      Page& page = map.page(map.create({1, {1, chunk}, part}));
      for (uint32_t slot = 0; slot < blocks_in_page(part); ++slot) map.insert(page, slot);
    }
  const uint64_t counts = kChunks * kBlocksPerChunk * 4;
  EXPECT_LT((map.memory_bytes() + counts) * 16, 1300ull << 20);
}

}  // namespace
}  // namespace curve::chunkstore
