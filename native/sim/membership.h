// The part of the adversarial metaserver that moves replicas while clients run: joins, member
// changes, removals, wishes for a leader, hand-overs, limits; it sends only what the real scheduler
// may send, and sends it late, twice and to whoever led a while ago. It knows what leaders have
// reported, no more. A store may die for good. heal() is the scheduler at its best: three voters
// per copyset on stores that are alive, and nothing anywhere else. Thread: the world's.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "native/sim/random.h"
#include "native/sim/store_node.h"

namespace curve::sim {

class Membership {
 public:
  // `bury`: the node is down and stays so.
  Membership(World& world, Verdict& verdict, const MemberPlan& plan, StoreNodes& stores,
             Random random, std::function<void(Node&)> bury);
  void start();
  void heal();  // no more disorder
  bool healed(std::string* why);
  // Stores that a client should try, as a volume map would say.
  const std::vector<size_t>& route(size_t index) const { return routes_[index]; }
  std::function<void()> on_change;  // a route has changed

 private:
  static constexpr size_t kVoters = 3;
  struct Report {  // of a leader
    size_t store = 0;
    raft::Config config;
    copyset::CommittedConfig at;  // if so
    bool committed = false;
  };
  std::optional<Report> report(size_t index);
  void watch();
  void act();
  bool die();
  void disturb(size_t index, const Report& seen);
  void mend();
  void mend(size_t index);
  void change(size_t index, const Report& seen, copyset::MemberChange kind, const StoreId& store);
  void join(size_t index, size_t store);
  void remove(size_t index, size_t store, const copyset::CommittedConfig& without);
  void send(size_t store, std::function<void(copyset::StoreServer&)> order);
  bool has_replica(size_t index, size_t store);
  size_t number_of(const StoreId& store) const;
  size_t any_store() { return random_.below(stores_.count()); }

  World& world_;
  Verdict& verdict_;
  const MemberPlan& plan_;
  StoreNodes& stores_;
  Random random_;
  std::function<void(Node&)> bury_;
  bool running_ = false, healing_ = false;
  bool wants_death_ = false;
  std::string refusal_;  // of an order, the last one, for messages
  std::vector<std::vector<size_t>> routes_;
  // (copyset, store) whose removal was answered, with no order to join since: genesis, repeated at
  // every start, does not bring it back, nor does a restart (R1).
  std::set<std::pair<size_t, size_t>> removed_;
  std::map<std::pair<size_t, size_t>, uint64_t> joins_;  // orders so far
};

}  // namespace curve::sim
