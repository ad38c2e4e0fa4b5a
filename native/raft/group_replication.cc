// What a leader sends to each follower, and what it learns from the answers.
#include <algorithm>

#include "native/base/mutant.h"
#include "native/raft/group_core.h"

namespace curve::raft {
namespace {

constexpr uint32_t kProbeBytesMax = 64 * 1024;  // entries that go with a guess
constexpr uint64_t kPeerWindows = 8;  // all groups to one peer together, in windows of one group

}  // namespace

void GroupCore::send_appends() {
  for (Follower& f : followers) send_to(f);
  if (transferee.is_none() || transfer_sent) return;
  const Follower* f = follower_of(transferee);
  if (f == nullptr || f->match != log.last() || !f->peer->up) return;
  emit(message_to(transferee, MessageType::kTimeoutNow));
  transfer_sent = true;  // R9: no lease in this term from here on
}

// A group that has nothing on the way is not kept waiting by what others send to the same peer.
bool GroupCore::window_open(const Follower& f) const {
  const HostOptions& options = host.options;
  if (f.inflight.empty()) return true;
  return f.inflight.size() < options.inflight_messages_max &&
         f.inflight_bytes < options.inflight_bytes_max &&
         f.peer->inflight_bytes < kPeerWindows * options.inflight_bytes_max;
}

void GroupCore::send_to(Follower& f) {
  if (!f.peer->up || f.peer->silent || f.flow == Flow::kSync) return;
  if (f.next < log.first()) return offer_sync(f);
  if (f.flow == Flow::kProbe) {
    if (f.probe_sent) return;
    emit_append(f, log.last(), kProbeBytesMax);
    f.probe_sent = true;
  } else {
    if (f.next > log.last()) return;
    while (f.next <= log.last() && window_open(f)) {
      uint32_t bytes = 0;
      const Index last = emit_append(f, log.last(), host.options.append_bytes_max, &bytes);
      f.sent(last, bytes);
    }
  }
  if (retry_at_ns == kNever) {
    retry_at_ns = host.now_ns + host.options.lease_ns;
    arm();
  }
}

// One message with entries next..., at least one if there is one, at most bytes_max. Returns the
// last index in it.
Index GroupCore::emit_append(Follower& f, Index last_max, uint32_t bytes_max, uint32_t* bytes) {
  uint32_t total = 0;
  Index last = f.next - 1;
  while (last < last_max) {
    const uint32_t more = log.at(last + 1).bytes;
    if (last >= f.next && total + more > bytes_max) break;
    total += more;
    ++last;
  }
  Message message = message_to(f.peer->id, MessageType::kAppend);
  message.damaged = false;
  message.index = f.next - 1;
  message.log_term = log.term_at(f.next - 1);
  message.first = f.next;
  message.last = last;
  message.commit = commit;
  emit(message);
  if (bytes != nullptr) *bytes = total;
  return last;
}

void GroupCore::offer_sync(Follower& f) {
  f.become_sync();
  Message message = message_to(f.peer->id, MessageType::kSyncOffer);
  message.index = applied;
  message.log_term = log.term_at(applied);
  message.first = log.first();
  message.commit = commit;
  emit(message);
  if (retry_at_ns == kNever) {
    retry_at_ns = host.now_ns + host.options.lease_ns;
    arm();
  }
}

void GroupCore::on_append_reply(const Message& message) {
  if (message.term > hard.term) return become_follower(message.term, {});
  if (role != Role::kLeader || message.term < hard.term) return;
  Follower* f = follower_of(message.peer);
  if (f == nullptr || message.index > log.last() || message.last > log.last()) return;
  if (message.damaged && !(f->damaged && f->elected_without)) {
    on_damage_reported(*f, message);
    if (role != Role::kLeader) return;
  }
  if (!message.damaged && f->damaged) {
    f->damaged = f->elected_without = false;
    std::erase(known_damaged, message.peer);
  }
  if (message.reject) {
    // A learner whose replica was removed and joined again holds nothing of what it acknowledged.
    if (f->role == MemberRole::kLearner && message.index < f->match) f->match = 0;
    const bool stale = f->flow == Flow::kSync || message.first < f->match ||
                       (f->flow == Flow::kProbe && message.first != f->next - 1);
    if (stale) return;
    f->become_probe(log.back_off(message.index, message.log_term) + 1);
    return mark_ready();
  }
  f->commit_told = std::max(f->commit_told, message.commit);
  f->free_through(message.index);
  if (message.index > f->match) {
    f->match = message.index;
    f->next = std::max(f->next, f->match + 1);
    f->moved = true;
  }
  const bool reports_in = f->flow == Flow::kSync && message.last + 1 >= log.first();
  if (f->flow == Flow::kProbe || reports_in) f->become_replicate(message.last + 1);
  if (f->match > commit && !f->damaged) maybe_commit();
  if (role != Role::kLeader) return;
  if (message.damaged) tell_filled(*f);
  if (f->next <= log.last() || !transferee.is_none()) mark_ready();
}

// R3: what it acknowledged before does not count any more. It may have voted, too, and forgotten
// it: only a leader that was elected without it, knowing of the damage, may fill it. This one makes
// itself such a leader by a new term, as soon as those that are whole are enough for that.
void GroupCore::on_damage_reported(Follower& f, const Message& message) {
  if (!f.damaged) {
    f.damaged = true;
    f.match = 0;
    f.become_probe(message.reject ? log.back_off(message.index, message.log_term) + 1
                                  : message.last + 1);
  }
  if (std::find(known_damaged.begin(), known_damaged.end(), message.peer) == known_damaged.end()) {
    known_damaged.push_back(message.peer);
  }
  size_t whole = self_votes() ? 1 : 0;
  for (const Follower& other : followers) {
    if (other.role != MemberRole::kVoter || other.damaged) continue;
    whole += other.peer->up && other.covered() &&
             other.peer->confirmed_at_ns + host.options.lease_ns > host.now_ns;
  }
  if (CURVE_MUTANT("r3_fill_in_old_term")) return;
  if (whole >= quorum_of(voters_in(config())) && transferee.is_none() && commit >= noop)
    renew_term();
}

void GroupCore::tell_filled(Follower& f) {
  if (f.match < noop || (!f.elected_without && !CURVE_MUTANT("r3_fill_in_old_term"))) return;
  Message message = message_to(f.peer->id, MessageType::kFilled);
  message.index = f.match;
  message.log_term = log.term_at(f.match);
  emit(message);
}

// Connections lose nothing while they last, but an owner may drop a message (no memory, its disk):
// an empty append at the end of what was sent makes the follower say where it stands.
void GroupCore::look_for_lost_messages() {
  if (role != Role::kLeader) return;
  bool outstanding = false;
  for (Follower& f : followers) {
    if (!f.peer->up || f.peer->silent) continue;
    if (f.flow == Flow::kProbe) {
      f.probe_sent = false;
      outstanding = true;
    } else if (f.flow == Flow::kSync) {
      offer_sync(f);
      outstanding = true;
    } else if (f.match + 1 < f.next || f.damaged) {
      outstanding = true;
      if (!f.moved && f.next > log.base()) emit_append(f, f.next - 1, 0, nullptr);
    }
    f.moved = false;
  }
  mark_ready();
  if (outstanding) retry_at_ns = host.now_ns + host.options.lease_ns;
  arm();
}

void GroupCore::on_peer_up_leader(Peer* peer) {
  Follower* f = follower_of(peer->id);
  if (f == nullptr) return;
  f->become_probe(f->next);
  mark_ready();
}

// R3: a process that comes back may have damage that this one did not know: what was known of
// damage ends with the connection.
void GroupCore::on_peer_down_leader(Peer* peer) {
  Follower* f = follower_of(peer->id);
  if (f == nullptr) return;
  if (f->damaged) f->match = 0;
  f->become_probe(f->next);
  f->elected_without = false;
}

}  // namespace curve::raft
