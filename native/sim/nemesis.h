// The adversary of the machines: kills and power cuts (of one, of all at once, in the middle of
// recovery), pauses, partitions (whole, one-way, partial), connections that break or stand still,
// slow and failing disks, damage at rest, clocks that change their rate. How much of what a run has
// is in its plan. stop() ends every fault and brings every node back.
//
// Invariants (docs/simulation.md, "Fault model"): clock rates stay within
// WorldOptions::drift_ppm_max of real time (R9's bound); data at rest is damaged on one store of a
// run only. Thread: the world's.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "native/sim/plan.h"
#include "native/sim/random.h"
#include "native/sim/verdict.h"
#include "native/sim/world.h"

namespace curve::sim {

struct NemesisTargets {
  std::vector<uint32_t> stores;  // nodes with disks
  std::vector<uint32_t> others;  // clients: cut, paused and reset, never crashed here
  // A node that leads something now; the random number chooses among them. Stores' first if nobody.
  std::function<uint32_t(uint64_t random)> leader;
  // Whom it leads with, besides, and a command that moves its leadership.
  std::function<std::vector<uint32_t>(uint32_t leader)> followers;
  std::function<void(uint32_t leader, uint64_t random)> transfer;
  // Until then nobody else proposes where the node leads now; null: others decide that.
  std::function<void(uint32_t leader, uint64_t until_ns)> leave_to;
  uint64_t lease_ns = 0, election_ns = 0;  // of the stores
  // Damages something at rest on the node, chosen by the random stream; or what it cannot start
  // without.
  std::function<void(Node&node, Random&random)> rot, wreck;
  std::string log_path;  // the WAL on a node's disk
  // A node that is being filled by its leader (R10); null: none, or nobody knows.
  std::function<Node*(uint64_t random)> filled;
};

class Nemesis {
 public:
  Nemesis(World& world, Verdict& verdict, const FaultPlan& plan, const NemesisTargets& targets,
          Random random);
  void start();
  void stop();
  // Loses power and never comes back.
  void bury(Node& chosen);
  // A store's process has ended by itself because its disk failed: it is started again later.
  void process_ended(Node& node);

 private:
  void tick();
  void act(Fault fault);
  void crash(Node& node, CrashKind kind, uint64_t down_ns_max);
  void revive(Node& node);
  void revive_later(Node& node, uint64_t delay_ns);
  void pause();
  void cut(Fault fault);
  void stall();
  // attacks.cc
  void attack();
  void attack_by_reset(uint32_t leader);
  void attack_by_transfer(uint32_t leader);
  void attack_by_pause(uint32_t leader);
  void attack_by_restart(uint32_t leader, uint32_t voter, uint32_t other);
  void attack_by_forgotten_vote(uint32_t voter, uint32_t a, uint32_t b);
  bool attack_by_interrupting();
  void attack_by_late_requests(uint32_t leader, const std::vector<uint32_t>& followers);
  void attack_by_starving(uint32_t leader, const std::vector<uint32_t>& followers);
  bool attack_by_damage(uint32_t leader, const std::vector<uint32_t>& followers);
  void isolate_from_stores(uint32_t node, uint64_t for_ns);
  void cut_pair(uint32_t a, uint32_t b, uint64_t for_ns);
  void io_errors();
  void lost_writes();
  void rot();
  void heal_later(std::vector<std::pair<uint32_t, uint32_t>> cuts);
  uint64_t duration();
  Node& random_store();
  uint32_t random_node();

  World& world_;
  Verdict& verdict_;
  const FaultPlan& plan_;
  NemesisTargets targets_;
  Random random_;
  uint32_t unlucky_ = 0;  // the store whose disk forgets and changes what it holds
  bool running_ = false;
  std::set<const Node*> buried_;
};

}  // namespace curve::sim
