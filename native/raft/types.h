// Values that go in and out of the consensus core. Plain data; no I/O, no clock.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "native/base/types.h"

namespace curve::raft {

enum class MemberRole : uint8_t { kVoter = 0, kLearner = 1 };
struct Member {
  StoreId store;
  MemberRole role = MemberRole::kVoter;
  bool operator==(const Member&) const = default;
};

// Who replicates a group. Invariant: stores are distinct; one change at a time (Ongaro's
// thesis 4.1).
struct Config {
  std::array<Member, kReplicasMax> members{};
  uint8_t count = 0;
  StoreId preferred;  // should lead when it can; a wish, not a rule
  bool operator==(const Config&) const = default;
};

// A configuration entry of a log.
struct ConfigAt {
  Index index = 0;
  Config config;
};

enum class EntryType : uint8_t {
  kNoop = 0,    // first entry of a leader's term
  kConfig = 1,  // head: encoded Config (the layer above encodes; see Group::propose_config)
  kData = 2,    // for the state machine
};

// What the core knows of an entry. `place` is opaque to the core (the layer above says where the
// content is).
struct LogSlot {
  Term term = 0;
  uint64_t place = 0;
  uint32_t bytes = 0;  // head + payload, for flow control
  EntryType type = EntryType::kData;
};

struct EntryMeta {
  Index index = 0;
  Term term = 0;
  uint32_t bytes = 0;
  EntryType type = EntryType::kData;
};

struct HardState {
  Term term = 0;
  StoreId vote;
  bool operator==(const HardState&) const = default;
};

enum class MessageType : uint8_t {
  kPreVote = 1,
  kPreVoteReply = 2,
  kVote = 3,
  kVoteReply = 4,
  kAppend = 5,       // entries [first, last] behind (index, log_term); may be empty (probe)
  kAppendReply = 6,  // index: durable match (or, with reject, the hint where to go on)
  kTimeoutNow = 7,   // leadership transfer: campaign at once
  // leader -> follower: what you need is no longer in my log; fill yourself from me
  kSyncOffer = 8,
  // leader -> damaged follower: your log through `index` holds all that you can have promised (R3)
  kFilled = 9,
  kSyncRequest = 10,  // follower -> leader: offer me a sync (mine was interrupted)
};

inline constexpr MessageType kMessageTypeMax = MessageType::kSyncRequest;

// Messages travel in order on a connection that is bound to both incarnations: none outlives the
// process that sent it or the one that it was meant for. They may be lost with the connection; the
// owner then reports on_peer_down / on_peer_up.

struct Message {
  MessageType type = MessageType::kAppend;
  CopysetId group = 0;
  StoreId peer;  // outgoing: to; incoming: from
  // of the sender; votes: the term asked for (a pre-vote's is not yet anybody's)
  Term term = 0;
  // append: entry before first. vote: last entry. reply: see above. sync offer: applied index of
  // the leader
  Index index = 0;
  Term log_term = 0;  // term of `index`
  // append: entries [first, last], empty when last < first. vote replies: the term asked for.
  // rejected append: the `index` that did not match. sync offer: the first entry that the leader
  // has
  Index first = 0;
  Index last = 0;  // append reply: accepted through, durable or not
  // of the leader; append reply: that the follower has heard of; sync request: of the follower
  Index commit = 0;
  bool reject = false;
  bool transfer = false;  // votes: asked for by the leader, leases do not stand in the way
  bool damaged = false;   // replies: this replica's log may lack what it acknowledged (R3)
};

// What a follower says to an append: which of its entries are new and must be persisted.
struct AppendVerdict {
  Index first_new = 0;  // entries [first_new, last of the message] are to be persisted; 0: none
};

// (copyset, term) pairs led, and commit indexes, in a beat between two stores (R9).
struct Lead {
  CopysetId group = 0;
  Term term = 0;
  auto operator<=>(const Lead&) const = default;
};
struct CommitNote {
  CopysetId group = 0;
  Term term = 0;
  Index commit = 0;
};
struct Beat {
  Incarnation from_incarnation = 0;
  Incarnation to_incarnation = 0;  // 0: not yet known
  uint64_t sequence = 0;
  uint64_t digest = 0;  // of all leads with this peer, sorted
  bool full = false;    // `leads` is the whole list
  std::vector<Lead> leads;
  std::vector<CommitNote> commits;
};
struct BeatReply {
  Incarnation from_incarnation = 0;
  Incarnation to_incarnation = 0;
  uint64_t sequence = 0;
  // everything in the beat's digest (or in its full list, but for `refused`)
  bool confirmed = false;
  bool need_full = false;
  std::vector<Lead> refused;  // leads this store does not agree with, with its own term
};

enum class Role : uint8_t { kFollower, kPreCandidate, kCandidate, kLeader };

}  // namespace curve::raft
