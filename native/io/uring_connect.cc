// How streams come to be: connecting, listening, accepting.
// Invariant: every descriptor that the kernel hands out belongs to a StreamBackend or is closed.
// Thread: the loop's own.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "native/base/log.h"
#include "native/io/uring_backend.h"

namespace curve::io {
namespace {

constexpr uint64_t kAcceptRetryNs = 100'000'000;
constexpr int kBacklog = 1024;
constexpr int kKeepAliveSeconds = 30;
constexpr int kConnectSlot =
    1;  // Op::backend of a ConnectOp: the stream while the kernel connects it

// Small frames leave at once; a peer that vanished without a word is noticed, idle (keep-alive) or
// not (user timeout). Accepted sockets inherit all of it from the listening one.
void set_tcp_options(int fd) {
  const auto set = [fd](int level, int name, int value) {
    setsockopt(fd, level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveSeconds / 3);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 2 * kKeepAliveSeconds * 1000);
}

SocketAddress name_of(int fd, int (*get)(int, sockaddr*, socklen_t*)) {
  SocketAddress address;
  address.bytes = sizeof address.storage;
  if (get(fd, address.get(), &address.bytes) != 0) address = SocketAddress();
  return address;
}

std::string peer_text(int fd) {
  const SocketAddress address = name_of(fd, getpeername);
  if (address.family() != AF_UNIX) return address_text(address);
  ucred peer{};
  socklen_t bytes = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0) return "unix:";
  return "unix:pid=" + std::to_string(peer.pid);
}

// On loopback the system may choose the port that is being dialled as the source port: a stream to
// oneself.
bool connected_to_itself(int fd, int family) {
  if (family == AF_UNIX) return false;
  const std::string self = address_text(name_of(fd, getsockname));
  return self == address_text(name_of(fd, getpeername));
}

// A socket file whose process is gone (SIGKILL). Anything else at that path is not ours to remove.
bool is_left_behind(const SocketAddress& address, const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return false;
  const bool refused = ::connect(probe, address.get(), address.bytes) != 0 && errno == ECONNREFUSED;
  ::close(probe);
  return refused;
}

Error listen_error(const std::string& text, const char* what, int error) {
  const char* remedy = "see the system log";
  Code code = Code::kIo;
  if (error == EADDRINUSE) {
    code = Code::kExists;
    remedy = "another process uses it; choose another address or stop that process";
  } else if (error == EADDRNOTAVAIL) {
    code = Code::kInvalid;
    remedy = "this host does not have that address";
  } else if (error == EACCES) {
    remedy = "ports below 1024 and other people's directories need privileges";
  } else if (error == ENOENT) {
    code = Code::kNotFound;
    remedy = "make its directory first";
  }
  return {code, text + ": " + what + ": " + std::strerror(error) + "; " + remedy};
}

}  // namespace

// --- connecting ---

void LoopBackend::connect(ConnectOp* op, const Address& address) {
  if (abandoned_) return;
  op->stream = nullptr;
  op->backend[0] = op->backend[kConnectSlot] = 0;
  const Result<SocketAddress> parsed = parse_address(address.text);
  if (!parsed) return finish(op, -EINVAL);
  const int fd = socket(parsed->family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return finish(op, -errno);
  if (parsed->family() != AF_UNIX) set_tcp_options(fd);
  StreamBackend* stream = make_stream(fd);
  stream->connecting = op;
  stream->address = *parsed;
  op->backend[kConnectSlot] = reinterpret_cast<uint64_t>(stream);
  io_uring_sqe* entry = request();
  io_uring_prep_connect(entry, fd, stream->address.get(), stream->address.bytes);
  tag(entry, Completion::kConnect, stream);
}

void LoopBackend::cancel_connect(ConnectOp* op) {
  if (abandoned_ || !op->backend[kConnectSlot]) return;
  cancel(Completion::kConnect, reinterpret_cast<void*>(op->backend[kConnectSlot]));
}

void LoopBackend::connect_completed(StreamBackend* stream, int32_t result) {
  ConnectOp* op = std::exchange(stream->connecting, nullptr);
  op->backend[kConnectSlot] = 0;
  const int family = stream->address.family();
  if (result == 0 && connected_to_itself(stream->fd, family)) result = -ECONNREFUSED;
  if (result < 0) {
    stream->closing = true;
    free_stream_when_idle(stream);
    return finish(op, result);
  }
  stream->peer = address_text(stream->address);
  op->stream = &stream->stream;
  finish(op, 0);
}

// --- listening ---

Result<Address> LoopBackend::listen(const Address& address, Listener* listener) {
  Result<SocketAddress> parsed = parse_address(address.text);
  if (!parsed) return parsed.error();
  const bool is_unix = parsed->family() == AF_UNIX;
  const int fd = socket(parsed->family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return listen_error(address.text, "cannot make a socket", errno);
  const int one = 1;
  if (!is_unix) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    set_tcp_options(fd);
  }
  const std::string path = is_unix ? address.text.substr(5) : "";
  int error = bind(fd, parsed->get(), parsed->bytes) == 0 ? 0 : errno;
  if (error == EADDRINUSE && is_unix && is_left_behind(*parsed, path)) {
    unlink(path.c_str());
    error = bind(fd, parsed->get(), parsed->bytes) == 0 ? 0 : errno;
  }
  if (error == 0 && ::listen(fd, kBacklog) != 0) error = errno;
  if (error != 0) {
    ::close(fd);
    return listen_error(address.text, "cannot listen", error);
  }
  auto* backend = new ListenerBackend;
  backend->loop = this;
  backend->listener = listener;
  backend->fd = fd;
  backend->unlink_path = path;
  backend->retry.owner = backend;
  backend->retry.fire = [](Timer* timer) {
    auto* self = static_cast<ListenerBackend*>(timer->owner);
    self->loop->start_accept(self);
  };
  listeners_.push_back(backend);
  start_accept(backend);
  return Address{is_unix ? address.text : address_text(name_of(fd, getsockname))};
}

void LoopBackend::start_accept(ListenerBackend* listener) {
  io_uring_sqe* entry = request();
  io_uring_prep_multishot_accept(entry, listener->fd, nullptr, nullptr, SOCK_CLOEXEC);
  tag(entry, Completion::kAccept, listener);
  listener->in_kernel = true;
}

void LoopBackend::accept_completed(ListenerBackend* listener, int32_t result, uint32_t flags) {
  if (!(flags & IORING_CQE_F_MORE)) listener->in_kernel = false;
  if (result >= 0) {
    StreamBackend* stream = make_stream(result);
    stream->peer = peer_text(result);
    stream->listener = listener;
    stream->accepted.owner = stream;
    stream->accepted.done = [](Op* op) {
      auto* self = static_cast<StreamBackend*>(op->owner);
      ListenerBackend* from = std::exchange(self->listener, nullptr);
      LoopBackend* loop = self->loop;
      --from->undelivered;
      if (from->listener) {
        from->listener->accepted(&self->stream);
      } else {
        loop->close_stream(self);
      }
      if (!loop->abandoned_) loop->free_listener_when_idle(from);
    };
    ++listener->undelivered;
    finish(&stream->accepted, 0);
  } else if (listener->listener && result != -ECONNABORTED && result != -EINTR) {
    base::log(base::LogLevel::kWarning, "accept_failed",
              {{"error", std::string(strerror(-result))}});
  }
  if (!listener->listener) return free_listener_when_idle(listener);
  if (listener->in_kernel) return;
  if (result >= 0 || result == -ECONNABORTED || result == -EINTR) return start_accept(listener);
  timers_.arm(&listener->retry, now_ns_ + kAcceptRetryNs);  // EMFILE and its like pass
}

void LoopBackend::close_listener(Listener* listener) {
  for (ListenerBackend *l = listeners_.front(), *next; l; l = next) {
    next = listeners_.next(l);
    if (l->listener != listener) continue;
    l->listener = nullptr;
    timers_.disarm(&l->retry);
    if (!l->unlink_path.empty()) unlink(l->unlink_path.c_str());
    l->unlink_path.clear();
    shutdown(l->fd, SHUT_RDWR);  // refuses from now on
    if (abandoned_) continue;
    if (l->in_kernel) cancel(Completion::kAccept, l);
    free_listener_when_idle(l);
  }
}

void LoopBackend::free_listener_when_idle(ListenerBackend* listener) {
  if (listener->listener || listener->in_kernel || listener->undelivered > 0) return;
  ::close(listener->fd);
  listener->unlink();
  delete listener;
}

// Of a loop that was abandoned: the kernel uses none of it any more.
void LoopBackend::free_streams_and_listeners() {
  while (StreamBackend* stream = streams_.pop_front()) {
    ::close(stream->fd);
    delete stream;
  }
  while (ListenerBackend* listener = listeners_.pop_front()) {
    if (!listener->unlink_path.empty()) unlink(listener->unlink_path.c_str());
    ::close(listener->fd);
    delete listener;
  }
}

void Loop::connect(ConnectOp* op, const Address& address) { backend_->connect(op, address); }
void Loop::cancel_connect(ConnectOp* op) { backend_->cancel_connect(op); }
Result<Address> Loop::listen(const Address& address, Listener* listener) {
  return backend_->listen(address, listener);
}
void Loop::close_listener(Listener* listener) { backend_->close_listener(listener); }

}  // namespace curve::io
