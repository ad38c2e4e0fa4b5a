// The adversary of the machines: kills and power cuts (of one, of all at once, in the middle of
// recovery), pauses, partitions (whole, one-way, partial), connection resets, slow disks, clocks
// that change their rate. Which of them a run has, and how often, follows from the seed. stop()
// ends every fault and brings every node back. Invariant: clock rates stay within
// WorldOptions::drift_ppm_max of real time (R9's bound). Thread: the world's.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "native/sim/random.h"
#include "native/sim/verdict.h"
#include "native/sim/world.h"

namespace curve::sim {

struct NemesisOptions {
  std::vector<uint32_t> stores;  // nodes with disks
  std::vector<uint32_t> others;  // clients: cut, paused and reset, never crashed here
  uint64_t interval_ns_max = 800 * kMillisecond;
};

class Nemesis {
 public:
  Nemesis(World& world, Verdict& verdict, const NemesisOptions& options, Random random);
  void start();
  void stop();
  // Loses power and never comes back.
  void bury(Node& node);
  // The mix of this run, for the trace.
  std::string mood() const;

 private:
  enum Fault : uint8_t {
    kCrash,
    kCrashAll,
    kPause,
    kIsolate,
    kOneWay,
    kPartial,
    kSplit,
    kReset,
    kSlowDisk,
    kDrift,
    kQuiet,
    kFaults
  };
  void tick();
  void act(Fault fault);
  void crash(Node& node, CrashKind kind, uint64_t down_ns_max);
  void revive(Node& node);
  void heal_later(std::vector<std::pair<uint32_t, uint32_t>> cuts);
  uint64_t duration();
  Node& random_store() {
    return world_.node(options_.stores[random_.below(options_.stores.size())]);
  }
  uint32_t random_node();

  World& world_;
  Verdict& verdict_;
  NemesisOptions options_;
  Random random_;
  uint32_t weights_[kFaults] = {};
  uint64_t interval_ns_ = 0;
  double power_chance_ = 0.5, recovery_crash_chance_ = 0.15;
  bool running_ = false;
  std::set<const Node*> buried_;
};

}  // namespace curve::sim
