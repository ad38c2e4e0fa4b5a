// Clients: admission of connections (R13), checks of requests, writes, merging of parts of a sector
// (R14).
#include <algorithm>
#include <cstring>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/copyset/background.h"
#include "native/copyset/server_state.h"
#include "native/copyset/trace.h"
#include "native/wire/codec.h"

namespace curve::copyset {

namespace {

uint32_t first_sector(const wire::RequestBody& body) { return body.offset_bytes / kSectorBytes; }
uint32_t sector_count(const wire::RequestBody& body) {
  return (body.offset_bytes + body.bytes + kSectorBytes - 1) / kSectorBytes - first_sector(body);
}

// What a fence or deletion in the log will do to the fences of `volume`.
void raise_fences(Fences& fences, VolumeId volume, std::span<const std::byte> head) {
  const auto fence = decode_command<FenceCommand>(head);
  if (!fence || fence->volume != volume ||
      head.size() != sizeof(FenceCommand) + fence->revoked * sizeof(Epoch))
    return;
  std::vector<Epoch> revoked(fence->revoked);
  if (!revoked.empty())
    std::memcpy(revoked.data(), head.data() + sizeof(FenceCommand), revoked.size() * sizeof(Epoch));
  fences.raise(volume, fence->floor, fence->ceiling, revoked);
}
}  // namespace

// R13: a client has one connection. The old one is shut, and what was read from it but not proposed
// is forgotten, before the new one is admitted.
bool StoreServer::State::open_session(wire::Connection* connection) {
  auto it = sessions.find(connection->peer_id());
  if (it != sessions.end()) {
    Session* old = it->second;
    if (old->counter >= connection->peer_counter()) {
      connection->refuse(Code::kWrongTerm, "a newer connection of this client is open");
      return false;
    }
    wire::Connection* shut = old->connection;
    if (!CURVE_MUTANT("r13_admit_before_shutting_old")) {
      close_session(old);
      shut->user = nullptr;
      shut->close();
    }
  }
  auto* session = new Session;
  session->server = this;
  session->connection = connection;
  session->client = connection->peer_id();
  session->counter = connection->peer_counter();
  connection->user = session;
  sessions[session->client] = session;
  return true;
}

void StoreServer::State::close_session(Session* session) {
  auto it = sessions.find(session->client);
  if (it != sessions.end() && it->second == session) sessions.erase(it);
  // R13: none of them is anybody's before the first one is let go: ending a merge lets others go
  // on.
  std::vector<Request*> mine;
  while (Request* request = session->requests.pop_front()) {
    request->session = nullptr;
    mine.push_back(request);
  }
  delete session;
  // Proposed ones are in the log and take their course; reads, merges and what waits for a merge
  // end where they next wake up.
  for (Request* request : mine) {
    if (request->session) continue;  // let go meanwhile, and taken again
    if (request->parked) {
      std::erase(request->copyset->parked, request);
      release(request);
    } else if (request->waiting) {
      leave_waiting(request);
      if (request->merging) end_merge(request);
      release(request);
    }
  }
}

Request* StoreServer::State::take_request() {
  if (free_requests.empty()) {
    all_requests.push_back(std::make_unique<Request>());
    all_requests.back()->server = this;
    all_requests.back()->finished = [](Proposal* proposal, Code code) {
      Request* request = static_cast<Request*>(proposal);
      request->server->answer(request, code);
    };
    free_requests.push_back(all_requests.back().get());
  }
  Request* request = free_requests.back();
  free_requests.pop_back();
  ++requests_open;
  return request;
}

void StoreServer::State::release(Request* request) {
  if (request->traced) trace->forget(request);
  request->unlink();
  request->session = nullptr;
  request->copyset = nullptr;
  request->buffer = {};
  request->merge_buffer = {};
  request->crcs.clear();
  request->entry = {};
  request->parked = request->waiting = request->verified = false;
  request->merging = request->proposed = false;
  request->code = Code::kOk;
  request->pieces_left = 0;
  free_requests.push_back(request);
  --requests_open;
  if (stopping) check_stopped();
}

void StoreServer::State::request_frame(Session& session, wire::Frame& frame) {
  base::Reader reader(frame.body);
  const auto body = reader.get<wire::RequestBody>();
  const auto crcs = reader.raw(reader.left());
  const bool write = frame.type == wire::FrameType::kWrite;
  const bool in_chunk =
      body.offset_bytes <= kChunkBytes && body.bytes <= kChunkBytes - body.offset_bytes;
  const bool probe = frame.type == wire::FrameType::kProbe;
  bool good = reader.ok() && crcs.size() % 4 == 0 && (probe || (in_chunk && body.bytes != 0));
  if (write) {
    good = good && body.offset_bytes % 512 == 0 && body.bytes % 512 == 0 &&
           sector_count(body) <= kIoBytesMax / kSectorBytes && frame.payload.size() == body.bytes &&
           crcs.size() / 4 == sector_count(body);
  } else if (!probe) {
    const bool small = frame.type != wire::FrameType::kRead || body.bytes <= kIoBytesMax;
    good = good && body.offset_bytes % kSectorBytes == 0 && body.bytes % kSectorBytes == 0 &&
           crcs.empty() && small;
  }
  Request* request = take_request();
  request->session = &session;
  session.requests.push_back(request);
  request->type = frame.type;
  request->tag = frame.tag;
  request->body = body;
  request->received_ns = loop.now_ns();
  if (write && good) {
    request->crcs.resize(crcs.size() / 4);
    std::memcpy(request->crcs.data(), crcs.data(), crcs.size());
    request->buffer = std::move(frame.payload);
  }
  session.inflight_bytes += body.bytes;
  if (!session.paused && session.inflight_bytes > options.session_bytes_max) {
    session.paused = true;
    session.connection->pause();
  }
  if (!good) return answer(request, Code::kInvalid);
  auto it = copysets.find(body.copyset);
  if (it == copysets.end() || !it->second->group) return answer(request, Code::kNoCopyset);
  request->copyset = it->second.get();
  dispatch(request);
}

Code StoreServer::State::check_leader(Request* request) {
  if (!request->copyset->group) return Code::kNoCopyset;  // removed meanwhile
  replica::ReplicaGroup& group = *request->copyset->group;
  if (stopping || out_of_service) return Code::kShuttingDown;
  if (!group.is_leader()) return Code::kNotLeader;
  request->term = group.raft().term();
  if (request->body.term && request->body.term != request->term &&
      !CURVE_MUTANT("r13_accept_any_term"))
    return Code::kWrongTerm;
  return Code::kOk;
}

void StoreServer::State::dispatch(Request* request) {
  sync_budget.foreground_ns = loop.now_ns();
  Code code = check_leader(request);
  if (code != Code::kOk || request->type == wire::FrameType::kProbe) return answer(request, code);
  code = request->copyset->fences.check(request->body.volume,
                                        request->body.epoch);  // R12, at acceptance
  if (code != Code::kOk && !request->copyset->group->raft().lease_valid(loop.now_ns())) {
    return park(
        request);  // a new leader has not applied what it has: the attachment may be in there
  }
  if (code != Code::kOk) return answer(request, code);
  switch (request->type) {
    case wire::FrameType::kRead:
    case wire::FrameType::kBlockStatus:
      return start_read(request);
    default:
      // R13: a write or discard carries the term it is meant for.
      if (!request->body.term) return answer(request, Code::kWrongTerm);
      return start_write(request);
  }
}

void StoreServer::State::note_latency(const Request& request) {
  const uint64_t now = loop.now_ns();
  if (request.proposed) {
    latency.write.record_ns(now - request.received_ns);
    latency.replicate.record_ns(now - request.proposed_ns);
  } else if (request.type == wire::FrameType::kRead) {
    latency.read.record_ns(now - request.received_ns);
  }
}

void StoreServer::State::answer(Request* request, Code code) {
  if (request->merging) end_merge(request);
  if (code == Code::kOk) note_latency(*request);
  Session* session = request->session;
  if (session) {
    wire::ReplyBody reply;
    reply.code = static_cast<uint16_t>(code);
    if (request->copyset && request->copyset->group) {
      raft::Group& raft = request->copyset->group->raft();
      reply.term = raft.term();
      reply.leader = raft.leader();
    }
    if (request->traced && code == Code::kOk) {
      trace->answered(*request, session->client);
      reply.flags |= wire::kReplyTraced;
    }
    if (code != Code::kOk) ++counters.refused;
    const bool data = code == Code::kOk && request->type == wire::FrameType::kRead;
    const bool bits = code == Code::kOk && request->type == wire::FrameType::kBlockStatus;
    if (data) {
      session->connection->send(wire::FrameType::kReply, request->tag, wire::body_bytes(reply),
                                std::as_bytes(std::span(request->crcs)), request->buffer, 0,
                                request->body.bytes);
    } else if (bits) {
      session->connection->send(wire::FrameType::kReply, request->tag, wire::body_bytes(reply),
                                request->buffer.bytes());
    } else {
      session->connection->send(wire::FrameType::kReply, request->tag, wire::body_bytes(reply));
    }
    session->inflight_bytes -= request->body.bytes;
    if (session->paused && session->inflight_bytes < options.session_bytes_max / 2) {
      session->paused = false;
      session->connection->resume();
    }
  }
  release(request);
}

// Full sectors go to the log as they are; the rest is merged first. One chunk's merge holds up
// later writes to that chunk, in order, so that each merge sees the newest appended value (R14).
void StoreServer::State::start_write(Request* request) {
  Copyset& copyset = *request->copyset;
  const wire::RequestBody& body = request->body;
  if (body.flags & ~wire::kFlagMayUnmap) return answer(request, Code::kInvalid);
  const bool write = request->type == wire::FrameType::kWrite;
  if (write && !request->verified) {
    const uint32_t end = body.offset_bytes + body.bytes;
    uint32_t at = body.offset_bytes;
    for (uint32_t crc : request->crcs) {
      const uint32_t next = std::min(end, (at / kSectorBytes + 1) * kSectorBytes);
      if (base::crc32c(request->buffer.bytes().subspan(at - body.offset_bytes, next - at)) != crc) {
        return answer(request, Code::kBadChecksum);
      }
      at = next;
    }
    request->verified = true;
  }
  if ((!copyset.waiting.empty() || !copyset.waiting_control.empty()) && copyset.woken != request)
    return wait_for_room(request);
  auto waiting = copyset.merging.find({body.volume, body.chunk});
  if (waiting != copyset.merging.end()) {
    waiting->second.push_back(request);
    return;
  }
  const bool partial = write && (body.offset_bytes % kSectorBytes || body.bytes % kSectorBytes);
  if (partial) return start_merge(request);
  propose_range(request);
}

// A discard of what was never written changes nothing, and needs no log: a new volume of any size
// is discarded at once (mkfs). It is answered like a read: with the lease, by who has applied all
// that it has (R9). R13: and not beside a write that is on its way and could come behind it.
bool StoreServer::State::nothing_to_zero(const Request& request) const {
  const wire::RequestBody& body = request.body;
  const Copyset& copyset = *request.copyset;
  if (!may_look(copyset) || copyset.applied != copyset.group->raft().last_index()) return false;
  const ChunkKey chunk{body.volume, body.chunk};
  const uint32_t last = (first_sector(body) + sector_count(body) - 1) / kSectorsPerBlock;
  for (uint32_t block = first_sector(body) / kSectorsPerBlock; block <= last; ++block) {
    if (copyset.overlay.has_block(chunk, block)) return false;
    if (store->block_state(copyset.id, chunk, static_cast<uint16_t>(block)).physical) return false;
  }
  return true;
}

// R10: not faster than a replica can be filled, as long as one is.
bool StoreServer::State::within_pace(Copyset& copyset) {
  const uint64_t now = loop.now_ns();
  const uint64_t wait_ns = copyset.pace.wait_ns(now);
  if (wait_ns == 0) return true;
  if (stopping || !copyset.group->raft().fills_somebody()) {
    copyset.pace.lift();
    return true;
  }
  if (!pace_timer.armed() || pace_timer.deadline_ns > now + wait_ns)
    loop.arm(&pace_timer, now + wait_ns);
  return false;
}

void StoreServer::State::propose_range(Request* request) {
  Copyset& copyset = *request->copyset;
  const wire::RequestBody& body = request->body;
  RangeCommand command;
  command.type =
      request->type == wire::FrameType::kWrite ? CommandType::kWrite : CommandType::kZero;
  command.volume = body.volume;
  command.epoch = body.epoch;
  command.chunk = body.chunk;
  command.first_sector = first_sector(body);
  command.sectors = sector_count(body);
  const bool write = command.type == CommandType::kWrite;
  if (!write && nothing_to_zero(*request)) return answer(request, Code::kOk);
  const auto head = wire::body_bytes(command);
  uint32_t fresh = 0;
  if (write && CURVE_MUTANT("r8_set_aside_while_waiting"))
    (void)reserve(copyset, {body.volume, body.chunk}, command.first_sector, command.sectors,
                  &fresh);
  if (!within_pace(copyset) || !background->admits()) return wait_for_room(request);
  const Code code = replica->may_propose(*copyset.group, request->buffer.size(), head.size());
  if (code == Code::kBusy) {
    if (!replica->has_room(request->buffer.size(), head.size())) background->pressed();
    return wait_for_room(request);
  }
  if (code != Code::kOk) return answer(request, code);
  if (write) {  // R8: decided here, before the log; what waits has nothing set aside (room.cc).
    const Space space =
        reserve(copyset, {body.volume, body.chunk}, command.first_sector, command.sectors, &fresh);
    if (space == Space::kWait) return wait_for_room(request);
    if (space == Space::kComing) {  // not in the queue: what needs no blocks goes on behind it
      ++counters.bounced;
      return answer(request, Code::kBusy);
    }
    if (space == Space::kFull) return answer(request, Code::kNoSpace);
  }
  replica::EntryRef entry = replica->take_entry();
  entry->head.assign(head.begin(), head.end());
  if (write) {
    entry->sector_crcs = request->crcs;
    entry->payload = std::move(request->buffer);
  }
  entry->context = static_cast<Proposal*>(request);
  replica->propose(*copyset.group, entry);
  copyset.pace.take((command.first_sector + command.sectors - 1) / kSectorsPerBlock -
                    command.first_sector / kSectorsPerBlock + 1);
  request->proposed = true;
  note_new_blocks(copyset, entry->index, fresh);
  request->proposed_ns = loop.now_ns();
  if (trace && trace->wants(*request)) {
    request->index = entry->index;
    trace->proposed(request);
  }
  if (!write) note_zero(copyset, command, entry->index);
  write ? ++counters.writes : ++counters.zeroes;
  counters.written_bytes += write ? body.bytes : 0;
  if (request->merging) end_merge(request);
}

// The value of a sector among entries appended but not applied. False: not among them. R12: a fence
// among them refuses what is appended behind it, so the fences are followed from entry to entry:
// what will not be applied is no value to merge with.
bool StoreServer::State::newest_appended(Copyset& copyset, const ChunkKey& chunk, uint32_t sector,
                                         std::byte* into) {
  raft::Group& raft = copyset.group->raft();
  Fences fences;
  if (auto now = copyset.fences.all().find(chunk.volume); now != copyset.fences.all().end())
    fences.raise(chunk.volume, now->second.floor, now->second.ceiling, now->second.revoked);
  const replica::Entry* newest = nullptr;
  uint32_t first_sector_of_newest = 0;
  for (Index index = copyset.applied + 1; index <= raft.last_index(); ++index) {
    const replica::Entry* entry = replica->entry_at(*copyset.group, index);
    if (!entry || entry->type != raft::EntryType::kData) continue;
    const auto type = command_type(entry->head);
    if (type == CommandType::kFence || type == CommandType::kDeleteVolume) {
      raise_fences(fences, chunk.volume, entry->head);
      continue;
    }
    if (type != CommandType::kWrite && type != CommandType::kZero) continue;
    const auto range = decode_range(entry->head);
    if (!range || ChunkKey{range->volume, range->chunk} != chunk || sector < range->first_sector ||
        sector >= range->first_sector + range->sectors) {
      continue;
    }
    if (!range->restores && fences.check(range->volume, range->epoch) != Code::kOk &&
        !CURVE_MUTANT("r14_merge_with_refused"))
      continue;
    newest = entry;
    first_sector_of_newest = range->first_sector;
  }
  if (!newest) return false;
  if (command_type(newest->head) == CommandType::kZero) {
    std::memset(into, 0, kSectorBytes);
  } else {
    std::memcpy(into, newest->payload.data() + (sector - first_sector_of_newest) * kSectorBytes,
                kSectorBytes);
  }
  return true;
}

void StoreServer::State::start_merge(Request* request) {
  Copyset& copyset = *request->copyset;
  const wire::RequestBody& body = request->body;
  // Entries of earlier terms may have their payload only in the WAL: they are all applied once the
  // lease holds.
  if (!copyset.group->raft().lease_valid(loop.now_ns())) return park(request);
  ++counters.merges;
  request->merging = true;
  if (!CURVE_MUTANT("r14_merge_without_lock")) copyset.merging[{body.volume, body.chunk}];
  request->merge_buffer = pool.take(2 * kSectorBytes);
  const ChunkKey chunk{body.volume, body.chunk};
  const uint32_t first = first_sector(body), count = sector_count(body);
  const bool head = body.offset_bytes % kSectorBytes != 0;
  const bool tail = (body.offset_bytes + body.bytes) % kSectorBytes != 0;
  request->merge_need = {head || (count == 1 && tail), tail && count > 1};
  request->pieces_left = 1;
  request->code = Code::kOk;
  std::vector<uint32_t> write_crcs;
  write_crcs.swap(request->crcs);
  request->crcs.resize(2);
  for (int edge = 0; edge < 2; ++edge) {
    if (!request->merge_need[edge]) continue;
    std::byte* into = request->merge_buffer.data() + edge * kSectorBytes;
    const uint32_t sector = edge == 0 ? first : first + count - 1;
    if (newest_appended(copyset, chunk, sector, into)) {
      request->crcs[edge] = base::crc32c({into, kSectorBytes});
    } else {
      read_sectors(request, chunk, sector, 1, into);
    }
  }
  if (--request->pieces_left == 0) merge_step(request);
}

// The old content is there: the request becomes a write of whole sectors.
void StoreServer::State::merge_step(Request* request) {
  const wire::RequestBody& body = request->body;
  if (request->code != Code::kOk) return answer(request, request->code);
  Code code = check_leader(request);
  if (code == Code::kOk) code = request->copyset->fences.check(body.volume, body.epoch);
  if (code == Code::kOk && !request->session)
    code = Code::kCancelled;  // R13: not yet proposed, its connection is gone
  if (code != Code::kOk) return answer(request, code);
  const uint32_t count = sector_count(body);
  base::Buffer whole = pool.take(count * static_cast<size_t>(kSectorBytes));
  for (int edge = 0; edge < 2; ++edge) {
    if (!request->merge_need[edge]) continue;
    const uint32_t at = edge == 0 ? 0 : count - 1;
    std::memcpy(whole.data() + at * static_cast<size_t>(kSectorBytes),
                request->merge_buffer.data() + edge * kSectorBytes, kSectorBytes);
  }
  std::memcpy(whole.data() + body.offset_bytes % kSectorBytes, request->buffer.data(), body.bytes);
  request->crcs.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    request->crcs[i] =
        base::crc32c(whole.bytes().subspan(i * static_cast<size_t>(kSectorBytes), kSectorBytes));
  }
  request->buffer = std::move(whole);
  request->merge_buffer = {};
  propose_range(request);
}

// Lets the writes that waited for the chunk go on, in order.
void StoreServer::State::end_merge(Request* request) {
  request->merging = false;
  Copyset& copyset = *request->copyset;
  auto it = copyset.merging.find({request->body.volume, request->body.chunk});
  if (it == copyset.merging.end()) return;
  std::deque<Request*> queue = std::move(it->second);
  copyset.merging.erase(it);
  while (!queue.empty()) {
    Request* next = queue.front();
    queue.pop_front();
    if (!next->session) {  // R13
      release(next);
    } else {
      dispatch(next);
    }
    auto again = copyset.merging.find({request->body.volume, request->body.chunk});
    if (again != copyset.merging.end()) {  // the next one merges, too: the rest waits behind it
      again->second.insert(again->second.end(), queue.begin(), queue.end());
      return;
    }
  }
}

}  // namespace curve::copyset
