// Sync (R10): a follower that its leader's log no longer reaches is filled by the layer above; the
// core only knows that this is going on (no candidacy, no acknowledgement) and where the log begins
// afterwards.
#include <algorithm>

#include "native/raft/group_core.h"

namespace curve::raft {

// What a member knows to be committed is so, and a leader has it (leader completeness). It is taken
// from the request because the leader may have no other way to learn it: when the members that are
// left are being filled, and do not acknowledge (R10), nothing of its own term commits before one
// of them is whole again, and it may fill nobody from a state older than what that one has applied.
void GroupCore::on_sync_request(const Message& message) {
  if (role != Role::kLeader || message.term != hard.term) return;
  Follower* f = follower_of(message.peer);
  if (f == nullptr || !f->peer->up) return;
  const Index known = std::min(message.commit, log.last());
  if (known > commit) advance_commit(known);
  if (role == Role::kLeader) offer_sync(*f);
}

void GroupCore::emit_sync_request(const StoreId& to) {
  Message message = message_to(to, MessageType::kSyncRequest);
  message.commit = commit;
  emit(message);
}

void GroupCore::on_sync_offer(const Message& message) {
  if (message.term < hard.term) return;
  if (message.term > hard.term) become_follower(message.term, message.peer);
  on_leader_contact(message.peer);
  if (!syncing && verified + 1 >= message.first) {  // filled since; the leader has not heard of it
    acknowledge = true;
    return mark_ready();
  }
  sync_offered = true;
  sync_from = message.peer;
  sync_index = message.index;
  mark_ready();
}

void GroupCore::begin_sync() {
  if (role == Role::kLeader) broken_invariant(id, "a leader is not filled by others");
  syncing = true;
  acknowledge = false;
  if (!leader.is_none() && sync_from != leader) emit_sync_request(leader);
  if (role != Role::kFollower) return become_follower(hard.term, {});
  election_at_ns = kNever;
  arm();
}

// The state machine holds everything through `index`, which is committed. Entries behind it that
// agree stay, because they were acknowledged; where entries that were acknowledged cannot stay,
// this replica is a damaged one (R3).
void GroupCore::finish_sync(Index index, Term term, const Config& config_then, Index config_index) {
  const bool keeps = index >= log.base() && log.term_at(index) == term;
  if (keeps) {
    log.trim(index);
  } else {
    if (index < commit) damaged = true;
    log.reset(index, term);
    handed = durable = index;
    cut = false;
    for (size_t i = 0; i < persists.size(); ++i)
      persists[i].last = std::min(persists[i].last, index);
  }
  durable = std::max(durable, index);
  handed = std::max(handed, durable);
  commit = keeps ? std::max(commit, index) : index;
  applied = index;
  verified = commit;
  if (!keeps || config_index >= configs.current_index()) configs.reset(config_index, config_then);
  syncing = sync_offered = false;
  sync_from = {};
  use_config();
  if (term > hard.term) set_hard({term, {}});
  acknowledge = true;
  mark_ready();
}

}  // namespace curve::raft
