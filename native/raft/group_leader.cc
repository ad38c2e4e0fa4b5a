// A leader: proposals, commitment, membership, lease, hand-over.
#include <algorithm>
#include <array>

#include "native/base/mutant.h"
#include "native/raft/group_core.h"

namespace curve::raft {
namespace {

// Proposals beyond this many bytes that are not committed are refused (kBusy).
constexpr uint64_t kUncommittedWindows = 8;

}  // namespace

void GroupCore::become_leader() {
  if (role != Role::kCandidate) broken_invariant(id, "leader without being a candidate");
  role = Role::kLeader;
  leader = host.self;
  self_vote_persist = 0;
  failed_campaigns = 0;
  led_since_ns = host.now_ns;
  uncommitted_bytes = 0;
  transferee = {};
  transfer_sent = false;
  election_at_ns = kNever;
  if (damaged) {  // R3: a majority that is whole, or everybody, found its log as good as any
    damaged = false;
    damage_cleared = true;
  }
  followers.clear();
  noop = log.last() + 1;
  adapt_followers();
  const auto has = [](const std::vector<StoreId>& stores, const StoreId& store) {
    return std::find(stores.begin(), stores.end(), store) != stores.end();
  };
  for (Follower& f : followers) {
    const bool late = CURVE_MUTANT("r3_damage_known_after_votes");
    bool counted = false;
    for (size_t i = 0; i < votes_count; ++i) {
      counted |= votes[i].store == f.peer->id && votes[i].answer == Answer::kGranted;
    }
    f.damaged = has(known_damaged, f.peer->id);
    f.elected_without = has(late ? known_damaged : known_before_votes, f.peer->id) && !counted;
  }
  append_slot({hard.term, 0, 0, EntryType::kNoop});
  leader_timers();
}

void GroupCore::leader_timers() {
  const HostOptions& options = host.options;
  check_at_ns = host.now_ns + host.patience_ns();
  retry_at_ns = host.now_ns + options.lease_ns;
  transfer_at_ns = prefer_at_ns = kNever;
  preferred_ready_since_ns = kNever;
  if (options.prefer_after_ns != 0 && !config().preferred.is_none() &&
      config().preferred != host.self) {
    prefer_at_ns = host.now_ns + options.prefer_after_ns / 2 +
                   host.random_between(0, options.prefer_after_ns / 4);
  }
  arm();
}

void GroupCore::stop_leading() {
  for (Follower& f : followers) {
    f.forget_inflight();
    host.remove_lead(f.peer, this);
  }
  followers.clear();
  role = Role::kFollower;
  leader = {};
  transferee = {};
  check_at_ns = retry_at_ns = transfer_at_ns = prefer_at_ns = kNever;
  arm();
}

Follower GroupCore::make_follower(const Member& member) {
  Follower f;
  f.peer = host.peer_of(member.store);
  f.role = member.role;
  f.next = log.last() + 1;
  host.add_lead(f.peer, this, {id, hard.term});
  f.since_sequence = f.peer->sequence + 1;
  return f;
}

// Followers are the members of the configuration in force but this store, in its order.
void GroupCore::adapt_followers() {
  std::vector<Follower> kept;
  for (size_t i = 0; i < config().count; ++i) {
    const Member& member = config().members[i];
    if (member.store == host.self) continue;
    if (Follower* f = follower_of(member.store)) {
      f->role = member.role;
      kept.push_back(std::move(*f));
      f->peer = nullptr;
    } else {
      kept.push_back(make_follower(member));
    }
  }
  for (Follower& f : followers) {
    if (f.peer == nullptr) continue;
    f.forget_inflight();
    host.remove_lead(f.peer, this);
  }
  followers = std::move(kept);
  if (transferee != StoreId{} && !follower_of(transferee)) transferee = {};
  mark_ready();
}

const Follower* GroupCore::follower_of(const StoreId& store) const {
  for (const Follower& f : followers) {
    if (f.peer != nullptr && f.peer->id == store) return &f;
  }
  return nullptr;
}
Follower* GroupCore::follower_of(const StoreId& store) {
  return const_cast<Follower*>(std::as_const(*this).follower_of(store));
}

Code GroupCore::may_propose() const {
  if (role != Role::kLeader) return Code::kNotLeader;
  const bool full = uncommitted_bytes > kUncommittedWindows * host.options.inflight_bytes_max;
  return full || !transferee.is_none() ? Code::kBusy : Code::kOk;
}

Code GroupCore::propose(std::span<const EntryMeta> metas, Index* first) {
  const Code may = may_propose();
  if (may != Code::kOk) return may;
  *first = log.last() + 1;
  for (const EntryMeta& meta : metas) {
    append_slot({hard.term, 0, meta.bytes, meta.type});
    uncommitted_bytes += meta.bytes;
  }
  return Code::kOk;
}

// It answers, has the configuration in force and something of this term durably, and everything
// committed has been sent to it: what it lacks is in flight (under load it always lacks something).
// A voter that must be filled first would be missing from the quorum, and one without configuration
// gives no vote (R1).
bool GroupCore::filled(const Follower& f) const {
  if (CURVE_MUTANT("promote_before_filled")) return !f.damaged;
  return f.flow == Flow::kReplicate && f.match >= std::max(noop, configs.current_index()) &&
         f.next > commit && !f.damaged && f.covered() &&
         f.peer->confirmed_at_ns + host.options.lease_ns > host.now_ns;
}

// One change at a time, and only once this term has committed something (Ongaro's correction of
// 2015 to thesis 4.1).
Code GroupCore::propose_config(const Config& config_new, Index* index) {
  if (role != Role::kLeader) return Code::kNotLeader;
  if (!transferee.is_none() || configs.current_index() > commit || commit < noop)
    return Code::kBusy;
  if (!single_step(config(), config_new)) return Code::kInvalid;
  for (const Follower& f : followers) {
    const bool promoted = f.role == MemberRole::kLearner && is_voter(config_new, f.peer->id);
    if (promoted && !filled(f)) return Code::kBusy;
  }
  *index = log.last() + 1;
  const uint32_t bytes = static_cast<uint32_t>(encode_config(config_new).size());
  append_slot({hard.term, 0, bytes, EntryType::kConfig});
  uncommitted_bytes += bytes;
  configs.push(*index, config_new);
  use_config();
  if (prefer_at_ns == kNever && host.options.prefer_after_ns != 0 &&
      !config().preferred.is_none() && config().preferred != host.self) {
    prefer_at_ns = host.now_ns + host.options.prefer_after_ns / 2;
    arm();
  }
  return Code::kOk;
}

// Raft 5.4.2: only an entry of this term is committed by counting; what is before it follows.
void GroupCore::maybe_commit() {
  std::array<uint64_t, kReplicasMax> match;
  size_t voters = 0;
  if (self_votes()) match[voters++] = durable;
  for (const Follower& f : followers) {
    if (f.role != MemberRole::kVoter) continue;
    if (CURVE_MUTANT("r10_sync_shrinks_quorum") && f.flow == Flow::kSync) continue;
    match[voters++] = f.damaged ? 0 : f.match;  // R3
  }
  const Index reached = quorum_value({match.data(), voters});
  if (reached <= commit) return;
  if (log.term_at(reached) != hard.term && !CURVE_MUTANT("raft_commit_older_term")) return;
  advance_commit(reached);
}

void GroupCore::advance_commit(Index reached) {
  for (Index i = commit + 1; i <= reached; ++i) {
    const uint32_t bytes = log.at(i).bytes;
    uncommitted_bytes -= std::min<uint64_t>(uncommitted_bytes, bytes);
  }
  set_commit(reached);
  for (Follower& f : followers) {
    if (f.commit_noted) continue;
    f.commit_noted = true;
    host.note_commit(f.peer, this);
  }
  if (configs.current_index() <= commit && !find_member(config(), host.self)) {
    become_follower(hard.term, {});  // it has removed itself
  }
}

// R9: promises of a majority hold at least until then, counted from when the beat was SENT, less
// the drift of clocks.
uint64_t GroupCore::lease_end_ns() const {
  std::array<uint64_t, kReplicasMax> ends;
  size_t voters = 0;
  uint64_t length = host.options.lease_ns - host.drift(host.options.lease_ns);
  if (CURVE_MUTANT("r9_lease_too_long")) length += host.options.lease_ns / 10;
  if (self_votes()) ends[voters++] = kNever;
  for (const Follower& f : followers) {
    if (f.role != MemberRole::kVoter) continue;
    const bool whole = !f.damaged || CURVE_MUTANT("r3_damaged_promises");
    const bool promised = f.covered() && whole && f.peer->confirmed_send_ns != 0;
    uint64_t since = f.peer->confirmed_send_ns;
    if (CURVE_MUTANT("r9_lease_from_arrival")) since = f.peer->confirmed_at_ns;
    ends[voters++] = promised ? since + length : 0;
  }
  return quorum_value({ends.data(), voters});
}

bool GroupCore::lease_valid(uint64_t now_ns) const {
  if (role != Role::kLeader) return false;
  if (applied < noop && !CURVE_MUTANT("r9_read_before_noop")) return false;
  if (transfer_sent && !CURVE_MUTANT("r9_lease_after_transfer")) return false;
  return lease_end_ns() > now_ns;
}

// Has a majority confirmed this leader lately?
bool GroupCore::quorum_active() const {
  std::array<uint64_t, kReplicasMax> heard;
  size_t voters = 0;
  if (self_votes()) heard[voters++] = host.now_ns;
  for (const Follower& f : followers) {
    if (f.role != MemberRole::kVoter) continue;
    heard[voters++] = std::max(f.covered() && (!f.damaged || CURVE_MUTANT("r3_damaged_promises"))
                                   ? f.peer->confirmed_at_ns
                                   : 0,
                               led_since_ns);
  }
  return quorum_value({heard.data(), voters}) + host.patience_ns() > host.now_ns;
}

// A leader without its quorum steps down, so that clients look elsewhere. Peers that fall silent
// are watched by the host; the group's own timer goes on only while a peer that is alive does not
// confirm this group.
void GroupCore::check_quorum() {
  if (role != Role::kLeader) return;
  if (!quorum_active()) return become_follower(hard.term, {});
  bool refused = false;
  for (const Follower& f : followers) {
    refused |= f.role == MemberRole::kVoter && !f.covered() && !f.peer->silent;
  }
  if (refused && check_at_ns == kNever) check_at_ns = host.now_ns + host.patience_ns();
  arm();
}

// A store does not agree that this group is led here.
void GroupCore::on_refused(Peer* peer, Term their_term) {
  if (role != Role::kLeader) return;
  if (their_term > hard.term) return become_follower(their_term, {});
  Follower* f = follower_of(peer->id);
  if (f == nullptr) return;
  f->since_sequence = peer->sequence + 1;
  if (check_at_ns == kNever) {
    check_at_ns = host.now_ns + host.patience_ns();
    arm();
  }
}

Code GroupCore::transfer_to(const StoreId& store) {
  if (role != Role::kLeader) return Code::kNotLeader;
  const Follower* f = follower_of(store);
  if (f == nullptr || f->role != MemberRole::kVoter) return Code::kInvalid;
  if (!transferee.is_none() || transfer_sent || f->flow == Flow::kSync || f->damaged)
    return Code::kBusy;
  transferee = store;
  transfer_at_ns = host.now_ns + host.options.lease_ns;
  arm();
  mark_ready();
  return Code::kOk;
}

// The hand-over did not happen in time. Without the message sent nothing is lost; with it, this
// term has no lease any more.
void GroupCore::end_transfer() {
  if (role != Role::kLeader || transferee.is_none()) return;
  transferee = {};
  if (transfer_sent) renew_term();
}

// Leads on in a new term: the promises of the others are to this store.
void GroupCore::renew_term() {
  if (!electable()) return become_follower(hard.term, {});
  become_candidate(false);
}

void GroupCore::resign(uint64_t abstain_ns) {
  if (role != Role::kLeader) return;
  abstain_until_ns = host.now_ns + abstain_ns;
  become_follower(hard.term, {});
}

// Leadership returns to the preferred member once that has been well for prefer_after_ns.
void GroupCore::on_prefer_timer() {
  if (role != Role::kLeader || config().preferred == host.self) return;
  const uint64_t now = host.now_ns;
  const Follower* f = follower_of(config().preferred);
  const bool well = f != nullptr && f->role == MemberRole::kVoter && filled(*f) && f->covered() &&
                    f->peer->confirmed_at_ns + host.options.lease_ns > now;
  if (!well) {
    preferred_ready_since_ns = kNever;
  } else if (preferred_ready_since_ns == kNever) {
    preferred_ready_since_ns = now;
  } else if (now - preferred_ready_since_ns >= host.options.prefer_after_ns) {
    preferred_ready_since_ns = kNever;
    (void)transfer_to(f->peer->id);
  }
  prefer_at_ns = now + host.options.prefer_after_ns / 2 + 1;
  arm();
}

}  // namespace curve::raft
