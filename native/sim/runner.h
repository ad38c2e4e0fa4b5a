// Runs seeds: one after the other or in several processes, looks for the seed that catches a
// mutant, and makes a failing run smaller. A run that stops its process (a broken invariant of the
// program) is a failing run; where that matters runs happen in a child process. Prints to stdout.
#pragma once

#include <cstdint>
#include <string>

#include "native/sim/simulation.h"

namespace curve::sim {

struct RunnerOptions {
  uint64_t start = 1, seeds = 0, jobs = 1;
  bool trace = false;
  uint64_t twice_every = 10;        // so many seeds one is run again: it must be the same run
  bool whole = true, small = true;  // which simulations
  PlanChanges changes;
};

// 0: all clean; 1: a seed failed (printed, with the command that shows it again).
int run_seeds(const RunnerOptions& options);

// Searches from `starts` different seeds on, up to options.seeds each; a seed is one run of each
// simulation chosen. Prints a row of a table: the checker that noticed it, the median of the seeds
// that were needed, and how many from each start. 0: caught, from most starts.
int hunt_mutant(const std::string& name, const RunnerOptions& options, uint64_t starts);

// The failing seed options.start with as little in its plan as still fails. 0: it fails.
int minimize(const RunnerOptions& options);

// The options of curve_sim that make these changes.
std::string text_of(const PlanChanges& changes);

}  // namespace curve::sim
