// Elections: promises (R9), timers, pre-votes and votes (R1, R2, R3, R10).
#include <algorithm>

#include "native/base/mutant.h"
#include "native/raft/group_core.h"

namespace curve::raft {

// No vote for anybody but `to` before until_ns. Promises to two stores at once become one to nobody
// in particular.
void GroupCore::promise(const StoreId& to, uint64_t until_ns) {
  if (until_ns <= host.now_ns) return;
  if (promised_until_ns <= host.now_ns) {
    promised_to = to;
    promised_until_ns = until_ns;
    return;
  }
  if (promised_to != to) promised_to = {};
  promised_until_ns = std::max(promised_until_ns, until_ns);
}

uint64_t GroupCore::promise_end_ns(const StoreId& candidate) const {
  if (CURVE_MUTANT("r9_forget_promise")) return 0;
  uint64_t end = promised_to != candidate ? promised_until_ns : 0;
  if (following != nullptr && following->id != candidate)
    end = std::max(end, following->granted_until_ns);
  return end;
}

// R1: not without a configuration that gives it a vote. R10: not while it is being filled. A
// replica whose removal is not committed may still be the only one that can commit it (Ongaro's
// thesis 4.2.2): it leads without counting itself.
bool GroupCore::electable() const {
  return configured() && configs.may_vote(host.self) && !syncing;
}

uint64_t GroupCore::campaign_after_ns() const {
  return std::max({host.vote_after_ns, promise_end_ns(host.self), abstain_until_ns});
}

void GroupCore::schedule_election(bool hasten) {
  if (!electable()) {
    election_at_ns = kNever;
    return arm();
  }
  const HostOptions& options = host.options;
  uint64_t low = options.election_min_ns, high = options.election_max_ns;
  if (config().preferred == host.self) {
    low = 0;
    high = options.election_min_ns;
  } else if (hasten) {
    low = options.election_min_ns / 2;
    high = (low + high) / 2;
  }
  const uint64_t factor = 1ull << std::min<uint32_t>(failed_campaigns / 2, 3);
  election_at_ns =
      std::max(host.now_ns, campaign_after_ns()) + host.random_between(low, high * factor);
  arm();
}

void GroupCore::on_election_timer() {
  if (role == Role::kLeader || following != nullptr || !electable()) return;
  if (CURVE_MUTANT("liveness_nobody_campaigns") && hard.term > 2 && id % 2 == 0) return;
  // A disk that does not answer shall not raise the term again and again: one campaign waits for
  // it.
  if (campaign_after_ns() > host.now_ns || durable_term != hard.term) return schedule_election();
  if (role != Role::kFollower) ++failed_campaigns;
  become_pre_candidate();
}

void GroupCore::reset_votes() {
  votes_count = 0;
  for (size_t i = 0; i < config().count; ++i) {
    if (config().members[i].role == MemberRole::kVoter)
      votes[votes_count++] = {config().members[i].store, Answer::kNone};
  }
}

// The first answer of a voter counts.
void GroupCore::record_vote(const StoreId& voter, Answer answer) {
  for (size_t i = 0; i < votes_count; ++i) {
    if (votes[i].store == voter && votes[i].answer == Answer::kNone) votes[i].answer = answer;
  }
}

ElectionOutcome GroupCore::count_votes() const {
  std::array<Answer, kReplicasMax> answers;
  for (size_t i = 0; i < votes_count; ++i) answers[i] = votes[i].answer;
  return election_outcome({answers.data(), votes_count});
}

Message GroupCore::vote_request(const StoreId& to) const {
  const bool pre = role == Role::kPreCandidate;
  Message message = message_to(to, pre ? MessageType::kPreVote : MessageType::kVote);
  if (pre) message.term = hard.term + 1;
  message.index = log.last();
  message.log_term = log.last_term();
  message.transfer = transferred;
  return message;
}

// R2: a request for a vote tells of a term and a log that are durable; a request for a pre-vote
// promises nothing.
void GroupCore::request_votes() {
  for (size_t i = 0; i < votes_count; ++i) {
    if (votes[i].store == host.self || votes[i].answer != Answer::kNone) continue;
    const Message request = vote_request(votes[i].store);
    if (role == Role::kPreCandidate) {
      emit(request);
    } else {
      emit_when_durable(request);
    }
  }
}

void GroupCore::become_pre_candidate() {
  unfollow();
  role = Role::kPreCandidate;
  leader = {};
  transferred = false;
  reset_votes();
  record_vote(host.self, own_answer());
  const uint64_t factor = 1ull << std::min<uint32_t>(failed_campaigns / 2, 3);
  election_at_ns = host.now_ns + host.random_between(host.options.election_min_ns,
                                                     host.options.election_max_ns * factor);
  arm();
  mark_ready();
  request_votes();
  on_vote_outcome();
}

void GroupCore::become_candidate(bool transfer) {
  if (role == Role::kLeader) stop_leading();
  unfollow();
  ++host.elections;
  role = Role::kCandidate;
  leader = {};
  transferred = transfer;
  verified = commit;
  acknowledge = false;
  set_hard({hard.term + 1, host.self});
  reset_votes();
  known_before_votes = known_damaged;
  self_vote_persist = last_dirty_persist();
  election_at_ns = host.now_ns + host.options.election_max_ns +
                   host.random_between(host.options.election_min_ns, host.options.election_max_ns);
  arm();
  request_votes();
}

void GroupCore::on_vote_outcome() {
  switch (count_votes()) {
    case ElectionOutcome::kPending:
      return;
    case ElectionOutcome::kLost:
      ++failed_campaigns;
      return become_follower(hard.term, {});
    case ElectionOutcome::kWon:
      if (role == Role::kPreCandidate) return become_candidate(false);
      return become_leader();
  }
}

void GroupCore::reply_vote(const Message& message, bool granted) {
  const bool pre = message.type == MessageType::kPreVote;
  Message reply =
      message_to(message.peer, pre ? MessageType::kPreVoteReply : MessageType::kVoteReply);
  reply.first = message.term;
  reply.reject = !granted;
  if (CURVE_MUTANT("r3_damaged_votes")) reply.damaged = false;
  if (granted && !pre) {
    emit_when_durable(reply);  // R2
  } else {
    emit(reply);
  }
}

// Would this replica vote for the sender? Changes nothing.
void GroupCore::on_pre_vote(const Message& message) {
  const bool has_leader =
      (role == Role::kLeader && quorum_active()) ||
      (contact_until_ns > host.now_ns && leader != message.peer && role == Role::kFollower);
  const bool granted = configured() && host.now_ns >= host.vote_after_ns &&
                       message.term > hard.term && !has_leader &&
                       !promised_to_other(message.peer) &&
                       log.not_better_than(message.index, message.log_term);
  reply_vote(message, granted);
}

void GroupCore::on_vote(const Message& message) {
  const bool may = (configured() || CURVE_MUTANT("r1_unconfigured_votes")) &&
                   host.now_ns >= host.vote_after_ns;  // R1; R9: one lease after a start
  const bool bound = !message.transfer && (promised_to_other(message.peer) ||
                                           (role == Role::kLeader && lease_end_ns() > host.now_ns));
  if (message.term < hard.term || !may || bound) return reply_vote(message, false);
  if (message.term > hard.term) become_follower(message.term, {});
  const bool free = (hard.vote.is_none() && leader.is_none()) || hard.vote == message.peer ||
                    CURVE_MUTANT("r2_vote_twice");
  const bool granted = free && log.not_better_than(message.index, message.log_term);
  if (granted && hard.vote != message.peer) {
    set_hard({hard.term, message.peer});
    role = Role::kFollower;
    schedule_election();
  }
  reply_vote(message, granted);
}

void GroupCore::on_vote_reply(const Message& message) {
  const bool pre = message.type == MessageType::kPreVoteReply;
  if (message.reject && message.term > hard.term) return become_follower(message.term, {});
  if (message.damaged && role != Role::kLeader && role != Role::kFollower &&
      std::find(known_damaged.begin(), known_damaged.end(), message.peer) == known_damaged.end()) {
    known_damaged.push_back(message.peer);
  }
  const bool awaited = pre ? role == Role::kPreCandidate && message.first == hard.term + 1
                           : role == Role::kCandidate && message.first == hard.term;
  if (!awaited) return;
  Answer answer = Answer::kRejected;
  if (!message.reject) answer = message.damaged ? Answer::kGrantedDamaged : Answer::kGranted;
  record_vote(message.peer, answer);
  on_vote_outcome();
}

// The leader hands over: it uses no lease in this term any more, so the promise to it does not
// stand in the way.
void GroupCore::on_timeout_now(const Message& message) {
  if (message.term != hard.term || role != Role::kFollower || leader != message.peer) return;
  if (!electable() || damaged || host.now_ns < host.vote_after_ns) return;
  become_candidate(true);
}

// What was sent before the connection came up is lost.
void GroupCore::on_peer_up_election(Peer* peer) {
  if (role != Role::kPreCandidate && role != Role::kCandidate) return;
  for (size_t i = 0; i < votes_count; ++i) {
    if (votes[i].store != peer->id || votes[i].answer != Answer::kNone) continue;
    const Message request = vote_request(peer->id);
    if (role == Role::kPreCandidate) {
      emit(request);
    } else {
      emit_when_durable(request);
    }
  }
}

}  // namespace curve::raft
