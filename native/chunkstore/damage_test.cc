// A flipped bit in each structure of a store: what heals, what is refused, and that the sentence
// says which structure at which offset. Then arbitrary damage, which must never crash or hang
// open().
#include <gtest/gtest.h>

#include <random>

#include "native/base/log.h"
#include "native/chunkstore/real_store_test.h"

namespace curve::chunkstore {
namespace {

constexpr ChunkKey kChunk{7, 3};

struct DamageTest : testing::Test {
  RealStore real;
  TestStore& store = real.store;
  Geometry geometry = *plan_geometry(RealStore::options().bytes, 0);
  DamageTest() {
    real.format();
    store.open();
    store.write(1, kChunk, 5, 0xffff, 41, 9);
    store.write(1, kChunk, 70, 0x00ff, 42, 10);
    EXPECT_EQ(store.checkpoint({{1, bytes_of("blob")}}), 0);  // root 2, slot 0
    store.close();
  }
  Error refusal() {
    auto opened = ChunkStore::open(*real.loop, store.pool, real.path);
    EXPECT_FALSE(opened.ok());
    return opened.ok() ? Error{} : opened.error();
  }
  // kCorrupt, with path, structure, offset and remedy.
  void expect_refused(const std::string& structure, uint64_t offset) {
    const Error error = refusal();
    EXPECT_EQ(error.code, Code::kCorrupt) << error.message;
    for (const std::string& part :
         {real.path, structure, "at offset " + std::to_string(offset), std::string("expected"),
          std::string("found"), std::string("out of service")})
      EXPECT_NE(error.message.find(part), std::string::npos)
          << part << " is missing in: " << error.message;
  }
  void expect_content_of(uint16_t block, uint16_t mask, int value) {
    for (uint8_t i = 0; i < kSectorsPerBlock; ++i)
      EXPECT_EQ(store.read(1, kChunk, block, i, 1), Content(1, mask >> i & 1 ? value : 0));
  }
  void expect_content() {
    store.open();
    EXPECT_EQ(store.read(1, kChunk, 5), Content(kSectorsPerBlock, 41));
    EXPECT_EQ(store->group_blobs()[0].bytes, bytes_of("blob"));
    store.close();
  }
  template <class T>
  T peek(uint64_t offset) {
    const auto bytes = real.peek(offset, sizeof(T));
    T out;
    std::memcpy(&out, bytes.data(), sizeof out);
    return out;
  }
  template <class T>
  void poke_sealed(uint64_t offset, T structure) {
    structure.crc = seal_of(structure);
    real.poke(offset, std::as_bytes(std::span(&structure, 1)));
  }
  // Writes a page and makes the root name it: what damage cannot do, a bug could.
  void plant_page(uint32_t number, PageSlot page) {
    const uint64_t root = geometry.root_offset(0);
    page.crc = seal_of(page);
    real.poke(geometry.page_offset(number, page.slot), std::as_bytes(std::span(&page, 1)));
    auto header = peek<RootHeader>(root);
    auto body = real.peek(root + kRootHeaderBytes, header.body_bytes);
    PageName name =
        PageName::of(base::crc32c(std::as_bytes(std::span(&page, 1))), page.slot, page.version);
    std::memcpy(body.data() + number * sizeof name, &name, sizeof name);
    real.poke(root + kRootHeaderBytes, body);
    header.body_crc = base::crc32c(body);
    for (header.copy = 0; header.copy < 2; ++header.copy)
      poke_sealed(root + header.copy * kStructBytes, header);
  }
};

TEST_F(DamageTest, OneSuperblockIsEnoughAndTheOtherIsHealed) {
  for (int copy : {0, 1}) {
    real.flip(kSuperblockOffsets[copy] + 40, 1);
    expect_content();
    real.flip(kSuperblockOffsets[1 - copy] + 40, 1);  // only a healed copy is left
    expect_content();
  }
}

TEST_F(DamageTest, BothSuperblocksBadIsRefused) {
  real.flip(kSuperblockOffsets[0] + 4000, 1);
  real.flip(kSuperblockOffsets[1] + 9, 1);
  expect_refused("superblock", 0);
}

TEST_F(DamageTest, SuperblocksOfTwoStoresAreRefused) {
  auto superblock = peek<Superblock>(kSuperblockOffsets[1]);
  superblock.store.bytes[5] = 77;
  poke_sealed(kSuperblockOffsets[1], superblock);
  expect_refused("superblock", kSuperblockOffsets[1]);
}

TEST_F(DamageTest, SizesThatDoNotFitAndUnknownVersionsAreRefused) {
  const auto good = peek<Superblock>(0);
  const auto plant = [&](auto change) {
    auto bad = good;
    change(bad);
    for (uint64_t offset : kSuperblockOffsets) poke_sealed(offset, bad);
    return refusal();
  };
  EXPECT_EQ(plant([](Superblock& s) { s.pages += 1; }).code, Code::kCorrupt);
  EXPECT_EQ(plant([](Superblock& s) { s.blocks = UINT64_MAX; }).code, Code::kCorrupt);
  EXPECT_EQ(plant([](Superblock& s) { s.bytes = UINT64_MAX; }).code, Code::kCorrupt);
  EXPECT_EQ(plant([](Superblock& s) { s.blob_bytes = UINT64_MAX; }).code, Code::kCorrupt);
  EXPECT_EQ(plant([](Superblock& s) { s.reserve_percent = 101; }).code, Code::kCorrupt);
  EXPECT_EQ(plant([](Superblock& s) { s.format_version = 2; }).code, Code::kVersion);
  EXPECT_EQ(plant([](Superblock& s) { s.features = 1ull << 40; }).code, Code::kVersion);
  EXPECT_EQ(plant([](Superblock& s) { s.store = {}; }).code, Code::kCorrupt);
  for (uint64_t offset : kSuperblockOffsets) poke_sealed(offset, good);
  expect_content();
}

TEST_F(DamageTest, ACutFileIsRefused) {
  real.truncate(geometry.bytes - 4096);
  expect_refused("file", geometry.bytes - 4096);
}

TEST_F(DamageTest, ABadCopyOfTheRootHeaderIsHealed) {
  for (uint32_t copy : {0u, 1u}) {
    real.flip(geometry.root_offset(0) + copy * kStructBytes + 100, 4);
    expect_content();
    EXPECT_EQ(peek<RootHeader>(geometry.root_offset(0) + copy * kStructBytes).copy, copy);
    real.flip(geometry.root_offset(0) + (1 - copy) * kStructBytes + 100, 4);
    expect_content();
  }
}

TEST_F(DamageTest, ARootTornInItsOwnWriteLeavesTheOneBefore) {
  real.flip(geometry.root_offset(0) + 100, 4);
  real.flip(geometry.root_offset(0) + kStructBytes + 100, 4);
  store.open();
  EXPECT_EQ(store->checkpoint_version(), 1u) << "the owner compares this with the WAL's anchor";
  EXPECT_EQ(store->usage().blocks_mapped, 0u);
  EXPECT_EQ(store.checkpoint({}), 0);
  store.reopen();
  EXPECT_EQ(store->checkpoint_version(), 2u);
}

TEST_F(DamageTest, BothRootsBadIsRefused) {
  for (uint32_t slot : {0u, 1u})
    for (uint32_t copy : {0u, 1u})
      real.flip(geometry.root_offset(slot) + copy * kStructBytes + 200, 4);
  expect_refused("checkpoint root", geometry.root_offset(1));
}

TEST_F(DamageTest, RootsThatDoNotFollowEachOtherAreRefused) {
  auto header = peek<RootHeader>(geometry.root_offset(1));
  header.version = 8;
  for (header.copy = 0; header.copy < 2; ++header.copy)
    poke_sealed(geometry.root_offset(1) + header.copy * kStructBytes, header);
  expect_refused("checkpoint root", geometry.root_offset(0));
}

TEST_F(DamageTest, ABadBodyOfTheRootIsRefused) {
  real.flip(geometry.root_offset(0) + kRootHeaderBytes + 3, 0x80);
  expect_refused("body of checkpoint root 2", geometry.root_offset(0) + kRootHeaderBytes);
}

TEST_F(DamageTest, ARootThatLiesAboutItsBlobsIsRefused) {
  auto header = peek<RootHeader>(geometry.root_offset(0));
  const auto plant = [&](auto change) {
    auto bad = header;
    change(bad);
    for (bad.copy = 0; bad.copy < 2; ++bad.copy)
      poke_sealed(geometry.root_offset(0) + bad.copy * kStructBytes, bad);
  };
  plant([](RootHeader& h) { ++h.blobs; });
  expect_refused("checkpoint root", geometry.root_offset(0));
  plant([](RootHeader& h) { h.blobs = 0; });
  expect_refused("body of checkpoint root", geometry.root_offset(0) + kRootHeaderBytes);
  plant([](RootHeader& h) { h.body_bytes = UINT64_MAX; });
  expect_refused("checkpoint root", geometry.root_offset(0));
  plant([](RootHeader& h) { h.pages = UINT32_MAX; });
  expect_refused("checkpoint root", geometry.root_offset(0));
  plant([](RootHeader&) {});
  expect_content();
}

// R5, R10: what it mapped is the peers' to give back; the owner is told.
TEST_F(DamageTest, ABadPageIsLostAndTheRestIsThere) {
  real.flip(geometry.page_offset(1, 0) + 3000, 2);
  store.open();
  EXPECT_EQ(store->pages_lost(), 1u);
  EXPECT_EQ(store.read(1, kChunk, 5), Content(kSectorsPerBlock, 41));
  EXPECT_FALSE(store->is_mapped(1, kChunk, 70));
  EXPECT_TRUE(store->check().ok());
  store.write(1, kChunk, 70, 0x00ff, 42, 11);  // as the peers give it
  EXPECT_EQ(store.checkpoint({{1, bytes_of("blob")}}), 0);
  store.reopen();
  EXPECT_EQ(store->pages_lost(), 0u);
  EXPECT_EQ(store.read(1, kChunk, 70, 0, 8), Content(8, 42));
}

// Scrub sees it while the store runs: the next checkpoint writes it again.
TEST_F(DamageTest, APageThatIsFoundDamagedIsWrittenAgain) {
  store.open();
  Pending<CheckPageOp> good(store);
  good.op.id = {1, kChunk, 1};
  store->check_page(&good.op);
  EXPECT_EQ(good.wait(), 0);
  real.flip(geometry.page_offset(1, 0) + 3000, 2);
  Pending<CheckPageOp> bad(store);
  bad.op.id = {1, kChunk, 1};
  store->check_page(&bad.op);
  EXPECT_EQ(bad.wait(), -EILSEQ);
  EXPECT_EQ(bad.op.offset_bytes, geometry.page_offset(1, 0));
  EXPECT_EQ(store.checkpoint({{1, bytes_of("blob")}}), 0);
  store.reopen();
  EXPECT_EQ(store->pages_lost(), 0u);
  expect_content_of(70, 0x00ff, 42);
}

// A look for people changes nothing.
TEST_F(DamageTest, ReadOnlyOpeningChangesNothing) {
  const auto before = real.peek(0, geometry.blocks_offset);
  auto opened = ChunkStore::open(*real.loop, store.pool, real.path, true);
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  EXPECT_EQ((*opened)->incarnation(), 1u);
  EXPECT_TRUE((*opened)->is_mapped(1, kChunk, 5));
  opened = Error{};
  EXPECT_EQ(real.peek(0, geometry.blocks_offset), before);
  store.open();
  EXPECT_EQ(ChunkStore::open(*real.loop, store.pool, real.path, true).error().code, Code::kLocked);
}

TEST_F(DamageTest, AnOlderSlotWithAGoodChecksumIsDamage) {  // R5
  const auto older = real.peek(geometry.page_offset(0, 0), kStructBytes);
  store.open();
  for (uint8_t value : {50, 51}) {  // page 0 goes to slot 1, then to slot 0 again
    store.write(1, kChunk, 5, 1, value, value);
    EXPECT_EQ(store.checkpoint({}), 0);
  }
  store.close();
  real.poke(geometry.page_offset(0, 0), older);  // a write that the disk lost
  store.open();
  EXPECT_EQ(store->pages_lost(), 1u);
  EXPECT_FALSE(store->is_mapped(1, kChunk, 5));
}

TEST_F(DamageTest, ACheckpointLeavesTheSlotsOfTheDurableRootAlone) {  // R5
  const auto named = real.peek(geometry.page_offset(0, 0), kStructBytes);
  const auto root = real.peek(geometry.root_offset(0), kRootHeaderBytes + 64);
  store.open();
  store.write(1, kChunk, 5, 1, 50, 50);
  EXPECT_EQ(store.checkpoint({}), 0);
  EXPECT_EQ(real.peek(geometry.page_offset(0, 0), kStructBytes), named);
  EXPECT_EQ(real.peek(geometry.root_offset(0), kRootHeaderBytes + 64), root);
}

TEST_F(DamageTest, BlocksMappedTwiceOrOutOfRangeAreRefused) {
  const auto good = peek<PageSlot>(geometry.page_offset(1, 0));
  const auto other = peek<PageSlot>(geometry.page_offset(0, 0));
  auto bad = good;
  bad.physical[3] = other.physical[5];
  bad.written[3] = 1;
  plant_page(1, bad);
  expect_refused("metadata page 1", geometry.page_offset(1, 0));
  EXPECT_NE(refusal().message.find("mapped twice"), std::string::npos);
  for (uint32_t physical : {static_cast<uint32_t>(geometry.blocks + 1), UINT32_MAX}) {
    bad.physical[3] = physical;
    plant_page(1, bad);
    expect_refused("metadata page 1", geometry.page_offset(1, 0));
  }
  bad.physical[3] = 300;
  bad.written[3] = 0;
  plant_page(1, bad);
  expect_refused("metadata page 1", geometry.page_offset(1, 0));
  bad = good;
  bad.page = 0;  // the same part of the chunk twice
  plant_page(1, bad);
  expect_refused("metadata page 1", geometry.page_offset(1, 0));
  bad = good;
  bad.page = kPagesPerChunk;
  plant_page(1, bad);
  expect_refused("metadata page 1", geometry.page_offset(1, 0));
  bad = good;
  bad.page = kPagesPerChunk - 1;
  bad.physical[51] = 300;  // block 259 of a chunk
  bad.written[51] = 1;
  plant_page(1, bad);
  expect_refused("metadata page 1", geometry.page_offset(1, 0));
  plant_page(1, good);
  expect_content();
}

template <class T>
void reseal_as(std::vector<std::byte>& bytes) {
  T structure;
  std::memcpy(&structure, bytes.data(), sizeof structure);
  structure.crc = seal_of(structure);
  std::memcpy(bytes.data(), &structure, sizeof structure);
}
void reseal(std::vector<std::byte>& bytes) {
  uint64_t magic;
  std::memcpy(&magic, bytes.data(), sizeof magic);
  if (magic == kSuperblockMagic) reseal_as<Superblock>(bytes);
  if (magic == kRootMagic) reseal_as<RootHeader>(bytes);
  if (static_cast<uint32_t>(magic) == kPageMagic) reseal_as<PageSlot>(bytes);
}

// Mutations anywhere in the metadata, half of them with seals made good again, so that they get
// past the checksums.
TEST_F(DamageTest, ArbitraryDamageNeverCrashesOpen) {
  const auto image = real.peek(0, geometry.blocks_offset);
  std::vector<uint64_t> interesting = {kSuperblockOffsets[0], kSuperblockOffsets[1]};
  for (uint32_t slot : {0u, 1u})
    for (uint64_t at : {0u, kStructBytes, kRootHeaderBytes})
      interesting.push_back(geometry.root_offset(slot) + at);
  for (uint32_t number : {0u, 1u}) interesting.push_back(geometry.page_offset(number, 0));
  base::set_log_sink([](void*, base::LogLevel, std::string_view) {}, this);
  int refused = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<std::pair<uint64_t, std::vector<std::byte>>> undo;
    for (uint64_t hits = 1 + random() % 4; hits > 0; --hits) {
      const uint64_t offset = interesting[random() % interesting.size()];
      auto bytes = real.peek(offset, kStructBytes);
      undo.insert(undo.begin(), {offset, bytes});
      for (uint64_t changes = 1 + random() % 6; changes > 0; --changes) {
        const uint64_t at = random() % (random() % 2 ? 128 : kStructBytes - 8);
        const uint64_t values[] = {0, UINT64_MAX, random(), 1ull << random() % 64};
        std::memcpy(bytes.data() + at, &values[random() % 4], 1 + random() % 8);
      }
      if (random() % 2) reseal(bytes);
      real.poke(offset, bytes);
    }
    auto opened = ChunkStore::open(*real.loop, store.pool, real.path);
    if (opened) {
      EXPECT_TRUE((*opened)->check().ok()) << "seed " << seed;
    } else {
      ++refused;
      EXPECT_NE(opened.error().message.find(real.path), std::string::npos)
          << opened.error().message;
    }
    opened = Error{};
    for (const auto& [offset, bytes] : undo) real.poke(offset, bytes);
    real.poke(0, std::span(image).first(kStructBytes));
    real.poke(kSuperblockOffsets[1], std::span(image).subspan(kSuperblockOffsets[1], kStructBytes));
  }
  base::set_log_sink(nullptr, nullptr);
  EXPECT_GT(refused, 50);
  expect_content();
}

}  // namespace
}  // namespace curve::chunkstore
