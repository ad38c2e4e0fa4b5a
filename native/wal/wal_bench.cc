// What the WAL costs over the device: appends of one 4 KiB record against plain durable writes of
// the same 8 KiB on the same file system, and CPU time per record of append() itself. Prints a
// table; asserts nothing.
//   wal_bench [directory] [seconds per row]
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "native/base/crc32c.h"
#include "native/wal/wal.h"

namespace curve::wal {
namespace {

constexpr StoreId kStore{{7}};
constexpr uint64_t kFileBytes = 256 << 20;

uint64_t now_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

struct Row {
  uint64_t count = 0, total_ns = 0, cpu_ns = 0, in_append_ns = 0;
  std::vector<uint64_t> samples_ns;
  void add(const Row& other) {
    count += other.count;
    total_ns += other.total_ns;
    cpu_ns += other.cpu_ns;
    in_append_ns += other.in_append_ns;
    samples_ns.insert(samples_ns.end(), other.samples_ns.begin(), other.samples_ns.end());
  }
  void print(const char* name, uint64_t records_per_append) {
    std::sort(samples_ns.begin(), samples_ns.end());
    auto at = [&](double q) {
      return samples_ns.empty()
                 ? 0.0
                 : samples_ns[static_cast<size_t>(q * (samples_ns.size() - 1))] / 1e3;
    };
    std::printf("%-34s %9.0f %9.1f %9.1f %9.1f %9.2f %9.3f\n", name, count * 1e9 / total_ns,
                at(0.5), at(0.99), at(0.999), cpu_ns / 1e3 / count,
                in_append_ns / 1e3 / (count * records_per_append));
  }
};

// One thread, pwritev2(RWF_DSYNC) on O_DIRECT, one at a time.
Row raw(const std::string& path, double seconds) {
  const int fd = ::open(path.c_str(), O_RDWR | O_DIRECT);
  if (fd < 0) {
    std::perror(path.c_str());
    std::exit(1);
  }
  void* memory = std::aligned_alloc(4096, 8192);
  std::memset(memory, 7, 8192);
  Row row;
  const uint64_t start = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
  for (uint64_t offset = 1 << 20; now_ns(CLOCK_MONOTONIC) - start < seconds * 1e9; offset += 8192) {
    iovec iov{memory, 8192};
    const uint64_t before = now_ns(CLOCK_MONOTONIC);
    if (::pwritev2(fd, &iov, 1, static_cast<off_t>(offset % (kFileBytes - (2 << 20)) + (1 << 20)),
                   RWF_DSYNC) != 8192)
      std::exit(1);
    row.samples_ns.push_back(now_ns(CLOCK_MONOTONIC) - before);
    ++row.count;
  }
  row.total_ns = now_ns(CLOCK_MONOTONIC) - start;
  row.cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
  std::free(memory);
  ::close(fd);
  return row;
}

// Keeps `depth` appends of `records` 4 KiB records going.
class Load {
 public:
  Load(io::Loop& loop, Wal& wal, base::BufferPool& pool, uint32_t depth, size_t records,
       double seconds)
      : loop_(loop), wal_(wal), seconds_(seconds), slots_(depth) {
    payload_ = pool.take(kSectorBytes);
    std::memset(payload_.data(), 5, kSectorBytes);
    crc_ = base::crc32c(payload_.bytes());
    for (Slot& slot : slots_) {
      slot.load = this;
      slot.append.records.resize(records);
      slot.append.owner = &slot;
      slot.append.done = [](Append* a) {
        auto* s = static_cast<Slot*>(a->owner);
        s->load->finished(s);
      };
    }
    release_.done = [](io::Op* op) { static_cast<Load*>(op->owner)->releasing_ = false; };
    release_.owner = this;
    hook_.owner = this;
    hook_.run = [](io::TurnHook* h) { static_cast<Load*>(h->owner)->turn(); };
  }
  Row run() {
    loop_.add_turn_hook(&hook_);
    for (Slot& slot : slots_) idle_.push_back(&slot);
    start_ns_ = now_ns(CLOCK_MONOTONIC);
    const uint64_t cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
    loop_.run();
    row_.cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    row_.total_ns = now_ns(CLOCK_MONOTONIC) - start_ns_;
    loop_.remove_turn_hook(&hook_);
    return row_;
  }

 private:
  struct Slot {
    Append append;
    Load* load;
    uint64_t began_ns;
  };
  void turn() {
    const uint64_t now = now_ns(CLOCK_MONOTONIC);
    const bool over = now - start_ns_ > seconds_ * 1e9;
    if (over && idle_.size() == slots_.size() && !releasing_) return loop_.stop();
    while (!over && !idle_.empty() && wal_.ready()) {
      Slot* slot = idle_.back();
      const size_t records = slot->append.records.size();
      if (wal_.used_bytes() > wal_.capacity_bytes() / 2 && !releasing_) {
        releasing_ = true;
        wal_.release_before(wal_.head_position(), {}, &release_);
      }
      if (!wal_.has_room(records * kSectorBytes, records, records * 48, 0)) return;
      idle_.pop_back();
      for (Record& r : slot->append.records) {
        r.group = 1;
        r.index = ++index_;
        r.term = 3;
        r.head = head_;
        r.sector_crcs = {&crc_, 1};
        r.payload = payload_;
      }
      slot->began_ns = now_ns(CLOCK_MONOTONIC);
      wal_.append(&slot->append);
      row_.in_append_ns += now_ns(CLOCK_MONOTONIC) - slot->began_ns;
    }
  }
  void finished(Slot* slot) {
    row_.samples_ns.push_back(now_ns(CLOCK_MONOTONIC) - slot->began_ns);
    ++row_.count;
    idle_.push_back(slot);
  }
  io::Loop& loop_;
  Wal& wal_;
  double seconds_;
  std::vector<Slot> slots_;
  std::vector<Slot*> idle_;
  base::Buffer payload_;
  uint32_t crc_ = 0;
  std::byte head_[48] = {};
  Index index_ = 0;
  io::TurnHook hook_;
  io::Op release_;
  bool releasing_ = false;
  uint64_t start_ns_ = 0;
  Row row_;
};

int run(const std::string& directory, double seconds) {
  const std::string path = directory + "/wal_bench." + std::to_string(::getpid());
  auto loop = io::make_loop();
  if (!loop) return std::fprintf(stderr, "%s\n", loop.error().message.c_str()), 1;
  base::BufferPool pool;
  if (Outcome made = Wal::format(**loop, path, {.store = kStore, .bytes = kFileBytes}); !made)
    return std::fprintf(stderr, "%s\n", made.error().message.c_str()), 1;
  std::printf("%-34s %9s %9s %9s %9s %9s %9s\n", "", "per s", "p50 us", "p99 us", "p99.9 us",
              "cpu us", "append us");
  std::printf("%-34s %59s %9s\n", "", "per append", "/record");
  {
    auto wal = Wal::open(**loop, pool, path, kStore, {});
    if (!wal || !(*wal)->recover([](const RecoveredRecord&) {})) return 1;
    struct Shape {
      const char* name;
      uint32_t depth;
      size_t records;
      Row row;
    };
    Shape shapes[] = {{"append of 1 x 4 KiB, depth 1", 1, 1, {}},
                      {"append of 1 x 4 KiB, depth 2", 2, 1, {}},
                      {"append of 16 x 4 KiB, depth 2", 2, 16, {}},
                      {"append of 64 x 4 KiB, depth 2", 2, 64, {}}};
    // In turns: what else the machine does hits every row.
    constexpr int kRounds = 8;
    Row floor;
    const std::string floor_path = path + ".floor";
    if (Outcome made = Wal::format(**loop, floor_path, {.store = kStore, .bytes = kFileBytes});
        !made)
      return 1;
    for (int round = 0; round < kRounds; ++round) {
      floor.add(raw(floor_path, seconds / kRounds));
      for (Shape& s : shapes)
        s.row.add(Load(**loop, **wal, pool, s.depth, s.records, seconds / kRounds).run());
    }
    ::unlink(floor_path.c_str());
    floor.print("pwritev2 DSYNC of 8 KiB, depth 1", 1);
    for (Shape& s : shapes) s.row.print(s.name, s.records);
    (*wal)->stop();
  }
  {
    auto wal = Wal::open(**loop, pool, path, kStore, {});
    if (!wal) return 1;
    const uint64_t start = now_ns(CLOCK_MONOTONIC);
    auto report = (*wal)->recover([](const RecoveredRecord&) {});
    if (!report) return 1;
    std::printf("recovery of %.0f MiB: %.0f ms, %llu records\n", (*wal)->used_bytes() / 1048576.0,
                (now_ns(CLOCK_MONOTONIC) - start) / 1e6,
                static_cast<unsigned long long>(report->records));
  }
  ::unlink(path.c_str());
  return 0;
}

}  // namespace
}  // namespace curve::wal

int main(int argc, char** argv) {
  return curve::wal::run(argc > 1 ? argv[1] : ".", argc > 2 ? std::atof(argv[2]) : 2.0);
}
