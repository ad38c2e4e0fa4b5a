// Inside of Host: peers, time, timers, and the lists that connect groups with peers. See host.h for
// the contract. Invariants:
//  - Peer::leads is exactly the groups led by this store whose configuration names the peer,
//  sorted; leads_digest is its sum.
//  - Peer::followed is exactly the groups whose promise to the peer is renewed by each of its
//  confirmed beats (R9);
//    followed_digest is its sum.
//  - now_ns never falls.
// One thread.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "native/base/list.h"
#include "native/raft/host.h"
#include "native/raft/timers.h"

namespace curve::raft {

struct GroupCore;

struct ReadyHook : base::ListHook {
  GroupCore* group = nullptr;
};
struct FollowHook : base::ListHook {
  GroupCore* group = nullptr;
  Lead lead;          // as counted in the peer's digest
  uint64_t seen = 0;  // stamp of the last full list that named the group
};

struct LeadEntry {
  Lead lead;
  GroupCore* group;
};

// Another store: what we lead with it, and what we follow it in.
struct Peer {
  StoreId id;
  bool up = false;              // connected
  uint32_t members = 0;         // configurations that name it
  Incarnation incarnation = 0;  // the newest heard of; 0: none
  uint64_t inflight_bytes = 0;  // of appends, all groups

  // Leader side: beats sent.
  static constexpr size_t kBeatsRemembered = 64;
  std::vector<LeadEntry> leads;
  uint64_t leads_digest = 0;
  uint64_t told_digest = 0;  // that the peer has confirmed last (empty: 0)
  uint64_t sequence = 0;     // of the last beat sent
  std::array<uint64_t, kBeatsRemembered> sent_ns{};
  uint64_t confirmed_sequence = 0;  // highest
  uint64_t confirmed_send_ns = 0;   // when that one was sent
  uint64_t confirmed_at_ns = 0;     // when its confirmation came
  uint64_t digest_sent = 0;         // of the last beat
  bool full_wanted = false;
  bool beat_due = false;
  bool silent = false;                   // no confirmation for longer than a leader waits
  std::vector<GroupCore*> commit_notes;  // to be told with the next beat
  std::vector<GroupCore*>
      commit_notes_sent;  // told with beat commit_notes_sequence, not answered yet
  uint64_t commit_notes_sequence = 0;
  Beat beat;  // being sent
  Timer beat_timer, silence_timer;

  // Follower side: beats received.
  base::List<FollowHook> followed;
  uint64_t followed_digest = 0;
  std::vector<Lead>
      refused;  // leads of its last full list that we do not agree with; `term` is theirs
  uint64_t refused_digest = 0;
  uint64_t heard_sequence = 0;
  uint64_t granted_until_ns = 0;  // R9: no vote for another before this, in every followed group
  uint64_t quiet_at_ns = 0;       // when its groups begin to look for another leader
  Timer quiet_timer;
};

struct HostCore {
  StoreId self;
  Incarnation incarnation = 0;
  HostOptions options;
  uint64_t now_ns = 0;
  uint64_t busy_until_ns = 0;  // somebody uses the groups, or did within kBusyNs
  uint64_t vote_after_ns = 0;  // R9: a restarted store waits one lease before any vote
  uint64_t random_state = 0;
  uint64_t timer_order = 0;
  uint64_t elections = 0;
  uint64_t stamp = 0;

  std::unordered_map<CopysetId, std::unique_ptr<Group>> by_id;
  std::vector<Group*> sorted;
  std::map<StoreId, std::unique_ptr<Peer>> peers;
  std::vector<Peer*> beats_due;
  base::List<ReadyHook> ready;
  TimerHeap timers;
  std::vector<GroupCore*> scratch_groups;  // of loops in which groups leave the list that is walked

  ~HostCore();
  void advance(uint64_t now) {
    if (now > now_ns) now_ns = now;
  }
  uint64_t random_between(uint64_t low, uint64_t high);  // inclusive
  uint64_t drift(uint64_t interval_ns) const {
    return interval_ns / 1'000'000 * options.drift_ppm + 1;
  }
  uint64_t beat_interval_ns() const;
  uint64_t patience_ns() const { return 2 * options.lease_ns; }  // of a leader without its quorum
  GroupCore* core_of(CopysetId id);

  Peer* peer_of(const StoreId& store);  // made when new
  void init_timer(Timer* timer, TimerKind kind, void* owner);
  void on_timer(Timer* timer);

  // beats.cc, leader side
  void add_lead(Peer* peer, GroupCore* group, const Lead& lead);
  void remove_lead(Peer* peer, GroupCore* group);
  void beat_soon(Peer* peer);
  bool wants_beats(const Peer& peer) const;
  void arm_beats(Peer* peer);
  void note_work();
  void on_beat_timer(Peer* peer);
  void gather_beats();
  void on_silence_timer(Peer* peer);
  void note_commit(Peer* peer, GroupCore* group);
  void fill_beat(Peer* peer);
  void fill_commit_notes(Peer* peer);
  void on_reply(Peer* peer, const BeatReply& reply);
  void on_confirmed(Peer* peer, uint64_t sequence, uint64_t sent_ns);
  bool learn_incarnation(Peer* peer, Incarnation incarnation);
  // beats.cc, follower side
  BeatReply on_beat(Peer* peer, const Beat& beat);
  void agree_on_list(Peer* peer, const Beat& beat);
  void take_commit_notes(Peer* peer, const Beat& beat);
  void expect_until(Peer* peer, uint64_t until_ns);
  void on_quiet_timer(Peer* peer);
  void release_followed(Peer* peer, bool hasten);
};

}  // namespace curve::raft
