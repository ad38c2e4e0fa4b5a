// Connections between stores and the frames on them. The store with the lower id dials; both
// directions use the connection.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/replica/internal.h"
#include "native/wire/codec.h"

namespace curve::replica {

Replica::Link& Replica::link(const StoreId& store) {
  auto& slot = links_[store];
  if (!slot) {
    slot = std::make_unique<Link>();
    slot->replica = this;
    slot->store = store;
    slot->retry.owner = slot.get();
    slot->retry.fire = [](io::Timer* timer) {
      Link* link = static_cast<Link*>(timer->owner);
      link->replica->dial(*link);
    };
  }
  return *slot;
}

void Replica::set_peer(const StoreId& store, const io::Address& address) {
  if (store == self_.id) return;
  Link& peer = link(store);
  if (peer.address == address) return;
  peer.address = address;
  if (started_ && !stopped_) dial(peer);
}

std::vector<PeerStatus> Replica::peers() const {
  std::vector<PeerStatus> out;
  for (const auto& [store, peer] : links_)
    out.push_back({store, peer->address.text, peer->connection != nullptr});
  return out;
}

Room Replica::peer_room(const StoreId& store) const {
  auto it = links_.find(store);
  return it == links_.end() ? kRoomUnheard : it->second->room;
}

wire::Connection* Replica::peer_connection(const StoreId& store) {
  auto it = links_.find(store);
  return it == links_.end() ? nullptr : it->second->connection;
}

void Replica::dial(Link& peer) {
  if (stopped_ || !(self_.id < peer.store) || peer.address.text.empty()) return;
  if (peer.connection || peer.dialing) return;
  wire::ConnectionHandler handler;
  handler.owner = this;
  handler.opened = [](void* owner, wire::Connection* connection) {
    return static_cast<Replica*>(owner)->peer_accepted(connection);
  };
  handler.frame = [](void* owner, wire::Connection* connection, wire::Frame& frame) {
    static_cast<Replica*>(owner)->peer_frame(connection, frame);
  };
  handler.closed = [](void* owner, wire::Connection* connection, Code code, int error) {
    static_cast<Replica*>(owner)->peer_closed(connection, code, error);
  };
  peer.dialing = wire::Connection::dial(loop_, pool_, peer.address, self_, peer.store, 0, handler);
  peer.dialing->user = &peer;
}

bool Replica::peer_accepted(wire::Connection* connection) {
  if (stopped_ || connection->peer_id() == self_.id) return false;
  Link& peer = link(connection->peer_id());
  if (peer.dialing == connection) peer.dialing = nullptr;
  if (peer.connection) {  // the newer one counts: the peer has lost the older
    wire::Connection* old = peer.connection;
    peer.connection = nullptr;
    old->user = nullptr;
    old->close();
    forget_catch_ups(peer.store);
    host_.on_peer_down(peer.store, false, loop_.now_ns());
    machine_.peer_closed(peer.store);
  }
  connection->user = &peer;
  peer.connection = connection;
  peer.backoff_ns = kDialRetryMinNs;
  host_.on_peer_up(peer.store, loop_.now_ns());
  return true;
}

void Replica::peer_closed(wire::Connection* connection, Code code, int error) {
  Link* peer = static_cast<Link*>(connection->user);
  if (!peer) return;
  const bool was_open = peer->connection == connection;
  if (was_open) peer->connection = nullptr;
  if (peer->dialing == connection) peer->dialing = nullptr;
  if (stopped_) return;
  if (was_open) forget_catch_ups(peer->store);
  const bool refused = code == Code::kDisconnected || error == ECONNREFUSED || error == ECONNRESET;
  host_.on_peer_down(peer->store, refused, loop_.now_ns());
  if (was_open) machine_.peer_closed(peer->store);
  if (code == Code::kUnauthenticated || code == Code::kVersion) {
    base::log(base::LogLevel::kWarning, "peer_refused",
              {{"peer", peer->store.text()},
               {"address", peer->address.text},
               {"code", std::string(code_name(code))}});
  }
  if (self_.id < peer->store) {
    loop_.arm(&peer->retry, loop_.now_ns() + peer->backoff_ns);
    peer->backoff_ns = std::min(peer->backoff_ns * 2, kDialRetryMaxNs);
  }
}

void Replica::malformed(wire::Connection* connection, const char* what) {
  base::log(base::LogLevel::kError, "peer_malformed_frame",
            {{"peer", connection->peer_id().text()},
             {"address", connection->peer_text()},
             {"what", what}});
  connection->close();
}

void Replica::peer_frame(wire::Connection* connection, wire::Frame& frame) {
  const StoreId from = connection->peer_id();
  if (stopped_) return;
  switch (frame.type) {
    case wire::FrameType::kPeerAppend:
      return on_peer_append(connection, frame);
    case wire::FrameType::kPeerMessage: {
      if (frame.body.size() % sizeof(PeerMessageBody) != 0)
        return malformed(connection, "peer message size");
      base::Reader reader(frame.body);
      while (reader.left()) {
        const auto body = reader.get<PeerMessageBody>();
        const raft::Message message = to_message(body, from);
        if (message.type < raft::MessageType::kPreVote ||
            message.type > raft::MessageType::kSyncRequest ||
            message.type == raft::MessageType::kAppend) {
          return malformed(connection, "peer message type");
        }
        if (message.type == raft::MessageType::kAppendReply)
          link(from).room = decode_room(body.shortage);
        if (ReplicaGroup* group = find(message.group)) group->raft().step(message, loop_.now_ns());
      }
      return;
    }
    case wire::FrameType::kPeerBeat: {
      raft::Beat beat;
      if (!decode_beat(frame.body, beat)) return malformed(connection, "beat");
      const raft::BeatReply reply = host_.on_beat(from, beat, loop_.now_ns());
      encode_beat_reply(reply, machine_.room(), scratch_);
      connection->send(wire::FrameType::kPeerBeatReply, 0, scratch_);
      return;
    }
    case wire::FrameType::kPeerBeatReply: {
      raft::BeatReply reply;
      if (!decode_beat_reply(frame.body, reply, link(from).room))
        return malformed(connection, "beat reply");
      return host_.on_beat_reply(from, reply, loop_.now_ns());
    }
    default:
      return machine_.peer_frame(from, connection, frame);
  }
}

// One entry (or a probe) of a leader. Frames of one turn come one behind the other; raft
// acknowledges once they are durable.
void Replica::on_peer_append(wire::Connection* connection, wire::Frame& frame) {
  base::Reader reader(frame.body);
  const auto body = reader.get<PeerAppendBody>();
  const auto head = reader.raw(body.head_bytes);
  const auto crcs = reader.raw(body.crc_count * 4ull);
  if (!reader.done() || body.head_bytes > wal::kHeadBytesMax ||
      frame.payload.size() != body.crc_count * static_cast<size_t>(kSectorBytes) ||
      (body.index && body.index != body.previous_index + 1) || body.entry_type > 2) {
    return malformed(connection, "append");
  }
  ReplicaGroup* group = find(body.copyset);
  if (!group) return;  // R1: not formed here (yet)
  group->all_have_ = std::max(group->all_have_, decode_behind(body.commit, body.behind));
  raft::Message message;
  message.type = raft::MessageType::kAppend;
  message.peer = connection->peer_id();
  message.group = body.copyset;
  message.term = body.term;
  message.index = body.previous_index;
  message.log_term = body.previous_term;
  message.commit = body.commit;
  message.first = body.previous_index + 1;
  message.last = body.index ? body.index : body.previous_index;
  if (!body.index) {
    group->raft().step_append(message, {}, {}, loop_.now_ns());
    return;
  }
  // R7: a follower without room takes nothing (the leader sends again); copies and votes still find
  // their reserve.
  if (!has_room(frame.payload.size(), head.size())) {
    return;
  }
  for (uint32_t i = 0; i < body.crc_count; ++i) {  // a damaged payload must not become durable
    uint32_t crc;
    std::memcpy(&crc, crcs.data() + i * 4, 4);
    if (base::crc32c(frame.payload.bytes().subspan(i * kSectorBytes, kSectorBytes)) != crc) {
      return malformed(connection, "payload checksum");
    }
  }
  // R8: not for what is here already: nobody would give back what is set aside for it.
  const bool here = body.index <= group->applied_ || has_entry(*group, body.index, body.entry_term);
  if (!here && body.entry_type == static_cast<uint8_t>(raft::EntryType::kData) &&
      !machine_.admit(*group, body.index, head))
    return;
  raft::EntryMeta meta;
  meta.index = body.index;
  meta.term = body.entry_term;
  meta.type = static_cast<raft::EntryType>(body.entry_type);
  meta.bytes = static_cast<uint32_t>(head.size() + frame.payload.size() + 64);
  raft::Group::ConfigAt config_at;
  std::span<const raft::Group::ConfigAt> configs;
  if (meta.type == raft::EntryType::kConfig) {
    auto config = raft::decode_config(head);
    if (!config) return malformed(connection, "configuration");
    config_at = {body.index, *config};
    configs = {&config_at, 1};
  }
  const raft::AppendVerdict verdict =
      group->raft().step_append(message, {&meta, 1}, configs, loop_.now_ns());
  if (verdict.first_new != body.index) return;
  EntryRef entry = entries_.take();
  entry->group = body.copyset;
  entry->index = body.index;
  entry->term = body.entry_term;
  entry->type = meta.type;
  entry->head.assign(head.begin(), head.end());
  entry->sector_crcs.resize(body.crc_count);
  if (!crcs.empty()) std::memcpy(entry->sector_crcs.data(), crcs.data(), crcs.size());
  entry->payload = std::move(frame.payload);
  put_entry(*group, entry);
}

void Replica::send_beats() {
  raft::OutgoingBeat out;
  while (host_.take_beat(&out, loop_.now_ns())) {
    wire::Connection* connection = peer_connection(out.to);
    if (!connection) continue;
    encode_beat(*out.beat, scratch_);
    connection->send(wire::FrameType::kPeerBeat, 0, scratch_);
  }
}

void Replica::flush_replies(Link& peer) {
  if (peer.messages.empty()) return;
  if (peer.connection) {
    constexpr size_t kPerFrame = wire::kBodyBytesMax / sizeof(PeerMessageBody);
    for (size_t at = 0; at < peer.messages.size(); at += kPerFrame) {
      const size_t count = std::min(kPerFrame, peer.messages.size() - at);
      peer.connection->send(wire::FrameType::kPeerMessage, 0,
                            {reinterpret_cast<const std::byte*>(&peer.messages[at]),
                             count * sizeof(PeerMessageBody)});
    }
  }
  peer.messages.clear();
}

void Replica::send(ReplicaGroup& group, const raft::Message& message) {
  Link& peer = link(message.peer);
  if (!peer.connection) return;
  if (message.type != raft::MessageType::kAppend) {
    peer.messages.push_back(to_body(message));
    if (message.type == raft::MessageType::kAppendReply)
      peer.messages.back().shortage = encode_room(machine_.room());
    return;
  }
  send_append(group, message, peer.connection);
}

void Replica::send_append(ReplicaGroup& group, const raft::Message& message,
                          wire::Connection* connection) {
  const bool empty = message.last < message.first;
  for (const auto& job : catch_ups_) {
    if (job->group != &group || job->to != message.peer) continue;
    // Order within a group and peer: behind what is being read back, or the follower would see a
    // gap that there is not. Where raft does not go on with what waits it has begun again
    // elsewhere.
    if (!job->messages.empty() && (message.first != job->messages.back().last + 1 ||
                                   message.term != job->messages.back().term)) {
      job->messages.clear();
    }
    if (job->messages.empty()) job->next = message.first;
    job->messages.push_back(message);
    return;
  }
  if (empty)
    return send_entry(group, connection, message, nullptr, message.index, message.log_term);
  for (Index index = message.first; index <= message.last; ++index) {
    const Entry* entry = entry_at(group, index);
    if (!entry || !entry->in_memory()) {
      raft::Message rest = message;
      rest.index = index - 1;
      rest.log_term = group.raft().term_at(index - 1);
      rest.first = index;
      return catch_up(group, rest);
    }
    const Term previous_term =
        index == message.first ? message.log_term : group.raft().term_at(index - 1);
    send_entry(group, connection, message, entry, index - 1, previous_term);
  }
}

void Replica::send_entry(const ReplicaGroup& group, wire::Connection* connection,
                         const raft::Message& message, const Entry* entry, Index previous,
                         Term previous_term) {
  PeerAppendBody body;
  body.copyset = message.group;
  body.term = message.term;
  body.previous_index = previous;
  body.previous_term = previous_term;
  body.commit = message.commit;
  body.behind = encode_behind(message.commit, group.raft().all_have());
  if (!entry) return connection->send(wire::FrameType::kPeerAppend, 0, wire::body_bytes(body));
  body.index = entry->index;
  body.entry_term = entry->term;
  body.entry_type = static_cast<uint8_t>(entry->type);
  body.head_bytes = static_cast<uint32_t>(entry->head.size());
  body.crc_count = static_cast<uint32_t>(entry->sector_crcs.size());
  scratch_.clear();
  base::Writer writer(scratch_);
  writer.put(body);
  writer.raw(entry->head);
  connection->send(wire::FrameType::kPeerAppend, 0, scratch_,
                   std::as_bytes(std::span(entry->sector_crcs)), entry->payload, 0,
                   static_cast<uint32_t>(entry->payload.size()));
}

void Replica::catch_up(ReplicaGroup& group, const raft::Message& message) {
  auto job = std::make_unique<CatchUp>();
  job->replica = this;
  job->group = &group;
  job->to = message.peer;
  job->messages.push_back(message);
  job->next = message.first;
  for (CatchUp::Read& read : job->reads) {
    read.owner = job.get();
    read.done = [](io::Op* op) {
      auto* read = static_cast<CatchUp::Read*>(op);
      CatchUp* job = static_cast<CatchUp*>(op->owner);
      if (read->result < 0 || read->annotation.empty()) {
        read->busy = false;
        return job->replica->catch_up_read_done(job);
      }
      read->external.annotation = read->annotation;
      read->external.sector_crcs = read->sector_crcs;
      job->replica->machine_.read_payload(&read->external);
    };
    read.external.owner = &read;
    read.external.done = [](io::Op* op) {
      auto* external = static_cast<PayloadRead*>(op);
      auto* read = static_cast<CatchUp::Read*>(external->owner);
      read->result = std::min(external->result, 0);
      read->payload = std::move(external->payload);
      read->busy = false;
      auto* job = static_cast<CatchUp*>(read->owner);
      job->replica->catch_up_read_done(job);
    };
  }
  CatchUp* raw = job.get();
  catch_ups_.push_back(std::move(job));
  catch_up_next(raw);
}

// What waits for `store` was meant for a connection that is gone: raft begins again with the next
// one.
void Replica::forget_catch_ups(const StoreId& store) {
  for (auto& job : catch_ups_) {
    if (job->to == store) job->messages.clear();
  }
}

void Replica::catch_up_read_done(CatchUp* job) {
  --job->reading;
  --catch_up_reads_;
  catch_up_next(job);
}

// Sends what was read, then starts the next reads. Ends the job when its messages are through, the
// log has moved on or the peer is gone (raft starts again from what the follower really has).
void Replica::catch_up_next(CatchUp* job) {
  if (catch_up_send(*job)) return catch_up_read(*job);
  job->messages.clear();
  if (job->reading > 0) return;
  std::erase_if(catch_ups_,
                [job](const std::unique_ptr<CatchUp>& each) { return each.get() == job; });
}

// True: there is more to send, which has to be read.
bool Replica::catch_up_send(CatchUp& job) {
  wire::Connection* connection =
      stopped_ || job.group == nullptr ? nullptr : peer_connection(job.to);
  while (connection && !job.messages.empty()) {
    const raft::Message& message = job.messages.front();
    raft::Group& raft = job.group->raft();
    if (raft.role() != raft::Role::kLeader || raft.term() != message.term) return false;
    if (job.next > message.last) {
      if (message.last < message.first)
        send_entry(*job.group, connection, message, nullptr, message.index, message.log_term);
      job.messages.pop_front();
      continue;
    }
    if (job.next < raft.first_index()) return false;
    const Entry* entry = entry_at(*job.group, job.next);
    if (entry && entry->in_memory()) {
      send_entry(*job.group, connection, message, entry, job.next - 1, raft.term_at(job.next - 1));
      ++job.next;
      continue;
    }
    CatchUp::Read& read = job.reads[job.next % CatchUp::kReads];
    if (raft.slot(job.next).place == 0) return false;
    // Several indexes share a slot, and a job goes on with other messages: what was read must be
    // what the log has here now (R4).
    const bool trusts = CURVE_MUTANT("r4_catch_up_trusts_its_slot") && read.wanted != 0;
    const bool ours = read.wanted == job.next && read.place == raft.slot(job.next).place;
    if (read.busy || (!ours && !trusts)) return true;
    if (!trusts) read.wanted = 0;
    const bool same = read.index == job.next && read.term == raft.term_at(job.next);
    if (read.result < 0 || (!same && !trusts)) {
      base::log(
          base::LogLevel::kError, "wal_record_unreadable",
          {{"copyset", job.group->id()}, {"index", job.next}, {"result", int64_t{read.result}}});
      // R4: a payload that is gone from the log means sync. (Here, of the follower.)
      if (job.next <= job.group->applied_) raft.trim(job.next);
      return false;
    }
    EntryRef copy = entries_.take();
    fill_entry(*copy, read);
    if (trusts) copy->index = job.next, copy->term = raft.term_at(job.next);
    send_entry(*job.group, connection, message, copy.get(), job.next - 1,
               raft.term_at(job.next - 1));
    ++job.next;
  }
  return false;
}

// The entry that is to be sent next is read in any case, those behind it while there are not too
// many reads in all: followers that are behind must not crowd out the clients.
void Replica::catch_up_read(CatchUp& job) {
  Index last = job.messages.front().last;
  for (const raft::Message& message : job.messages) {
    if (last >= job.next + CatchUp::kReads - 1) break;
    last = message.last;
  }
  last = std::min(last, job.next + CatchUp::kReads - 1);
  for (Index index = job.next; index <= last; ++index) {
    if (index > job.next && catch_up_reads_ >= kCatchUpReadsMax) return;
    CatchUp::Read& read = job.reads[index % CatchUp::kReads];
    const uint64_t place = job.group->raft().slot(index).place;
    if (read.busy || (read.wanted == index && read.place == place)) continue;
    const Entry* entry = entry_at(*job.group, index);
    if (place == 0 || (entry && entry->in_memory())) continue;
    read.wanted = index;
    read.place = place;
    read.busy = true;
    ++job.reading;
    ++catch_up_reads_;
    wal_.read_record(&read);
  }
}

}  // namespace curve::replica
