// The store under crashes, against a naive model: random writes, large writes, clears, drops, reads
// and checkpoints on the simulated disk (torn, lost and kept writes), power cuts and kills at any
// moment, also inside open(). After each crash the content must be that of the last durable
// checkpoint or of the one in progress, and after a replay of what came later, as the owner's WAL
// does it, it must be everything. One seed, one run.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/chunkstore/store_test.h"
#include "native/sim/disk.h"
#include "native/sim/world.h"

namespace curve::chunkstore {
namespace {

struct Place {  // a block of a chunk
  CopysetId copyset;
  ChunkKey chunk;
  uint16_t block;
  auto operator<=>(const Place&) const = default;
};

enum class Kind : uint8_t { kWrite, kMap, kClear, kDropChunk, kDropVolume, kDropCopyset };

struct Logged {
  Kind kind;
  Place place;
  uint16_t mask = 0xffff;
  int value = 0;
  uint32_t physical = 0;  // kMap
};

bool covers(const Logged& drop, const Place& place) {
  if (drop.kind < Kind::kDropChunk || drop.place.copyset != place.copyset) return false;
  return drop.kind == Kind::kDropCopyset ||
         (drop.place.chunk.volume == place.chunk.volume &&
          (drop.kind == Kind::kDropVolume || drop.place.chunk == place.chunk));
}

using Sectors = std::array<int, kSectorsPerBlock>;

struct Model {
  std::map<Place, Sectors> mapped;  // with at least one sector that is not zero
  void apply(const Logged& op) {
    if (op.kind >= Kind::kDropChunk) {
      std::erase_if(mapped, [&](const auto& item) { return covers(op, item.first); });
      return;
    }
    Sectors& sectors = mapped[op.place];
    for (uint32_t i = 0; i < kSectorsPerBlock; ++i)
      if (op.mask >> i & 1) sectors[i] = op.kind == Kind::kClear ? 0 : op.value;
    if (sectors == Sectors{}) mapped.erase(op.place);
  }
  int value(const Place& place, uint32_t sector) const {
    const auto it = mapped.find(place);
    return it == mapped.end() ? 0 : it->second[sector];
  }
};

struct CheckedRead {
  explicit CheckedRead(const Place& place_in) : place(place_in) {}
  Place place;
  std::unique_ptr<PendingRead> read;
  std::vector<std::set<int>> allowed;  // per sector of the read
};

struct RunningWrite {
  Logged op;
  std::unique_ptr<PendingWrite> write;
  bool dropped = false;
};

struct LargeWrite {  // payload on its way to a taken block; logged and mapped when it is durable
  Logged op;
  AlignedBlock bytes;
  iovec iov{};
  io::FileOp file_op;
  bool done = false;
};

struct Process : sim::Process {
  TestStore store;
  std::vector<std::unique_ptr<RunningWrite>> writes;
  std::vector<std::unique_ptr<CheckedRead>> reads;
  std::vector<std::unique_ptr<LargeWrite>> large;
  io::Op checkpoint;
};

// The whole run of one seed. `failure` is empty when everything held.
class CrashRun {
 public:
  // `lossy`: the disk loses writes that it reported as done. The store may refuse, it must not give
  // a wrong answer.
  explicit CrashRun(uint64_t seed, bool lossy = false)
      : lossy_(lossy), random_(seed), world_(seed), node_(world_.add_node("node")) {
    if (lossy_) node_.disk->faults.lost_write_chance = 0.01;
  }

  std::string go() {
    start();
    if (failure_.empty()) squeeze();
    for (int life = 0; life < 4 && failure_.empty(); ++life) {
      for (uint64_t step = 50 + random_.below(350); step > 0 && failure_.empty(); --step) {
        act();
        world_.run_for(random_.skewed(400 * sim::kMicrosecond));
        settle();
      }
      if (!failure_.empty()) break;
      world_.crash(node_, random_.chance(0.7) ? sim::CrashKind::kPower : sim::CrashKind::kKill);
      start();
      if (refused_) break;
      if (failure_.empty()) verify_and_replay();
      if (refused_) break;
    }
    return failure_;
  }

  bool refused() const { return refused_; }

 private:
  Process& process() { return *static_cast<Process*>(node_.process.get()); }
  ChunkStore& store() { return *process().store.store; }
  void fail(std::string what) {
    if (failure_.empty()) failure_ = std::move(what);
  }

  void start() {
    const auto boot = [this](io::Loop& loop) -> std::unique_ptr<sim::Process> {
      auto process = std::make_unique<Process>();
      TestStore& store = process->store;
      store.loop = &loop;
      store.path = "/data";
      store.run = [this](const std::function<bool()>& done) {
        world_.run_until(done, 60 * sim::kSecond);
      };
      if (!formatted_ && !*ChunkStore::exists(loop, store.path)) {
        FormatOptions options;
        options.store.bytes = {1};
        options.bytes = kStoreBytesMin;
        options.reserve_percent = 0;
        if (auto outcome = ChunkStore::format(loop, store.path, options); !outcome)
          fail("format: " + outcome.error().message);
      }
      formatted_ = true;
      auto opened = ChunkStore::open(loop, store.pool, store.path);
      if (!opened) {
        refused_ = lossy_ && opened.error().code == Code::kCorrupt;
        if (!refused_) fail("open: " + opened.error().message);
        return nullptr;
      }
      if ((*opened)
              ->pages_lost()) {  // said, so that the owner has everything filled from its peers
        refused_ = lossy_;
        if (!refused_) fail("open: a page is lost");
        return nullptr;
      }
      store.store = std::move(*opened);
      return process;
    };
    while (true) {
      if (random_.chance(0.5)) node_.disk->crash_in_sync_call(1 + random_.below(20));
      world_.start(node_, boot);
      if (node_.state != sim::NodeState::kDown) break;
    }
    if (failure_.empty() && !refused_) {
      if (store().incarnation() <= incarnation_) fail("the incarnation did not rise");
      incarnation_ = store().incarnation();
    }
  }

  // Leaves few free blocks, so that freed ones are soon wanted.
  void squeeze() {
    while (store().usage().blocks_free > kFreeBlocks && store().take_block(true) != 0) {
    }
  }

  Place any_place() {
    constexpr uint16_t kBlocks[] = {0, 1, 51, 52, 103, 255};
    return {1 + random_.below(2),
            {7 + random_.below(2), static_cast<uint32_t>(random_.below(2))},
            kBlocks[random_.below(6)]};
  }
  bool busy(const Place& place) {
    return std::any_of(process().writes.begin(), process().writes.end(), [&](const auto& write) {
      return !write->dropped && write->op.place == place;
    });
  }
  bool may_allocate() {
    if (!store().reserve(1, 1, true)) return false;
    store().unreserve(1, 1);
    return true;
  }

  void act() {
    switch (random_.below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
        return start_write();
      case 6:
      case 7:
        return start_large_write();
      case 8:
      case 9:
      case 10:
        return start_read();
      case 11:
      case 12:
        return clear();
      case 13:
        return drop();
      default:
        return start_checkpoint();
    }
  }

  void log(const Logged& op) {
    log_.push_back(op);
    for (auto& read : process().reads)
      if (read->place == op.place || covers(op, read->place))
        for (uint32_t i = 0; i < read->allowed.size(); ++i)
          if (op.mask >> (read->read->op.first_sector + i) & 1) read->allowed[i].insert(op.value);
  }

  void start_write() {
    Logged op{Kind::kWrite, any_place(), static_cast<uint16_t>(1 + random_.below(0xffff)),
              ++next_value_};
    if (store().checkpoint_running() || busy(op.place) || process().writes.size() > 8 ||
        !may_allocate())
      return;
    log(op);
    auto write = std::make_unique<RunningWrite>(RunningWrite{op, nullptr, false});
    write->write = std::make_unique<PendingWrite>(process().store, op.place.copyset, op.place.chunk,
                                                  op.place.block, op.mask, op.value, log_.size());
    process().writes.push_back(std::move(write));
  }

  void start_large_write() {
    const uint32_t physical = process().large.size() < 4 ? store().take_block() : 0;
    if (physical == 0) return;
    auto large = std::make_unique<LargeWrite>();
    large->op = {Kind::kMap, any_place(), 0xffff, ++next_value_, physical};
    for (uint32_t i = 0; i < kSectorsPerBlock; ++i)
      fill_sector(large->bytes.data + i * kSectorBytes, large->op.value);
    large->iov = {large->bytes.data, kBlockBytes};
    large->file_op.iov = {&large->iov, 1};
    large->file_op.durable = true;
    large->file_op.owner = large.get();
    large->file_op.done = [](io::Op* op) { static_cast<LargeWrite*>(op->owner)->done = true; };
    store().write_block(&large->file_op, physical);
    process().large.push_back(std::move(large));
  }

  void map_large(const Logged& op, Index index) {
    std::array<uint32_t, kSectorsPerBlock> crcs;
    crcs.fill(sector_crc(op.value));
    if (!store().map_block(op.place.copyset, op.place.chunk, op.place.block, op.physical, crcs,
                           index))
      fail("no page for a block");
    if (!store().pin_block(op.physical)) fail("a mapped block is free");
    pinned_.push_back({log_.size(), op.physical});
  }

  void start_read() {
    if (process().reads.size() > 8) return;
    auto read = std::make_unique<CheckedRead>(any_place());
    const auto first = static_cast<uint8_t>(random_.below(kSectorsPerBlock));
    const auto count = static_cast<uint8_t>(1 + random_.below(kSectorsPerBlock - first));
    for (uint32_t i = first; i < first + count; ++i)
      read->allowed.push_back({live_.value(read->place, i)});
    for (auto& write : process().writes)
      if (write->op.place == read->place && !write->dropped)
        for (uint32_t i = 0; i < count; ++i)
          if (write->op.mask >> (first + i) & 1) read->allowed[i].insert(write->op.value);
    read->read = std::make_unique<PendingRead>(process().store, read->place.copyset,
                                               read->place.chunk, read->place.block, first, count);
    process().reads.push_back(std::move(read));
  }

  void clear() {
    Logged op{Kind::kClear, any_place(), static_cast<uint16_t>(1 + random_.below(0xffff)), 0};
    if (random_.chance(0.4)) op.mask = 0xffff;
    if (store().checkpoint_running() || busy(op.place)) return;
    log(op);
    live_.apply(op);
    store().clear(op.place.copyset, op.place.chunk, op.place.block, op.mask, log_.size());
  }

  void drop() {
    if (store().checkpoint_running()) return;
    Logged op{static_cast<Kind>(3 + random_.below(3)), any_place()};
    if (op.kind == Kind::kDropCopyset && random_.chance(0.7)) op.kind = Kind::kDropChunk;
    log(op);
    live_.apply(op);
    for (auto& write : process().writes) write->dropped |= covers(op, write->op.place);
    drop_now(op);
    if (random_.chance(0.3)) store().forget_empty_pages(1 + random_.below(2), log_.size());
  }
  void drop_now(const Logged& op) {
    if (op.kind == Kind::kDropChunk) store().drop_chunk(op.place.copyset, op.place.chunk);
    if (op.kind == Kind::kDropVolume) store().drop_volume(op.place.copyset, op.place.chunk.volume);
    if (op.kind == Kind::kDropCopyset) store().drop_copyset(op.place.copyset);
  }

  void start_checkpoint() {
    if (store().checkpoint_running()) return;
    checkpoint_done_ = false;
    in_progress_ = log_.size();
    io::Op& op = process().checkpoint;
    op = {};
    op.owner = this;
    op.done = [](io::Op* ended) {
      static_cast<CrashRun*>(ended->owner)->on_checkpoint(ended->result);
    };
    std::vector<GroupBlob> blobs;
    blobs.push_back({1, blob_of(log_.size())});
    store().checkpoint(&op, std::move(blobs));
  }
  // As the owner does: the log's position, and bulk so that blobs span several blocks sometimes.
  std::vector<std::byte> blob_of(uint64_t position) {
    std::vector<std::byte> bytes(8 + random_.skewed(150'000));
    std::memcpy(bytes.data(), &position, 8);
    return bytes;
  }
  void on_checkpoint(int32_t result) {
    if (result != 0) return fail("checkpoint: " + std::to_string(result));
    durable_ = in_progress_;
    checkpoint_done_ = true;
    std::erase_if(pinned_, [&](const auto& pin) {
      if (pin.first > durable_) return false;
      store().unpin_block(pin.second);
      return true;
    });
  }

  // Looks at what has ended.
  void settle() {
    std::erase_if(process().writes, [&](auto& write) {
      if (!write->write->is_done()) return false;
      if (write->write->op.result != 0) fail("write: " + std::to_string(write->write->op.result));
      if (!write->dropped) live_.apply(write->op);
      return true;
    });
    std::erase_if(process().reads, [&](auto& read) {
      if (!read->read->is_done()) return false;
      if (lossy_ && read->read->op.result == -EILSEQ) return true;
      if (read->read->op.result != 0) {
        fail("read: " + std::to_string(read->read->op.result));
        return true;
      }
      const Content content = read->read->content();
      for (size_t i = 0; i < content.size(); ++i)
        if (!read->allowed[i].contains(content[i]))
          fail("read: " + std::to_string(content[i]) + " was never there");
      return true;
    });
    std::erase_if(process().large, [&](auto& large) {
      if (!large->done || store().checkpoint_running() || busy(large->op.place)) return false;
      if (!may_allocate() || random_.chance(0.2)) {
        store().drop_block(large->op.physical);  // it lost its leader
        return true;
      }
      log(large->op);
      live_.apply(large->op);
      map_large(large->op, log_.size());
      return true;
    });
    if (random_.chance(0.05)) check();
  }

  void check() {
    if (auto outcome = store().check(); !outcome) fail("check: " + outcome.error().message);
  }

  Model model_at(uint64_t position) {
    Model model;
    for (uint64_t i = 0; i < position; ++i) model.apply(log_[i]);
    return model;
  }

  // Sectors that were written in place after the checkpoint: between the crash and the replay they
  // may not fit their checksum.
  bool may_be_torn(uint64_t position, const Place& place, uint32_t sector) {
    Model model = model_at(position);
    for (uint64_t i = position; i < log_.size(); ++i) {
      const Logged& op = log_[i];
      if (op.place == place && op.kind == Kind::kWrite && (op.mask >> sector & 1)) return true;
      model.apply(op);
      if ((op.place == place && op.kind == Kind::kMap) || !model.mapped.contains(place))
        return false;
    }
    return false;
  }

  void verify_and_replay() {
    const uint64_t position = found_position();
    if (!failure_.empty() || refused_) return;
    check();
    const Model expected = model_at(position);
    const Usage usage = store().usage();
    if (usage.blocks_mapped != expected.mapped.size() || usage.blocks_pending_free != 0 ||
        usage.blocks_taken != 0)
      return fail("after a crash " + std::to_string(usage.blocks_mapped) +
                  " blocks are mapped, not " + std::to_string(expected.mapped.size()));
    for (const auto& [place, sectors] : expected.mapped)
      for (uint8_t sector = 0; sector < kSectorsPerBlock; ++sector) {
        PendingRead read(process().store, place.copyset, place.chunk, place.block, sector, 1);
        const int32_t result = read.wait();
        if (result == -EILSEQ && (lossy_ || may_be_torn(position, place, sector))) continue;
        if (result != 0 || read.content()[0] != sectors[sector])
          return fail("after a crash a sector of checkpoint " +
                      std::to_string(store().checkpoint_version()) + " is " +
                      std::to_string(result ? result : read.content()[0]) + ", not " +
                      std::to_string(sectors[sector]));
      }
    replay(position);
  }

  // The log position of the checkpoint that the store opened with: the durable one, or the one that
  // was in progress.
  uint64_t found_position() {
    pinned_.clear();
    uint64_t position = 0;
    if (!store().group_blobs().empty())
      std::memcpy(&position, store().group_blobs()[0].bytes.data(), 8);
    if (lossy_ &&
        position < durable_) {  // the owner's anchor names a newer root than the one that is left
      refused_ = true;
      return 0;
    }
    if (position != durable_ && (checkpoint_done_ || position != in_progress_)) {
      fail("opened at log position " + std::to_string(position) + ", durable is " +
           std::to_string(durable_));
      return 0;
    }
    durable_ = position;
    checkpoint_done_ = true;
    return position;
  }

  void replay(uint64_t position) {
    for (uint64_t i = position; i < log_.size(); ++i)  // first, before anything allocates
      if (log_[i].kind == Kind::kMap && !store().retake_block(log_[i].physical))
        return fail("the block of a retained large write is in use");
    for (uint64_t i = position; i < log_.size() && failure_.empty(); ++i) {
      const Logged& op = log_[i];
      const Place& at = op.place;
      if (op.kind == Kind::kWrite) {
        if (process().store.write(at.copyset, at.chunk, at.block, op.mask, op.value, i + 1) != 0)
          fail("replay: write");
      } else if (op.kind == Kind::kMap) {
        map_large(op, i + 1);
      } else if (op.kind == Kind::kClear) {
        store().clear(at.copyset, at.chunk, at.block, op.mask, i + 1);
      } else {
        drop_now(op);
      }
    }
    live_ = model_at(log_.size());
    for (const auto& [place, sectors] : live_.mapped) {
      const Content content = process().store.read(place.copyset, place.chunk, place.block);
      if (lossy_ && content == Content{-EILSEQ}) continue;
      if (!std::equal(content.begin(), content.end(), sectors.begin(), sectors.end()))
        return fail("after the replay a block has other content");
    }
    if (store().usage().blocks_mapped != live_.mapped.size())
      fail("after the replay other blocks are mapped");
    check();
    squeeze();
  }
  static constexpr uint64_t kFreeBlocks = 16;
  bool lossy_, refused_ = false;
  sim::Random random_;
  sim::World world_;
  sim::Node& node_;
  bool formatted_ = false;
  Incarnation incarnation_ = 0;
  std::vector<Logged> log_;
  Model live_;
  uint64_t durable_ = 0, in_progress_ = 0;  // log positions
  bool checkpoint_done_ = true;
  std::vector<std::pair<uint64_t, uint32_t>> pinned_;
  int next_value_ = 0;
  std::string failure_;
};

struct QuietLog {
  QuietLog() {
    base::set_log_sink([](void*, base::LogLevel, std::string_view) {}, this);
  }
  ~QuietLog() { base::set_log_sink(nullptr, nullptr); }
};

constexpr uint64_t kSeeds = 60;

TEST(StoreCrash, NothingIsLostLeakedOrMappedTwice) {
  QuietLog quiet;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed)
    ASSERT_EQ(CrashRun(seed).go(), "") << "seed " << seed;
}

TEST(StoreCrash, AWriteThatTheDiskLostIsNeverAnAnswer) {
  QuietLog quiet;
  int refused = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    CrashRun run(seed, true);
    ASSERT_EQ(run.go(), "") << "seed " << seed;
    refused += run.refused();
  }
  EXPECT_GT(refused, 0);
}

// A device that answers with errors: the store goes out of service, tries nothing again, and the
// last root stays valid.
TEST(StoreFaults, AFailedWriteEndsCheckpointsAndIsNotTriedAgain) {
  QuietLog quiet;
  for (bool in_checkpoint : {false, true}) {
    sim::World world(1);
    sim::Node& node = world.add_node("node");
    const auto boot = [&](io::Loop& loop) {
      auto process = std::make_unique<Process>();
      process->store.loop = &loop;
      process->store.path = "/data";
      process->store.run = [&](const std::function<bool()>& done) {
        world.run_until(done, sim::kSecond);
      };
      FormatOptions options;
      options.store.bytes = {1};
      options.bytes = kStoreBytesMin;
      (void)ChunkStore::format(loop, "/data", options);  // the second time it is there
      process->store.open();
      return process;
    };
    world.start(node, boot);
    const ChunkKey chunk{7, 0};
    TestStore* store = &static_cast<Process*>(node.process.get())->store;
    EXPECT_EQ(store->write(1, chunk, 0, 0xffff, 5, 1), 0);
    EXPECT_EQ(store->checkpoint({}), 0);
    EXPECT_EQ(store->write(1, chunk, 1, 0xffff, 6, 2), 0);
    node.disk->faults.read_error_chance = 1;
    EXPECT_EQ(store->read(1, chunk, 0), Content({-EIO}));
    EXPECT_FALSE((*store)->failed()) << "reads are answered by others";
    node.disk->faults = {};
    node.disk->faults.write_error_chance = 1;
    if (in_checkpoint) {
      EXPECT_EQ(store->checkpoint({}), -EIO);
    } else {
      EXPECT_EQ(store->write(1, chunk, 2, 1, 7, 3), -EIO);
    }
    EXPECT_TRUE((*store)->failed());
    node.disk->faults = {};
    const uint64_t writes = node.disk->writes(), syncs = node.disk->syncs();
    EXPECT_EQ(store->checkpoint({}), -EIO);
    EXPECT_EQ(store->write(1, chunk, 3, 1, 7, 3), -EIO);
    EXPECT_EQ(node.disk->writes(), writes);
    EXPECT_EQ(node.disk->syncs(), syncs);
    EXPECT_EQ((*store)->checkpoint_version(), 2u);
    world.crash(node, sim::CrashKind::kPower);
    world.restart(node);
    store = &static_cast<Process*>(node.process.get())->store;
    EXPECT_EQ((*store)->checkpoint_version(), 2u);
    EXPECT_EQ(store->read(1, chunk, 0), Content(kSectorsPerBlock, 5));
    EXPECT_EQ((*store)->usage().blocks_mapped, 1u);
  }
}

#ifdef CURVE_MUTANTS
TEST(StoreCrash, MutantsAreCaught) {
  QuietLog quiet;
  for (const char* mutant : {"r5_reuse_freed_block_at_once", "r5_count_reference_twice",
                             "r5_root_without_sync", "r5_accept_older_slot"}) {
    base::chosen_mutant = mutant;
    bool caught = false;
    for (uint64_t seed = 1; seed <= kSeeds && !caught; ++seed)
      caught = !CrashRun(seed, mutant == std::string_view("r5_accept_older_slot")).go().empty();
    EXPECT_TRUE(caught) << mutant;
    EXPECT_GT(base::mutant_reached, 0u);
    base::mutant_reached = 0;
  }
  base::chosen_mutant.clear();
}
#endif

}  // namespace
}  // namespace curve::chunkstore
