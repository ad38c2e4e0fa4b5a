#include "native/export/fuse_export.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "native/base/log.h"
#include "native/io/readiness.h"

namespace curve::exports {
namespace {

constexpr int kRequestsPerTurn = 64;  // then others have their turn
constexpr uint64_t kPauseNs = 1'000'000;
// Buffers come in three sizes, so that enough of each can be there. Writes of up to the second one
// are copied: they do not hold a large buffer.
constexpr size_t kSmallBytes = 4096, kMiddleBytes = 64 * 1024, kLargeBytes = fuse::kWriteBytesMax;

constexpr size_t buffer_bytes(size_t bytes) {
  return bytes <= kSmallBytes ? kSmallBytes : bytes <= kMiddleBytes ? kMiddleBytes : kLargeBytes;
}

}  // namespace

FuseExport::FuseExport(io::Loop& loop, base::BufferPool& pool, int fd, std::string file,
                       client::BlockDevice* device, bool read_only, bool resumed)
    : loop_(loop),
      pool_(pool),
      fd_(fd),
      file_(std::move(file)),
      device_(device),
      read_only_(read_only) {
  wait_op_.owner = this;
  wait_op_.done = [](io::Op* op) {
    auto* self = static_cast<FuseExport*>(op->owner);
    self->waiting_ = false;
    self->receive();
  };
  later_timer_.owner = this;
  later_timer_.fire = [](io::Timer* timer) {
    auto* self = static_cast<FuseExport*>(timer->owner);
    self->send_again();
    self->receive();
  };
  incoming_ = pool_.take(fuse::kWriteBytesMax);
  for (uint32_t i = 0; i < kInflightMax; ++i) {
    requests_.push_back(std::make_unique<Request>());
    requests_.back()->self = this;
    free_.push_back(requests_.back().get());
  }
  if (resumed) {
    negotiated_ = true;
    ask_again();
  }
  wait();
}

void FuseExport::prepare(base::BufferPool& pool) {
  pool.prepare(kSmallBytes, kInflightMax);
  pool.prepare(kMiddleBytes, kInflightMax);
  pool.prepare(kLargeBytes, kInflightBytesMax / kLargeBytes + 2);
}

FuseExport::~FuseExport() {
  loop_.disarm(&later_timer_);
  for (const auto& request : requests_) request->unlink();
  ::close(fd_);
}

// ---- in ----

void FuseExport::wait() {
  if (waiting_ || ended_ || closing_) return;
  waiting_ = true;
  io::wait_readable(loop_, &wait_op_, fd_);
}

bool FuseExport::full() const { return free_.empty() || inflight_bytes_ >= kInflightBytesMax; }

void FuseExport::receive() {
  later_ = false;
  for (int n = 0; n < kRequestsPerTurn && !full() && !ended_ && !closing_; ++n) {
    if (!receive_one()) break;
  }
  if (closing_) return close_if_idle();
  if (!full() && !later_) wait();  // else release() or the timer goes on
}

bool FuseExport::receive_one() {
  const iovec parts[] = {{incoming_head_.data(), incoming_head_.size()},
                         {incoming_.data(), incoming_.capacity()}};
  const ssize_t got = readv(fd_, parts, 2);
  if (got > 0) return take(static_cast<size_t>(got)), true;
  if (got == 0) return end(), false;
  switch (errno) {
    case EAGAIN:
      return false;
    case EINTR:
    case ENOENT:  // it was given up before we had it
      return true;
    case EPERM:  // not mounted yet
    case ENOMEM:
      later_ = true;
      loop_.arm(&later_timer_, loop_.now_ns() + kPauseNs);
      return false;
    case ENODEV:
    case ECONNABORTED:
    case EBADF:
      return end(), false;
    default:
      base::log(base::LogLevel::kError, "fuse_read_failed", {{"error", int64_t{errno}}});
      return end(), false;
  }
}

void FuseExport::end() {
  ended_ = true;
  negotiated_ = true;  // nobody waits for that any more
}

// Puts a message together and has it handled. A message that makes no sense is dropped: the kernel
// does not send such.
void FuseExport::take(size_t bytes) {
  fuse::Message message;
  if (bytes < sizeof message.head) return;
  std::memcpy(&message.head, incoming_head_.data(), sizeof message.head);
  if (message.head.len != bytes) {
    base::log(base::LogLevel::kError, "fuse_message_malformed",
              {{"bytes", uint64_t{bytes}}, {"said", uint64_t{message.head.len}}});
    return;
  }
  size_t data_bytes = 0;
  if (message.head.opcode == FUSE_WRITE) {
    if (bytes < fuse::kHeadBytes) return;
    message.body = {incoming_head_.data() + sizeof message.head, sizeof(fuse_write_in)};
    data_bytes = bytes - fuse::kHeadBytes;
  } else {
    const size_t in_head = std::min(bytes, incoming_head_.size());
    const size_t total = std::min(bytes, incoming_small_.size());
    std::memcpy(incoming_small_.data(), incoming_head_.data(), in_head);
    std::memcpy(incoming_small_.data() + in_head, incoming_.data(), total - in_head);
    message.body =
        std::span<const std::byte>(incoming_small_).first(total).subspan(sizeof message.head);
  }
  ++stats_.requests;
  if (message.head.unique & fuse::kUniqueResent) ++stats_.resent;
  ++stats_.inflight;
  Request* request = free_.back();
  free_.pop_back();
  request->unique = message.head.unique;
  request->opcode = message.head.opcode;
  request->body_bytes = 0;
  request->with_data = false;
  request->held_bytes = 0;
  request->zero_end = 0;
  if (data_bytes > 0) {
    hold(request, data_bytes);
    if (data_bytes > kMiddleBytes) {
      std::swap(request->data, incoming_);
      request->data.resize(data_bytes);
    } else {
      std::memcpy(request->data.data(), incoming_.data(), data_bytes);
    }
  }
  handle(request, message, data_bytes);
}

void FuseExport::hold(Request* request, size_t bytes) {
  request->data = pool_.take(buffer_bytes(bytes));
  request->data.resize(bytes);
  request->held_bytes = buffer_bytes(bytes);
  inflight_bytes_ += request->held_bytes;
}

// ---- out ----

void FuseExport::reply(Request* request, int error) {
  if (error != 0) {
    request->body_bytes = 0;
    request->with_data = false;
    ++stats_.errors;
  }
  const size_t data_bytes = request->with_data ? request->part.iov_len : 0;
  request->out.len = static_cast<uint32_t>(sizeof request->out + request->body_bytes + data_bytes);
  request->out.error = -error;
  request->out.unique = request->unique;
  if (send(request)) return release(request);
  unsent_.push_back(request);
  loop_.arm(&later_timer_, loop_.now_ns() + kPauseNs);
}

// False: to be tried again.
bool FuseExport::send(Request* request) {
  iovec parts[3] = {{&request->out, sizeof request->out}};
  int count = 1;
  if (request->body_bytes) parts[count++] = {request->body.data(), request->body_bytes};
  if (request->with_data) parts[count++] = request->part;
  if (writev(fd_, parts, count) >= 0) return true;
  switch (errno) {
    case EINTR:
    case EAGAIN:
    case ENOMEM:
      return false;
    case ENOENT:  // given up meanwhile
      return true;
    case ENODEV:
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
    case ECONNABORTED:
      end();
      return true;
    default:
      base::log(base::LogLevel::kError, "fuse_reply_refused",
                {{"error", int64_t{errno}}, {"opcode", uint64_t{request->opcode}}});
      return true;
  }
}

void FuseExport::send_again() {
  while (client::IoRequest* first = unsent_.front()) {
    auto* request = static_cast<Request*>(first);
    if (!send(request)) return loop_.arm(&later_timer_, loop_.now_ns() + kPauseNs);
    request->unlink();
    release(request);
  }
}

void FuseExport::release(Request* request) {
  const bool was_full = full();
  request->data = {};
  inflight_bytes_ -= request->held_bytes;
  --stats_.inflight;
  free_.push_back(request);
  if (closing_) return close_if_idle();
  // Not from here: the device may be in the middle of its own turn.
  if (was_full && !full()) loop_.arm(&later_timer_, loop_.now_ns());
}

void FuseExport::ask_again() {
  fuse_out_header out{};
  out.len = sizeof out;
  out.error = fuse::kNotifyResend;
  if (::write(fd_, &out, sizeof out) == static_cast<ssize_t>(sizeof out)) {
    can_resend_ = true;
    return;
  }
  base::log(base::LogLevel::kError, "fuse_resend_refused", {{"error", int64_t{errno}}});
}

// Before Linux 6.17 a loop device takes the size that the kernel knows last, and does not ask. A
// byte that is stored at the new end, in a cache that no direct I/O reads, tells it.
void FuseExport::grew() {
  struct {
    fuse_out_header head;
    fuse_notify_store_out store;
    std::byte data[8];
  } out{};
  static_assert(sizeof out == sizeof(fuse_out_header) + sizeof(fuse_notify_store_out) + 8);
  out.head.len = sizeof out;
  out.head.error = FUSE_NOTIFY_STORE;
  out.store.nodeid = fuse::kVolumeNode;
  out.store.offset = device_->size_bytes() - sizeof out.data;
  out.store.size = sizeof out.data;
  if (::write(fd_, &out, sizeof out) < 0 && errno != ENOENT && errno != ENODEV) {
    base::log(base::LogLevel::kWarning, "fuse_size_not_told", {{"error", int64_t{errno}}});
  }
}

// ---- the end ----

void FuseExport::close(std::function<void()> closed) {
  assert(!closing_);
  closing_ = true;
  closed_ = std::move(closed);
  if (waiting_) return io::cancel_wait(loop_, &wait_op_);
  close_if_idle();
}

void FuseExport::close_if_idle() {
  if (waiting_ || free_.size() < requests_.size() || !closed_) return;
  loop_.disarm(&later_timer_);
  std::exchange(closed_, nullptr)();
}

}  // namespace curve::exports
