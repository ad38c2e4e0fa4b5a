// run_spine(): chunkservers, volume clients, director and nemesis; see simulation.h.
#include <memory>

#include "native/sim/convergence.h"
#include "native/sim/director.h"
#include "native/sim/nemesis.h"
#include "native/sim/network.h"
#include "native/sim/simulation.h"
#include "native/sim/trace_output.h"

namespace curve::sim {
namespace {

// Which shape a run has follows from its seed.
ClusterShape make_shape(World& world, const Plan& plan, Random random) {
  ClusterShape shape;
  for (size_t number = 0; number < plan.stores; ++number)
    shape.stores.push_back(world.add_node("store" + std::to_string(number)).id);
  for (size_t number = 0; number < 6; ++number)
    shape.clients.push_back(world.add_node("client" + std::to_string(number)).id);
  for (size_t index = 0; index < plan.copysets; ++index) {
    std::vector<size_t> all;
    for (size_t number = 0; number < plan.stores; ++number) all.push_back(number);
    random.shuffle(all);
    all.resize(3);
    shape.copysets.push_back(std::move(all));
  }
  if (random.chance(0.3)) {
    shape.layout.stripe_unit_bytes = kBlockBytes << random.below(5);
    shape.layout.stripe_count = static_cast<uint32_t>(random.between(2, 4));
  }
  shape.volume_bytes = random.between(6, 12) * kChunkBytes;
  return shape;
}

}  // namespace

RunResult run_spine(const RunOptions& options) {
  const Random random = Random(options.seed).split("spine");
  const Plan plan = make_plan(options.seed, true, options.changes);
  World world(options.seed, plan.world);
  trace_to_stderr(world, options.trace);
  if (options.trace) std::fprintf(stderr, "plan: %s\n", describe(plan).c_str());
  Verdict verdict(world);
  const ClusterShape shape = make_shape(world, plan, random.split("shape"));
  StoreNodes stores(world, verdict, shape.stores, shape.copysets, plan, shape.secret);
  Director director(world, verdict, plan, shape, stores, random.split("director"));
  NemesisTargets targets;
  targets.stores = shape.stores;
  targets.others = shape.clients;
  targets.leader = [&stores](uint64_t pick) { return stores.leader(pick); };
  targets.followers = [&stores](uint32_t leader) { return stores.followers(leader); };
  targets.transfer = [&stores](uint32_t leader, uint64_t pick) { stores.transfer(leader, pick); };
  targets.lease_ns = plan.server.raft.lease_ns;
  targets.election_ns = plan.server.raft.election_max_ns;
  targets.log_path = "/store/wal";
  targets.rot = [&stores](Node& node, Random& stream) { stores.rot(node, stream); };
  targets.wreck = [&stores](Node& node, Random& stream) { stores.wreck(node, stream); };
  targets.filled = [&stores](uint64_t pick) { return stores.filled(pick); };
  Nemesis nemesis(world, verdict, plan.faults, targets, random.split("nemesis"));
  stores.on_ended([&nemesis](Node& node) { nemesis.process_ended(node); });
  std::unique_ptr<Membership> membership;
  if (shape.stores.size() > 3 && random.split("membership").chance(plan.members.chance)) {
    membership =
        std::make_unique<Membership>(world, verdict, plan.members, stores, random.split("members"),
                                     [&](Node& node) { nemesis.bury(node); });
    membership->on_change = [&] { director.routes_changed(); };
    director.route = [&](size_t index) -> const std::vector<size_t>& {
      return membership->route(index);
    };
  }
  stores.start_all();
  stores.watch();
  director.start();
  // The first attachment is made in peace, so that every run has something to check.
  world.run_until([&] { return verdict.failed() || director.idle(); }, 5 * kSecond);
  nemesis.start();
  if (membership) membership->start();
  run_safety_phase(world, verdict, plan, [&] { return verdict.counts["ops"]; });
  if (!verdict.failed()) {
    director.stop();
    nemesis.stop();
    Convergence(world, verdict, stores, director, options.liveness_ns, membership.get()).run();
  }
  world.end();
  return result_of(world, verdict);
}

}  // namespace curve::sim
