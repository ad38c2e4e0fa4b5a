// Deliberate bugs, to prove that the simulation's checkers see them. `if (CURVE_MUTANT(name)) ...`,
// name a string literal, is a constant false unless the build has -DCURVE_MUTANTS=ON (tools/sim
// --mutants makes such a build in a directory of its own); there one mutant at a time is chosen by
// name, in any program by the environment variable CURVE_MUTANT. A mutant's name starts with the
// rule that it breaks; where each is noticed is said in native/sim/mutants.txt. Invariant: no
// production or normal simulation build contains any of this. One thread.
#pragma once

#ifdef CURVE_MUTANTS

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace curve::base {

inline std::string chosen_mutant = [] {  // empty: none
  const char* name = std::getenv("CURVE_MUTANT");
  return std::string(name ? name : "");
}();
inline uint64_t mutant_reached = 0;  // how often the chosen one was asked for

inline bool mutant_chosen(std::string_view name) {
  if (chosen_mutant != name) return false;
  ++mutant_reached;
  return true;
}

}  // namespace curve::base

#define CURVE_MUTANT(name) (::curve::base::mutant_chosen(name))

#else

#define CURVE_MUTANT(name) (false)

#endif
