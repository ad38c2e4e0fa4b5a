// Who leads which copyset, and what happens to pieces when that changes. Leaders are learnt from
// probes, refusals and hints; a copyset's term never falls, so an old rumour never wins over a
// newer one.
#include <algorithm>
#include <cassert>

#include "native/base/log.h"
#include "native/client/state.h"
#include "native/wire/codec.h"

namespace curve::client {
namespace {

constexpr uint64_t kProbeTag = 1ull << 63;  // then the copyset's index
constexpr uint64_t kWatchNs = 50'000'000;
constexpr uint64_t kUrgentNs = 2'000'000'000;  // a search that old becomes less eager
constexpr uint64_t kUrgentBackoffMaxNs = 40'000'000;
constexpr uint32_t kRedirectsMax = 3;  // hints that are followed without a pause
constexpr uint32_t kDamagedMax = 3;    // times that a write may arrive damaged

uint64_t tag_of(const Piece& piece) {
  return static_cast<uint64_t>(piece.generation) << 24 | piece.slot;
}

bool is_change(wire::FrameType type) {
  return type == wire::FrameType::kWrite || type == wire::FrameType::kZero;
}

}  // namespace

void VolumeClientState::adopt_copysets() {
  if (copysets.empty()) {
    for (uint32_t i = 0; i < map.copysets.size(); ++i) {
      copysets.push_back(std::make_unique<Copyset>());
      Copyset* c = copysets.back().get();
      c->state = this;
      c->index = i;
      c->id = base::copyset_id(map.pool, i);
      c->retry.owner = c;
      c->retry.fire = [](io::Timer* timer) {
        auto* copyset = static_cast<Copyset*>(timer->owner);
        copyset->state->retry(copyset);
      };
    }
  }
  for (const auto& copyset : copysets) {
    const CopysetRoute& route = map.copysets[copyset->index];
    copyset->replicas.clear();
    for (uint16_t store : route.stores) copyset->replicas.push_back(link_of_store[store]);
    copyset->preferred = copyset->replicas[route.preferred];
    if (copyset->leader && replica_of(copyset.get(), copyset->leader->store) != copyset->leader)
      copyset->leader = nullptr;
  }
}

Link* VolumeClientState::replica_of(Copyset* copyset, const StoreId& store) const {
  for (Link* link : copyset->replicas) {
    if (link->store == store) return link;
  }
  return nullptr;
}

// ---- sending ----

void VolumeClientState::dispatch(Piece* piece) {
  Copyset* copyset = piece->copyset;
  if (copyset->leader && !copyset->backing_off) return send(piece, copyset->leader);
  copyset->waiting.push_back(piece);
  if (!copyset->backing_off) search(copyset);
}

void VolumeClientState::send(Piece* piece, Link* link) {
  const Copyset& copyset = *piece->copyset;
  assert(copyset.term > 0 && link->open);
  wire::RequestBody body;
  body.volume = map.volume;
  body.epoch = map.epoch;
  body.copyset = copyset.id;
  body.term = is_change(piece->type) ? copyset.term : 0;
  body.chunk = piece->chunk;
  body.offset_bytes = piece->offset_bytes;
  body.bytes = piece->bytes;
  body.flags = piece->type == wire::FrameType::kZero && piece->flags ? wire::kFlagMayUnmap : 0;
  piece->generation = (piece->generation + 1) & 0x7fffffff;
  piece->sent_term = copyset.term;
  piece->sent_ns = loop.now_ns();
  piece->link = link;
  link->inflight.push_back(piece);
  const uint32_t* crcs = piece->crcs ? reinterpret_cast<const uint32_t*>(piece->crcs.data())
                                     : piece->crcs_inline.data();
  link->connection->send(piece->type, tag_of(*piece), wire::body_bytes(body),
                         std::as_bytes(std::span(crcs, piece->crc_count)), piece->payload,
                         piece->payload_at, piece->payload ? piece->bytes : 0);
  if (!watch.armed()) loop.arm(&watch, loop.now_ns() + kWatchNs);
}

void VolumeClientState::dispatch_waiting(Copyset* copyset) {
  while (copyset->leader && !copyset->backing_off) {
    Piece* piece = copyset->waiting.pop_front();
    if (!piece) return;
    send(piece, copyset->leader);
  }
}

void VolumeClientState::recall(Piece* piece) {
  piece->unlink();
  piece->link = nullptr;
  piece->generation =
      (piece->generation + 1) & 0x7fffffff;  // R13: an answer to that copy does not count any more
  piece->copyset->waiting.push_back(piece);
}

// ---- looking for the leader ----

void VolumeClientState::probe(Copyset* copyset, Link* link) {
  if (!link->open) return;
  wire::RequestBody body;
  body.copyset = copyset->id;
  link->connection->send(wire::FrameType::kProbe, kProbeTag | copyset->index,
                         wire::body_bytes(body));
}

void VolumeClientState::probe_all(Copyset* copyset) {
  copyset->probed_ns = loop.now_ns();
  for (Link* link : copyset->replicas) probe(copyset, link);
}

void VolumeClientState::search(Copyset* copyset) {
  if (copyset->searching) return;
  copyset->searching = true;
  copyset->search_began_ns = loop.now_ns();
  copyset->backoff_ns = options.retry_min_ns;
  probe_all(copyset);
  loop.arm(&copyset->retry, loop.now_ns() + copyset->backoff_ns);
}

// Pieces of this copyset wait a moment: the leader is there, but cannot do it now.
void VolumeClientState::back_off(Copyset* copyset) {
  if (copyset->backing_off || copyset->searching) return;
  copyset->backing_off = true;
  copyset->backoff_ns =
      std::clamp(copyset->backoff_ns * 2, options.retry_min_ns, options.retry_max_ns);
  loop.arm(&copyset->retry, loop.now_ns() + copyset->backoff_ns);
}

void VolumeClientState::retry(Copyset* copyset) {
  copyset->backing_off = false;
  if (copyset->leader) {
    copyset->searching = false;
    return dispatch_waiting(copyset);
  }
  if (copyset->waiting.empty()) {  // nobody asks: the next request will search
    copyset->searching = false;
    return;
  }
  if (!copyset->searching) return search(copyset);
  const bool urgent = loop.now_ns() - copyset->search_began_ns < kUrgentNs;
  const uint64_t max =
      urgent ? std::min(kUrgentBackoffMaxNs, options.retry_max_ns) : options.retry_max_ns;
  copyset->backoff_ns = std::min(copyset->backoff_ns * 2, max);
  probe_all(copyset);
  loop.arm(&copyset->retry, loop.now_ns() + copyset->backoff_ns);
}

// `link` leads in `term`, or is said to.
void VolumeClientState::learn(Copyset* copyset, Link* link, Term term) {
  if (term == 0 || term < copyset->term || !link->open) return;
  const bool higher = term > copyset->term;
  // Within one term there is one leader; the first that was named stays until it is doubted.
  if (!higher && copyset->leader && copyset->leader != link) return;
  if (copyset->leader != link && copyset->term > 0) ++stats.leader_changes;
  copyset->leader = link;
  copyset->term = term;
  if (higher) {
    // What waits for the old leader goes to the new one: R13 (b), see state.h.
    for (Link* old : copyset->replicas) {
      if (old == link) continue;
      for (Piece* piece = old->inflight.front(); piece;) {
        Piece* next = old->inflight.next(piece);
        if (piece->copyset == copyset && piece->sent_term < term) {
          ++stats.retries;
          recall(piece);
        }
        piece = next;
      }
    }
  }
  if (copyset->searching) {
    copyset->searching = false;
    if (!copyset->backing_off) loop.disarm(&copyset->retry);
  }
  dispatch_waiting(copyset);
}

void VolumeClientState::look_for_silence() {
  const uint64_t now = loop.now_ns();
  bool any = false;
  for (const auto& link : links) {
    Piece* oldest = link->inflight.front();
    if (!oldest) continue;
    any = true;
    if (now - oldest->sent_ns > options.dead_connection_ns &&
        now - link->connection->last_receive_ns() > options.dead_connection_ns) {
      base::log(base::LogLevel::kWarning, "client_store_silent", {{"store", link->store.text()}});
      link->connection->close();  // link_closed() takes the pieces back
      continue;
    }
    for (Piece* piece = oldest; piece && now - piece->sent_ns > options.request_timeout_ns;
         piece = link->inflight.next(piece)) {
      Copyset* copyset = piece->copyset;
      if (now - copyset->probed_ns >= kWatchNs) probe_all(copyset);
    }
  }
  if (any) loop.arm(&watch, now + kWatchNs);
}

// ---- replies ----

void VolumeClientState::on_reply(Link* link, wire::Frame& frame) {
  wire::ReplyBody reply;
  if (frame.type != wire::FrameType::kReply || !wire::load_body(frame.body, reply)) {
    base::log(base::LogLevel::kWarning, "client_bad_reply", {{"store", link->store.text()}});
    return link->connection->close();
  }
  if (closing || fenced) return;
  if (frame.tag & kProbeTag) return on_probe_reply(link, static_cast<uint32_t>(frame.tag), reply);
  const uint32_t slot = frame.tag & 0xffffff;
  if (slot >= options.inflight_pieces_max) return;
  Piece* piece = &pieces[slot];
  if (!piece->request || piece->link != link || tag_of(*piece) != frame.tag)
    return;  // of an older copy
  const Code code = static_cast<Code>(reply.code);
  if (code != Code::kOk) return on_refusal(piece, link, reply);
  if (reply.flags & wire::kReplyTraced) send_trace(*piece, link);
  piece->unlink();
  piece->link = nullptr;
  piece->copyset->backoff_ns = 0;
  switch (piece->type) {
    case wire::FrameType::kRead:
      return complete_read(piece, frame);
    case wire::FrameType::kBlockStatus:
      return complete_block_status(piece, frame);
    default:
      finish_piece(piece, Code::kOk);
  }
}

// Somebody wants to know where the time of this volume's writes goes (native/copyset/trace.h).
void VolumeClientState::send_trace(const Piece& piece, Link* link) {
  wire::TraceBody body;
  body.queue_ns = piece.sent_ns - piece.request->started_ns;
  body.away_ns = loop.precise_now_ns() - piece.sent_ns;
  link->connection->send(wire::FrameType::kTrace, tag_of(piece), wire::body_bytes(body));
}

void VolumeClientState::on_refusal(Piece* piece, Link* link, const wire::ReplyBody& reply) {
  Copyset* copyset = piece->copyset;
  const Code code = static_cast<Code>(reply.code);
  switch (code) {
    case Code::kFenced:
      fenced = true;
      base::log(base::LogLevel::kWarning, "client_fenced",
                {{"volume", map.volume}, {"epoch", map.epoch}});
      return fail_all(Code::kFenced);
    case Code::kNoSpace:
    case Code::kInvalid:
    case Code::kReadOnly:
      piece->unlink();
      piece->link = nullptr;
      return finish_piece(piece, code);
    case Code::kBadChecksum:
      if (!give_up_damaged(piece)) break;
      piece->unlink();
      piece->link = nullptr;
      return finish_piece(piece, code);
    default:
      break;
  }
  ++stats.retries;
  recall(piece);
  if (replica_of(copyset, link->store) != link)
    return retry(copyset);  // a store that the map has dropped
  if (code == Code::kWrongTerm) {
    if (copyset->leader && copyset->leader != link && reply.term > copyset->term)
      copyset->leader = nullptr;
    learn(copyset, link, reply.term);
    if (++piece->redirects <= kRedirectsMax) return dispatch_waiting(copyset);
    return back_off(copyset);
  }
  if (code == Code::kNotLeader || code == Code::kNoCopyset || code == Code::kShuttingDown ||
      code == Code::kDropped) {
    if (copyset->leader == link) copyset->leader = nullptr;
    if (++piece->redirects > kRedirectsMax) return back_off(copyset);
    Link* hinted = reply.leader.is_none() ? nullptr : replica_of(copyset, reply.leader);
    if (hinted && hinted != link) learn(copyset, hinted, reply.term);
    if (copyset->leader) return dispatch_waiting(copyset);
    return search(copyset);
  }
  // kBusy, kNoVolume, kIo, kCorrupt, kBadChecksum (a few times) and what a later version may say:
  // the same again, a little later.
  back_off(copyset);
}

// A write was refused because its data does not match its checksums. Damage on the way goes with a
// repetition; damage in this memory, or on every way, does not, and must not be waited for.
bool VolumeClientState::give_up_damaged(Piece* piece) {
  const bool ours = !intact(*piece);
  if (++piece->damaged < kDamagedMax && !ours) return false;
  base::log(base::LogLevel::kError, "client_write_damaged",
            {{"volume", map.volume},
             {"chunk", uint64_t{piece->chunk}},
             {"offset", uint64_t{piece->offset_bytes}},
             {"where", ours ? "the data changed in the memory of this process"
                            : "the data is sound here and arrives damaged"}});
  return true;
}

void VolumeClientState::on_probe_reply(Link* link, uint32_t index, const wire::ReplyBody& reply) {
  if (index >= copysets.size()) return;
  Copyset* copyset = copysets[index].get();
  if (replica_of(copyset, link->store) != link) return;
  const Code code = static_cast<Code>(reply.code);
  if (code == Code::kOk) return learn(copyset, link, reply.term);
  if (code != Code::kNotLeader || reply.leader.is_none()) return;
  Link* hinted = replica_of(copyset, reply.leader);
  // A rumour is followed for a higher term, or where nothing better is known.
  if (hinted && hinted != link && (reply.term > copyset->term || !copyset->leader))
    learn(copyset, hinted, reply.term);
}

}  // namespace curve::client
