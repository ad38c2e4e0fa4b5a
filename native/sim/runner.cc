#include "native/sim/runner.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <vector>

#include "native/base/mutant.h"

namespace curve::sim {
namespace {

struct Simulation {
  const char* name;
  RunResult (*run)(const RunOptions&);
};
constexpr Simulation kSmall{"replicas", run_replicas}, kWhole{"spine", run_spine};

std::vector<Simulation> chosen(const RunnerOptions& options) {
  std::vector<Simulation> out;
  if (options.small) out.push_back(kSmall);
  if (options.whole) out.push_back(kWhole);
  return out;
}

std::string command(const Simulation& simulation, uint64_t seed, const PlanChanges& changes) {
  return std::string("curve_sim --only ") + simulation.name + " --seed " + std::to_string(seed) +
         text_of(changes);
}

char crash_note[400];

// A broken invariant stops the process: say which seed did it.
void note_crash(int signal) {
  [[maybe_unused]] auto written = write(STDERR_FILENO, crash_note, strlen(crash_note));
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Totals {
  std::map<std::string, uint64_t> counts;
  uint64_t runs = 0, virtual_ns = 0, events = 0, least_ops = UINT64_MAX, least_faults = UINT64_MAX;
  uint64_t digest = 0;  // of all that happened: the same with every build

  void add(const RunResult& result) {
    ++runs;
    virtual_ns += result.virtual_ns;
    events += result.events;
    digest = mix64(digest ^ result.trace_hash);
    for (const auto& [key, value] : result.counts) counts[key] += value;
    auto count = [&result](const char* key) {
      const auto at = result.counts.find(key);
      return at == result.counts.end() ? 0 : at->second;
    };
    least_ops = std::min(least_ops, count("ops") + count("acknowledged"));
    least_faults = std::min(least_faults, count("faults"));
  }
};

void print(const char* name, const Totals& totals, double seconds) {
  std::printf(
      "%s: %llu runs, %.0f s of virtual time, %llu events, %.1f s; at least %llu operations and "
      "%llu faults in each; digest %016llx\n ",
      name, static_cast<unsigned long long>(totals.runs),
      static_cast<double>(totals.virtual_ns) / 1e9, static_cast<unsigned long long>(totals.events),
      seconds, static_cast<unsigned long long>(totals.runs ? totals.least_ops : 0),
      static_cast<unsigned long long>(totals.runs ? totals.least_faults : 0),
      static_cast<unsigned long long>(totals.digest));
  for (const auto& [key, value] : totals.counts)
    std::printf(" %s %llu", key.c_str(), static_cast<unsigned long long>(value));
  std::printf("\n");
}

bool run_one(const Simulation& simulation, const RunOptions& options, bool twice, Totals& totals) {
  std::snprintf(crash_note, sizeof crash_note,
                "\nthe process stopped in seed %llu of %s; again: %s\n",
                static_cast<unsigned long long>(options.seed), simulation.name,
                command(simulation, options.seed, options.changes).c_str());
  const RunResult result = simulation.run(options);
  totals.add(result);
  if (result.failed) {
    std::printf("seed %llu of %s FAILED: %s\n", static_cast<unsigned long long>(options.seed),
                simulation.name, result.failure.c_str());
    return false;
  }
  if (twice && simulation.run(options).trace_hash != result.trace_hash) {
    std::printf("seed %llu of %s FAILED: it is not deterministic\n",
                static_cast<unsigned long long>(options.seed), simulation.name);
    return false;
  }
  return true;
}

bool run_simulation(const Simulation& simulation, const RunnerOptions& runner, uint64_t part) {
  Totals totals;
  const auto begin = std::chrono::steady_clock::now();
  bool clean = true;
  for (uint64_t i = part; i < runner.seeds && clean; i += runner.jobs) {
    RunOptions options;
    options.seed = runner.start + i;
    options.trace = runner.trace;
    options.changes = runner.changes;
    const bool twice = i % runner.twice_every == 0 && !runner.trace;
    clean = run_one(simulation, options, twice, totals);
    if (!clean)
      std::printf("again: %s --trace\n",
                  command(simulation, options.seed, options.changes).c_str());
  }
  print(simulation.name, totals, seconds_since(begin));
  std::fflush(stdout);
  return clean;
}

int run_part(const RunnerOptions& options, uint64_t part) {
  std::signal(SIGABRT, note_crash);
  std::signal(SIGSEGV, note_crash);
  for (const Simulation& simulation : chosen(options)) {
    if (!run_simulation(simulation, options, part)) return 1;
  }
  return 0;
}

uint64_t mutant_reached() {
#ifdef CURVE_MUTANTS
  return base::mutant_reached;
#else
  return 0;
#endif
}

// What a child process reports, in memory that outlives it.
struct Report {
  uint64_t seeds = 0;    // begun
  uint64_t reached = 0;  // how many of them met the place of the mutant
  bool clean = false, in_whole = false;
  char failure[300] = {};
};

Report* shared_report() {
  void* memory =
      mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : new (memory) Report;
}

// Runs seeds in a child until one fails, in whatever way.
void search(const RunnerOptions& runner, uint64_t start, Report* report) {
  *report = {};
  std::fflush(stdout);
  const pid_t child = fork();
  if (child != 0) {
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) && !report->failure[0])
      std::snprintf(report->failure, sizeof report->failure,
                    "an invariant of the program stopped it");
    return;
  }
  (void)!freopen("/dev/null", "w", stderr);
  for (uint64_t i = 0; i < runner.seeds; ++i) {
    ++report->seeds;
    const uint64_t reached = mutant_reached();
    for (const Simulation& simulation : chosen(runner)) {
      report->in_whole = simulation.run == kWhole.run;
      RunOptions options;
      options.seed = start + i;
      options.changes = runner.changes;
      const RunResult result = simulation.run(options);
      if (!result.failed) continue;
      std::snprintf(report->failure, sizeof report->failure, "%s", result.failure.c_str());
      _exit(1);
    }
    report->reached += mutant_reached() != reached;
  }
  report->clean = true;
  _exit(0);
}

bool fails(const RunnerOptions& runner, const PlanChanges& changes, Report* report) {
  RunnerOptions one = runner;
  one.seeds = 1;
  one.changes = changes;
  search(one, runner.start, report);
  return !report->clean;
}

}  // namespace

int run_seeds(const RunnerOptions& options) {
  if (options.jobs == 1) return run_part(options, 0);
  std::fflush(stdout);
  std::vector<pid_t> children;
  for (uint64_t part = 0; part < options.jobs; ++part) {
    const pid_t child = fork();
    if (child == 0) _exit(run_part(options, part));
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

int hunt_mutant(const std::string& name, const RunnerOptions& options, uint64_t starts) {
  Report* report = shared_report();
  if (!report) return 2;
  std::vector<uint64_t> needed;
  uint64_t missed = 0, reached = 0;
  std::string how, where;
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < starts; ++i) {
    search(options, options.start + i * 100'000, report);
    missed += report->clean;
    reached += report->reached;
    needed.push_back(report->clean ? options.seeds + 1 : report->seeds);
    if (!report->clean && how.empty()) {
      where = report->in_whole ? "spine" : "replicas";
      how = report->failure;
    }
    if (missed > starts / 2) break;  // the median is known
  }
  std::sort(needed.begin(), needed.end());
  const uint64_t median = needed[needed.size() / 2];
  const bool caught = missed <= starts / 2 && median <= options.seeds;
  std::string seeds;
  for (uint64_t each : needed)
    seeds += (seeds.empty() ? "" : ", ") +
             (each > options.seeds ? "> " + std::to_string(options.seeds) : std::to_string(each));
  if (!options.changes.theme.empty()) where += " " + options.changes.theme;
  std::printf("| %s | %s | %s | %s |\n", name.c_str(),
              caught ? (where + ": " + how.substr(0, how.find(':'))).c_str() : "**missed**",
              caught ? std::to_string(median).c_str() : "", seeds.c_str());
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %.0f s, %llu clean seeds met its place; %s\n", name.c_str(),
               seconds_since(begin), static_cast<unsigned long long>(reached), how.c_str());
  return caught ? 0 : 1;
}

std::string text_of(const PlanChanges& changes) {
  std::string out;
  if (!changes.theme.empty()) out += " --theme " + changes.theme;
  for (Fault fault : changes.without) out += " --without " + std::string(fault_name(fault));
  if (changes.no_transfers) out += " --without transfers";
  if (changes.no_fences) out += " --without fences";
  if (changes.longer) out += " --long";
  if (changes.safety_ns) out += " --safety-ms " + std::to_string(changes.safety_ns / kMillisecond);
  if (changes.clients) out += " --clients " + std::to_string(changes.clients);
  if (changes.volumes) out += " --volumes " + std::to_string(changes.volumes);
  if (changes.depth) out += " --depth " + std::to_string(changes.depth);
  return out;
}

// Takes one thing after the other out of the plan and keeps it out while the run still fails.
int minimize(const RunnerOptions& options) {
  Report* report = shared_report();
  if (!report) return 2;
  const Simulation simulation = options.whole && !options.small ? kWhole : kSmall;
  PlanChanges changes = options.changes;
  if (!fails(options, changes, report)) {
    std::printf("seed %llu of %s does not fail\n", static_cast<unsigned long long>(options.start),
                simulation.name);
    return 1;
  }
  std::printf("it fails: %s\n", report->failure);
  auto without = [&](auto change, const char* what) {
    PlanChanges smaller = changes;
    change(smaller);
    const bool still = fails(options, smaller, report);
    if (still) changes = smaller;
    std::printf("  %s %s\n", still ? "without" : "needs", what);
    std::fflush(stdout);
    return still;
  };
  const Plan plan = make_plan(options.start, simulation.run == kWhole.run, changes);
  uint64_t safety_ns = plan.safety_ns;
  while (safety_ns > 250 * kMillisecond &&
         without([&](PlanChanges& c) { c.safety_ns = safety_ns / 2; }, "half of the time"))
    safety_ns /= 2;
  for (size_t i = 0; i < kFaults; ++i) {
    if (!plan.faults.weight[i]) continue;
    const auto fault = static_cast<Fault>(i);
    without([&](PlanChanges& c) { c.without.push_back(fault); }, fault_name(fault).data());
  }
  if (simulation.run == kWhole.run) {
    without([](PlanChanges& c) { c.no_fences = true; }, "fences");
    without([](PlanChanges& c) { c.volumes = 1; }, "a second volume");
    for (uint32_t clients : {3u, 2u, 1u}) {
      if (!without([&](PlanChanges& c) { c.clients = clients; }, "so many clients")) break;
    }
    for (uint32_t depth : {4u, 2u, 1u}) {
      if (!without([&](PlanChanges& c) { c.depth = depth; }, "so many requests at once")) break;
    }
  }
  without([](PlanChanges& c) { c.no_transfers = true; }, "transfers");
  (void)fails(options, changes, report);
  std::printf("%s\nagain: %s --trace\n", report->failure,
              command(simulation, options.start, changes).c_str());
  return 0;
}

}  // namespace curve::sim
