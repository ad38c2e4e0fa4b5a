#include "native/sim/membership.h"

#include <algorithm>

#include "native/raft/config.h"

namespace curve::sim {

using copyset::MemberChange;

Membership::Membership(World& world, Verdict& verdict, const MemberPlan& plan, StoreNodes& stores,
                       Random random, std::function<void(Node&)> bury)
    : world_(world),
      verdict_(verdict),
      plan_(plan),
      stores_(stores),
      random_(random),
      bury_(std::move(bury)),
      routes_(stores.copysets()) {}

void Membership::start() {
  running_ = true;
  wants_death_ = random_.chance(plan_.death_chance);
  world_.after(random_.below(kSecond), [this] { act(); });
  world_.after(random_.below(kSecond), [this] { watch(); });
}

size_t Membership::number_of(const StoreId& store) const {
  for (size_t number = 0; number < stores_.count(); ++number) {
    if (StoreNodes::store_id(number) == store) return number;
  }
  return 0;
}

bool Membership::has_replica(size_t index, size_t store) {
  StoreNode* node = stores_.running(store);
  return node && node->server().replica().find(stores_.copyset_id(index));
}

// What the leader of the highest term says; a deposed one that does not know it may be that.
std::optional<Membership::Report> Membership::report(size_t index) {
  std::optional<Report> found;
  Term newest = 0;
  for (size_t number = 0; number < stores_.count(); ++number) {
    StoreNode* store = stores_.running(number);
    replica::ReplicaGroup* group =
        store ? store->server().replica().find(stores_.copyset_id(index)) : nullptr;
    if (!group || !group->is_leader() || group->raft().term() <= newest) continue;
    raft::Group& raft = group->raft();
    newest = raft.term();
    found = {number, raft.config(), {raft.config_index(), newest}, raft.config_settled()};
  }
  return found;
}

// Volume maps follow the members with a delay.
void Membership::watch() {
  bool changed = false;
  for (const auto& [index, store] : removed_) {
    if (has_replica(index, store))
      verdict_.fail("R1 removal", "store " + std::to_string(store) + " has copyset " +
                                      std::to_string(index) + " again, which it was to forget");
  }
  for (size_t index = 0; index < routes_.size(); ++index) {
    const auto seen = report(index);
    if (!seen || !seen->committed) continue;
    std::vector<size_t> route;
    for (uint8_t i = 0; i < seen->config.count; ++i)
      route.push_back(number_of(seen->config.members[i].store));
    if (route == routes_[index]) continue;
    routes_[index] = std::move(route);
    changed = true;
  }
  if (changed && on_change) on_change();
  world_.after(random_.between(20, 400) * kMillisecond, [this] { watch(); });
}

// --- disorder

void Membership::act() {
  if (!running_ || healing_) return;
  world_.after(random_.below(plan_.interval_ns_max), [this] { act(); });
  if (wants_death_ && world_.now_ns() > 3 * kSecond && die()) return;
  const size_t index = random_.below(routes_.size());
  if (const auto seen = report(index)) return disturb(index, *seen);
}

// Some store for good; best a leader while it fills another voter (decisions/0009).
bool Membership::die() {
  std::optional<size_t> victim;
  if (random_.chance(0.01)) victim = any_store();
  for (size_t index = 0; index < routes_.size() && !victim; ++index) {
    const auto seen = report(index);
    if (!seen) continue;
    raft::Group& raft =
        stores_.running(seen->store)->server().replica().find(stores_.copyset_id(index))->raft();
    for (const raft::Progress& each : raft.progress()) {
      if (each.syncing && raft::is_voter(seen->config, each.store)) victim = seen->store;
    }
  }
  if (!victim) return false;
  wants_death_ = false;
  ++verdict_.counts["stores_lost"];
  bury_(stores_.node(*victim));
  return true;
}

void Membership::disturb(size_t index, const Report& seen) {
  const raft::Member& member = seen.config.members[random_.below(seen.config.count)];
  const uint64_t dice = random_.below(100);
  if (dice < 20) {
    const size_t store = any_store();
    if (!raft::find_member(seen.config, StoreNodes::store_id(store))) join(index, store);
    return;
  }
  if (dice < 40) {
    const size_t store = any_store();
    if (seen.config.count < kVoters + 2)
      change(index, seen, MemberChange::kAddLearner, StoreNodes::store_id(store));
    return;
  }
  if (dice < 62) {
    for (uint8_t i = 0; i < seen.config.count; ++i) {
      const raft::Member& each = seen.config.members[i];
      if (each.role == raft::MemberRole::kLearner && raft::voters_in(seen.config) <= kVoters)
        return change(index, seen, MemberChange::kPromote, each.store);
    }
    return;
  }
  if (dice < 74) return change(index, seen, MemberChange::kRemove, member.store);
  if (dice < 80) return change(index, seen, MemberChange::kPrefer, member.store);
  if (dice < 85) {
    return send(seen.store, [this, index, to = member.store](copyset::StoreServer& server) {
      (void)server.transfer(stores_.copyset_id(index), to);
    });
  }
  if (dice < 87) {
    const copyset::SyncLimits limits{random_.chance(0.5) ? 0 : random_.between(1, 64) << 20,
                                     static_cast<uint32_t>(random_.below(3))};
    return send(any_store(), [limits](copyset::StoreServer& server) { server.set_limits(limits); });
  }
  if (!seen.committed) return;
  for (size_t number = 0; number < stores_.count(); ++number) {
    if (!raft::find_member(seen.config, StoreNodes::store_id(number)))
      remove(index, number, seen.at);
  }
}

// Late now and then, and sometimes once more, much later: others may have overtaken it.
void Membership::send(size_t store, std::function<void(copyset::StoreServer&)> order) {
  const int copies = !healing_ && random_.chance(plan_.again_chance) ? 2 : 1;
  for (int copy = 0; copy < copies; ++copy) {
    const uint64_t late = copy == 1 || (!healing_ && random_.chance(plan_.late_chance))
                              ? random_.below(3 * kSecond)
                              : random_.below(5 * kMillisecond);
    world_.after(late, [this, store, order] {
      if (StoreNode* node = stores_.running(store)) node->call(order);
    });
  }
}

void Membership::change(size_t index, const Report& seen, MemberChange kind, const StoreId& store) {
  const copyset::MemberOrder order{stores_.copyset_id(index), kind, store, kVoters};
  send(seen.store, [this, order](copyset::StoreServer& server) {
    server.change_members(order, [this](const copyset::MemberOutcome& outcome) {
      if (outcome.applied) ++verdict_.counts["member_changes"];
      if (!outcome.applied && !outcome.busy.empty()) refusal_ = outcome.busy;
    });
  });
}

void Membership::join(size_t index, size_t store) {
  send(store, [this, index, store](copyset::StoreServer& server) {
    ++joins_[{index, store}];
    removed_.erase({index, store});
    server.join({stores_.copyset_id(index)}, [this](const std::vector<CopysetId>& joined) {
      verdict_.counts["joins"] += joined.size();
    });
  });
}

void Membership::remove(size_t index, size_t store, const copyset::CommittedConfig& without) {
  send(store, [this, index, store, without](copyset::StoreServer& server) {
    if (!server.replica().find(stores_.copyset_id(index))) return;
    const std::pair<size_t, size_t> key{index, store};
    server.remove_replica(stores_.copyset_id(index), without,
                          [this, key, joins = joins_[key]](bool removed) {
                            if (!removed) return;
                            ++verdict_.counts["removals"];
                            if (joins_[key] == joins) removed_.insert(key);
                          });
  });
}

// --- order

void Membership::heal() {
  healing_ = true;
  running_ = false;
  mend();
}

void Membership::mend() {
  for (size_t index = 0; index < routes_.size(); ++index) mend(index);
  world_.after(30 * kMillisecond, [this] { mend(); });
}

// One step towards three voters on stores that are alive, and nothing anywhere else.
void Membership::mend(size_t index) {
  const auto seen = report(index);
  if (!seen || !seen->committed) return;
  const raft::Config& config = seen->config;
  size_t alive = 0;
  std::optional<StoreId> dead, learner, spare;
  for (uint8_t i = 0; i < config.count; ++i) {
    const raft::Member& member = config.members[i];
    const size_t number = number_of(member.store);
    const bool runs = stores_.running(number) != nullptr;
    if (member.role == raft::MemberRole::kLearner) {
      // Only a learner may be without its replica yet: a voter never loses it.
      if (runs && !has_replica(index, number)) join(index, number);
      (runs ? learner : dead) = member.store;
    } else if (!runs) {
      dead = member.store;
    } else {
      ++alive;
      if (number != seen->store) spare = member.store;
    }
  }
  if (alive < kVoters && learner) return change(index, *seen, MemberChange::kPromote, *learner);
  if (alive < kVoters) {
    for (size_t number = 0; number < stores_.count(); ++number) {
      const StoreId store = StoreNodes::store_id(number);
      if (!stores_.running(number) || raft::find_member(config, store)) continue;
      join(index, number);
      return change(index, *seen, MemberChange::kAddLearner, store);
    }
    return;
  }
  if (dead) return change(index, *seen, MemberChange::kRemove, *dead);
  if (learner) return change(index, *seen, MemberChange::kRemove, *learner);
  if (alive > kVoters && spare) return change(index, *seen, MemberChange::kRemove, *spare);
  for (size_t number = 0; number < stores_.count(); ++number) {
    if (has_replica(index, number) && !raft::find_member(config, StoreNodes::store_id(number)))
      remove(index, number, seen->at);
  }
}

bool Membership::healed(std::string* why) {
  for (size_t index = 0; index < routes_.size(); ++index) {
    const auto seen = report(index);
    const std::string name = "copyset " + std::to_string(index);
    if (!seen || !seen->committed) {
      *why = name + " has no leader, or a change of it is under way";
      return false;
    }
    std::vector<size_t> members;
    for (uint8_t i = 0; i < seen->config.count; ++i)
      members.push_back(number_of(seen->config.members[i].store));
    const bool good = members.size() == kVoters && raft::voters_in(seen->config) == kVoters &&
                      std::all_of(members.begin(), members.end(),
                                  [&](size_t number) { return has_replica(index, number); });
    if (!good) {
      *why = name + " has not three voters on stores that run:";
      for (uint8_t i = 0; i < seen->config.count; ++i) {
        const raft::Member& member = seen->config.members[i];
        const size_t number = number_of(member.store);
        *why += (member.role == raft::MemberRole::kVoter ? " voter " : " learner ") +
                std::to_string(number) + (has_replica(index, number) ? "" : " without replica");
      }
      *why += "; refused last: " + refusal_;
      return false;
    }
    for (size_t number = 0; number < stores_.count(); ++number) {
      if (!has_replica(index, number)) continue;
      if (std::find(members.begin(), members.end(), number) != members.end()) continue;
      *why = name + " has a replica on store " + std::to_string(number) + ", which is no member";
      return false;
    }
    stores_.set_members(index, members);
  }
  return true;
}

}  // namespace curve::sim
