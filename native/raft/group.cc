// Group: the public face; what becomes durable and what waits for it (R2).
#include "native/raft/group.h"

#include <algorithm>
#include <cstdlib>

#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/raft/group_core.h"

namespace curve::raft {

void broken_invariant(CopysetId group, const char* sentence, uint64_t a, uint64_t b) {
  base::log(base::LogLevel::kError, "raft_invariant",
            {{"group", group}, {"broken", std::string(sentence)}, {"a", a}, {"b", b}});
  std::abort();
}

GroupCore::GroupCore(HostCore& owner, GroupInit init) : host(owner), id(init.id) {
  ready_hook.group = follow_hook.group = this;
  host.init_timer(&timer, TimerKind::kGroup, this);
  hard = init.hard;
  durable_term = hard.term;
  log.reset(init.base_index, init.base_term);
  for (const LogSlot& slot : init.log) {
    if (slot.term < log.last_term()) broken_invariant(id, "recovered log: terms fall", log.last());
    log.push(slot);
  }
  handed = durable = log.last();
  damaged = init.damaged;
  syncing = init.syncing;
  commit = std::max({init.commit, init.base_index, init.applied});
  if (commit > log.last()) {
    if (!damaged && !syncing) {
      broken_invariant(id, "recovered log ends before its commit index", log.last(), commit);
    }
    commit = log.last();
  }
  applied = std::min(init.applied, commit);
  verified = commit;
  if (log.last_term() > hard.term) {
    broken_invariant(id, "recovered term is older than the log's", hard.term, log.last_term());
  }
  configs.reset(init.config_index, init.config);
  for (const ConfigAt& later : init.later_configs) {
    if (later.index > configs.current_index() && later.index <= log.last())
      configs.push(later.index, later.config);
  }
  configs.settle(commit);
  use_config();
  const bool genesis = hard.term == 0 && log.last() == 0 && config().preferred == host.self;
  if (genesis && electable() && host.now_ns >= host.vote_after_ns) {
    election_at_ns = host.now_ns;  // a new cluster has its leaders at once
    arm();
  } else {
    schedule_election();
  }
  mark_ready();
}

GroupCore::~GroupCore() {
  if (role == Role::kLeader) stop_leading();
  unfollow();
  ready_hook.unlink();
  host.timers.set(&timer, kNever);
  for (auto& [store, peer] : host.peers) {
    std::erase(peer->commit_notes, this);
    std::erase(peer->commit_notes_sent, this);
  }
  for (size_t i = 0; i < named_count; ++i) --named[i]->members;
}

void GroupCore::mark_ready() {
  if (!ready_hook.linked()) host.ready.push_back(&ready_hook);
}

Message GroupCore::message_to(const StoreId& to, MessageType type) const {
  Message message;
  message.type = type;
  message.group = id;
  message.peer = to;
  message.term = hard.term;
  message.damaged = damaged;
  return message;
}

void GroupCore::emit(const Message& message) {
  out.push_back(message);
  mark_ready();
}

// The persist with which everything as it is now becomes durable; 0: it is.
uint64_t GroupCore::last_dirty_persist() const {
  if (hard_changed || cut || handed < log.last()) return persist_next;
  return persists.empty() ? 0 : persists.back().id;
}

void GroupCore::emit_when_durable(const Message& message) {
  const uint64_t persist_id = last_dirty_persist();
  if (persist_id == 0 || CURVE_MUTANT("r2_vote_before_durable")) return emit(message);
  waiting.push_back({persist_id, message});
}

void GroupCore::set_hard(const HardState& state) {
  if (state.term < hard.term) broken_invariant(id, "the term fell", hard.term, state.term);
  hard = state;
  hard_changed = true;
  mark_ready();
}

void GroupCore::set_commit(Index index) {
  if (index <= commit) return;
  if (index > log.last()) broken_invariant(id, "commit beyond the log", index, log.last());
  commit = index;
  verified = std::max(verified, commit);
  configs.settle(commit);
  mark_ready();
}

void GroupCore::append_slot(const LogSlot& slot) {
  log.push(slot);
  host.note_work();
  mark_ready();
}

// Entries > after are void. R2: what is in flight no longer makes more than `after` durable.
void GroupCore::truncate_log(Index after) {
  if (after < commit) broken_invariant(id, "cut below the commit index", after, commit);
  if (after < handed) {
    cut_after = cut ? std::min(cut_after, after) : after;
    cut = true;
    handed = after;
  }
  log.truncate(after);
  if (!CURVE_MUTANT("r2_cut_keeps_durable")) {
    for (size_t i = 0; i < persists.size(); ++i)
      persists[i].last = std::min(persists[i].last, after);
    durable = std::min(durable, after);
  }
  verified = std::min(verified, after);
  if (configs.roll_back(after)) use_config();
  mark_ready();
}

void GroupCore::hand_out(Ready* ready) {
  if (!hard_changed && !cut && handed == log.last()) return;
  ready->persist_id = persist_next++;
  ready->hard_changed = hard_changed;
  ready->hard = hard;
  ready->truncated = cut;
  ready->truncate_after = cut_after;
  if (handed < log.last()) {
    ready->append_first = handed + 1;
    ready->append_last = log.last();
    handed = log.last();
  }
  hard_changed = cut = false;
  persists.push_back({ready->persist_id, handed, hard.term});
}

Ready GroupCore::take_ready() {
  ready_hook.unlink();
  if (role == Role::kLeader) send_appends();
  if (acknowledge && durable_term == hard.term) emit_acknowledgement();
  Ready ready;
  hand_out(&ready);
  sending.swap(out);
  out.clear();
  ready.send = sending;
  ready.commit = commit_reported = commit;
  ready.role_changed =
      role != reported_role || hard.term != reported_term || leader != reported_leader;
  ready.role = reported_role = role;
  ready.term = reported_term = hard.term;
  ready.leader = reported_leader = leader;
  ready.sync_offered = std::exchange(sync_offered, false);
  ready.sync_from = sync_from;
  ready.sync_index = sync_index;
  ready.damage_cleared = std::exchange(damage_cleared, false);
  ready_hook.unlink();  // sending marked it again
  return ready;
}

void GroupCore::on_durable(uint64_t persist_id) {
  if (persists.empty() || persists.front().id != persist_id) {
    broken_invariant(id, "on_durable out of order", persist_id,
                     persists.empty() ? 0 : persists.front().id);
  }
  const Persist persist = persists.front();
  persists.pop_front();
  const bool advanced = persist.last > durable || persist.term > durable_term;
  durable = std::max(durable, persist.last);
  durable_term = persist.term;
  while (!waiting.empty() && waiting.front().persist_id <= persist_id) {
    emit(waiting.front().message);
    waiting.pop_front();
  }
  switch (role) {
    case Role::kLeader:
      maybe_commit();
      break;
    case Role::kCandidate:
      if (self_vote_persist != 0 && persist_id >= self_vote_persist) {
        self_vote_persist = 0;
        record_vote(host.self, own_answer());
        on_vote_outcome();
      }
      break;
    case Role::kFollower:
      if (!leader.is_none() && !syncing && (advanced || acknowledge)) {
        acknowledge = true;
        mark_ready();
      }
      break;
    case Role::kPreCandidate:
      break;
  }
}

// Members of the configuration in force are peers; a leader replicates to exactly those.
void GroupCore::use_config() {
  self_is_voter = is_voter(config(), host.self);
  for (size_t i = 0; i < named_count; ++i) --named[i]->members;
  named_count = 0;
  for (size_t i = 0; i < config().count; ++i) {
    named[named_count] = host.peer_of(config().members[i].store);
    ++named[named_count++]->members;
  }
  if (role == Role::kLeader) {
    adapt_followers();
  } else if (!electable()) {
    election_at_ns = kNever;
    arm();
  } else if (role == Role::kFollower && following == nullptr && election_at_ns == kNever) {
    schedule_election();
  }
}

void GroupCore::on_applied(Index index) {
  if (index > commit) broken_invariant(id, "applied beyond the commit index", index, commit);
  applied = std::max(applied, index);
}

void GroupCore::arm() {
  host.timers.set(
      &timer, std::min({election_at_ns, check_at_ns, retry_at_ns, transfer_at_ns, prefer_at_ns}));
}

void GroupCore::on_timer() {
  const uint64_t now = host.now_ns;
  auto due = [now](uint64_t& deadline) {
    if (deadline > now) return false;
    deadline = kNever;
    return true;
  };
  if (due(election_at_ns)) on_election_timer();
  if (due(check_at_ns)) check_quorum();
  if (due(retry_at_ns)) look_for_lost_messages();
  if (due(transfer_at_ns)) end_transfer();
  if (due(prefer_at_ns)) on_prefer_timer();
  arm();
}

// The public face.

Group::Group(std::unique_ptr<GroupCore> core) : core_(std::move(core)) { core_->face = this; }
Group::~Group() = default;
CopysetId Group::id() const { return core_->id; }
Role Group::role() const { return core_->role; }
Term Group::term() const { return core_->hard.term; }
StoreId Group::leader() const { return core_->leader; }
const Config& Group::config() const { return core_->config(); }
Index Group::config_index() const { return core_->configs.current_index(); }
const Config& Group::committed_config() const { return core_->configs.oldest(); }
Index Group::committed_config_index() const { return core_->configs.oldest_index(); }
bool Group::config_settled() const {
  return role() == Role::kLeader && config_index() <= commit() &&
         (core_->noop <= commit() || CURVE_MUTANT("r1_settled_before_noop"));
}
Index Group::commit() const { return core_->commit; }
Index Group::applied() const { return core_->applied; }
Index Group::first_index() const { return core_->log.first(); }
Index Group::last_index() const { return core_->log.last(); }
Term Group::last_term() const { return core_->log.last_term(); }
Term Group::term_at(Index index) const { return core_->log.term_at(index); }
HardState Group::hard() const { return core_->hard; }
bool Group::damaged() const { return core_->damaged; }
bool Group::syncing() const { return core_->syncing; }

std::vector<Progress> Group::progress() const {
  std::vector<Progress> all;
  if (core_->role != Role::kLeader) return all;
  for (const Follower& f : core_->followers) {
    const bool active = f.covered() && f.peer->confirmed_at_ns != 0 &&
                        f.peer->confirmed_at_ns + core_->host.options.lease_ns > core_->host.now_ns;
    all.push_back({f.peer->id, f.role, f.match, f.next, active, f.flow == Flow::kSync});
  }
  return all;
}

Index Group::everybody_has() const {
  Index all = core_->durable;
  for (const Follower& f : core_->followers) {
    if (f.flow != Flow::kSync) all = std::min(all, f.match);
  }
  return all;
}

Index Group::all_have() const {
  if (CURVE_MUTANT("r7_all_have_is_commit")) return core_->commit;
  return fills_somebody() ? 0 : everybody_has();
}

bool Group::fills_somebody() const {
  return std::any_of(core_->followers.begin(), core_->followers.end(),
                     [](const Follower& f) { return f.flow == Flow::kSync; });
}

Index Group::match_of(const StoreId& store) const {
  const Follower* f = core_->follower_of(store);
  if (f == nullptr) return 0;
  return f->flow == Flow::kSync ? core_->log.last() : f->match;
}

Index Group::durable_index() const { return core_->durable; }

LogSlot& Group::slot(Index index) {
  if (!core_->log.holds(index))
    broken_invariant(core_->id, "slot of an entry that is not here", index);
  return core_->log.at(index);
}

Code Group::may_propose() const { return core_->may_propose(); }
Code Group::propose(std::span<const EntryMeta> metas, Index* first) {
  return core_->propose(metas, first);
}
Code Group::propose_config(const Config& config, Index* index) {
  return core_->propose_config(config, index);
}

AppendVerdict Group::step_append(const Message& message, std::span<const EntryMeta> entries,
                                 std::span<const ConfigAt> configs, uint64_t now_ns) {
  core_->host.advance(now_ns);
  return core_->step_append(message, entries, configs);
}

void Group::step(const Message& message, uint64_t now_ns) {
  core_->host.advance(now_ns);
  switch (message.type) {
    case MessageType::kPreVote:
      return core_->on_pre_vote(message);
    case MessageType::kVote:
      return core_->on_vote(message);
    case MessageType::kPreVoteReply:
    case MessageType::kVoteReply:
      return core_->on_vote_reply(message);
    case MessageType::kAppend: {  // without entries: a probe
      core_->step_append(message, {}, {});
      return;
    }
    case MessageType::kAppendReply:
      return core_->on_append_reply(message);
    case MessageType::kTimeoutNow:
      return core_->on_timeout_now(message);
    case MessageType::kSyncOffer:
      return core_->on_sync_offer(message);
    case MessageType::kSyncRequest:
      return core_->on_sync_request(message);
    case MessageType::kFilled:
      return core_->on_filled(message);
  }
}

bool Group::has_ready() const { return core_->ready_hook.linked(); }
Ready Group::take_ready() { return core_->take_ready(); }
void Group::on_durable(uint64_t persist_id, uint64_t now_ns) {
  core_->host.advance(now_ns);
  core_->on_durable(persist_id);
}
void Group::on_applied(Index index) { core_->on_applied(index); }

void Group::trim(Index index) {
  if (index > core_->applied)
    broken_invariant(core_->id, "trim beyond what is applied (R7)", index, core_->applied);
  index = std::min(index, core_->durable);
  if (index > core_->log.base()) core_->log.trim(index);
}

bool Group::lease_valid(uint64_t now_ns) const { return core_->lease_valid(now_ns); }
Index Group::read_index() const { return std::max(core_->commit, core_->noop); }
Code Group::transfer_to(const StoreId& store, uint64_t now_ns) {
  core_->host.advance(now_ns);
  return core_->transfer_to(store);
}
void Group::resign(uint64_t abstain_ns, uint64_t now_ns) {
  core_->host.advance(now_ns);
  core_->resign(abstain_ns);
}
void Group::begin_sync(uint64_t now_ns) {
  core_->host.advance(now_ns);
  core_->begin_sync();
}
void Group::finish_sync(Index index, Term term, const Config& config, Index config_index,
                        uint64_t now_ns) {
  core_->host.advance(now_ns);
  core_->finish_sync(index, term, config, config_index);
}

}  // namespace curve::raft
