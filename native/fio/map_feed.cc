// See map_feed.h.
#include "native/fio/map_feed.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "native/base/log.h"

extern char** environ;

namespace curve::fio {
namespace {

constexpr uint32_t kMapBytesMax = 64u << 20;

}  // namespace

MapFeed::~MapFeed() {
  if (socket_ >= 0) ::close(socket_);
  if (child_ < 0) return;
  // It detaches and ends. A child that does not is left to itself: it sees the end of its input
  // sooner or later.
  for (int tries = 0; tries < 200; ++tries) {
    if (waitpid(child_, nullptr, WNOHANG) != 0) return;
    usleep(10'000);
  }
}

Outcome MapFeed::start(const std::vector<std::string>& command) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Error{Code::kIo, std::string("cannot make a socket: ") + std::strerror(errno)};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::vector<char*> arguments;
  for (const std::string& argument : command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const int error =
      posix_spawnp(&child_, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  socket_ = ends[0];
  if (error == 0) return {};
  child_ = -1;
  return Error{Code::kIo, "cannot start '" + command[0] + "': " + std::strerror(error) +
                              "; put `curve` into PATH or name it with the option curve_program"};
}

// False when nothing came: with `wait`, within the time.
bool MapFeed::receive(bool wait, int timeout_ms) {
  if (socket_ < 0) return false;
  pollfd poll_socket{socket_, POLLIN, 0};
  if (wait && ::poll(&poll_socket, 1, timeout_ms) <= 0) return false;
  const size_t at = buffer_.size();
  buffer_.resize(at + 65536);
  const ssize_t count = recv(socket_, buffer_.data() + at, 65536, MSG_DONTWAIT);
  buffer_.resize(at + static_cast<size_t>(count > 0 ? count : 0));
  if (count > 0) return true;
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return false;
  ::close(socket_);  // it ended: I/O goes on with the map that is there
  socket_ = -1;
  return false;
}

std::optional<std::vector<std::byte>> MapFeed::take_message() {
  uint32_t bytes;
  if (buffer_.size() < sizeof(bytes)) return {};
  std::memcpy(&bytes, buffer_.data(), sizeof(bytes));
  if (bytes > kMapBytesMax) {
    ::close(socket_);
    socket_ = -1;
    buffer_.clear();
    return {};
  }
  if (buffer_.size() - sizeof(bytes) < bytes) return {};
  const auto begin = buffer_.begin() + sizeof(bytes);
  std::vector<std::byte> message(begin, begin + bytes);
  buffer_.erase(buffer_.begin(), begin + bytes);
  return message;
}

Result<client::VolumeMap> MapFeed::wait_first(int timeout_ms) {
  for (;;) {
    if (auto message = take_message()) return client::decode_volume_map(*message);
    if (receive(true, timeout_ms)) continue;
    if (socket_ < 0)
      return Error{Code::kDisconnected, "the volume could not be attached (curve says why above)"};
    return Error{Code::kTimeout, "`curve` did not attach the volume within " +
                                     std::to_string(timeout_ms / 1000) + " seconds"};
  }
}

std::optional<client::VolumeMap> MapFeed::poll() {
  std::optional<client::VolumeMap> newest;
  while (receive(false, 0)) {
  }
  while (auto message = take_message()) {
    auto map = client::decode_volume_map(*message);
    if (map) {
      newest = std::move(*map);
    } else {
      base::log(base::LogLevel::kError, "fio_bad_map", {{"error", map.error().message}});
    }
  }
  return newest;
}

Result<client::VolumeMap> read_map_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{Code::kNotFound, "cannot read the volume map " + path};
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return client::decode_volume_map(std::as_bytes(std::span(text)));
}

}  // namespace curve::fio
