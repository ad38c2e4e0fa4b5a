// run_replicas(): stores with a hash chain as their state machine under the full nemesis, then
// convergence.
#include <algorithm>
#include <memory>

#include "native/base/placement.h"
#include "native/sim/hash_store.h"
#include "native/sim/nemesis.h"
#include "native/sim/network.h"
#include "native/sim/simulation.h"
#include "native/sim/trace_output.h"

namespace curve::sim {
namespace {

HashStore* running(HashCluster& cluster, size_t number) {
  Node& node = cluster.world.node(cluster.stores[number]);
  return node.state == NodeState::kUp ? static_cast<HashStore*>(node.process.get()) : nullptr;
}

void watch(HashCluster& cluster) {
  for (size_t number = 0; number < cluster.stores.size(); ++number) {
    HashStore* store = running(cluster, number);
    if (!store) continue;
    Node& node = cluster.world.node(cluster.stores[number]);
    for (const auto& [id, group] : store->replica().groups()) {
      cluster.checker.look(node.id, group->raft(), node.local(cluster.world.now_ns()));
    }
  }
  cluster.world.after(2 * kMillisecond, [&cluster] { watch(cluster); });
}

std::string describe_all(HashCluster& cluster) {
  std::string out;
  for (CopysetId id : cluster.groups) {
    for (size_t number = 0; number < cluster.stores.size(); ++number) {
      HashStore* store = running(cluster, number);
      replica::ReplicaGroup* group = store ? store->replica().find(id) : nullptr;
      out += "\n  group " + std::to_string(id & 0xffffffff) + " store " + std::to_string(number) +
             ": " + (group ? describe(group->raft()) : "not running");
    }
  }
  for (size_t number = 0; number < cluster.stores.size(); ++number) {
    if (HashStore* store = running(cluster, number))
      out += "\n  store " + std::to_string(number) + ": " + store->describe_log();
  }
  return out;
}

// Why the replicas are not equal and current yet; empty when they are.
std::string unsettled(HashCluster& cluster) {
  for (size_t at = 0; at < cluster.groups.size(); ++at) {
    const CopysetId id = cluster.groups[at];
    uint64_t hash = 0;
    Index applied = 0;
    bool first = true;
    for (size_t number = 0; number < cluster.stores.size(); ++number) {
      if (!cluster.has(at, number)) continue;
      HashStore* store = running(cluster, number);
      replica::ReplicaGroup* group = store ? store->replica().find(id) : nullptr;
      if (!group)
        return "store " + std::to_string(number) + " does not run group " + std::to_string(id);
      if (group->raft().syncing() || group->raft().damaged())
        return "store " + std::to_string(number) + " is being filled";
      if (store->applied(id) < cluster.checker.acknowledged_through(id) ||
          store->applied(id) != group->raft().last_index() ||
          (!first && (store->applied(id) != applied || store->hash(id) != hash))) {
        return "store " + std::to_string(number) + " group " + std::to_string(id) +
               " has applied " + std::to_string(store->applied(id)) + " of " +
               std::to_string(group->raft().last_index()) + ", acknowledged " +
               std::to_string(cluster.checker.acknowledged_through(id));
      }
      first = false;
      applied = store->applied(id);
      hash = store->hash(id);
    }
  }
  return {};
}

void converge(HashCluster& cluster, uint64_t limit_ns) {
  World& world = cluster.world;
  const uint64_t before = cluster.acknowledged;
  // Every group answers proposals again.
  const auto enough = [&] {
    return cluster.verdict.failed() || cluster.acknowledged > before + 20 * cluster.groups.size();
  };
  world.run_until(enough, 5 * kSecond);
  if (!cluster.verdict.failed() && cluster.acknowledged == before) {
    cluster.verdict.fail("liveness",
                         "nothing was acknowledged in 5 s without faults" + describe_all(cluster));
  }
  cluster.load = false;
  const uint64_t end = world.now_ns() + limit_ns;
  while (!cluster.verdict.failed()) {
    const std::string why = unsettled(cluster);
    if (why.empty()) return;
    if (world.now_ns() > end) return cluster.verdict.fail("liveness", why + describe_all(cluster));
    world.run_for(20 * kMillisecond);
  }
}

uint32_t leader(HashCluster& cluster, uint64_t random) {
  for (size_t i = 0; i < cluster.groups.size(); ++i) {
    const CopysetId id = cluster.groups[(random + i) % cluster.groups.size()];
    for (size_t number = 0; number < cluster.stores.size(); ++number) {
      HashStore* store = running(cluster, number);
      const replica::ReplicaGroup* group = store ? store->replica().find(id) : nullptr;
      if (group && group->is_leader()) return cluster.stores[number];
    }
  }
  return cluster.stores[random % cluster.stores.size()];
}

}  // namespace

RunResult result_of(const World& world, const Verdict& verdict) {
  RunResult result;
  result.failed = verdict.failed();
  result.failure = verdict.failure();
  result.counts = verdict.counts;
  result.trace_hash = world.trace_hash();
  result.virtual_ns = world.now_ns();
  result.events = world.events();
  return result;
}

void run_safety_phase(World& world, Verdict& verdict, const Plan& plan,
                      const std::function<uint64_t()>& operations) {
  const uint64_t limit = world.now_ns() + std::max(plan.safety_ns, 600 * kSecond);
  world.run_until([&] { return verdict.failed(); }, plan.safety_ns);
  while (!verdict.failed() && world.now_ns() < limit &&
         (operations() < plan.operations_min || verdict.counts["faults"] < plan.faults_min))
    world.run_until([&] { return verdict.failed(); }, kSecond);
}

RunResult run_replicas(const RunOptions& options) {
  Random random = Random(options.seed).split("replicas");
  const Plan plan = make_plan(options.seed, false, options.changes);
  World world(options.seed, plan.world);
  trace_to_stderr(world, options.trace);
  if (options.trace) std::fprintf(stderr, "plan: %s\n", describe(plan).c_str());
  Verdict verdict(world);
  HashCluster cluster(world, verdict, plan);
  const size_t stores = plan.stores == 3 ? 3 : 5;
  for (size_t number = 0; number < stores; ++number)
    cluster.stores.push_back(world.add_node("store" + std::to_string(number)).id);
  // On all stores, or each on three of the five: one may stand still while others go on.
  const size_t members = random.chance(0.7) ? 3 : stores;
  const bool preferred = random.chance(0.5);
  for (size_t group = 0; group < plan.groups; ++group) {
    cluster.groups.push_back(base::copyset_id(1, static_cast<uint32_t>(group + 1)));
    raft::Config& config = cluster.configs.emplace_back();
    const size_t first = random.below(stores);
    for (size_t i = 0; i < members; ++i) {
      const StoreId store = HashCluster::store_id((first + i) % stores);
      config.members[config.count++] = {store, raft::MemberRole::kVoter};
    }
    if (preferred) config.preferred = config.members[random.below(members)].store;
  }
  NemesisTargets targets;
  targets.stores = cluster.stores;
  targets.leader = [&cluster](uint64_t pick) { return leader(cluster, pick); };
  targets.followers = [&cluster](uint32_t leader) {
    std::vector<uint32_t> out;
    for (size_t at = 0; at < cluster.groups.size() && out.empty(); ++at) {
      for (size_t number = 0; number < cluster.stores.size(); ++number) {
        if (cluster.has(at, number)) out.push_back(cluster.stores[number]);
      }
      if (std::erase(out, leader) == 0) out.clear();
    }
    return out;
  };
  targets.transfer = [&cluster](uint32_t leader, uint64_t pick) {
    for (size_t number = 0; number < cluster.stores.size(); ++number) {
      HashStore* store = cluster.stores[number] == leader ? running(cluster, number) : nullptr;
      if (!store) continue;
      const StoreId to = HashCluster::store_id(pick % cluster.stores.size());
      for (const auto& [id, group] : store->replica().groups())
        (void)group->raft().transfer_to(to,
                                        cluster.world.node(leader).local(cluster.world.now_ns()));
    }
  };
  targets.leave_to = [&cluster](uint32_t leader, uint64_t until_ns) {
    for (size_t number = 0; number < cluster.stores.size(); ++number) {
      HashStore* store = cluster.stores[number] == leader ? running(cluster, number) : nullptr;
      if (!store) continue;
      for (const auto& [id, group] : store->replica().groups()) {
        if (group->is_leader()) cluster.left[id] = {number, until_ns};
      }
    }
  };
  targets.lease_ns = plan.server.raft.lease_ns;
  targets.election_ns = plan.server.raft.election_max_ns;
  targets.log_path = "/wal";
  targets.rot = [&cluster](Node& node, Random& stream) {
    const auto at = std::find(cluster.stores.begin(), cluster.stores.end(), node.id);
    const auto number = static_cast<size_t>(at - cluster.stores.begin());
    if (HashStore* store = running(cluster, number)) store->rot(stream);
  };
  Nemesis nemesis(world, verdict, plan.faults, targets, random.split("nemesis"));
  cluster.ended = [&nemesis](Node& node) { nemesis.process_ended(node); };
  for (size_t number = 0; number < stores; ++number) {
    world.start(world.node(cluster.stores[number]), [&cluster, number](io::Loop& loop) {
      return HashStore::boot(cluster, number, loop);
    });
  }
  watch(cluster);
  nemesis.start();
  run_safety_phase(world, verdict, plan, [&] { return cluster.acknowledged; });
  if (!verdict.failed()) {
    nemesis.stop();
    converge(cluster, options.liveness_ns);
  }
  world.end();
  verdict.counts["proposed"] = cluster.proposed;
  verdict.counts["acknowledged"] = cluster.acknowledged;
  return result_of(world, verdict);
}

}  // namespace curve::sim
