// What the store costs: CPU time per 4 KiB read and per block write, checkpoints, and opening a
// large map. Not a test.
//   store_bench [directory] [mapped blocks]
// The file is sparse, so that a large map needs no large disk. CPU times are of the loop's thread,
// kernel included.
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "native/base/crc32c.h"
#include "native/chunkstore/chunkstore.h"
#include "native/chunkstore/layout.h"

namespace curve::chunkstore {
namespace {

double seconds_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Meter {
  double wall = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_THREAD_CPUTIME_ID);
  void report(const char* what, uint64_t count) const {
    const double wall_us = (seconds_of(CLOCK_MONOTONIC) - wall) * 1e6,
                 cpu_us = (seconds_of(CLOCK_THREAD_CPUTIME_ID) - cpu) * 1e6;
    std::printf("%-44s %9lu ops  %8.3f us CPU each  %10.0f a second\n", what,
                static_cast<unsigned long>(count), cpu_us / static_cast<double>(count),
                static_cast<double>(count) / wall_us * 1e6);
  }
};

template <class T>
T check(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
  return std::move(*result);
}

class Bench {
 public:
  Bench(const std::string& directory, uint32_t blocks)
      : path_(directory + "/store_bench.data"), blocks_(blocks), loop_(check(io::make_loop())) {}
  ~Bench() {
    for (Slot& slot : slots_) std::free(slot.bytes);
    store_.reset();
    ::unlink(path_.c_str());
  }

  void run() {
    make();
    map_all();
    checkpoint("checkpoint of everything", blocks_ / 51 + 1);
    open("open");
    lookups();
    writes("4k writes in place, depth 32", 1);
    checkpoint("checkpoint after them, per dirty page", store_->dirty_pages());
    writes("64k writes in place, depth 32", 0xffff);
    reads("4k reads, depth 32", 1);
    reads("64k reads, depth 32", kSectorsPerBlock);
    reads_of_nothing();
    const Usage usage = store_->usage();
    std::printf(
        "memory of the map: %.1f MiB, %.2f GiB per TiB mapped\n",
        static_cast<double>(usage.memory_bytes) / 1048576,
        static_cast<double>(usage.memory_bytes) / usage.blocks_mapped * 16777216 / (1u << 30));
  }

 private:
  static constexpr uint32_t kDepth = 32, kOps = 20'000;
  struct Slot {
    Bench* bench;
    ReadOp read;
    WriteOp write;
    std::byte* bytes;
  };

  void make() {
    FormatOptions options;
    options.store.bytes = {1};
    options.bytes = uint64_t{blocks_} * kBlockBytes * 21 / 20 + (64u << 20);
    const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(options.bytes)) != 0) {
      std::perror(path_.c_str());
      std::exit(1);
    }
    ::close(fd);
    if (auto outcome = ChunkStore::format(*loop_, path_, options); !outcome) {
      std::fprintf(stderr, "%s\n", outcome.error().message.c_str());
      std::exit(1);
    }
    open("open (empty)");
    slots_.resize(kDepth);
    for (Slot& slot : slots_) {
      slot.bench = this;
      slot.bytes = static_cast<std::byte*>(std::aligned_alloc(4096, kBlockBytes));
      std::memset(slot.bytes, 0x5a, kBlockBytes);
      slot.read.done = [](io::Op* op) {
        static_cast<Slot*>(op->owner)->bench->next_read(static_cast<Slot*>(op->owner), op->result);
      };
      slot.write.done = [](io::Op* op) {
        static_cast<Slot*>(op->owner)->bench->next_write(static_cast<Slot*>(op->owner), op->result);
      };
      slot.read.owner = slot.write.owner = &slot;
      slot.write.from = {slot.bytes, kBlockBytes};
      slot.write.crc.fill(base::crc32c({slot.bytes, kSectorBytes}));
    }
  }
  void open(const char* what) {
    store_.reset();
    Meter meter;
    store_ = check(ChunkStore::open(*loop_, pool_, path_));
    std::printf("%-44s %9.3f s, %.3f s CPU\n", what, seconds_of(CLOCK_MONOTONIC) - meter.wall,
                seconds_of(CLOCK_THREAD_CPUTIME_ID) - meter.cpu);
  }
  static ChunkKey chunk_of(uint32_t block) { return {7, block / kBlocksPerChunk}; }
  void map_all() {
    std::array<uint32_t, kSectorsPerBlock> crcs;
    crcs.fill(base::crc32c_zero_sector());  // what the sparse file holds
    Meter meter;
    for (uint32_t block = 0; block < blocks_; ++block)
      (void)store_->map_block(1, chunk_of(block), block % kBlocksPerChunk, store_->take_block(),
                              crcs, block + 1);
    meter.report("take_block + map_block", blocks_);
  }
  void lookups() {
    std::mt19937 random(1);
    Meter meter;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 1'000'000; ++i) {
      const uint32_t block = random() % blocks_;
      sum += store_->block_state(1, chunk_of(block), block % kBlocksPerChunk).physical;
    }
    meter.report("block_state, random", 1'000'000);
    if (sum == 0) std::abort();
  }
  void checkpoint(const char* what, uint64_t count) {
    io::Op op;
    op.owner = this;
    op.done = [](io::Op* ended) { static_cast<Bench*>(ended->owner)->loop_->stop(); };
    Meter meter;
    store_->checkpoint(&op, {});
    loop_->run();
    if (op.result != 0) std::abort();
    meter.report(what, count);
  }
  void reads(const char* what, uint8_t sectors) {
    left_ = kOps, sectors_ = sectors;
    Meter meter;
    for (Slot& slot : slots_) next_read(&slot, 0);
    loop_->run();
    meter.report(what, kOps);
  }
  void reads_of_nothing() {
    beyond_ = 1u << 30;
    reads("4k reads of what was never written", 1);
    beyond_ = 0;
  }
  void next_read(Slot* slot, int32_t result) {
    if (result != 0) std::abort();
    if (left_ == 0) {
      if (++ended_ == kDepth) ended_ = 0, loop_->stop();
      return;
    }
    --left_;
    const uint32_t block = random_() % blocks_;
    ReadOp& op = slot->read;
    op.copyset = 1;
    op.chunk = chunk_of(block);
    op.chunk.chunk += beyond_;
    op.block = block % kBlocksPerChunk;
    op.first_sector = sectors_ == 1 ? random_() % kSectorsPerBlock : 0;
    op.sectors = sectors_;
    op.into = {slot->bytes, size_t{sectors_} * kSectorBytes};
    store_->read(&op);
  }
  void writes(const char* what, uint16_t mask) {
    left_ = kOps, mask_ = mask;
    Meter meter;
    for (Slot& slot : slots_) next_write(&slot, 0);
    loop_->run();
    meter.report(what, kOps);
  }
  void next_write(Slot* slot, int32_t result) {
    if (result != 0) std::abort();
    if (left_ == 0) {
      if (++ended_ == kDepth) ended_ = 0, loop_->stop();
      return;
    }
    // One write per block at a time: each slot has its own blocks. Few pages, so that the disk
    // stays small.
    const uint32_t block =
        (static_cast<uint32_t>(slot - slots_.data()) + kDepth * (--left_ % 64)) % blocks_;
    WriteOp& op = slot->write;
    op.copyset = 1;
    op.chunk = chunk_of(block);
    op.block = block % kBlocksPerChunk;
    op.mask = mask_;
    op.index = kOps - left_;
    store_->write(&op);
  }

  std::string path_;
  uint32_t blocks_;
  std::unique_ptr<io::Loop> loop_;
  base::BufferPool pool_;
  std::unique_ptr<ChunkStore> store_;
  std::vector<Slot> slots_;
  std::mt19937 random_{2};
  uint32_t left_ = 0, ended_ = 0, beyond_ = 0;
  uint8_t sectors_ = 1;
  uint16_t mask_ = 1;
};

}  // namespace
}  // namespace curve::chunkstore

int main(int argc, char** argv) {
  curve::chunkstore::Bench bench(argc > 1 ? argv[1] : ".",
                                 argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : 1'000'000);
  bench.run();
}
