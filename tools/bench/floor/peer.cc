// The ring and the connections, shared by stores and client. See floor.h.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>

#include "tools/bench/floor/floor.h"

namespace curve::floor {

namespace {
constexpr unsigned kEntries = 4096;
constexpr size_t kReceiveBytes = 1u << 20, kReceiveBlocks = 4, kQueuedBlocks = 64;
}  // namespace

void fail(const std::string& what, int error) {
  std::fprintf(stderr, "curve_floor: %s%s%s\n", what.c_str(), error ? ": " : "",
               error ? std::strerror(error) : "");
  std::_Exit(1);
}

uint64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

std::byte* aligned_memory(size_t bytes) {
  void* memory = std::aligned_alloc(4096, bytes);
  if (!memory) fail("out of memory");
  std::memset(memory, 0x5c, bytes);
  return static_cast<std::byte*>(memory);
}

Ring::Ring() {
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  const int error = -io_uring_queue_init_params(kEntries, &ring_, &parameters);
  if (error) fail("io_uring (Linux 6.1 or later is needed)", error);
  io_uring_register_ring_fd(&ring_);
}

io_uring_sqe* Ring::prepare() {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  while (!entry) {
    io_uring_submit(&ring_);
    entry = io_uring_get_sqe(&ring_);
  }
  return entry;
}

void Ring::turn() {
  const int result = io_uring_submit_and_wait(&ring_, 1);
  if (result < 0 && result != -EINTR) fail("io_uring_enter", -result);
  unsigned head, count = 0;
  io_uring_cqe* entry;
  io_uring_for_each_cqe(&ring_, head, entry) {
    auto* completion = reinterpret_cast<Completion*>(entry->user_data);
    completion->run(completion, entry->res);
    ++count;
  }
  io_uring_cq_advance(&ring_, count);
}

Peer::Peer(Ring* ring, int fd, uint32_t block_bytes, void* owner, OnFrame on_frame)
    : ring_(ring), fd_(fd), block_bytes_(block_bytes), owner_(owner), on_frame_(on_frame) {
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  // The more of it is whole blocks, the less of a piece is moved to the front.
  in_.resize(std::max(kReceiveBytes, kReceiveBlocks * (sizeof(Header) + block_bytes)) +
             sizeof(Header) + block_bytes);
  queued_.reserve(std::max(kReceiveBytes, kQueuedBlocks * block_bytes));
  leaving_.reserve(queued_.capacity());
  receiving_.owner = sending_.owner = this;
  receiving_.run = [](Completion* c, int result) {
    static_cast<Peer*>(c->owner)->received(result);
  };
  sending_.run = [](Completion* c, int result) { static_cast<Peer*>(c->owner)->sent(result); };
  receive();
}

void Peer::receive() {
  io_uring_sqe* entry = ring_->prepare();
  io_uring_prep_recv(entry, fd_, in_.data() + in_bytes_, in_.size() - in_bytes_, 0);
  Ring::tag(entry, &receiving_);
}

void Peer::received(int result) {
  if (result <= 0) {
    closed_ = true;
    return;
  }
  in_bytes_ += static_cast<size_t>(result);
  size_t at = 0;
  while (in_bytes_ - at >= sizeof(Header)) {
    Header header;
    std::memcpy(&header, in_.data() + at, sizeof header);
    const bool has_block = header.kind == Kind::kWrite || header.kind == Kind::kData;
    const size_t bytes = sizeof header + (has_block ? block_bytes_ : 0);
    if (in_bytes_ - at < bytes) break;
    on_frame_(owner_, this, header, has_block ? in_.data() + at + sizeof header : nullptr);
    at += bytes;
  }
  if (at > 0) std::memmove(in_.data(), in_.data() + at, in_bytes_ - at);
  in_bytes_ -= at;
  receive();
}

void Peer::put(Kind kind, uint32_t id, uint64_t offset_bytes, const std::byte* block) {
  const Header header{kind, id, offset_bytes, {}};
  const auto* bytes = reinterpret_cast<const std::byte*>(&header);
  queued_.insert(queued_.end(), bytes, bytes + sizeof header);
  if (block) queued_.insert(queued_.end(), block, block + block_bytes_);
}

void Peer::flush() {
  if (sending_now_ || closed_ || queued_.empty()) return;
  std::swap(queued_, leaving_);
  queued_.clear();
  sending_now_ = true;
  io_uring_sqe* entry = ring_->prepare();
  io_uring_prep_send(entry, fd_, leaving_.data(), leaving_.size(), MSG_WAITALL | MSG_NOSIGNAL);
  Ring::tag(entry, &sending_);
}

void Peer::sent(int result) {
  if (result != static_cast<int>(leaving_.size())) closed_ = true;
  sending_now_ = false;
}

}  // namespace curve::floor
