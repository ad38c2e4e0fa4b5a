#include "native/sim/replica_checker.h"

#include <algorithm>
#include <utility>

#include "native/raft/config.h"

namespace curve::sim {

void ReplicaChecker::restarted(uint32_t store) {
  std::erase_if(seen_, [store](const auto& item) { return item.first.second == store; });
}

// Committed configurations are looked at as they come; a store may skip some (sync).
void ReplicaChecker::look_at_config(uint32_t store, raft::Group& group, Seen& seen) {
  const raft::Config& config = group.committed_config();
  if (config.count == 0) return;
  if (std::exchange(seen.committed_config, group.committed_config_index()) ==
      group.committed_config_index())
    return;
  auto& known = configs_[group.id()];
  const auto [at, fresh] = known.try_emplace(group.committed_config_index(), config);
  const auto bad = [&](const char* what) {
    verdict_.fail("R1 configurations", "copyset " + std::to_string(group.id()) + " index " +
                                           std::to_string(at->first) + " on store " +
                                           std::to_string(store) + ": " + what);
  };
  if (!(at->second == config)) return bad("another configuration is committed there");
  if (fresh && at->first != 0) ++verdict_.counts["configurations"];
  if (fresh && raft::voters_in(config) < kVotersMin) bad("too few voters");
}

void ReplicaChecker::look_at_applied(uint32_t store, const raft::Group& group, Seen& seen) {
  if (group.applied() < seen.applied)
    verdict_.fail("R10 less than applied",
                  "store " + std::to_string(store) + " copyset " + std::to_string(group.id()) +
                      " had applied " + std::to_string(seen.applied) + ": " + describe(group));
  seen.applied = group.applied();
  seen.config_index = group.config_index();
}

void ReplicaChecker::recovered(const StoreId& store, const raft::Group& group) {
  if (group.damaged() || group.syncing() || group.config().count == 0) return;
  const auto at = counted_.find({group.id(), store});
  if (at == counted_.end() || group.last_index() >= at->second.index) return;
  verdict_.fail("R2, R3 durable", "store " + store.text().substr(0, 2) + " copyset " +
                                      std::to_string(group.id()) + " comes back with " +
                                      std::to_string(group.last_index()) +
                                      " as its last entry, but it had acknowledged " +
                                      std::to_string(at->second.index));
}

void ReplicaChecker::look_at_leader(uint32_t store, raft::Group& group, uint64_t local_now_ns) {
  const CopysetId id = group.id();
  const auto [at, fresh] = leaders_.try_emplace({id, group.term()}, store);
  if (fresh) ++verdict_.counts["leaders"];
  if (at->second != store) {
    verdict_.fail("one leader per term", "stores " + std::to_string(at->second) + " and " +
                                             std::to_string(store) + " both lead copyset " +
                                             std::to_string(id) + " in term " +
                                             std::to_string(group.term()));
  }
  for (const raft::Progress& each : group.progress()) {
    Counted& counted = counted_[{id, each.store}];
    if (group.term() < counted.term) continue;
    // (Lower than before: removed and joined again.)
    counted = {group.term(), each.syncing ? 0 : std::min(each.match, group.commit())};
  }
  if (group.lease_valid(local_now_ns) && group.applied() < acknowledged_through(id)) {
    verdict_.fail("R9 lease", "store " + std::to_string(store) + " may answer reads of copyset " +
                                  std::to_string(id) + " in term " + std::to_string(group.term()) +
                                  " with " + std::to_string(group.applied()) + " applied, but " +
                                  std::to_string(acknowledged_through(id)) + " was acknowledged");
  }
}

void ReplicaChecker::look(uint32_t store, raft::Group& group, uint64_t local_now_ns) {
  const CopysetId id = group.id();
  Seen& seen = seen_[{id, store}];
  // Removed, and joined again: another life.
  if (seen.life != &group || group.config_index() < seen.config_index || group.config().count == 0)
    seen = {.life = &group, .looked = seen.looked, .committed_config = Seen::kNone};
  look_at_config(store, group, seen);
  look_at_applied(store, group, seen);
  if (group.role() == raft::Role::kLeader) look_at_leader(store, group, local_now_ns);
  const Index commit = std::min(group.commit(), group.last_index());
  for (Index index = std::max(seen.looked + 1, group.first_index()); index <= commit; ++index) {
    const Term term = group.term_at(index);
    if (term == 0) continue;
    const auto [at, fresh] = committed_.try_emplace({id, index}, term);
    if (!fresh && at->second != term) {
      verdict_.fail("log matching",
                    "copyset " + std::to_string(id) + " index " + std::to_string(index) +
                        ": committed in term " + std::to_string(at->second) + ", and in term " +
                        std::to_string(term) + " on store " + std::to_string(store));
      return;
    }
  }
  seen.looked = std::max(seen.looked, commit);
}

std::string describe(const raft::Group& group) {
  static const char* const kRoles[] = {"follower", "pre-candidate", "candidate", "leader"};
  std::string out = std::string(kRoles[static_cast<int>(group.role())]) + " term " +
                    std::to_string(group.term()) + " log " + std::to_string(group.first_index()) +
                    ".." + std::to_string(group.last_index()) + " (term " +
                    std::to_string(group.last_term()) + ") commit " +
                    std::to_string(group.commit()) + " applied " + std::to_string(group.applied()) +
                    " leader " + group.leader().text().substr(0, 2);
  if (group.syncing()) out += " syncing";
  if (group.damaged()) out += " damaged";
  if (group.role() == raft::Role::kLeader) {
    for (const raft::Progress& each : group.progress()) {
      out += " [" + each.store.text().substr(0, 2) + " match " + std::to_string(each.match) +
             " next " + std::to_string(each.next) + (each.active ? " active" : "") +
             (each.syncing ? " syncing" : "") + "]";
    }
  }
  return out;
}

}  // namespace curve::sim
