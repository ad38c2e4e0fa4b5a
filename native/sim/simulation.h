// One run of the whole data plane from one seed: stores, clients, director, nemesis and checkers;
// first a phase in which anything may break, then one in which nothing does and the system must
// come to rest, equal on all replicas, in stated virtual time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "native/sim/plan.h"

namespace curve::sim {

struct RunOptions {
  uint64_t seed = 1;
  uint64_t liveness_ns = 20'000'000'000;  // each step of the second phase must end within this
  bool trace = false;                     // on stderr
  PlanChanges changes;                    // to the seed's plan
};

struct RunResult {
  bool failed = false;
  std::string failure;
  std::map<std::string, uint64_t> counts;
  uint64_t trace_hash = 0, virtual_ns = 0, events = 0;
};

class Verdict;
class World;
void run_safety_phase(World& world, Verdict& verdict, const Plan& plan,
                      const std::function<uint64_t()>& operations);
RunResult result_of(const World& world, const Verdict& verdict);

// The whole chunkserver and client.
RunResult run_spine(const RunOptions& options);
// Replicas with a hash chain as their state machine (hash_store.h): consensus, WAL and wire only.
RunResult run_replicas(const RunOptions& options);

}  // namespace curve::sim
