// What is done to the stores of world.h: proposals, hand-overs, membership changes, checkpoints,
// and faults.
#include <algorithm>

#include "native/raft/world.h"

namespace curve::raft::testing {

// Load.

void World::client_step() {
  if (!chaos_ || failure_) return;
  propose_somewhere();
  if (options_.trim && chance(30)) checkpoint_somewhere();
  at(now_ + between(200'000, 10'000'000), [this] { client_step(); });
}

void World::propose_somewhere() {
  const CopysetId id = 1 + below(options_.groups);
  const uint32_t n = static_cast<uint32_t>(below(nodes_.size()));
  on_node(n, now_, [this, n, id] {
    Node& node = nodes_[n];
    Group* group = node.host->find(id);
    if (group == nullptr || group->role() != Role::kLeader) return;
    if (chance(10)) {
      const Config& config = group->config();
      (void)group->transfer_to(config.members[below(config.count)].store, local(node));
      return;
    }
    if (chance(3)) return group->resign(between(1, 1'000'000'000), local(node));
    if (options_.membership && chance(40)) return change_membership(group);
    EntryMeta metas[3];
    const size_t count = 1 + below(3);
    for (size_t i = 0; i < count; ++i)
      metas[i].bytes = Content{0, EntryType::kData, next_value_ + i, {}}.bytes();
    Index first = 0;
    if (group->propose({metas, count}, &first) != Code::kOk) return;
    for (size_t i = 0; i < count; ++i) {
      node.replicas[id].contents[first + i] = {group->term(), EntryType::kData, next_value_++, {}};
    }
  });
}

void World::change_membership(Group* group) {
  Config config = group->config();
  const StoreId self = nodes_[below(nodes_.size())].id;
  size_t at_member = 0;
  while (at_member < config.count && config.members[at_member].store != self) ++at_member;
  if (at_member == config.count) {
    if (config.count >= kReplicasMax) return;
    config.members[config.count++] = {self, MemberRole::kLearner};
  } else if (config.members[at_member].role == MemberRole::kLearner) {
    config.members[at_member].role = MemberRole::kVoter;
  } else if (config.count > 2) {
    for (size_t i = at_member; i + 1 < config.count; ++i) config.members[i] = config.members[i + 1];
    config.members[--config.count] = {};
    if (config.preferred == self) config.preferred = {};
  } else {
    config.preferred = self;
  }
  Index index = 0;
  if (group->propose_config(config, &index) != Code::kOk) return;
  for (Node& node : nodes_) {
    if (node.alive && node.host->find(group->id()) == group) {
      node.replicas[group->id()].contents[index] = {group->term(), EntryType::kConfig,
                                                    next_value_++, config};
    }
  }
}

// The state machine becomes durable and the log before it is forgotten (R7).
void World::checkpoint_somewhere() {
  const CopysetId id = 1 + below(options_.groups);
  const uint32_t n = static_cast<uint32_t>(below(nodes_.size()));
  on_node(n, now_, [this, n, id] {
    Node& node = nodes_[n];
    Group* group = node.host->find(id);
    if (group == nullptr || group->syncing()) return;
    DiskReplica& disk = node.disk[id];
    disk.applied = std::min({group->applied(), disk.commit, disk.last()});
    if (disk.applied <= disk.base) return;
    const Index keep = chance(500) ? 0 : below(20);
    const Index through = disk.applied > disk.base + keep ? disk.applied - keep : disk.base;
    group->trim(through);
    const Index base = group->first_index() - 1;
    if (base <= disk.base || base > disk.last()) return;
    disk.base_config = config_at(id, base, &disk.base_config_index);
    const Term term = disk.term_at(base);
    disk.log.erase(disk.log.begin(), disk.log.begin() + static_cast<ptrdiff_t>(base - disk.base));
    disk.base = base;
    disk.base_term = term;
  });
}

// Faults.

void World::fault_step() {
  if (!chaos_ || failure_) return;
  const uint32_t n = static_cast<uint32_t>(below(nodes_.size()));
  const uint32_t m = static_cast<uint32_t>(below(nodes_.size()));
  switch (below(8)) {
    case 0:
    case 1: {
      crash(n);
      const uint64_t away =
          chance(500) ? between(1'000'000, 50'000'000) : between(50'000'000, 1'500'000'000);
      at(now_ + away, [this, n] {
        if (!nodes_[n].alive) start(n);
      });
      break;
    }
    case 2:  // power cut
      if (!chance(200)) break;
      for (uint32_t i = 0; i < nodes_.size(); ++i) {
        crash(i);
        at(now_ + between(1'000'000, 400'000'000), [this, i] {
          if (!nodes_[i].alive) start(i);
        });
      }
      break;
    case 3:
    case 4:
      for (uint32_t other = 0; other < nodes_.size(); ++other) {  // a store, or a pair, is cut off
        if (other == n || (n != m && other != m)) continue;
        link(n, other).cut = true;
        at(now_ + between(1'000'000, 1'200'000'000), [this, n, other] { heal(n, other); });
        if (chance(300)) disconnect(n, other, false);
      }
      break;
    case 5:
      if (n != m) disconnect(n, m, chance(500));
      break;
    case 6:
    case 7: {  // SIGSTOP
      Node& node = nodes_[n];
      if (!node.alive || node.paused) break;
      node.paused = true;
      const uint64_t life = node.life;
      at(now_ + between(1'000'000, 900'000'000), [this, n, life] {
        if (nodes_[n].alive && nodes_[n].life == life && nodes_[n].paused) {
          nodes_[n].paused = false;
          std::vector<std::function<void()>> deferred;
          deferred.swap(nodes_[n].deferred);
          if (chance(500)) nodes_[n].host->tick(local(nodes_[n]));
          for (auto& action : deferred) on_node(n, now_, std::move(action));
        }
      });
      break;
    }
  }
  at(now_ + between(20'000'000, 400'000'000), [this] { fault_step(); });
}

void World::calm_down() {
  chaos_ = false;
  for (uint32_t a = 0; a < nodes_.size(); ++a) {
    for (uint32_t b = 0; b < a; ++b) heal(a, b);
  }
  for (uint32_t n = 0; n < nodes_.size(); ++n) {
    if (!nodes_[n].alive) start(n);
  }
}

}  // namespace curve::raft::testing
