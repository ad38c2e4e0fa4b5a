// A follower: whom it follows, what it appends and acknowledges.
#include <algorithm>

#include "native/base/mutant.h"
#include "native/raft/group_core.h"

namespace curve::raft {

// From any role. Same term without a leader: it looks for one; a higher term voids the vote.
void GroupCore::become_follower(Term term, const StoreId& new_leader) {
  if (term < hard.term) broken_invariant(id, "follower of an older term", term, hard.term);
  const bool led = role == Role::kLeader;
  if (led) stop_leading();
  if (led || term > hard.term) {
    unfollow();
    leader = {};
    verified = commit;
    acknowledge = false;
  }
  if (term > hard.term) {
    set_hard({term, {}});
    self_vote_persist = 0;
  }
  role = Role::kFollower;
  mark_ready();
  if (new_leader.is_none()) {
    unfollow();
    schedule_election();
    return;
  }
  contact_until_ns = host.now_ns + host.options.lease_ns;
  if (!leader.is_none() && leader != new_leader)
    broken_invariant(id, "two leaders in one term", term);
  leader = new_leader;
  failed_campaigns = 0;
  follow(host.peer_of(new_leader));
}

// From now on each confirmed beat of the peer renews the promise to it; no election timer runs here
// (R9).
void GroupCore::follow(Peer* peer) {
  if (following == peer) return;
  unfollow();
  following = peer;
  abstain_until_ns = 0;
  follow_hook.lead = {id, hard.term};
  peer->followed.push_back(&follow_hook);
  peer->followed_digest += lead_digest(follow_hook.lead);
  election_at_ns = kNever;
  arm();
  host.expect_until(peer, host.now_ns + host.options.lease_ns);
}

// The promise that was given stays until it ends (R9).
void GroupCore::unfollow() {
  if (following == nullptr) return;
  promise(following->id, following->granted_until_ns);
  following->followed_digest -= lead_digest(follow_hook.lead);
  follow_hook.unlink();
  following = nullptr;
}

void GroupCore::on_leader_contact(const StoreId& store) {
  contact_until_ns = host.now_ns + host.options.lease_ns;
  // (A damaged replica comes this way each time, and puts off its election timer.)
  if (role != Role::kFollower || leader != store || following == nullptr) {
    if (role == Role::kLeader)
      broken_invariant(id, "another leader in the term that is led here", hard.term);
    become_follower(hard.term, store);
  }
}

// What comes from a socket is checked before it can break an invariant.
bool GroupCore::entries_sane(const Message& message, std::span<const EntryMeta> entries) const {
  if (entries.empty()) return message.last < message.first || message.first == 0;
  if (message.first != message.index + 1 || message.last != message.index + entries.size())
    return false;
  Term before = message.log_term;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].index != message.first + i || entries[i].term < before) return false;
    before = entries[i].term;
  }
  return before <= message.term;
}

AppendVerdict GroupCore::step_append(const Message& message, std::span<const EntryMeta> entries,
                                     std::span<const Group::ConfigAt> append_configs) {
  if (!entries_sane(message, entries)) return {};
  if (message.term < hard.term) {  // an old leader: it learns the term
    Message reply = message_to(message.peer, MessageType::kAppendReply);
    reply.reject = true;
    reply.first = message.index;
    emit(reply);
    return {};
  }
  if (message.term > hard.term) become_follower(message.term, message.peer);
  on_leader_contact(message.peer);
  // R10: neither appends nor acknowledges; the leader learns that the sync has to go on.
  if (syncing && !CURVE_MUTANT("r10_acknowledge_syncing")) {
    emit_sync_request(message.peer);
    return {};
  }
  const bool agrees =
      message.index < log.base() ||
      (message.index <= log.last() && log.term_at(message.index) == message.log_term);
  if (!agrees) {
    if (message.index <= commit) {
      broken_invariant(id, "a leader disagrees with what is committed", message.index, commit);
    }
    reject_append(message);
    return {};
  }
  const Index first_new = accept_entries(message, entries, append_configs);
  const Index through = message.index + entries.size();
  verified = std::max(verified, std::min(through, log.last()));
  leader_commit = std::max(leader_commit, message.commit);
  set_commit(std::min(leader_commit, verified));
  // New entries are acknowledged when they are durable; anything else can be answered now.
  if (first_new == 0) acknowledge = true;
  if (CURVE_MUTANT("r2_acknowledge_early")) emit_acknowledgement();
  mark_ready();
  return {first_new};
}

// The hint: the last entry here that may agree, and its term (Ongaro 5.3).
void GroupCore::reject_append(const Message& message) {
  Message reply = message_to(message.peer, MessageType::kAppendReply);
  reply.reject = true;
  reply.first = message.index;
  reply.index =
      std::max(commit, log.back_off(std::min(message.index, log.last()), message.log_term));
  reply.log_term = log.term_at(reply.index);
  emit(reply);
}

// Skips what is already here, cuts what conflicts, appends the rest. Returns the first new index, 0
// when there is none.
Index GroupCore::accept_entries(const Message& message, std::span<const EntryMeta> entries,
                                std::span<const Group::ConfigAt> append_configs) {
  size_t i = 0;
  while (i < entries.size() &&
         (entries[i].index <= log.base() ||
          (entries[i].index <= log.last() && log.term_at(entries[i].index) == entries[i].term))) {
    ++i;
  }
  if (i == entries.size()) return 0;
  const Index first_new = message.first + i;
  if (first_new <= log.last()) truncate_log(first_new - 1);
  bool config_changed = false;
  for (; i < entries.size(); ++i) {
    append_slot({entries[i].term, 0, entries[i].bytes, entries[i].type});
    if (entries[i].type != EntryType::kConfig) continue;
    auto at = std::find_if(append_configs.begin(), append_configs.end(),
                           [&](const Group::ConfigAt& c) { return c.index == entries[i].index; });
    if (at == append_configs.end())
      broken_invariant(id, "configuration entry without its content", entries[i].index);
    configs.push(at->index, at->config);
    config_changed = true;
  }
  if (config_changed) use_config();
  return first_new;
}

// R2: a contiguous durable prefix of what agrees with this leader.
void GroupCore::emit_acknowledgement() {
  acknowledge = false;
  if (role != Role::kFollower || leader.is_none() ||
      (syncing && !CURVE_MUTANT("r10_acknowledge_syncing")))
    return;
  Message reply = message_to(leader, MessageType::kAppendReply);
  reply.index = std::min(verified, durable);
  if (CURVE_MUTANT("r2_acknowledge_early")) reply.index = verified;
  reply.last = verified;
  reply.commit = leader_commit;
  if (CURVE_MUTANT("r3_damaged_acknowledges")) reply.damaged = false;
  emit(reply);
}

void GroupCore::on_commit_note(const Peer& from, const CommitNote& note) {
  if (role != Role::kFollower || note.term != hard.term || leader != from.id) return;
  leader_commit = std::max(leader_commit, note.commit);
  set_commit(std::min(leader_commit, verified));
}

// R3: the leader was elected without this replica, after the damage was known, and has filled it
// beyond its own no-op.
void GroupCore::on_filled(const Message& message) {
  if (!damaged || message.term != hard.term || role != Role::kFollower || leader != message.peer)
    return;
  if (message.index > durable || log.term_at(message.index) != message.log_term) return;
  damaged = false;
  damage_cleared = true;
  acknowledge = true;
  follow(host.peer_of(leader));
  mark_ready();
}

}  // namespace curve::raft
