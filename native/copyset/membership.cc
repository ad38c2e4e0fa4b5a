// Replicas that come and go (R1), as the metaserver orders it: joining, member changes by the
// leader, removal. Every order is idempotent. Removal: from the first step on the replica answers
// nobody; its record in the WAL makes that durable; the next checkpoint forgets its contents, and
// only then may the copyset join again. Thread: the loop's.
#include <algorithm>

#include "native/base/mutant.h"
#include "native/copyset/background.h"
#include "native/copyset/server_state.h"
#include "native/copyset/sync.h"
#include "native/raft/config.h"
#include "native/raft/quorum.h"

namespace curve::copyset {

// ---- joining

namespace {

struct JoinCall {
  std::vector<CopysetId> joined;
  size_t left = 0;
  std::function<void(std::vector<CopysetId>)> done;
};

void join_answered(const std::shared_ptr<JoinCall>& call, CopysetId id, Code code) {
  if (code == Code::kOk) call->joined.push_back(id);
  if (--call->left == 0) call->done(std::move(call->joined));
}

}  // namespace

void StoreServer::join(const std::vector<CopysetId>& copysets,
                       std::function<void(std::vector<CopysetId>)> done) {
  auto call = std::make_shared<JoinCall>();
  call->left = copysets.size() + 1;
  call->done = std::move(done);
  State* state = state_.get();
  for (CopysetId id : copysets) {
    auto join_now = [state, call, id] {
      state->replica->join_group(id, [call, id](Code code) { join_answered(call, id, code); });
    };
    const auto it = state->copysets.find(id);
    const bool waits = it != state->copysets.end() && it->second->drop != Copyset::Drop::kNone;
    if (state->stopping || state->out_of_service) {
      join_answered(call, id, Code::kShuttingDown);
    } else if (!waits || state->replica->find(id)) {
      join_now();
    } else {  // what an earlier replica left must be gone first
      const uint64_t removals = state->replica->removals(id);
      state->background->run_now([state, call, id, removals, join_now](Code code) {
        // Another order has overtaken it, and then it was removed: this one is over.
        if (code == Code::kOk && state->replica->removals(id) != removals) code = Code::kBusy;
        code == Code::kOk ? join_now() : join_answered(call, id, code);
      });
    }
  }
  if (--call->left == 0) call->done(std::move(call->joined));
}

// ---- member changes, by the leader

namespace {

struct ConfigProposal : Proposal {
  StoreServer::State* server = nullptr;
  CopysetId copyset = 0;
  std::function<void(MemberOutcome)> done;
};

MemberOutcome describe(raft::Group& raft) {
  MemberOutcome outcome;
  outcome.leader = raft.leader();
  outcome.config = raft.config();
  outcome.config_index = raft.config_index();
  return outcome;
}

void config_finished(Proposal* proposal, Code code) {
  std::unique_ptr<ConfigProposal> mine(static_cast<ConfigProposal*>(proposal));
  replica::ReplicaGroup* group = mine->server->replica->find(mine->copyset);
  MemberOutcome outcome;
  if (group) outcome = describe(group->raft());
  outcome.applied = code == Code::kOk;
  if (group && !outcome.applied && group->is_leader()) outcome.busy = "leadership changed hands";
  mine->done(std::move(outcome));
}

raft::Member* member_of(raft::Config& config, const StoreId& store) {
  return const_cast<raft::Member*>(raft::find_member(config, store));
}

void take_out(raft::Config& config, const StoreId& store) {
  const auto end = std::remove_if(config.members.begin(), config.members.begin() + config.count,
                                  [&](const raft::Member& m) { return m.store == store; });
  config.count = static_cast<uint8_t>(end - config.members.begin());
  std::fill(end, config.members.end(), raft::Member{});
  if (config.preferred == store) config.preferred = {};
}

// Voters of `config` that keep up with the leader, itself included.
size_t healthy_voters(const raft::Group& raft, const raft::Config& config, const StoreId& self) {
  size_t healthy = raft::is_voter(config, self);
  for (const raft::Progress& each : raft.progress()) {
    healthy += raft::is_voter(config, each.store) && each.active && !each.syncing;
  }
  return healthy;
}

// The configuration that is wanted; empty text, or why it cannot be had now.
std::string plan_change(const raft::Group& raft, const MemberOrder& order, const StoreId& self,
                        raft::Config& config) {
  raft::Member* member = member_of(config, order.store);
  switch (order.change) {
    case MemberChange::kAddLearner:
      if (member) return {};
      if (config.count == kReplicasMax) return "the copyset has as many members as it may have";
      config.members[config.count++] = {order.store, raft::MemberRole::kLearner};
      return {};
    case MemberChange::kPromote:
      if (!member) return "the store is no member of the copyset";
      member->role = raft::MemberRole::kVoter;
      return {};
    case MemberChange::kPrefer:
      if (!member || member->role != raft::MemberRole::kVoter) return "the store is no voter";
      config.preferred = order.store;
      return {};
    case MemberChange::kRemove:
      break;
  }
  if (!member) return {};
  if (order.store == self) return "the store leads the copyset: transfer the leadership first";
  const bool voter = member->role == raft::MemberRole::kVoter;
  take_out(config, order.store);
  if (!voter) return {};
  const size_t voters = raft::voters_in(config);
  if (voters < std::max<size_t>(order.voters_min, 1))
    return "that would leave " + std::to_string(voters) + " voters";
  const size_t healthy = healthy_voters(raft, config, self);
  if (healthy < raft::quorum_of(voters)) {
    return "only " + std::to_string(healthy) + " of the " + std::to_string(voters) +
           " voters that would be left keep up";
  }
  return {};
}

// Raft says kBusy: the likeliest reason.
std::string why_busy(const raft::Group& raft, const MemberOrder& order, uint64_t now_ns) {
  if (raft.config_index() > raft.commit()) return "another change of the members is under way";
  if (!raft.lease_valid(now_ns)) return "the leadership is not confirmed yet";
  if (order.change == MemberChange::kPromote) {
    for (const raft::Progress& each : raft.progress()) {
      if (each.store != order.store) continue;
      if (each.syncing) return "the learner is being filled";
      return "the learner is not filled yet: it lacks " +
             std::to_string(raft.last_index() - std::min(each.match, raft.last_index())) +
             " entries";
    }
  }
  return "the leadership is being handed over";
}

}  // namespace

void StoreServer::change_members(const MemberOrder& order,
                                 std::function<void(MemberOutcome)> done) {
  State& state = *state_;
  replica::ReplicaGroup* group = state.replica->find(order.copyset);
  if (!group || state.stopping || state.out_of_service) return done({});
  raft::Group& raft = group->raft();
  MemberOutcome outcome = describe(raft);
  if (!group->is_leader()) return done(std::move(outcome));
  raft::Config wanted = raft.config();
  outcome.busy = plan_change(raft, order, state.identity.id, wanted);
  const uint64_t now = state.loop.now_ns();
  if (outcome.busy.empty() && wanted == raft.config()) {
    // It holds; said only by whoever surely leads, of what is committed.
    outcome.applied = raft.lease_valid(now) && raft.config_index() <= raft.commit();
    if (!outcome.applied) outcome.busy = why_busy(raft, order, now);
    return done(std::move(outcome));
  }
  if (!outcome.busy.empty()) return done(std::move(outcome));
  auto proposal = std::make_unique<ConfigProposal>();
  proposal->finished = config_finished;
  proposal->server = state_.get();
  proposal->copyset = order.copyset;
  replica::EntryRef entry = state.replica->take_entry();
  entry->context = static_cast<Proposal*>(proposal.get());
  const Code code = state.replica->propose_config(*group, wanted, entry);
  if (code == Code::kOk) {
    proposal.release()->done = std::move(done);
    return;
  }
  entry->context = nullptr;
  outcome.busy = code == Code::kBusy
                     ? why_busy(raft, order, now)
                     : "the change is not possible: " + std::string(code_name(code));
  done(std::move(outcome));
}

StoreId StoreServer::leader_of(CopysetId copyset) const {
  replica::ReplicaGroup* group = state_->replica->find(copyset);
  return group ? group->raft().leader() : StoreId{};
}

void StoreServer::set_limits(const SyncLimits& limits) {
  state_->sync_budget.set(limits, state_->loop.now_ns());
}

// ---- removal

namespace {

// R1: may this replica be a member by that configuration or by a later one? One that is behind it
// in this log, not known to be committed, and of an older term than that leader's is not in the
// leader's log and never was committed: whatever was committed before a leader's term is in its
// log, and nothing of an older term is committed any more behind its no-op (Raft, leader
// completeness). One of that term or a later one may have come after the leader said so.
bool member_later(raft::Group& raft, const StoreId& self, const CommittedConfig& without) {
  if (CURVE_MUTANT("r1_remove_a_member")) return false;
  const Index index = raft.config_index();
  if (!raft::find_member(raft.config(), self)) return false;
  const bool committed = index == raft.committed_config_index();
  if (index <= without.index) return index == without.index && committed;
  return committed ||
         (raft.term_at(index) >= without.leader_term && !CURVE_MUTANT("r1_not_known_is_never"));
}

}  // namespace

void StoreServer::remove_replica(CopysetId id, const CommittedConfig& without,
                                 std::function<void(bool)> done) {
  State& state = *state_;
  if (state.stopping || state.out_of_service) return done(false);
  if (auto running = state.removals.find(id); running != state.removals.end())
    return running->second.push_back(std::move(done));
  replica::ReplicaGroup* group = state.replica->find(id);
  if (!group) return done(true);
  if (member_later(group->raft(), state.identity.id, without)) return done(false);
  state.removals[id].push_back(std::move(done));
  state.forget(state.copyset_of(id));
  state.replica->remove_group(id, [this, id](Code code) {
    auto waiting = std::move(state_->removals[id]);
    state_->removals.erase(id);
    for (auto& answer : waiting) answer(code == Code::kOk);
    if (code == Code::kOk) state_->background->run_now([](Code) {});
  });
}

// Whoever waits for this replica is sent elsewhere. Its contents stay until no background pass
// works on them.
void StoreServer::State::forget(Copyset& copyset) {
  copyset.group = nullptr;
  copyset.drop = Copyset::Drop::kWanted;
  copyset.sync.reset();
  sync_source->forget(copyset.id);
  copyset.overlay.drop_active();
  copyset.fences.clear();
  copyset.dropped_volumes.clear();
  copyset.pending_zeros.clear();
  copyset.new_blocks.clear();
  copyset.applied = copyset.holds = 0;
  checkpoint_applied.erase(copyset.id);
  for (const auto& request : all_requests) {
    if (request->copyset == &copyset && request->pieces_left != 0) request->code = Code::kNoCopyset;
  }
  std::erase(parked_copysets, &copyset);
  std::vector<Request*> parked;
  parked.swap(copyset.parked);
  for (Request* request : parked) {
    request->parked = false;
    dispatch(request);
  }
}

// A background pass begins: nothing of the copyset is frozen, no checkpoint runs (R5).
void StoreServer::State::drop_contents(Copyset& copyset) {
  store->unreserve(static_cast<uint32_t>(copyset.reserved_blocks.size()),
                   static_cast<uint32_t>(copyset.reserved_pages.size()));
  copyset.reserved_blocks.clear();
  copyset.reserved_pages.clear();
  store->drop_copyset(copyset.id);
  copyset.drop = Copyset::Drop::kRunning;
}

}  // namespace curve::copyset
