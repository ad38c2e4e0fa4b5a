// What a leader knows of one other member: how far its log agrees and is durable, and what is on
// its way. Invariants: match < next; entries (match, next) are in flight or were lost; match never
// falls but for a damaged member (R3). Flow: kProbe sends one append and waits; kReplicate sends
// ahead within a window; kSync waits for the member to be filled. One thread; allocates only when
// the window grows.
#pragma once

#include "native/raft/host_core.h"
#include "native/raft/ring.h"
#include "native/raft/types.h"

namespace curve::raft {

enum class Flow : uint8_t { kProbe, kReplicate, kSync };

struct Follower {
  struct Inflight {
    Index last = 0;
    uint32_t bytes = 0;
  };

  Peer* peer = nullptr;
  MemberRole role = MemberRole::kVoter;
  Flow flow = Flow::kProbe;
  Index match = 0;
  Index next = 1;
  Index commit_told = 0;        // highest commit index that it has confirmed to know
  Index commit_in_beat = 0;     // that the last beat carried
  uint64_t since_sequence = 0;  // R9: beats before this one do not cover this term of this group
  bool probe_sent = false;
  bool moved = false;         // acknowledged something since the last look for lost messages
  bool commit_noted = false;  // in one of the peer's lists of commit notes
  bool damaged = false;       // R3: says that it may lack what it acknowledged: counts for nothing
  bool elected_without =
      false;  // R3: this leader was elected when it knew that, and without its vote
  Ring<Inflight> inflight;
  uint64_t inflight_bytes = 0;

  void sent(Index last, uint32_t bytes) {
    inflight.push_back({last, bytes});
    inflight_bytes += bytes;
    peer->inflight_bytes += bytes;
    next = last + 1;
  }
  void free_through(Index index) {
    while (!inflight.empty() && inflight.front().last <= index) {
      inflight_bytes -= inflight.front().bytes;
      peer->inflight_bytes -= inflight.front().bytes;
      inflight.pop_front();
    }
  }
  void forget_inflight() {
    peer->inflight_bytes -= inflight_bytes;
    inflight_bytes = 0;
    inflight.clear();
  }
  void become_probe(Index next_index) {
    forget_inflight();
    flow = Flow::kProbe;
    probe_sent = false;
    next = next_index > match ? next_index : match + 1;
  }
  void become_replicate(Index next_index) {
    flow = Flow::kReplicate;
    if (next_index > next) next = next_index;
  }
  void become_sync() {
    forget_inflight();
    flow = Flow::kSync;
  }
  bool covered() const { return peer->confirmed_sequence >= since_sequence; }
};

}  // namespace curve::raft
