// The first thing that was found wrong in a run, and the counters that a run reports. Checkers
// write here; the run stops.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "native/sim/world.h"

namespace curve::sim {

class Verdict {
 public:
  explicit Verdict(World& world) : world_(world) {}
  // `checker` names the file or rule that found it.
  void fail(const std::string& checker, const std::string& what) {
    world_.trace(nullptr, "FAILED " + checker);
    if (!failed_)
      failure_ = checker + ": " + what + " (at " + std::to_string(world_.now_ns() / 1000) + " us)";
    failed_ = true;
  }
  bool failed() const { return failed_; }
  const std::string& failure() const { return failure_; }
  std::map<std::string, uint64_t> counts;  // printed, summed over seeds

 private:
  World& world_;
  bool failed_ = false;
  std::string failure_;
};

}  // namespace curve::sim
