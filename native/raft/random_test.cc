// Thousands of short lives of a few stores under faults, each from one seed, with the checkers of
// world.h. RAFT_SEEDS=n runs n seeds of each kind, RAFT_SEED=s only that one.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "native/raft/world.h"

namespace curve::raft::testing {
namespace {

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

struct Totals {
  uint64_t committed = 0, leases = 0, elections = 0, damages = 0, syncs = 0;
};

Totals run_seeds(const WorldOptions& kind, uint64_t seeds) {
  const uint64_t only = from_environment("RAFT_SEED", 0);
  seeds = from_environment("RAFT_SEEDS", seeds);
  Totals totals;
  for (uint64_t seed = only ? only : 1; seed <= (only ? only : seeds); ++seed) {
    WorldOptions options = kind;
    options.seed = seed;
    options.trace = only != 0;
    World world(options);
    const std::optional<std::string> broken = world.run();
    EXPECT_FALSE(broken.has_value()) << *broken;
    if (broken) return totals;
    totals.committed += world.committed();
    totals.leases += world.leases_seen();
    totals.elections += world.elections();
    totals.damages += world.damages();
    totals.syncs += world.syncs();
  }
  std::printf("%lu seeds: %lu committed, %lu elections, %lu damaged, %lu synced\n", seeds,
              totals.committed, totals.elections, totals.damages, totals.syncs);
  EXPECT_GT(totals.committed, 0u);
  EXPECT_GT(totals.leases, 0u);
  EXPECT_GT(totals.elections, 0u);
  return totals;
}

TEST(Random, ThreeStores) { run_seeds({}, 120); }

TEST(Random, FiveVoters) {
  WorldOptions kind;
  kind.stores = kind.voters = 5;
  run_seeds(kind, 40);
}

TEST(Random, Damage) {
  WorldOptions kind;
  kind.damage = true;
  const Totals totals = run_seeds(kind, 120);
  EXPECT_GT(totals.damages, 0u);
}

TEST(Random, Membership) {
  WorldOptions kind;
  kind.stores = 5;
  kind.membership = true;
  const Totals totals = run_seeds(kind, 60);
  EXPECT_GT(totals.syncs, 0u);
}

}  // namespace
}  // namespace curve::raft::testing
