// The disk below the stores: operations on one file, `depth` of them in flight. See floor.h.
#include <fcntl.h>

#include <cerrno>
#include <deque>
#include <random>

#include "tools/bench/floor/floor.h"

namespace curve::floor {
namespace {

class Disk {
 public:
  Disk(const Options& options, const std::string& path, uint32_t depth, uint64_t seed)
      : options_(options), random_(seed) {
    fd_ = open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd_ < 0) fail(path, errno);
    for (uint32_t i = 0; i < depth; ++i) {
      Operation& made = operations_.emplace_back();
      made.block = aligned_memory(options.block_bytes);
      made.completion.owner = this;
      made.completion.run = [](Completion* c, int result) {
        static_cast<Disk*>(c->owner)->ended(reinterpret_cast<Operation*>(c), result);
      };
    }
  }

  Measured run() {
    const uint64_t start_ns = now_ns();
    end_ns_ = start_ns + options_.seconds * uint64_t{1'000'000'000};
    for (Operation& operation : operations_) issue(&operation, start_ns);
    while (in_flight_ > 0) ring_.turn();
    return {latency_, static_cast<double>(now_ns() - start_ns) / 1e9};
  }

 private:
  struct Operation {
    Completion completion;
    std::byte* block = nullptr;
    uint64_t started_ns = 0;
  };
  static_assert(offsetof(Operation, completion) == 0);

  void issue(Operation* operation, uint64_t now) {
    const uint64_t blocks = options_.working_set_bytes / options_.block_bytes;
    operation->started_ns = now;
    ++in_flight_;
    io_uring_sqe* entry = ring_.prepare();
    if (options_.op == Op::kReaders) {
      io_uring_prep_read(entry, fd_, operation->block, options_.block_bytes,
                         next_++ % blocks * options_.block_bytes);
    } else {
      io_uring_prep_write(entry, fd_, operation->block, options_.block_bytes,
                          random_() % blocks * options_.block_bytes);
    }
    Ring::tag(entry, &operation->completion);
  }

  void ended(Operation* operation, int result) {
    if (result != static_cast<int>(options_.block_bytes)) {
      fail("the disk", result < 0 ? -result : EIO);
    }
    const uint64_t now = now_ns();
    latency_.record(now - operation->started_ns);
    --in_flight_;
    if (now < end_ns_) issue(operation, now);
  }

  const Options& options_;
  Ring ring_;
  int fd_ = -1;
  std::deque<Operation> operations_;  // never moves its elements
  std::mt19937_64 random_;
  uint64_t next_ = 0, end_ns_ = 0, in_flight_ = 0;
  base::Histogram latency_;
};

}  // namespace

Measured run_disk(const Options& options, const std::string& path, uint32_t depth, uint64_t seed) {
  return Disk(options, path, depth, seed).run();
}

}  // namespace curve::floor
