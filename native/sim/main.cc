// curve_sim: the simulation's command line. tools/sim builds and starts it.
//
//   curve_sim --seeds N [--start S] [--jobs J] [--long] [--only replicas|spine]
//   curve_sim --seed S [--trace] [--without FAULT] [--safety-ms N] [--clients N] ...
//   curve_sim --minimize S --only replicas|spine
//   curve_sim --mutant NAME --seeds N [--starts K]     (builds with CURVE_MUTANTS only)
//
// Exit code: 0 all seeds clean, 1 a seed failed (its number is printed), 2 bad arguments. With
// --mutant: 0 when caught; with --minimize: 0 when the seed fails.
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "native/base/mutant.h"
#include "native/sim/runner.h"

namespace {

using curve::sim::RunnerOptions;

struct Arguments {
  RunnerOptions runner;
  uint64_t starts = 3;
  bool minimize = false;
  std::string mutant;
};

int usage(const std::string& why) {
  std::fprintf(
      stderr,
      "curve_sim: %s\n"
      "usage: curve_sim --seeds N [--start S] [--jobs J] [--long] [--twice-every N] [--theme T] "
      "[--only replicas|spine]\n"
      "       curve_sim --seed S [--trace] [--without FAULT|transfers|fences]... "
      "[--safety-ms N] [--clients N] [--volumes N] [--depth N]\n"
      "       curve_sim --minimize S --only replicas|spine\n"
      "       curve_sim --mutant NAME --seeds N [--starts K]\n",
      why.c_str());
  return 2;
}

// An option with a value. False: unknown, or the value makes no sense.
bool take_value(Arguments& arguments, std::string_view option, const char* value) {
  RunnerOptions& runner = arguments.runner;
  const uint64_t number = std::strtoull(value, nullptr, 10);
  const std::string_view text = value;
  if (option == "--seeds") {
    runner.seeds = number;
  } else if (option == "--start") {
    runner.start = number;
  } else if (option == "--jobs") {
    runner.jobs = number;
  } else if (option == "--twice-every") {
    runner.twice_every = number;
    return number != 0;
  } else if (option == "--seed" || option == "--minimize") {
    runner.start = number;
    runner.seeds = 1;
    arguments.minimize = option == "--minimize";
  } else if (option == "--only") {
    runner.whole = text == "spine";
    runner.small = text == "replicas";
    return runner.whole || runner.small;
  } else if (option == "--mutant") {
    arguments.mutant = text;
  } else if (option == "--starts") {
    arguments.starts = number;
    return number != 0;
  } else if (option == "--theme") {
    runner.changes.theme = text;
  } else if (option == "--safety-ms") {
    runner.changes.safety_ns = number * curve::sim::kMillisecond;
  } else if (option == "--clients") {
    runner.changes.clients = static_cast<uint32_t>(number);
  } else if (option == "--volumes") {
    runner.changes.volumes = static_cast<uint32_t>(number);
  } else if (option == "--depth") {
    runner.changes.depth = static_cast<uint32_t>(number);
  } else if (option == "--without" && text == "transfers") {
    runner.changes.no_transfers = true;
  } else if (option == "--without" && text == "fences") {
    runner.changes.no_fences = true;
  } else if (option == "--without") {
    const auto fault = curve::sim::find_fault(text);
    if (!fault) return false;
    runner.changes.without.push_back(*fault);
  } else {
    return false;
  }
  return true;
}

}  // namespace

int main(int count, char** values) {
  // Memory goes back and forth between runs: not to the kernel each time.
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  Arguments arguments;
  RunnerOptions& runner = arguments.runner;
  for (int i = 1; i < count; ++i) {
    const std::string_view option = values[i];
    if (option == "--trace") {
      runner.trace = true;
    } else if (option == "--long") {
      runner.changes.longer = true;
    } else if (i + 1 == count || !take_value(arguments, option, values[i + 1])) {
      return usage("what about " + std::string(option) + "?");
    } else {
      ++i;
    }
  }
  if (runner.seeds == 0 || runner.jobs == 0) return usage("--seeds or --seed is needed");
  if (arguments.minimize && runner.whole && runner.small) return usage("--only replicas or spine");
  if (arguments.mutant.empty())
    return arguments.minimize ? curve::sim::minimize(runner) : curve::sim::run_seeds(runner);
#ifdef CURVE_MUTANTS
  curve::base::chosen_mutant = arguments.mutant;
  if (runner.trace || arguments.minimize)
    return arguments.minimize ? curve::sim::minimize(runner) : curve::sim::run_seeds(runner);
  return curve::sim::hunt_mutant(arguments.mutant, runner, arguments.starts);
#else
  return usage("this build has no mutants; see tools/sim --mutants");
#endif
}
