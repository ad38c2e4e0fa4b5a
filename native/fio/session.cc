// See session.h.
#include "native/fio/session.h"

#include <sys/stat.h>

#include <cassert>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "native/client/volume_client.h"
#include "native/fio/map_feed.h"

using namespace curve;

namespace {

constexpr int kAttachTimeoutMs = 60'000;
constexpr uint64_t kFirstAnswerNs = 30'000'000'000;
constexpr uint64_t kLookForMapsNs = 100'000'000;

struct Request : client::IoRequest {
  curve_session* session = nullptr;
  iovec part{};
  void* cookie = nullptr;
};

int errno_of(Code code) {
  switch (code) {
    case Code::kOk:
      return 0;
    case Code::kNoSpace:
      return ENOSPC;
    case Code::kInvalid:
      return EINVAL;
    case Code::kReadOnly:
      return EROFS;
    case Code::kFenced:
      return ESTALE;  // R12: the volume was attached elsewhere
    case Code::kShuttingDown:
      return ESHUTDOWN;
    default:
      return EIO;
  }
}

// 64 hexadecimal digits.
Result<std::vector<std::byte>> read_secret(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  if (!(file >> text))
    return Error{Code::kNotFound,
                 "cannot read the cluster's secret " + path + "; name it with secret_file"};
  if (text.size() != 64 || text.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
    return Error{Code::kInvalid,
                 "the secret file " + path + " does not hold 64 hexadecimal digits"};
  std::vector<std::byte> secret;
  for (size_t at = 0; at < text.size(); at += 2)
    secret.push_back(static_cast<std::byte>(std::strtoul(text.substr(at, 2).c_str(), nullptr, 16)));
  return secret;
}

Error failure(const Error& error) { return error; }

}  // namespace

struct curve_session {
  fio::MapFeed feed;
  bool has_feed = false;
  client::VolumeMap map;
  std::vector<std::byte> secret;
  base::BufferPool pool;
  std::unique_ptr<io::Loop> loop;
  std::unique_ptr<client::VolumeClient> client;
  std::vector<Request> requests;
  std::vector<Request*> free;
  std::vector<curve_event> finished;
  size_t finished_at = 0;  // handed out so far
  uint64_t looked_for_maps_ns = 0;

  Outcome attach(const curve_target& target);
  Outcome start(unsigned depth);
  void look_for_maps();
  void close();
};

Outcome curve_session::attach(const curve_target& target) {
  const std::string cluster = target.cluster ? target.cluster : "";
  if (!target.secret_file && cluster.empty())
    return Error{Code::kInvalid, "the job needs cluster=DIR (or secret_file=)"};
  auto loaded = read_secret(target.secret_file ? target.secret_file : cluster + "/secret");
  if (!loaded) return failure(loaded.error());
  secret = std::move(*loaded);
  if (target.map_file) {
    auto read = fio::read_map_file(target.map_file);
    if (!read) return failure(read.error());
    map = std::move(*read);
    return {};
  }
  if (!target.volume) return Error{Code::kInvalid, "the job needs volume=NAME"};
  const char* from_environment = std::getenv("CURVE");
  std::vector<std::string> command = {target.program     ? target.program
                                      : from_environment ? from_environment
                                                         : "curve",
                                      "internal", "map-feed", target.volume};
  if (!cluster.empty()) command.insert(command.end(), {"--cluster", cluster});
  if (target.shared) command.push_back("--shared");
  if (Outcome started = feed.start(command); !started) return started;
  has_feed = true;
  auto first = feed.wait_first(kAttachTimeoutMs);
  if (!first) return failure(first.error());
  map = std::move(*first);
  return {};
}

// Opens the client and reads one sector, so that an unreachable cluster is an error here and not a
// job that hangs.
Outcome curve_session::start(unsigned depth) {
  auto made = io::make_loop();
  if (!made) return failure(made.error());
  loop = std::move(*made);
  client = client::VolumeClient::open(*loop, pool, map, secret);
  requests.resize(depth + 1);
  for (Request& request : requests) {
    request.session = this;
    request.done = [](client::IoRequest* io) {
      auto* done = static_cast<Request*>(io);
      done->session->finished.push_back({done->cookie, errno_of(done->code)});
      done->session->free.push_back(done);
    };
    free.push_back(&request);
  }
  if (map.size_bytes == 0) return {};
  std::vector<std::byte> sector(kSectorBytes);
  curve_submit(this, CURVE_READ, sector.data(), 0, sector.size(), nullptr);
  const uint64_t give_up_ns = loop->now_ns() + kFirstAnswerNs;
  while (finished.empty() && loop->now_ns() < give_up_ns) {
    loop->turn(kLookForMapsNs);
    look_for_maps();
  }
  if (finished.empty())
    return Error{Code::kTimeout,
                 "the chunkservers of the volume do not answer; see `curve status`"};
  const int error = finished.front().error;
  finished.clear();
  if (error) return Error{Code::kIo, "the first read failed with error " + std::to_string(error)};
  return {};
}

void curve_session::look_for_maps() {
  const uint64_t now = loop->now_ns();
  if (!has_feed || now - looked_for_maps_ns < kLookForMapsNs) return;
  looked_for_maps_ns = now;
  if (auto newer = feed.poll()) client->update_map(std::move(*newer));
}

void curve_session::close() {
  if (!client) return;
  bool closed = false;
  client->close([&] { closed = true; });
  for (int turns = 0; !closed && turns < 10'000; ++turns) loop->turn(kLookForMapsNs);
  loop->abandon();
  client.reset();
  loop.reset();
}

namespace {

int report(const Outcome& outcome, char* error, size_t error_bytes) {
  if (outcome) return 0;
  std::snprintf(error, error_bytes, "%s", outcome.error().message.c_str());
  return -1;
}

}  // namespace

curve_session* curve_attach(const curve_target* target, char* error, size_t error_bytes) {
  auto session = std::make_unique<curve_session>();
  if (report(session->attach(*target), error, error_bytes) != 0) return nullptr;
  return session.release();
}

uint64_t curve_size_bytes(const curve_session* session) { return session->map.size_bytes; }

int curve_start(curve_session* session, unsigned depth, char* error, size_t error_bytes) {
  return report(session->start(depth), error, error_bytes);
}

void curve_submit(curve_session* session, curve_operation operation, void* buffer, uint64_t offset,
                  uint64_t bytes, void* cookie) {
  using client::IoType;
  static constexpr IoType kTypes[] = {IoType::kRead, IoType::kWrite, IoType::kDiscard,
                                      IoType::kFlush};
  assert(!session->free.empty());
  Request* request = session->free.back();
  session->free.pop_back();
  request->type = kTypes[operation];
  request->cookie = cookie;
  request->offset_bytes = offset;
  request->bytes = operation == CURVE_FLUSH ? 0 : bytes;
  request->part = {buffer, bytes};
  request->iov = {&request->part, buffer ? size_t{1} : size_t{0}};
  session->client->submit(request);
}

void curve_flush(curve_session* session) { session->loop->turn(0); }

unsigned curve_reap(curve_session* session, unsigned min, unsigned max, const timespec* timeout,
                    curve_event* events) {
  curve_session& s = *session;
  const uint64_t begin_ns = s.loop->now_ns();
  const uint64_t limit_ns = timeout ? static_cast<uint64_t>(timeout->tv_sec) * 1'000'000'000 +
                                          static_cast<uint64_t>(timeout->tv_nsec)
                                    : UINT64_MAX;
  unsigned count = 0;
  bool turned = false;
  for (;;) {
    while (count < max && s.finished_at < s.finished.size())
      events[count++] = s.finished[s.finished_at++];
    if (s.finished_at == s.finished.size()) {
      s.finished.clear();
      s.finished_at = 0;
    }
    const uint64_t passed_ns = s.loop->now_ns() - begin_ns;
    if ((count >= min && (turned || count > 0)) || passed_ns >= limit_ns) return count;
    // Waits in short steps, so that a newer map is found while I/O stands still.
    s.loop->turn(min == 0 ? 0 : std::min(kLookForMapsNs, limit_ns - passed_ns));
    s.look_for_maps();
    turned = true;
  }
}

void curve_close(curve_session* session) {
  session->close();
  delete session;
}
