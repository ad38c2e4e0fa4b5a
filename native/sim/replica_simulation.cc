// run_replicas(): stores with a hash chain as their state machine under the full nemesis, then
// convergence.
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
  for (CopysetId id : cluster.groups) {
    uint64_t hash = 0;
    Index applied = 0;
    for (size_t number = 0; number < cluster.stores.size(); ++number) {
      HashStore* store = running(cluster, number);
      replica::ReplicaGroup* group = store ? store->replica().find(id) : nullptr;
      if (!group)
        return "store " + std::to_string(number) + " does not run group " + std::to_string(id);
      if (group->raft().syncing() || group->raft().damaged())
        return "store " + std::to_string(number) + " is being filled";
      if (store->applied(id) < cluster.checker.acknowledged_through(id) ||
          store->applied(id) != group->raft().last_index() ||
          (number > 0 && (store->applied(id) != applied || store->hash(id) != hash))) {
        return "store " + std::to_string(number) + " group " + std::to_string(id) +
               " has applied " + std::to_string(store->applied(id)) + " of " +
               std::to_string(group->raft().last_index()) + ", acknowledged " +
               std::to_string(cluster.checker.acknowledged_through(id));
      }
      applied = store->applied(id);
      hash = store->hash(id);
    }
  }
  return {};
}

void converge(HashCluster& cluster, uint64_t limit_ns) {
  World& world = cluster.world;
  const uint64_t before = cluster.acknowledged;
  world.run_until([&] { return cluster.verdict.failed(); }, 5 * kSecond);
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

}  // namespace

RunResult run_replicas(const RunOptions& options) {
  Random random = Random(options.seed).split("replicas");
  WorldOptions world_options;
  world_options.disk.slow_op_chance = random.chance(0.5) ? 0.001 : 0.02;
  World world(options.seed, world_options);
  trace_to_stderr(world, options.trace);
  Verdict verdict(world);
  HashCluster cluster(world, verdict);
  const size_t stores = random.chance(0.7) ? 3 : 5;
  for (size_t number = 0; number < stores; ++number) {
    cluster.stores.push_back(world.add_node("store" + std::to_string(number)).id);
    cluster.config.members[cluster.config.count++] = {HashCluster::store_id(number),
                                                      raft::MemberRole::kVoter};
  }
  if (random.chance(0.5)) cluster.config.preferred = HashCluster::store_id(random.below(stores));
  for (uint64_t group = random.between(1, 4); group > 0; --group)
    cluster.groups.push_back(base::copyset_id(1, static_cast<uint32_t>(group)));
  if (random.chance(0.3))
    cluster.payload_bytes_max = 512 * 1024;  // so much that the WAL goes round
  for (size_t number = 0; number < stores; ++number) {
    world.start(world.node(cluster.stores[number]), [&cluster, number](io::Loop& loop) {
      return HashStore::boot(cluster, number, loop);
    });
  }
  watch(cluster);
  NemesisOptions nemesis_options;
  nemesis_options.stores = cluster.stores;
  Nemesis nemesis(world, verdict, nemesis_options, random.split("nemesis"));
  if (options.trace) std::fprintf(stderr, "nemesis: %s\n", nemesis.mood().c_str());
  nemesis.start();
  world.run_until([&] { return verdict.failed(); }, options.safety_ns);
  if (!verdict.failed()) {
    nemesis.stop();
    converge(cluster, options.liveness_ns);
  }
  world.end();
  RunResult result;
  result.failed = verdict.failed();
  result.failure = verdict.failure();
  result.counts = verdict.counts;
  result.counts["proposed"] = cluster.proposed;
  result.counts["acknowledged"] = cluster.acknowledged;
  result.trace_hash = world.trace_hash();
  result.virtual_ns = world.now_ns();
  result.events = world.events();
  return result;
}

}  // namespace curve::sim
