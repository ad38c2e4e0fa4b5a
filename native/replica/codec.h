// Bodies of the frames between stores (docs/formats/wire.md, "Between stores"). Fixed structs, then
// arrays. Any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "native/raft/types.h"
#include "native/replica/state_machine.h"
#include "native/wire/frame.h"

namespace curve::replica {

// kPeerMessage: one or more of these.
struct PeerMessageBody {
  uint8_t type = 0;
  uint8_t reject = 0;
  uint8_t transfer = 0;
  uint8_t damaged = 0;
  uint16_t shortage = 0;  // R8, append replies only: see encode_room()
  uint16_t reserved = 0;
  uint64_t copyset = 0, term = 0, index = 0, log_term = 0, first = 0, last = 0, commit = 0;
};
static_assert(sizeof(PeerMessageBody) == 64);

// kPeerAppend: this, the entry's head, its CRC32C values (u32 each); the frame's payload is the
// entry's payload.
struct PeerAppendBody {
  uint64_t copyset = 0, term = 0;
  uint64_t previous_index = 0, previous_term = 0;
  uint64_t commit = 0;
  uint64_t index = 0;  // 0: no entry (probe)
  uint64_t entry_term = 0;
  uint32_t head_bytes = 0;
  uint32_t crc_count = 0;
  uint8_t entry_type = 0;
  uint8_t reserved[3] = {};
  // Every member has all through `commit` + 1 - this; 0: the leader cannot say.
  uint32_t behind = 0;
};
static_assert(sizeof(PeerAppendBody) == 72);

// kPeerBeat: this, then `leads` x {copyset, term}, then `commits` x {copyset, term, commit}.
struct BeatBody {
  uint64_t from_incarnation = 0, to_incarnation = 0, sequence = 0, digest = 0;
  uint32_t leads = 0, commits = 0;
  uint8_t full = 0;
  uint8_t reserved[7] = {};
};
static_assert(sizeof(BeatBody) == 48);

// kPeerBeatReply: this, then `refused` x {copyset, term}.
struct BeatReplyBody {
  uint64_t from_incarnation = 0, to_incarnation = 0, sequence = 0;
  uint32_t refused = 0;
  uint8_t confirmed = 0, need_full = 0;
  uint16_t shortage = 0;  // R8, see encode_room()
};
static_assert(sizeof(BeatReplyBody) == 32);

// Of PeerAppendBody.
uint32_t encode_behind(Index commit, Index all_have);
Index decode_behind(Index commit, uint32_t behind);
// What is missing of kRoomBlocksMax blocks in the low 14 bits; bit 14: blocks are coming; bit 15:
// no room for fences. 0: nothing is short.
uint16_t encode_room(const Room& room);
Room decode_room(uint16_t shortage);
PeerMessageBody to_body(const raft::Message& message);
raft::Message to_message(const PeerMessageBody& body, const StoreId& from);
void encode_beat(const raft::Beat& beat, std::vector<std::byte>& out);
bool decode_beat(std::span<const std::byte> body, raft::Beat& out);
void encode_beat_reply(const raft::BeatReply& reply, const Room& room, std::vector<std::byte>& out);
bool decode_beat_reply(std::span<const std::byte> body, raft::BeatReply& out, Room& room);

}  // namespace curve::replica
