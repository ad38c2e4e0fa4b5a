// See volume_client.h and state.h: admission, completion, life cycle.
#include "native/client/volume_client.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/client/state.h"

namespace curve::client {

struct VolumeClient::State : VolumeClientState {
  using VolumeClientState::VolumeClientState;
};

VolumeClientState::VolumeClientState(io::Loop& the_loop, base::BufferPool& the_pool,
                                     VolumeMap the_map, std::span<const std::byte> the_secret,
                                     const ClientOptions& the_options)
    : loop(the_loop),
      pool(the_pool),
      map(std::move(the_map)),
      secret(the_secret.begin(), the_secret.end()),
      options(the_options) {
  options.inflight_pieces_max = std::clamp(options.inflight_pieces_max, 1u, 1u << 20);
  identity.role = wire::PeerRole::kClient;
  for (size_t at = 0; at < identity.id.bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t value = loop.random_u64();
    std::memcpy(identity.id.bytes.data() + at, &value, sizeof(value));
  }
  identity.secret = secret;
  pieces = std::make_unique<Piece[]>(options.inflight_pieces_max);
  free_pieces.reserve(options.inflight_pieces_max);
  for (uint32_t slot = options.inflight_pieces_max; slot-- > 0;) {
    pieces[slot].slot = slot;
    free_pieces.push_back(slot);
  }
  later.owner = watch.owner = this;
  later.fire = [](io::Timer* timer) { static_cast<VolumeClientState*>(timer->owner)->run_later(); };
  watch.fire = [](io::Timer* timer) {
    static_cast<VolumeClientState*>(timer->owner)->look_for_silence();
  };
  adopt_stores();
  adopt_copysets();
}

// ---- requests ----

Code VolumeClientState::check(const IoRequest& request) const {
  if (closing) return Code::kShuttingDown;
  if (fenced) return Code::kFenced;
  const bool changes = request.type == IoType::kWrite || request.type == IoType::kDiscard ||
                       request.type == IoType::kWriteZeroes;
  if (changes && map.read_only) return Code::kReadOnly;
  if (request.type == IoType::kFlush) return Code::kOk;
  if (request.offset_bytes > map.size_bytes ||
      request.bytes > map.size_bytes - request.offset_bytes)
    return Code::kInvalid;
  const uint64_t unit = request.type == IoType::kBlockStatus ? kSectorBytes : 512;
  if (request.offset_bytes % unit || request.bytes % unit) return Code::kInvalid;
  return Code::kOk;
}

void VolumeClientState::submit(IoRequest* request) {
  request->started_ns = loop.now_ns();
  request->pieces_left = 0;
  request->split_bytes = 0;
  request->code = check(*request);
  ++stats.inflight;
  // A flush has nothing to do: every acknowledged write is durable on a majority.
  if (request->code != Code::kOk || request->type == IoType::kFlush || request->bytes == 0) {
    request->split_bytes = request->bytes;
    return finish_later(request);
  }
  waiting.push_back(request);
  admit();
}

// Makes pieces as long as there is room for them.
void VolumeClientState::admit() {
  while (IoRequest* request = waiting.front()) {
    while (request->split_bytes < request->bytes) {
      if (free_pieces.empty() || inflight_bytes >= options.inflight_bytes_max) return;
      Piece* piece = &pieces[free_pieces.back()];
      if (!make_piece(request, piece)) continue;
      free_pieces.pop_back();
      inflight_bytes += piece->payload || piece->type == wire::FrameType::kRead ? piece->bytes : 0;
      ++request->pieces_left;
      dispatch(piece);
    }
    request->unlink();
    if (request->pieces_left == 0) finish_later(request);  // a discard of edges only
  }
}

void VolumeClientState::release(Piece* piece) {
  inflight_bytes -= piece->payload || piece->type == wire::FrameType::kRead ? piece->bytes : 0;
  piece->request = nullptr;
  piece->link = nullptr;
  piece->payload = {};
  piece->crcs = {};
  piece->generation = (piece->generation + 1) & 0x7fffffff;
  free_pieces.push_back(piece->slot);
}

// The piece is in no list.
void VolumeClientState::finish_piece(Piece* piece, Code code) {
  IoRequest* request = piece->request;
  release(piece);
  if (code != Code::kOk && request->code == Code::kOk) request->code = code;
  const bool last = --request->pieces_left == 0 && request->split_bytes == request->bytes;
  if (!waiting.empty()) admit();
  if (last) finish_request(request);
}

void VolumeClientState::finish_request(IoRequest* request) {
  --stats.inflight;
  stats.longest_ns = std::max(stats.longest_ns, loop.now_ns() - request->started_ns);
  if (request->code == Code::kOk && request->type == IoType::kRead) {
    ++stats.reads;
    stats.read_bytes += request->bytes;
  } else if (request->code == Code::kOk && request->type == IoType::kWrite) {
    ++stats.writes;
    stats.written_bytes += request->bytes;
  }
  request->done(request);
}

void VolumeClientState::finish_later(IoRequest* request) {
  completed.push_back(request);
  loop.arm(&later, loop.now_ns());
}

void VolumeClientState::run_later() {
  while (IoRequest* request = completed.pop_front()) finish_request(request);
  if (!closing || !closed) return;
  const bool idle =
      std::none_of(links.begin(), links.end(), [](const auto& link) { return link->connection; });
  if (!idle) return;  // the last link_closed() comes here again
  const auto run = std::move(closed);
  closed = nullptr;
  run();
}

void VolumeClientState::fail_all(Code code) {
  for (uint32_t slot = 0; slot < options.inflight_pieces_max; ++slot) {
    Piece* piece = &pieces[slot];
    IoRequest* request = piece->request;
    if (!request) continue;
    piece->unlink();
    release(piece);
    request->code = code;
    if (--request->pieces_left == 0 && request->split_bytes == request->bytes)
      finish_later(request);
  }
  while (IoRequest* request = waiting.pop_front()) {
    request->code = code;
    request->split_bytes = request->bytes;
    finish_later(request);
  }
  for (const auto& copyset : copysets) loop.disarm(&copyset->retry);
}

void VolumeClientState::complete_read(Piece* piece, wire::Frame& frame) {
  const uint32_t sectors = piece->bytes / kSectorBytes;
  const auto crcs = frame.body.subspan(sizeof(wire::ReplyBody));
  bool good = frame.payload.size() == piece->bytes && crcs.size() == sectors * sizeof(uint32_t);
  for (uint32_t i = 0; good && i < sectors; ++i) {
    uint32_t crc;
    std::memcpy(&crc, crcs.data() + i * sizeof(crc), sizeof(crc));
    good =
        base::crc32c(frame.payload.bytes().subspan(size_t{i} * kSectorBytes, kSectorBytes)) == crc;
  }
  if (!good) {
    ++stats.checksum_failures;
    ++stats.retries;
    base::log(base::LogLevel::kWarning, "client_read_checksum",
              {{"volume", map.volume},
               {"chunk", uint64_t{piece->chunk}},
               {"offset", uint64_t{piece->offset_bytes}}});
    piece->copyset->waiting.push_back(piece);
    return back_off(piece->copyset);
  }
  copy_to_iov(piece->request->iov, piece->request_at,
              frame.payload.bytes().subspan(piece->crop_bytes, piece->wanted_bytes));
  finish_piece(piece, Code::kOk);
}

void VolumeClientState::complete_block_status(Piece* piece, const wire::Frame& frame) {
  const auto bits = frame.body.subspan(sizeof(wire::ReplyBody));
  const uint32_t sectors = piece->bytes / kSectorBytes;
  if (bits.size() < (sectors + 7) / 8) {
    piece->copyset->waiting.push_back(piece);
    return back_off(piece->copyset);
  }
  const uint64_t first = piece->request_at / kSectorBytes;
  uint8_t* out = piece->request->status_bits;
  for (uint32_t i = 0; i < sectors; ++i) {
    const bool written = (static_cast<uint8_t>(bits[i / 8]) >> (i % 8)) & 1;
    const uint64_t at = first + i;
    out[at / 8] = static_cast<uint8_t>((out[at / 8] & ~(1u << (at % 8))) |
                                       static_cast<unsigned>(written) << (at % 8));
  }
  finish_piece(piece, Code::kOk);
}

// ---- the public face ----

VolumeClient::VolumeClient(std::unique_ptr<State> state) : state_(std::move(state)) {}

std::unique_ptr<VolumeClient> VolumeClient::open(io::Loop& loop, base::BufferPool& pool,
                                                 VolumeMap map, std::span<const std::byte> secret,
                                                 const ClientOptions& options) {
  auto state = std::make_unique<State>(loop, pool, std::move(map), secret, options);
  return std::unique_ptr<VolumeClient>(new VolumeClient(std::move(state)));
}

VolumeClient::~VolumeClient() {
  State& s = *state_;
  for (const auto& link : s.links) {
    if (!link->connection) continue;
    assert(s.loop.abandoned());
    link->connection->destroy();
  }
  for (const auto& link : s.links) {
    s.loop.disarm(&link->redial);
    while (link->inflight.pop_front()) {
    }
  }
  for (const auto& copyset : s.copysets) {
    s.loop.disarm(&copyset->retry);
    while (copyset->waiting.pop_front()) {
    }
  }
  while (s.waiting.pop_front()) {
  }
  while (s.completed.pop_front()) {
  }
  s.loop.disarm(&s.later);
  s.loop.disarm(&s.watch);
}

void VolumeClient::submit(IoRequest* request) { state_->submit(request); }
uint64_t VolumeClient::size_bytes() const { return state_->map.size_bytes; }
bool VolumeClient::read_only() const { return state_->map.read_only; }
bool VolumeClient::fenced() const { return state_->fenced; }
ClientStats VolumeClient::stats() const { return state_->stats; }

void VolumeClient::update_map(VolumeMap map) {
  State& s = *state_;
  if (map.version <= s.map.version || s.closing) return;
  const bool same = map.volume == s.map.volume && map.epoch == s.map.epoch &&
                    map.pool == s.map.pool && map.placement_id == s.map.placement_id &&
                    map.copysets.size() == s.map.copysets.size() &&
                    map.layout.stripe_unit_bytes == s.map.layout.stripe_unit_bytes &&
                    map.layout.stripe_count == s.map.layout.stripe_count;
  if (!same) {
    base::log(base::LogLevel::kError, "client_map_refused",
              {{"volume", s.map.volume}, {"version", map.version}});
    return;
  }
  const uint64_t size_bytes =
      std::max(map.size_bytes, s.map.size_bytes);  // a device does not shrink under its user
  s.map = std::move(map);
  s.map.size_bytes = size_bytes;
  s.adopt_stores();
  s.adopt_copysets();
}

void VolumeClient::close(std::function<void()> closed) {
  State& s = *state_;
  assert(!s.closing);
  s.closing = true;
  s.closed = std::move(closed);
  s.fail_all(Code::kShuttingDown);
  s.loop.disarm(&s.watch);
  for (const auto& link : s.links) {
    s.loop.disarm(&link->redial);
    if (link->connection) link->connection->close();
  }
  s.loop.arm(&s.later, s.loop.now_ns());
}

}  // namespace curve::client
