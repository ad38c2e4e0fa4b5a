// The second phase: all faults have ended. Checks that everything pending is answered, that every
// replica of every copyset comes to the same state, and that what is there is what the checkers of
// content and registers allow. Thread: the world's.
#pragma once

#include "native/sim/director.h"
#include "native/sim/membership.h"
#include "native/sim/simulation.h"
#include "native/sim/store_node.h"
#include "native/sim/verdict.h"

namespace curve::sim {

class Convergence {
 public:
  Convergence(World& world, Verdict& verdict, StoreNodes& stores, Director& director,
              uint64_t limit_ns, Membership* membership)
      : world_(world),
        verdict_(verdict),
        stores_(stores),
        director_(director),
        limit_ns_(limit_ns),
        membership_(membership) {}
  void run();

 private:
  bool wait(const std::string& what, const std::function<bool()>& done,
            const std::function<std::string()>& state);
  std::string describe_copysets();
  void mend();
  void drain();
  void read_all();
  void settle();
  void repair();
  void checkpoint_all();
  bool quiet(std::string* why);
  bool lags(size_t number);
  uint64_t blocks_free(size_t number);
  bool needs_more_than_it_has(size_t number);
  void make_space();

  World& world_;
  Verdict& verdict_;
  StoreNodes& stores_;
  Director& director_;
  uint64_t limit_ns_;
  Membership* membership_;  // null: the members are those of genesis
};

}  // namespace curve::sim
