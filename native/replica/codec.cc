#include "native/replica/codec.h"

#include <algorithm>
#include <cstring>

#include "native/base/bytes.h"

namespace curve::replica {

PeerMessageBody to_body(const raft::Message& m) {
  PeerMessageBody body;
  body.type = static_cast<uint8_t>(m.type);
  body.reject = m.reject;
  body.transfer = m.transfer;
  body.damaged = m.damaged;
  body.copyset = m.group;
  body.term = m.term;
  body.index = m.index;
  body.log_term = m.log_term;
  body.first = m.first;
  body.last = m.last;
  body.commit = m.commit;
  return body;
}

raft::Message to_message(const PeerMessageBody& body, const StoreId& from) {
  raft::Message m;
  m.type = static_cast<raft::MessageType>(body.type);
  m.peer = from;
  m.reject = body.reject != 0;
  m.transfer = body.transfer != 0;
  m.damaged = body.damaged != 0;
  m.group = body.copyset;
  m.term = body.term;
  m.index = body.index;
  m.log_term = body.log_term;
  m.first = body.first;
  m.last = body.last;
  m.commit = body.commit;
  return m;
}

uint32_t encode_behind(Index commit, Index all_have) {
  const Index behind = commit - std::min(commit, all_have) + 1;
  return all_have == 0 || behind > UINT32_MAX ? 0 : static_cast<uint32_t>(behind);
}

Index decode_behind(Index commit, uint32_t behind) {
  return behind == 0 || behind > commit ? 0 : commit + 1 - behind;
}

void encode_beat(const raft::Beat& beat, std::vector<std::byte>& out) {
  out.clear();
  base::Writer writer(out);
  BeatBody body;
  body.from_incarnation = beat.from_incarnation;
  body.to_incarnation = beat.to_incarnation;
  body.sequence = beat.sequence;
  body.digest = beat.digest;
  body.leads = static_cast<uint32_t>(beat.leads.size());
  body.commits = static_cast<uint32_t>(beat.commits.size());
  body.full = beat.full;
  writer.put(body);
  for (const raft::Lead& lead : beat.leads) {
    writer.put(lead.group);
    writer.put(lead.term);
  }
  for (const raft::CommitNote& note : beat.commits) {
    writer.put(note.group);
    writer.put(note.term);
    writer.put(note.commit);
  }
}

bool decode_beat(std::span<const std::byte> bytes, raft::Beat& out) {
  base::Reader reader(bytes);
  const auto body = reader.get<BeatBody>();
  if (!reader.ok() || reader.left() != body.leads * 16ull + body.commits * 24ull) return false;
  out.from_incarnation = body.from_incarnation;
  out.to_incarnation = body.to_incarnation;
  out.sequence = body.sequence;
  out.digest = body.digest;
  out.full = body.full != 0;
  out.leads.resize(body.leads);
  for (raft::Lead& lead : out.leads) {
    lead.group = reader.get<uint64_t>();
    lead.term = reader.get<uint64_t>();
  }
  out.commits.resize(body.commits);
  for (raft::CommitNote& note : out.commits) {
    note.group = reader.get<uint64_t>();
    note.term = reader.get<uint64_t>();
    note.commit = reader.get<uint64_t>();
  }
  return reader.done();
}

static_assert(kRoomBlocksMax == 0x3fff);
constexpr uint16_t kBlocksComing = 0x4000, kNoFences = 0x8000;

uint16_t encode_room(const Room& room) {
  const uint32_t blocks = std::min(room.blocks, kRoomBlocksMax);
  return static_cast<uint16_t>((kRoomBlocksMax - blocks) | (room.coming ? kBlocksComing : 0) |
                               (room.fences ? 0 : kNoFences));
}

Room decode_room(uint16_t shortage) {
  return {kRoomBlocksMax - (shortage & kRoomBlocksMax), (shortage & kNoFences) == 0,
          (shortage & kBlocksComing) != 0};
}

void encode_beat_reply(const raft::BeatReply& reply, const Room& room,
                       std::vector<std::byte>& out) {
  out.clear();
  base::Writer writer(out);
  BeatReplyBody body;
  body.from_incarnation = reply.from_incarnation;
  body.to_incarnation = reply.to_incarnation;
  body.sequence = reply.sequence;
  body.refused = static_cast<uint32_t>(reply.refused.size());
  body.confirmed = reply.confirmed;
  body.need_full = reply.need_full;
  body.shortage = encode_room(room);
  writer.put(body);
  for (const raft::Lead& lead : reply.refused) {
    writer.put(lead.group);
    writer.put(lead.term);
  }
}

bool decode_beat_reply(std::span<const std::byte> bytes, raft::BeatReply& out, Room& room) {
  base::Reader reader(bytes);
  const auto body = reader.get<BeatReplyBody>();
  if (!reader.ok() || reader.left() != body.refused * 16ull) return false;
  out.from_incarnation = body.from_incarnation;
  out.to_incarnation = body.to_incarnation;
  out.sequence = body.sequence;
  out.confirmed = body.confirmed != 0;
  out.need_full = body.need_full != 0;
  room = decode_room(body.shortage);
  out.refused.resize(body.refused);
  for (raft::Lead& lead : out.refused) {
    lead.group = reader.get<uint64_t>();
    lead.term = reader.get<uint64_t>();
  }
  return reader.done();
}

}  // namespace curve::replica
