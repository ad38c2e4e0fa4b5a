// Beats between two stores (R9): what this store leads with a peer and what it has promised to
// follow. One confirmed beat renews the promise for every group that both agree on; agreement is a
// digest, and the full list only after a mismatch.
#include <algorithm>

#include "native/base/mutant.h"
#include "native/raft/group_core.h"

namespace curve::raft {
namespace {

constexpr uint64_t kBusyNs = 1'000'000'000;

}  // namespace

// Leader side.

void HostCore::add_lead(Peer* peer, GroupCore* group, const Lead& lead) {
  auto at =
      std::lower_bound(peer->leads.begin(), peer->leads.end(), lead.group,
                       [](const LeadEntry& entry, CopysetId id) { return entry.lead.group < id; });
  peer->leads.insert(at, {lead, group});
  peer->leads_digest += lead_digest(lead);
  if (peer->silence_timer.deadline_ns == kNever)
    timers.set(&peer->silence_timer, now_ns + patience_ns());
  beat_soon(peer);
}

void HostCore::remove_lead(Peer* peer, GroupCore* group) {
  auto at =
      std::lower_bound(peer->leads.begin(), peer->leads.end(), group->id,
                       [](const LeadEntry& entry, CopysetId id) { return entry.lead.group < id; });
  if (at == peer->leads.end() || at->group != group)
    broken_invariant(group->id, "not among the leads of a peer");
  peer->leads_digest -= lead_digest(at->lead);
  peer->leads.erase(at);
  beat_soon(peer);
}

bool HostCore::wants_beats(const Peer& peer) const {
  return peer.up && (!peer.leads.empty() || peer.told_digest != peer.leads_digest);
}

void HostCore::beat_soon(Peer* peer) {
  if (peer->beat_due || !peer->up) return;
  peer->beat_due = true;
  beats_due.push_back(peer);
}

// No promise depends on it: a lease ends when it ends (R9), whether beats come often or not.
uint64_t HostCore::beat_interval_ns() const {
  const uint64_t often = options.beat_interval_ns;
  if (now_ns < busy_until_ns) return often;
  return std::max(often, std::min(2 * often, options.lease_ns / 3));
}

void HostCore::arm_beats(Peer* peer) {
  timers.set(&peer->beat_timer, wants_beats(*peer) ? now_ns + beat_interval_ns() : kNever);
}

void HostCore::note_work() {
  const bool was_busy = now_ns < busy_until_ns;
  busy_until_ns = now_ns + kBusyNs;
  if (was_busy) return;
  for (auto& [store, peer] : peers) {
    const uint64_t due_ns = now_ns + options.beat_interval_ns;
    if (peer->beat_timer.deadline_ns != kNever && peer->beat_timer.deadline_ns > due_ns)
      timers.set(&peer->beat_timer, due_ns);
  }
}

void HostCore::on_beat_timer(Peer* peer) {
  if (!wants_beats(*peer)) return;
  beat_soon(peer);
  gather_beats();
}

// Who is awake sends what is due soon, too: an idle store then wakes up once for all of its peers,
// and those of a group come to beat together.
void HostCore::gather_beats() {
  if (now_ns < busy_until_ns) return;
  const uint64_t soon_ns = now_ns + beat_interval_ns() / 2;
  for (auto& [store, peer] : peers) {
    if (peer->beat_timer.deadline_ns <= soon_ns && wants_beats(*peer)) beat_soon(peer.get());
  }
}

// The peer has confirmed nothing for longer than a leader waits: groups that need it step down;
// appends to it stop.
void HostCore::on_silence_timer(Peer* peer) {
  if (peer->leads.empty()) return;
  const uint64_t until = peer->confirmed_at_ns + patience_ns();
  if (until > now_ns) return timers.set(&peer->silence_timer, until);
  peer->silent = true;
  scratch_groups.clear();
  for (const LeadEntry& entry : peer->leads) scratch_groups.push_back(entry.group);
  for (GroupCore* group : scratch_groups) group->check_quorum();
}

void HostCore::note_commit(Peer* peer, GroupCore* group) { peer->commit_notes.push_back(group); }

// Commit indexes that the peer has not confirmed to know yet. Those of an unanswered beat go again.
void HostCore::fill_commit_notes(Peer* peer) {
  peer->beat.commits.clear();
  std::vector<GroupCore*>& notes = peer->commit_notes;
  notes.insert(notes.end(), peer->commit_notes_sent.begin(), peer->commit_notes_sent.end());
  peer->commit_notes_sent.clear();
  for (GroupCore* group : notes) {
    Follower* f = group->role == Role::kLeader ? group->follower_of(peer->id) : nullptr;
    if (f == nullptr || !f->commit_noted) continue;
    if (f->commit_told >= group->commit) {
      f->commit_noted = false;
      continue;
    }
    f->commit_in_beat = group->commit;
    peer->beat.commits.push_back({group->id, group->hard.term, group->commit});
    peer->commit_notes_sent.push_back(group);
  }
  notes.clear();
  peer->commit_notes_sequence = peer->sequence;
}

void HostCore::fill_beat(Peer* peer) {
  Beat& beat = peer->beat;
  ++peer->sequence;
  peer->sent_ns[peer->sequence % Peer::kBeatsRemembered] = now_ns;
  beat.from_incarnation = incarnation;
  beat.to_incarnation = peer->incarnation;
  beat.sequence = peer->sequence;
  beat.digest = peer->digest_sent = peer->leads_digest;
  beat.full = std::exchange(peer->full_wanted, false);
  beat.leads.clear();
  if (beat.full) {
    for (const LeadEntry& entry : peer->leads) beat.leads.push_back(entry.lead);
  }
  fill_commit_notes(peer);
  arm_beats(peer);
}

// False for what comes from an earlier process of the peer.
bool HostCore::learn_incarnation(Peer* peer, Incarnation theirs) {
  if (theirs < peer->incarnation) return false;
  if (theirs == peer->incarnation) return true;
  peer->incarnation = theirs;
  peer->heard_sequence = 0;
  peer->refused.clear();
  peer->refused_digest = 0;
  release_followed(
      peer,
      true);  // its old process leads nothing any more; what was promised to it stays promised
  if (wants_beats(*peer)) beat_soon(peer);
  return true;
}

void HostCore::on_reply(Peer* peer, const BeatReply& reply) {
  if (reply.to_incarnation != incarnation && !CURVE_MUTANT("r9_any_incarnation")) return;
  if (!learn_incarnation(peer, reply.from_incarnation)) return;
  if (reply.sequence > peer->sequence || peer->sequence - reply.sequence >= Peer::kBeatsRemembered)
    return;
  for (const Lead& lead : reply.refused) {
    if (GroupCore* group = core_of(lead.group)) group->on_refused(peer, lead.term);
  }
  if (reply.need_full) {
    peer->full_wanted = true;
    beat_soon(peer);
  }
  if (reply.confirmed && reply.sequence > peer->confirmed_sequence) {
    on_confirmed(peer, reply.sequence, peer->sent_ns[reply.sequence % Peer::kBeatsRemembered]);
  }
}

void HostCore::on_confirmed(Peer* peer, uint64_t sequence, uint64_t sent_ns) {
  peer->confirmed_sequence = sequence;
  peer->confirmed_send_ns = sent_ns;
  peer->confirmed_at_ns = now_ns;
  if (sequence == peer->sequence) peer->told_digest = peer->digest_sent;
  if (sequence >= peer->commit_notes_sequence) {
    for (GroupCore* group : peer->commit_notes_sent) {
      Follower* f = group->role == Role::kLeader ? group->follower_of(peer->id) : nullptr;
      if (f == nullptr || !f->commit_noted) continue;
      // Committed more since: told with the next beat, unless an append does.
      f->commit_told = std::max(f->commit_told, f->commit_in_beat);
      f->commit_noted = f->commit_told < group->commit;
      if (f->commit_noted) peer->commit_notes.push_back(group);
    }
    peer->commit_notes_sent.clear();
  }
  if (std::exchange(peer->silent, false)) {
    for (const LeadEntry& entry : peer->leads) entry.group->on_peer_up_leader(peer);
  }
  if (peer->silence_timer.deadline_ns == kNever && !peer->leads.empty()) {
    timers.set(&peer->silence_timer, now_ns + patience_ns());
  }
}

// Follower side.

BeatReply HostCore::on_beat(Peer* peer, const Beat& beat) {
  BeatReply reply;
  reply.from_incarnation = incarnation;
  reply.to_incarnation = beat.from_incarnation;
  reply.sequence = beat.sequence;
  if (!learn_incarnation(peer, beat.from_incarnation)) return reply;
  if (beat.to_incarnation != incarnation || beat.sequence <= peer->heard_sequence) return reply;
  peer->heard_sequence = beat.sequence;
  if (beat.full) {
    agree_on_list(peer, beat);
  } else if (beat.digest != peer->followed_digest + peer->refused_digest &&
             !CURVE_MUTANT("r9_confirm_without_agreement")) {
    reply.need_full = true;
    return reply;
  }
  reply.confirmed = true;
  gather_beats();
  peer->granted_until_ns = now_ns + options.lease_ns;
  expect_until(peer, peer->granted_until_ns);
  for (const Lead& lead : peer->refused) {
    GroupCore* group = core_of(lead.group);
    reply.refused.push_back({lead.group, group == nullptr ? 0 : group->hard.term});
    if (group != nullptr && group->damaged && group->hard.term == lead.term)
      group->on_leader_contact(peer->id);
  }
  take_commit_notes(peer, beat);
  return reply;
}

// Follows what the peer leads where nothing newer is known here, and nothing else of it. What is
// not followed is refused: it carries no promise.
void HostCore::agree_on_list(Peer* peer, const Beat& beat) {
  ++stamp;
  peer->refused.clear();
  peer->refused_digest = 0;
  for (const Lead& lead : beat.leads) {
    GroupCore* group = core_of(lead.group);
    if (group != nullptr && lead.term >= group->hard.term) {
      if (lead.term > group->hard.term) group->become_follower(lead.term, peer->id);
      group->on_leader_contact(peer->id);
      group->follow_hook.seen = stamp;
      if (group->following == peer) continue;
    }
    peer->refused.push_back(lead);
    peer->refused_digest += lead_digest(lead);
  }
  scratch_groups.clear();
  for (FollowHook* hook = peer->followed.front(); hook != nullptr;
       hook = peer->followed.next(hook)) {
    if (hook->seen != stamp) scratch_groups.push_back(hook->group);
  }
  for (GroupCore* group : scratch_groups) {
    group->unfollow();
    group->schedule_election();
  }
}

void HostCore::take_commit_notes(Peer* peer, const Beat& beat) {
  for (const CommitNote& note : beat.commits) {
    if (GroupCore* group = core_of(note.group)) group->on_commit_note(*peer, note);
  }
}

// The peer is not missed before then.
void HostCore::expect_until(Peer* peer, uint64_t until_ns) {
  peer->quiet_at_ns = std::max(peer->quiet_at_ns, until_ns);
  if (peer->quiet_timer.deadline_ns == kNever && !peer->followed.empty()) {
    timers.set(&peer->quiet_timer, peer->quiet_at_ns);
  }
}

void HostCore::on_quiet_timer(Peer* peer) {
  if (peer->followed.empty()) return;
  if (peer->quiet_at_ns > now_ns) return timers.set(&peer->quiet_timer, peer->quiet_at_ns);
  release_followed(peer, false);
}

// Election timers run for its groups from now on; promises stay.
void HostCore::release_followed(Peer* peer, bool hasten) {
  scratch_groups.clear();
  for (FollowHook* hook = peer->followed.front(); hook != nullptr;
       hook = peer->followed.next(hook)) {
    scratch_groups.push_back(hook->group);
  }
  for (GroupCore* group : scratch_groups) {
    group->unfollow();
    if (hasten) group->contact_until_ns = 0;
    if (hasten && CURVE_MUTANT("r9_hasten_shortens")) group->promised_until_ns = 0;
    group->schedule_election(hasten);
  }
}

}  // namespace curve::raft
