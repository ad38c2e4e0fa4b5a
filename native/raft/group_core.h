// Inside of Group: the state of one replica and its transitions, one function each. See group.h for
// the contract. Files: group.cc (construction, Ready, durability), group_follower.cc,
// group_election.cc (timers, votes), group_leader.cc (proposals, commitment, membership),
// group_replication.cc (what goes to followers), group_sync.cc. One thread.
#pragma once

#include <array>

#include "native/raft/config.h"
#include "native/raft/group.h"
#include "native/raft/host_core.h"
#include "native/raft/log.h"
#include "native/raft/progress.h"
#include "native/raft/quorum.h"
#include "native/raft/ring.h"

namespace curve::raft {

// Stops the process: a rule that nothing may break was broken.
[[noreturn]] void broken_invariant(CopysetId group, const char* sentence, uint64_t a = 0,
                                   uint64_t b = 0);

struct Persist {
  uint64_t id = 0;
  Index last = 0;  // of the log as it is now: lowered when the log is cut meanwhile (R2)
  Term term = 0;   // hard state's term is durable with it
};

struct Waiting {  // a message that promises something (R2)
  uint64_t persist_id = 0;
  Message message;
};

struct Vote {
  StoreId store;
  Answer answer = Answer::kNone;
};

struct GroupCore {
  GroupCore(HostCore& host, GroupInit init);
  ~GroupCore();

  HostCore& host;
  Group* face = nullptr;
  CopysetId id;

  // What is or becomes durable.
  HardState hard;
  bool hard_changed = false;  // since the last Ready
  Log log;
  Index handed = 0;  // entries <= handed were in an earlier Ready
  Index durable =
      0;  // Invariant: entries <= durable of the log as it is now are durable; durable <= handed
  Term durable_term = 0;
  bool cut = false;  // entries that an earlier Ready handed out were cut since
  Index cut_after = 0;
  uint64_t persist_next = 1;
  Ring<Persist> persists;  // in flight
  Ring<Waiting> waiting;
  bool damaged = false;
  bool damage_cleared = false;
  bool syncing = false;

  Index commit = 0;  // Invariant: never falls; commit <= last
  Index commit_reported = 0;
  Index applied = 0;
  ConfigHistory configs;
  std::array<Peer*, kReplicasMax>
      named{};  // peers of the configuration in force (this store among them)
  size_t named_count = 0;
  bool self_is_voter = false;  // in the configuration in force

  Role role = Role::kFollower;
  StoreId leader;  // known or believed
  Role reported_role = Role::kFollower;
  Term reported_term = 0;
  StoreId reported_leader;

  // Follower. Invariant: verified entries agree with the leader of this term; commit <= verified.
  Index verified = 0;
  Index leader_commit = 0;   // highest that a leader told of; may be ahead of what has arrived here
  bool acknowledge = false;  // an acknowledgement is due once this term is durable
  bool sync_offered = false;
  StoreId sync_from;
  Index sync_index = 0;
  Peer* following = nullptr;  // in following->followed
  FollowHook follow_hook;
  StoreId promised_to;  // R9: promise that does not follow the peer's beats any more; none: to
                        // nobody in particular
  uint64_t promised_until_ns = 0;
  uint64_t contact_until_ns =
      0;  // heard of a leader lately: no pre-vote for others (soft, never a promise)

  // Candidate.
  std::array<Vote, kReplicasMax> votes{};
  size_t votes_count = 0;
  bool transferred = false;  // this campaign was asked for by the leader
  uint64_t self_vote_persist = 0;
  uint32_t failed_campaigns = 0;
  uint64_t abstain_until_ns = 0;  // after resign(): no campaign before, until somebody else leads

  // Leader.
  std::vector<Follower> followers;
  Index noop = 0;
  uint64_t led_since_ns = 0;
  uint64_t uncommitted_bytes = 0;
  StoreId transferee;
  bool transfer_sent = false;          // R9: no lease any more in this term
  std::vector<StoreId> known_damaged;  // R3: survives from campaign to campaign
  // R3: of those, the ones known before the votes of this term were asked for: only then is each
  // vote younger than what the damaged member forgot (docs/models/election.pml).
  std::vector<StoreId> known_before_votes;

  // Deadlines; the earliest one is in the host's heap.
  uint64_t election_at_ns = kNever, check_at_ns = kNever, retry_at_ns = kNever,
           transfer_at_ns = kNever, prefer_at_ns = kNever;
  uint64_t preferred_ready_since_ns = kNever;
  Timer timer;

  ReadyHook ready_hook;
  std::vector<Message> out, sending;

  // group.cc
  const Config& config() const { return configs.current(); }
  bool configured() const { return config().count != 0; }
  bool self_votes() const { return self_is_voter; }
  void mark_ready();
  void emit(const Message& message);
  Message message_to(const StoreId& to, MessageType type) const;
  void emit_when_durable(const Message& message);
  uint64_t last_dirty_persist() const;
  Ready take_ready();
  void hand_out(Ready* ready);
  void on_durable(uint64_t persist_id);
  void set_hard(const HardState& hard);
  void set_commit(Index index);
  void append_slot(const LogSlot& slot);
  void truncate_log(Index after);
  void use_config();  // the configuration in force changed
  void on_applied(Index index);
  void arm();
  void on_timer();

  // group_follower.cc
  void become_follower(Term term, const StoreId& leader);
  void follow(Peer* peer);
  void unfollow();
  void on_leader_contact(const StoreId& leader);
  AppendVerdict step_append(const Message& message, std::span<const EntryMeta> entries,
                            std::span<const Group::ConfigAt> configs);
  bool entries_sane(const Message& message, std::span<const EntryMeta> entries) const;
  Index accept_entries(const Message& message, std::span<const EntryMeta> entries,
                       std::span<const Group::ConfigAt> configs);
  void reject_append(const Message& message);
  void on_commit_note(const Peer& from, const CommitNote& note);
  void emit_acknowledgement();
  void on_filled(const Message& message);

  // group_election.cc
  void promise(const StoreId& to, uint64_t until_ns);
  uint64_t promise_end_ns(
      const StoreId& candidate) const;  // of promises to others than the candidate
  bool promised_to_other(const StoreId& candidate) const {
    return promise_end_ns(candidate) > host.now_ns;
  }
  bool electable() const;
  uint64_t campaign_after_ns() const;
  void schedule_election(bool hasten = false);
  void on_election_timer();
  void reset_votes();
  Answer own_answer() const { return damaged ? Answer::kGrantedDamaged : Answer::kGranted; }
  void record_vote(const StoreId& voter, Answer answer);
  ElectionOutcome count_votes() const;
  void become_pre_candidate();
  void become_candidate(bool transfer);
  void request_votes();
  Message vote_request(const StoreId& to) const;
  void on_vote_outcome();
  void on_pre_vote(const Message& message);
  void on_vote(const Message& message);
  void on_vote_reply(const Message& message);
  void reply_vote(const Message& message, bool granted);
  void on_timeout_now(const Message& message);
  void on_peer_up_election(Peer* peer);

  // group_leader.cc
  void become_leader();
  void stop_leading();
  Code may_propose() const;
  Code propose(std::span<const EntryMeta> metas, Index* first);
  Code propose_config(const Config& config, Index* index);
  void maybe_commit();
  void advance_commit(Index reached);
  Follower* follower_of(const StoreId& store);
  const Follower* follower_of(const StoreId& store) const;
  bool filled(const Follower& follower) const;
  void adapt_followers();
  Follower make_follower(const Member& member);
  uint64_t lease_end_ns() const;
  bool lease_valid(uint64_t now_ns) const;
  bool quorum_active() const;
  void check_quorum();
  Code transfer_to(const StoreId& store);
  void end_transfer();
  void on_prefer_timer();
  void renew_term();
  void resign(uint64_t abstain_ns);
  void on_refused(Peer* peer, Term their_term);
  void leader_timers();

  // group_replication.cc
  void send_appends();
  void send_to(Follower& follower);
  bool window_open(const Follower& follower) const;
  Index emit_append(Follower& follower, Index last_max, uint32_t bytes_max,
                    uint32_t* bytes = nullptr);
  void offer_sync(Follower& follower);
  void on_append_reply(const Message& message);
  void on_damage_reported(Follower& follower, const Message& message);
  void tell_filled(Follower& follower);
  void look_for_lost_messages();
  void on_peer_up_leader(Peer* peer);
  void on_peer_down_leader(Peer* peer);

  // group_sync.cc
  void begin_sync();
  void finish_sync(Index index, Term term, const Config& config, Index config_index);
  void on_sync_offer(const Message& message);
  void on_sync_request(const Message& message);
  void emit_sync_request(const StoreId& to);
};

}  // namespace curve::raft
