// What must hold in the world of world.h, whatever happens.
#include <algorithm>

#include "native/raft/config.h"
#include "native/raft/world.h"

namespace curve::raft::testing {

void World::fail(const std::string& what) {
  if (!failure_)
    failure_ = "seed " + std::to_string(options_.seed) + " at " + std::to_string(now_ / 1000) +
               " us: " + what;
}

// One leader per term (Raft 5.2), which has everything that was committed (5.4).
void World::check_leader(uint32_t n, Group* group) {
  auto [at, fresh] = leaders_.emplace(std::make_pair(group->id(), group->term()), n);
  if (!fresh && at->second != n) {
    return fail("group " + std::to_string(group->id()) + " has two leaders in term " +
                std::to_string(group->term()));
  }
  for (const auto& [index, content] : committed_[group->id()]) {
    if (index < group->first_index() || content.committed_in >= group->term()) continue;
    if (group->term_at(index) != content.term) {
      return fail("leader " + std::to_string(n) + " of group " + std::to_string(group->id()) +
                  " term " + std::to_string(group->term()) + " lacks committed entry " +
                  std::to_string(index));
    }
  }
}

// R2: votes and acknowledgements speak of what is on the disk.
void World::check_promise(uint32_t n, const Message& message) {
  const DiskReplica& disk = nodes_[n].disk[message.group];
  const Group* group = nodes_[n].host->find(message.group);
  if (message.type == MessageType::kVoteReply && !message.reject) {
    if (disk.hard.term < message.first ||
        (disk.hard.term == message.first && disk.hard.vote != message.peer)) {
      fail("store " + std::to_string(n) + " sent a vote that is not durable");
    }
  }
  if (message.type == MessageType::kAppendReply && !message.reject) {
    if (disk.last() < message.index || disk.hard.term < message.term ||
        (message.index > disk.base &&
         disk.term_at(message.index) != group->term_at(message.index))) {
      fail("store " + std::to_string(n) + " acknowledged " + std::to_string(message.index) +
           " of group " + std::to_string(message.group) + " which is not durable");
    }
    if (disk.syncing) fail("a replica that is being filled acknowledged");
    if (disk.damaged && !message.damaged)
      fail("a damaged replica acknowledged as if it were whole");
  }
}

// R9: at no time two stores hold a lease for one group, and the one that does knows every answered
// write.
void World::check_leases() {
  for (CopysetId id = 1; id <= options_.groups; ++id) {
    int holder = -1;
    for (uint32_t n = 0; n < nodes_.size(); ++n) {
      const Node& node = nodes_[n];
      Group* group = node.alive ? node.host->find(id) : nullptr;
      if (group == nullptr || group->role() != Role::kLeader || !group->lease_valid(local(node)))
        continue;
      ++leases_seen_;
      if (holder >= 0) {
        return fail("stores " + std::to_string(holder) + " and " + std::to_string(n) +
                    " both hold a lease for group " + std::to_string(id));
      }
      holder = static_cast<int>(n);
      if (group->read_index() > group->commit() || group->commit() < answered_[id]) {
        return fail("store " + std::to_string(n) + " would answer a stale read of group " +
                    std::to_string(id));
      }
    }
  }
}

void World::record_commit(uint32_t n, Group* group, Index commit, bool leader) {
  auto& committed = committed_[group->id()];
  const auto& contents = nodes_[n].replicas[group->id()].contents;
  for (Index i = group->first_index(); i <= commit; ++i) {
    auto found = committed.find(i);
    const Content& mine = contents.at(i);
    if (found == committed.end()) {
      committed[i] = mine;
      committed[i].committed_in = group->term();
    } else if (found->second.term != mine.term || found->second.value != mine.value) {
      return fail("store " + std::to_string(n) + " committed another entry " + std::to_string(i) +
                  " of group " + std::to_string(group->id()));
    }
  }
  if (leader) answered_[group->id()] = std::max(answered_[group->id()], commit);
}

// Log matching (Raft 5.3): same index and term, same entry and same entries before.
void World::check_logs() {
  for (CopysetId id = 1; id <= options_.groups; ++id) {
    std::map<std::pair<Index, Term>, std::pair<uint64_t, Term>> seen;  // -> value, term before
    for (const Node& node : nodes_) {
      auto found = node.disk.find(id);
      if (found == node.disk.end()) continue;
      const DiskReplica& disk = found->second;
      for (Index i = disk.base + 1; i <= disk.last(); ++i) {
        const Content& c = disk.log[i - disk.base - 1];
        auto [at, fresh] =
            seen.emplace(std::make_pair(i, c.term), std::make_pair(c.value, disk.term_at(i - 1)));
        if (!fresh && (at->second.first != c.value || at->second.second != disk.term_at(i - 1))) {
          return fail("logs of group " + std::to_string(id) + " differ at " + std::to_string(i));
        }
      }
    }
  }
}

// Once faults have stopped: a leader with a lease, and every member has everything.
void World::check_converged() {
  for (CopysetId id = 1; id <= options_.groups; ++id) {
    Group* leader = nullptr;
    for (Node& node : nodes_) {
      Group* group = node.host->find(id);
      if (group != nullptr && group->lease_valid(local(node))) leader = group;
    }
    if (leader == nullptr)
      return fail("group " + std::to_string(id) + " found no leader after the faults stopped");
    for (Node& node : nodes_) {
      Group* group = node.host->find(id);
      const Member* member = find_member(leader->config(), node.id);
      if (member == nullptr) continue;
      const std::string who =
          "store " + node.id.text().substr(34) + " in group " + std::to_string(id);
      if (group->commit() != leader->last_index() || group->last_index() != leader->last_index()) {
        return fail(who + " did not catch up: commit " + std::to_string(group->commit()) +
                    " last " + std::to_string(group->last_index()) + " of " +
                    std::to_string(leader->last_index()));
      }
      if (group->damaged() || group->syncing()) return fail(who + " is still damaged or syncing");
      if (!(group->config() == leader->config())) return fail(who + " has another configuration");
    }
    const StoreId preferred = leader->config().preferred;
    const bool can = is_voter(leader->config(), preferred);
    if (can && options_.prefer_after_ns != 0 && leader->leader() != preferred) {
      return fail("leadership of group " + std::to_string(id) +
                  " did not return to the preferred store");
    }
  }
}

Config World::config_at(CopysetId id, Index index, Index* at) const {
  Config config = genesis_.at(id);
  *at = 0;
  auto group = committed_.find(id);
  if (group == committed_.end()) return config;
  for (const auto& [i, content] : group->second) {
    if (i > index) break;
    if (content.type != EntryType::kConfig) continue;
    config = content.config;
    *at = i;
  }
  return config;
}

uint64_t World::committed() const {
  uint64_t total = 0;
  for (const auto& [id, index] : answered_) total += index;
  return total;
}

}  // namespace curve::raft::testing
