// curve_sim: runs seeds of the simulation and prints what happened in them.
//
//   curve_sim --seeds N [--start S] [--jobs J] [--only replicas|spine]
//   curve_sim --seed S --trace
//   curve_sim --mutant NAME --seeds N          (builds with CURVE_MUTANTS only) until a seed
//   catches it
//
// Exit code: 0 all seeds clean, 1 a seed failed (its number is printed), 2 bad arguments. With
// --mutant: 0 when caught.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "native/base/mutant.h"
#include "native/sim/simulation.h"

namespace {

using curve::sim::RunOptions;
using curve::sim::RunResult;
using Mode = RunResult (*)(const RunOptions&);

struct Arguments {
  uint64_t start = 1, seeds = 0, jobs = 1;
  bool trace = false, twice = false;
  std::string only, mutant;
};

char crash_note[160];

// A broken invariant stops the process: say which seed did it.
void note_crash(int signal) {
  [[maybe_unused]] auto written = write(STDERR_FILENO, crash_note, strlen(crash_note));
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

struct Totals {
  std::map<std::string, uint64_t> counts;
  uint64_t runs = 0, virtual_ns = 0, events = 0;
};

bool run_one(std::string_view name, Mode mode, const RunOptions& options, bool twice,
             Totals& totals) {
  std::snprintf(crash_note, sizeof crash_note,
                "\nthe process stopped in seed %llu of %.*s; again: curve_sim --only %.*s --seed "
                "%llu --trace\n",
                static_cast<unsigned long long>(options.seed), static_cast<int>(name.size()),
                name.data(), static_cast<int>(name.size()), name.data(),
                static_cast<unsigned long long>(options.seed));
  const RunResult result = mode(options);
  ++totals.runs;
  totals.virtual_ns += result.virtual_ns;
  totals.events += result.events;
  for (const auto& [key, value] : result.counts) totals.counts[key] += value;
  if (result.failed) {
    std::printf("seed %llu of %.*s FAILED: %s\n", static_cast<unsigned long long>(options.seed),
                static_cast<int>(name.size()), name.data(), result.failure.c_str());
    return false;
  }
  if (twice && mode(options).trace_hash != result.trace_hash) {
    std::printf("seed %llu of %.*s FAILED: it is not deterministic\n",
                static_cast<unsigned long long>(options.seed), static_cast<int>(name.size()),
                name.data());
    return false;
  }
  return true;
}

void print(std::string_view name, const Totals& totals, double seconds) {
  std::printf("%.*s: %llu runs, %.0f s of virtual time, %llu events, %.1f s\n ",
              static_cast<int>(name.size()), name.data(),
              static_cast<unsigned long long>(totals.runs),
              static_cast<double>(totals.virtual_ns) / 1e9,
              static_cast<unsigned long long>(totals.events), seconds);
  for (const auto& [key, value] : totals.counts)
    std::printf(" %s %llu", key.c_str(), static_cast<unsigned long long>(value));
  std::printf("\n");
}

int run_mode(std::string_view name, Mode mode, const Arguments& arguments, uint64_t part) {
  Totals totals;
  const auto begin = std::chrono::steady_clock::now();
  auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  for (uint64_t i = part; i < arguments.seeds; i += arguments.jobs) {
    RunOptions options;
    options.seed = arguments.start + i;
    options.trace = arguments.trace;
    // Every tenth seed runs twice: the same seed must be the same run.
    const bool clean =
        run_one(name, mode, options, arguments.twice || (i % 10 == 0 && !arguments.trace), totals);
    if (!clean && !arguments.mutant.empty()) {
      std::printf("mutant %s: caught after %llu seeds, %.1f s\n", arguments.mutant.c_str(),
                  static_cast<unsigned long long>(totals.runs), seconds());
      return 0;
    }
    if (!clean) {
      print(name, totals, seconds());
      std::printf("again: curve_sim --only %.*s --seed %llu --trace\n",
                  static_cast<int>(name.size()), name.data(),
                  static_cast<unsigned long long>(options.seed));
      return 1;
    }
  }
  print(name, totals, seconds());
  if (!arguments.mutant.empty()) {
    std::printf("mutant %s: NOT caught in %llu seeds\n", arguments.mutant.c_str(),
                static_cast<unsigned long long>(totals.runs));
    return 1;
  }
  return 0;
}

int run_part(const Arguments& arguments, uint64_t part) {
  std::signal(SIGABRT, note_crash);
  std::signal(SIGSEGV, note_crash);
  // A mutant is looked for in the small simulation first, then in the whole; otherwise both have to
  // be clean.
  const bool mutant = !arguments.mutant.empty();
  int status = mutant ? 1 : 0;
  if (arguments.only != "spine")
    status = run_mode("replicas", curve::sim::run_replicas, arguments, part);
  if (arguments.only != "replicas" && (status != 0) == mutant) {
    status = run_mode("spine", curve::sim::run_spine, arguments, part);
  }
  std::fflush(stdout);
  return status;
}

int run_jobs(const Arguments& arguments) {
  if (arguments.jobs == 1) return run_part(arguments, 0);
  std::fflush(stdout);
  std::vector<pid_t> children;
  for (uint64_t part = 0; part < arguments.jobs; ++part) {
    const pid_t child = fork();
    if (child == 0) _exit(run_part(arguments, part));
    children.push_back(child);
  }
  int worst = 0;
  for (pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) worst = 1;
  }
  return worst;
}

int usage(const char* why) {
  std::fprintf(stderr,
               "curve_sim: %s\nusage: curve_sim --seeds N [--start S] [--jobs J] [--only "
               "replicas|spine] [--twice]\n"
               "       curve_sim --seed S [--trace]\n       curve_sim --mutant NAME --seeds N "
               "--only replicas|spine\n",
               why);
  return 2;
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string_view option = values[i];
    const bool has_value = i + 1 < count;
    auto number = [&] { return std::strtoull(values[++i], nullptr, 10); };
    if (option == "--trace") {
      arguments.trace = true;
    } else if (option == "--twice") {
      arguments.twice = true;
    } else if (!has_value) {
      return usage("unknown option, or a value is missing");
    } else if (option == "--seeds") {
      arguments.seeds = number();
    } else if (option == "--start") {
      arguments.start = number();
    } else if (option == "--jobs") {
      arguments.jobs = number();
    } else if (option == "--seed") {
      arguments.start = number();
      arguments.seeds = 1;
    } else if (option == "--only") {
      arguments.only = values[++i];
    } else if (option == "--mutant") {
      arguments.mutant = values[++i];
    } else {
      return usage("unknown option");
    }
  }
  if (arguments.seeds == 0 || arguments.jobs == 0) return usage("--seeds or --seed is needed");
  if (!arguments.only.empty() && arguments.only != "replicas" && arguments.only != "spine")
    return usage("--only replicas or spine");
  if (!arguments.mutant.empty()) {
#ifdef CURVE_MUTANTS
    curve::base::chosen_mutant = arguments.mutant;
#else
    return usage("this build has no mutants; see tools/sim --mutants");
#endif
  }
  return run_jobs(arguments);
}
