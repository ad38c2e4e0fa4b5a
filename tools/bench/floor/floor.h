// The floor: the least work with which a block can be written to a majority of three, or read from
// a leader, on this host.
//
// Operations write and read: four processes on loopback TCP, each one thread around one io_uring: a
// client, a leader, two followers. A write is a frame (header and block). The leader appends it to
// its own log file and passes it on; it answers once two of the three appends are on stable
// storage. What arrived together is one append, a few appends are in flight, and each connection
// has one send for all that is queued. A read is one O_DIRECT read of the leader's file. There is
// no consensus, checksum, metadata, authentication or recovery: a real system can only come near.
// Nothing here is used by the product; it has liburing and nothing between. A failure ends the
// process with a sentence.
//
// Operations readers and writers: what the disk gives below all of that, without network. Three
// processes, one per file, share the depth: sequential O_DIRECT reads, random O_DIRECT writes.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "native/base/histogram.h"

namespace curve::floor {

enum class Op { kWrite, kRead, kReaders, kWriters };

struct Options {
  std::string directory;
  Op op = Op::kWrite;
  uint32_t depth = 1;
  uint32_t seconds = 5;
  uint32_t block_bytes = 4096;
  uint64_t working_set_bytes = uint64_t{1} << 30;  // of each store's file
  bool keep = false;                               // leave the files for the next run
};

enum class Kind : uint32_t { kWrite, kRead, kDone, kData };

struct Header {
  Kind kind;
  uint32_t id;  // of the sender's operation; comes back in the answer
  uint64_t offset_bytes;
  uint8_t reserved[48];  // the size of a realistic frame header
};
static_assert(sizeof(Header) == 64);

[[noreturn]] void fail(const std::string& what, int error = 0);
uint64_t now_ns();
std::byte* aligned_memory(size_t bytes);

// Whoever waits for a completion.
struct Completion {
  void (*run)(Completion* self, int result) = nullptr;
  void* owner = nullptr;
};

class Ring {
 public:
  Ring();
  io_uring_sqe* prepare();  // fill it with io_uring_prep_*, then call tag()
  static void tag(io_uring_sqe* entry, Completion* completion) {
    entry->user_data = reinterpret_cast<uint64_t>(completion);
  }
  void turn();  // submits, waits for at least one completion, runs all there are

 private:
  io_uring ring_{};
};

// Frames over one socket: at most one receive and one send in flight.
class Peer {
 public:
  // `block` is valid during the call; null when the kind carries none.
  using OnFrame = void (*)(void* owner, Peer* from, const Header& header, const std::byte* block);
  Peer(Ring* ring, int fd, uint32_t block_bytes, void* owner, OnFrame on_frame);
  void put(Kind kind, uint32_t id, uint64_t offset_bytes, const std::byte* block);
  void flush();  // at the end of each turn
  bool closed() const { return closed_; }

 private:
  void receive();
  void received(int result);
  void sent(int result);
  Ring* ring_;
  int fd_;
  uint32_t block_bytes_;
  void* owner_;
  OnFrame on_frame_;
  Completion receiving_, sending_;
  std::vector<std::byte> in_, queued_, leaving_;
  size_t in_bytes_ = 0;
  bool sending_now_ = false, closed_ = false;
};

// Serves until its upstream closes.
void run_store(const Options& options, const std::string& path, int upstream_fd,
               const std::vector<int>& follower_fds);

struct Measured {
  base::Histogram latency;
  double seconds = 0;
};
Measured run_client(const Options& options, int leader_fd);
// One of the readers or writers: `depth` operations in flight on one file.
Measured run_disk(const Options& options, const std::string& path, uint32_t depth, uint64_t seed);

}  // namespace curve::floor
