// A store of the floor: leader when it has followers. See floor.h.
// Invariant: an operation's block stays until its own append and all passing-on have ended; an
// operation is answered when two of three appends are durable (a follower: when its own is).
#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>

#include "tools/bench/floor/floor.h"

namespace curve::floor {
namespace {

constexpr size_t kAppendsInFlight = 2;
constexpr size_t kBlocksPerAppendMax = 128;

class Store;

struct Operation {
  Completion reading;
  Store* store = nullptr;
  uint32_t index = 0;  // our id for it
  uint32_t id = 0;     // the upstream's
  int appends_until_done = 0;
  int references = 0;
  std::byte* block = nullptr;
};

struct Append {
  Completion completion;
  bool in_flight = false;
  std::vector<Operation*> operations;
  std::vector<iovec> blocks;
};

class Store {
 public:
  Store(const Options& options, const std::string& path, int upstream_fd,
        const std::vector<int>& follower_fds)
      : options_(options), upstream_(&ring_, upstream_fd, options.block_bytes, this, on_frame) {
    const int flags = O_RDWR | O_DIRECT | O_CLOEXEC | (options.op == Op::kRead ? 0 : O_DSYNC);
    fd_ = open(path.c_str(), flags);
    if (fd_ < 0) fail(path, errno);
    for (int fd : follower_fds) {
      followers_.emplace_back(&ring_, fd, options.block_bytes, this, on_frame);
    }
    for (Append& append : appends_) {
      append.completion.owner = this;
      append.completion.run = [](Completion* c, int result) {
        static_cast<Store*>(c->owner)->appended(reinterpret_cast<Append*>(c), result);
      };
    }
  }

  void serve() {
    while (!upstream_.closed()) {
      ring_.turn();
      append_waiting();
      upstream_.flush();
      for (Peer& follower : followers_) follower.flush();
    }
  }

 private:
  static void on_frame(void* owner, Peer*, const Header& header, const std::byte* block) {
    auto* self = static_cast<Store*>(owner);
    switch (header.kind) {
      case Kind::kWrite:
        return self->write(header, block);
      case Kind::kRead:
        return self->read(header);
      case Kind::kDone:
        return self->append_ended(&self->operations_[header.id]);
      case Kind::kData:
        fail("a store was sent data");
    }
  }

  Operation* begin(uint32_t id) {
    if (free_.empty()) {
      Operation& made = operations_.emplace_back();
      made.store = this;
      made.index = static_cast<uint32_t>(operations_.size() - 1);
      made.block = aligned_memory(options_.block_bytes);
      made.reading.run = [](Completion* c, int result) {
        auto* operation = reinterpret_cast<Operation*>(c);
        operation->store->have_read(operation, result);
      };
      free_.push_back(&made);
    }
    Operation* operation = free_.back();
    free_.pop_back();
    operation->id = id;
    return operation;
  }

  void write(const Header& header, const std::byte* block) {
    Operation* operation = begin(header.id);
    operation->appends_until_done = followers_.empty() ? 1 : 2;
    operation->references = 1 + static_cast<int>(followers_.size());
    std::memcpy(operation->block, block, options_.block_bytes);
    waiting_.push_back(operation);
    for (Peer& follower : followers_) {
      follower.put(Kind::kWrite, operation->index, header.offset_bytes, operation->block);
    }
  }

  void append_ended(Operation* operation) {
    if (--operation->appends_until_done == 0) upstream_.put(Kind::kDone, operation->id, 0, nullptr);
    if (--operation->references == 0) free_.push_back(operation);
  }

  void append_waiting() {
    for (Append& append : appends_) {
      if (waiting_.empty()) return;
      if (append.in_flight) continue;
      const size_t until_end = (options_.working_set_bytes - tail_bytes_) / options_.block_bytes;
      const size_t count = std::min({waiting_.size(), kBlocksPerAppendMax, until_end});
      const auto last = waiting_.begin() + static_cast<std::ptrdiff_t>(count);
      append.operations.assign(waiting_.begin(), last);
      waiting_.erase(waiting_.begin(), last);
      append.blocks.clear();
      for (Operation* o : append.operations)
        append.blocks.push_back({o->block, options_.block_bytes});
      io_uring_sqe* entry = ring_.prepare();
      io_uring_prep_writev(entry, fd_, append.blocks.data(), static_cast<unsigned>(count),
                           tail_bytes_);
      Ring::tag(entry, &append.completion);
      append.in_flight = true;
      tail_bytes_ += count * options_.block_bytes;
      if (tail_bytes_ + options_.block_bytes > options_.working_set_bytes) tail_bytes_ = 0;
    }
  }

  void appended(Append* append, int result) {
    const size_t bytes = append->operations.size() * options_.block_bytes;
    if (result < 0 || static_cast<size_t>(result) != bytes)
      fail("append", result < 0 ? -result : EIO);
    append->in_flight = false;
    for (Operation* operation : append->operations) append_ended(operation);
  }

  void read(const Header& header) {
    Operation* operation = begin(header.id);
    io_uring_sqe* entry = ring_.prepare();
    io_uring_prep_read(entry, fd_, operation->block, options_.block_bytes, header.offset_bytes);
    Ring::tag(entry, &operation->reading);
  }

  void have_read(Operation* operation, int result) {
    if (result != static_cast<int>(options_.block_bytes)) fail("read", result < 0 ? -result : EIO);
    upstream_.put(Kind::kData, operation->id, 0, operation->block);
    free_.push_back(operation);
  }

  const Options& options_;
  Ring ring_;
  Peer upstream_;
  std::deque<Peer> followers_;
  int fd_ = -1;
  uint64_t tail_bytes_ = 0;
  std::deque<Operation> operations_;  // never moves its elements
  std::vector<Operation*> free_, waiting_;
  Append appends_[kAppendsInFlight];
};

static_assert(offsetof(Append, completion) == 0 && offsetof(Operation, reading) == 0);

}  // namespace

void run_store(const Options& options, const std::string& path, int upstream_fd,
               const std::vector<int>& follower_fds) {
  Store(options, path, upstream_fd, follower_fds).serve();
}

}  // namespace curve::floor
