// Established streams: receiving, sending, closing.
// Invariant: a closed stream lives until its last operation's done has begun; its descriptor until
// the kernel has ended everything that uses it. Thread: the loop's own.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <utility>

#include "native/io/adopt.h"
#include "native/io/uring_backend.h"

namespace curve::io {
namespace {

constexpr size_t kTransferBytesMax = 1u << 30;  // results are 32 bits

void begin(Transfer& transfer, StreamBackend* stream, Op* op, size_t bytes) {
  assert(!transfer.op && "one receive and one send at a time");
  op->backend[0] = reinterpret_cast<uint64_t>(stream);
  transfer.op = op;
  transfer.moved_bytes = 0;
  transfer.left_bytes = bytes;
}

void end(LoopBackend* loop, Transfer& transfer, int32_t result) {
  loop->finish(transfer.op, result);
}

}  // namespace

StreamBackend* LoopBackend::make_stream(int fd) {
  auto* stream = new StreamBackend;
  stream->loop = this;
  stream->fd = fd;
  stream->stream.backend = stream;
  streams_.push_back(stream);
  return stream;
}

Stream* adopt_stream(Loop& loop, int fd, std::string peer) {
  StreamBackend* stream = loop.backend()->make_stream(fd);
  stream->peer = std::move(peer);
  return &stream->stream;
}

void LoopBackend::start_receive(StreamBackend* stream) {
  Transfer& transfer = stream->receiving;
  io_uring_sqe* entry = request();
  io_uring_prep_recv(entry, stream->fd, stream->receive_at + transfer.moved_bytes,
                     transfer.left_bytes, stream->receive_all ? MSG_WAITALL : 0);
  if (stream->receive_empty) entry->ioprio = IORING_RECVSEND_POLL_FIRST;
  tag(entry, Completion::kReceive, stream);
  transfer.in_kernel = true;
}

void LoopBackend::receive_completed(StreamBackend* stream, int32_t result, uint32_t flags) {
  Transfer& transfer = stream->receiving;
  transfer.in_kernel = false;
  if (stream->closing) return end(this, transfer, -ECANCELED);
  if (result == -EINTR || result == -EAGAIN) return start_receive(stream);
  if (result < 0) return end(this, transfer, result);
  stream->receive_empty = !(flags & IORING_CQE_F_SOCK_NONEMPTY);
  transfer.moved_bytes += static_cast<size_t>(result);
  transfer.left_bytes -= static_cast<size_t>(result);
  if (stream->receive_all && result > 0 && transfer.left_bytes > 0) return start_receive(stream);
  end(this, transfer, static_cast<int32_t>(transfer.moved_bytes));
}

void LoopBackend::start_send(StreamBackend* stream) {
  io_uring_sqe* entry = request();
  msghdr& message = stream->message;
  if (message.msg_iovlen == 1) {
    io_uring_prep_send(entry, stream->fd, message.msg_iov->iov_base, message.msg_iov->iov_len,
                       MSG_NOSIGNAL | MSG_WAITALL);
  } else {
    io_uring_prep_sendmsg(entry, stream->fd, &message, MSG_NOSIGNAL | MSG_WAITALL);
  }
  tag(entry, Completion::kSend, stream);
  stream->sending.in_kernel = true;
}

void LoopBackend::send_completed(StreamBackend* stream, int32_t result) {
  Transfer& transfer = stream->sending;
  transfer.in_kernel = false;
  if (stream->closing) return end(this, transfer, -ECANCELED);
  if (result == -EINTR || result == -EAGAIN) return start_send(stream);
  if (result < 0) return end(this, transfer, result);
  if (result == 0) return end(this, transfer, -EPIPE);
  auto sent = static_cast<size_t>(result);
  transfer.moved_bytes += sent;
  transfer.left_bytes -= sent;
  if (transfer.left_bytes == 0) {
    return end(this, transfer, static_cast<int32_t>(transfer.moved_bytes));
  }
  msghdr& message = stream->message;
  while (sent >= message.msg_iov->iov_len) {
    sent -= message.msg_iov->iov_len;
    ++message.msg_iov;
    --message.msg_iovlen;
  }
  message.msg_iov->iov_base = static_cast<char*>(message.msg_iov->iov_base) + sent;
  message.msg_iov->iov_len -= sent;
  start_send(stream);
}

void LoopBackend::close_stream(StreamBackend* stream) {
  if (abandoned_) return;  // freed with the loop
  stream->closing = true;
  for (Transfer* transfer : {&stream->receiving, &stream->sending}) {
    if (transfer->op && !transfer->in_kernel) transfer->op->result = -ECANCELED;  // not run yet
  }
  if (stream->receiving.in_kernel || stream->sending.in_kernel) {
    shutdown(stream->fd, SHUT_RDWR);
    io_uring_sqe* entry = request();
    io_uring_prep_cancel_fd(entry, stream->fd, IORING_ASYNC_CANCEL_ALL);
    tag(entry, Completion::kIgnored, nullptr);
  }
  free_stream_when_idle(stream);
}

void LoopBackend::free_stream_when_idle(StreamBackend* stream) {
  if (stream->receiving.op || stream->sending.op) return;
  ::close(stream->fd);
  stream->unlink();
  delete stream;
}

void Stream::receive(Op* op, std::span<std::byte> into, bool all) {
  LoopBackend* loop = backend->loop;
  if (loop->abandoned_) return;
  assert(!into.empty());
  begin(backend->receiving, backend, op, std::min(into.size(), kTransferBytesMax));
  backend->receive_at = into.data();
  backend->receive_all = all;
  loop->start_receive(backend);
}

void Stream::send(Op* op, std::span<iovec> iov) {
  LoopBackend* loop = backend->loop;
  if (loop->abandoned_) return;
  size_t bytes = 0;
  for (const iovec& part : iov) bytes += part.iov_len;
  begin(backend->sending, backend, op, bytes);
  if (bytes == 0 || bytes > kTransferBytesMax || iov.size() > 1024) {
    return loop->finish(op, bytes == 0 ? 0 : -EINVAL);
  }
  backend->message.msg_iov = iov.data();
  backend->message.msg_iovlen = iov.size();
  loop->start_send(backend);
}

void Stream::close() { backend->loop->close_stream(backend); }
std::string Stream::peer() const { return backend->peer; }

}  // namespace curve::io
