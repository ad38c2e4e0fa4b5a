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
ClusterShape make_shape(World& world, Random random) {
  ClusterShape shape;
  const size_t stores = random.chance(0.6) ? 3 : random.between(4, 5);
  for (size_t number = 0; number < stores; ++number)
    shape.stores.push_back(world.add_node("store" + std::to_string(number)).id);
  for (size_t number = 0; number < 6; ++number)
    shape.clients.push_back(world.add_node("client" + std::to_string(number)).id);
  const size_t copysets = random.chance(0.5) ? 4 : 8;
  for (size_t index = 0; index < copysets; ++index) {
    std::vector<size_t> all;
    for (size_t number = 0; number < stores; ++number) all.push_back(number);
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

StoreOptions make_store_options(Random random) {
  StoreOptions options;
  if (random.chance(0.7)) {  // small, so that it goes round and followers that were away need sync
    options.wal_segment_bytes = 4ull << 20;
    options.wal_bytes = random.between(11, 16) * options.wal_segment_bytes + (1u << 20);
  }
  options.server.checkpoint_interval_ns = random.between(200, 4000) * kMillisecond;
  options.server.wal.inflight_appends_max = static_cast<uint32_t>(random.between(1, 4));
  options.server.raft.prefer_after_ns =
      random.chance(0.5) ? 0 : random.between(500, 3000) * kMillisecond;
  options.server.background_blocks_max = static_cast<uint32_t>(random.between(1, 32));
  if (random.chance(0.4)) {  // writes wait for room in the log, and sometimes too many of them
    options.server.raft.inflight_bytes_max = random.between(4, 64) << 10;
    options.server.waiting_requests_max = static_cast<uint32_t>(random.between(1, 64));
  }
  if (random.chance(0.25)) {  // full disks (R8): alike, or one sooner than the other
    options.data_bytes = 16ull << 20;
    options.reserve_percent_step = static_cast<uint32_t>(random.below(5));
    options.reserve_percent = 50 - 4 * options.reserve_percent_step;
  }
  return options;
}

}  // namespace

RunResult run_spine(const RunOptions& options) {
  const Random random = Random(options.seed).split("spine");
  WorldOptions world_options;
  world_options.disk.slow_op_chance = random.split("disk").chance(0.5) ? 0.001 : 0.02;
  World world(options.seed, world_options);
  trace_to_stderr(world, options.trace);
  Verdict verdict(world);
  const ClusterShape shape = make_shape(world, random.split("shape"));
  StoreNodes stores(world, verdict, shape.stores, shape.copysets,
                    make_store_options(random.split("options")), shape.secret);
  Director director(world, verdict, shape, stores, random.split("director"));
  NemesisOptions nemesis_options;
  nemesis_options.stores = shape.stores;
  nemesis_options.others = shape.clients;
  Nemesis nemesis(world, verdict, nemesis_options, random.split("nemesis"));
  if (options.trace) std::fprintf(stderr, "nemesis: %s\n", nemesis.mood().c_str());
  std::unique_ptr<Membership> membership;
  if (shape.stores.size() > 3 && random.split("membership").chance(0.8)) {
    membership = std::make_unique<Membership>(world, verdict, stores, random.split("members"),
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
  world.run_until([&] { return verdict.failed(); }, options.safety_ns);
  if (!verdict.failed()) {
    director.stop();
    nemesis.stop();
    Convergence(world, verdict, stores, director, options.liveness_ns, membership.get()).run();
  }
  world.end();
  RunResult result;
  result.failed = verdict.failed();
  result.failure = verdict.failure();
  result.counts = verdict.counts;
  result.trace_hash = world.trace_hash();
  result.virtual_ns = world.now_ns();
  result.events = world.events();
  return result;
}

}  // namespace curve::sim
