#include "native/sim/plan.h"

#include <algorithm>

namespace curve::sim {
namespace {

constexpr std::array<std::string_view, kFaults> kNames = {
    "crash", "crash-all", "pause",      "isolate", "one-way",  "partial", "split",      "reset",
    "stall", "slow-disk", "slow-disks", "drift",   "io-error", "bit-rot", "lost-write", "attack"};

//                                                 crash all pause iso one part split reset stall
//                                                 slow slows drift io rot lost
constexpr std::array<uint32_t, kFaults> kMixed = {10, 2, 4, 3, 3, 3, 2, 3, 2, 3, 1, 1, 2, 1, 1, 1};
constexpr std::array<uint32_t, kFaults> kLeases = {3, 1, 12, 8, 6, 3, 2, 5,
                                                   2, 3, 0,  3, 0, 0, 0, 20};
constexpr std::array<uint32_t, kFaults> kFencing = {4, 1, 3,  1, 2, 2, 0, 2,
                                                    4, 2, 12, 1, 1, 0, 0, 1};
constexpr std::array<uint32_t, kFaults> kRetries = {3,  0, 6, 2, 2, 2, 1, 6,
                                                    16, 2, 1, 0, 0, 0, 0, 12};
constexpr std::array<uint32_t, kFaults> kLog = {14, 6, 2, 3, 1, 3, 2, 1, 1, 2, 1, 0, 2, 0, 0, 6};
constexpr std::array<uint32_t, kFaults> kSync = {14, 2, 4, 6, 1, 3, 1, 1, 1, 2, 0, 0, 1, 0, 0, 8};
constexpr std::array<uint32_t, kFaults> kMembers = {20, 2, 3, 2, 1, 2, 1, 2,
                                                    1,  1, 0, 0, 0, 0, 0, 4};
constexpr std::array<uint32_t, kFaults> kDisk = {8, 3, 2, 2, 1, 1, 1, 1, 1, 2, 1, 0, 6, 6, 6, 5};

// All that happens, happens to few copysets.
void few_copysets(Plan& plan, Random& random) {
  plan.copysets = random.chance(0.5) ? 1 : 2;
  plan.groups = random.between(1, 2);
  plan.stores = random.chance(0.8) ? 3 : 4;
}

void short_clocks(Plan& plan, Random& random) {
  plan.server.raft.lease_ns = random.between(100, 300) * kMillisecond;
  plan.server.raft.beat_interval_ns = plan.server.raft.lease_ns / 6;
  plan.server.raft.election_min_ns = random.between(1, 20) * kMillisecond;
  plan.server.raft.election_max_ns =
      plan.server.raft.election_min_ns + random.between(5, 60) * kMillisecond;
}

void mixed(Plan& plan, Random& random) {
  plan.faults.weight = kMixed;
  // Some runs know few kinds of faults, so that each of them also meets an otherwise busy system.
  if (random.chance(0.4)) {
    for (uint32_t& weight : plan.faults.weight) weight = random.chance(0.6) ? 0 : weight;
  }
  plan.faults.interval_ns = random.between(100, 800) * kMillisecond;
  plan.faults.leader_chance = random.chance(0.5) ? 0.5 : 0;
  plan.director.volumes = random.chance(0.4) ? 2 : 1;
  plan.load.heavy = random.chance(0.25);
  plan.load.think_ns_max = random.between(1, 20) * kMillisecond;
}

void leases(Plan& plan, Random& random) {
  plan.faults.weight = kLeases;
  few_copysets(plan, random);
  plan.faults.interval_ns = random.between(50, 300) * kMillisecond;
  plan.faults.leader_chance = 0.8;
  plan.faults.straddle_leases = true;
  plan.faults.down_ns_max = 500 * kMillisecond;
  short_clocks(plan, random);
  plan.world.network.slow_segment_chance = random.chance(0.5) ? 0 : 0.02;
  if (random.chance(0.4)) {  // beats are on their way for a good part of the time
    plan.world.network.delay_ns_min = kMillisecond;
    plan.world.network.delay_ns_max = random.between(3, 12) * kMillisecond;
  }
  if (random.chance(0.5)) plan.world.disk.read_ns_max = 20 * kMillisecond;
  if (random.chance(0.5)) plan.world.disk.write_ns_max = 20 * kMillisecond;
  plan.world.disk.slow_op_chance = random.chance(0.5) ? 0.001 : 0.1;
  plan.director.interval_ns_max = random.between(100, 1000) * kMillisecond;
  plan.director.transfer = 60;
  plan.director.shared = 40;  // two clients, of which one knows of a new leader before the other
  plan.director.exclusive = plan.director.detach = 4;
  plan.director.remove = 0;
  plan.load.hot_units = 32;
  plan.load.think_ns_max = random.between(1, 5) * kMillisecond;
  plan.client.request_timeout_ns = 0;  // each client its own
}

void fencing(Plan& plan, Random& random) {
  plan.faults.weight = kFencing;
  few_copysets(plan, random);
  plan.faults.interval_ns = random.between(100, 400) * kMillisecond;
  plan.faults.leader_chance = 0.5;
  plan.director.interval_ns_max = random.between(50, 600) * kMillisecond;
  plan.director.exclusive = 70;
  plan.director.remove = 2;
  plan.director.kill_old_chance = 0.1;
  plan.load.hot_units = 32;
  plan.load.think_ns_max = random.between(0, 3) * kMillisecond;
  plan.world.disk.write_ns_max = random.between(1, 30) * kMillisecond;
}

void retries(Plan& plan, Random& random) {
  plan.faults.weight = kRetries;
  few_copysets(plan, random);
  plan.faults.interval_ns = random.between(30, 200) * kMillisecond;
  plan.faults.leader_chance = 0.7;
  plan.faults.straddle_leases = random.chance(0.5);
  plan.faults.late_requests = true;
  if (random.chance(0.5)) short_clocks(plan, random);
  plan.director.interval_ns_max = random.between(50, 500) * kMillisecond;
  plan.director.transfer = 100;
  plan.director.exclusive = plan.director.shared = plan.director.detach = 5;
  plan.director.remove = 0;
  plan.load.hot_units = 16;
  if (random.chance(0.4)) plan.server.raft.inflight_bytes_max = random.between(4, 16) << 10;
  plan.load.think_ns_max = random.between(1, 4) * kMillisecond;
}

void log(Plan& plan, Random& random) {
  plan.faults.weight = kLog;
  plan.faults.interval_ns = random.between(100, 600) * kMillisecond;
  plan.faults.power_chance = random.chance(0.7) ? 1.0 : 0.5;
  plan.faults.down_ns_max = random.between(1, 5) * kSecond;
  plan.faults.leader_chance = 0.4;
  plan.wal_segment_bytes = 4ull << 20;
  plan.wal_bytes = 11 * plan.wal_segment_bytes + (1u << 20);
  plan.payload_bytes_max = 512 * 1024;
  plan.server.checkpoint_interval_ns = random.between(50, 400) * kMillisecond;
  plan.world.disk.write_ns_max = random.chance(0.5) ? 400 * kMicrosecond : 10 * kMillisecond;
  plan.load.heavy = true;
  plan.load.think_ns_max = random.between(0, 6) * kMillisecond;
}

// Stores are away for long while the log goes on: whoever comes back is filled (R10).
void sync(Plan& plan, Random& random) {
  plan.faults.weight = kSync;
  plan.faults.overtake = true;
  plan.faults.interval_ns = random.between(200, 700) * kMillisecond;
  plan.faults.power_chance = 0.6;
  plan.faults.down_ns_max = random.between(2, 5) * kSecond;
  plan.wal_segment_bytes = 4ull << 20;
  plan.wal_bytes = random.between(9, 12) * plan.wal_segment_bytes + (1u << 20);
  plan.server.checkpoint_interval_ns = random.between(30, 200) * kMillisecond;
  // In small pieces, so that filling is interrupted in the middle of a page.
  if (random.chance(0.7)) plan.server.sync_bytes_inflight_max = kBlockBytes << random.below(5);
  if (random.chance(0.5)) plan.stores = random.between(4, 5);
  if (random.chance(0.5)) plan.copysets = random.between(1, 2);
  plan.members.chance = random.chance(0.5) ? 0.2 : 1;
  plan.members.death_chance = 0.7;
  plan.director.interval_ns_max = random.between(100, 800) * kMillisecond;
  plan.director.transfer = 50;
  plan.director.volumes = 2;
  plan.load.heavy = true;
  plan.load.think_ns_max = random.between(1, 4) * kMillisecond;
  plan.safety_ns = 8 * kSecond;
}

// Replicas come and go all the time, and whoever is to come or go is started again (R1).
void members(Plan& plan, Random& random) {
  plan.faults.weight = kMembers;
  plan.faults.interval_ns = random.between(100, 500) * kMillisecond;
  plan.faults.down_ns_max = 300 * kMillisecond;
  plan.stores = random.between(4, 5);
  plan.copysets = random.between(1, 2);
  plan.members.chance = 1;
  plan.members.interval_ns_max = random.between(20, 100) * kMillisecond;
  plan.members.late_chance = random.chance(0.5) ? 0.1 : 0.4;
  plan.members.again_chance = 0.3;
  plan.members.death_chance = 0.2;
  plan.server.checkpoint_interval_ns = random.between(50, 1000) * kMillisecond;
  plan.director.interval_ns_max = random.between(500, 2000) * kMillisecond;
  plan.load.think_ns_max = random.between(2, 20) * kMillisecond;
  if (random.chance(0.5)) {  // the log goes round: a new replica is filled, not told everything
    plan.wal_segment_bytes = 4ull << 20;
    plan.wal_bytes = 9 * plan.wal_segment_bytes + (1u << 20);
    plan.server.checkpoint_interval_ns = random.between(30, 200) * kMillisecond;
    plan.load.heavy = true;
    plan.load.think_ns_max = random.between(1, 4) * kMillisecond;
  }
}

void space(Plan& plan, Random& random) {
  plan.faults.weight = kMixed;
  plan.faults.interval_ns = random.between(200, 800) * kMillisecond;
  plan.data_bytes = 16ull << 20;  // full soon: all alike, or one sooner than the other (R8)
  plan.reserve_percent_step = static_cast<uint32_t>(random.below(5));
  plan.reserve_percent = 50 - 4 * plan.reserve_percent_step;  // for what moves to them
  if (random.chance(0.5)) {  // the followers are full, and the leader does not see it at home
    plan.stores = 3;
    plan.reserve_percent = static_cast<uint32_t>(random.between(1, 10));
    plan.reserve_percent_step = 0;
    plan.data_bytes_more = random.between(1, 16) << 20;
    plan.faults.interval_ns = random.between(400, 1600) * kMillisecond;
  }
  plan.server.checkpoint_interval_ns = random.between(50, 800) * kMillisecond;
  plan.load.heavy = true;
  plan.load.zeroes_percent = 30;
  plan.director.interval_ns_max = random.between(500, 2000) * kMillisecond;
  plan.director.remove = 15;
  plan.director.volumes = 2;
}

void disk(Plan& plan, Random& random) {
  plan.faults.weight = kDisk;
  plan.payload_bytes_max = 16 * 1024;
  plan.faults.interval_ns = random.between(100, 500) * kMillisecond;
  plan.faults.power_chance = 0.8;
  plan.faults.down_ns_max = kSecond;
  plan.wal_segment_bytes = 4ull << 20;
  plan.wal_bytes = random.between(9, 12) * plan.wal_segment_bytes + (1u << 20);
  plan.server.wal.inflight_appends_max = static_cast<uint32_t>(random.between(1, 2));
  plan.server.checkpoint_interval_ns = random.between(50, 800) * kMillisecond;
  if (random.chance(0.5)) {  // what nobody reads is found, too
    plan.server.scrub_bytes_per_second = random.between(4, 64) << 20;
    plan.server.scrub_interval_ns = random.between(200, 2000) * kMillisecond;
  }
  plan.load.heavy = random.chance(0.5);
  plan.load.think_ns_max = random.between(1, 10) * kMillisecond;
}

struct Theme {
  std::string_view name;
  uint32_t weight, weight_small;  // in the whole and in the small simulation
  void (*apply)(Plan&, Random&);
};
constexpr Theme kThemes[] = {
    {"mixed", 18, 12, mixed},    {"sync", 12, 14, sync},      {"leases", 22, 40, leases},
    {"fencing", 10, 0, fencing}, {"retries", 16, 0, retries}, {"log", 8, 8, log},
    {"space", 10, 0, space},     {"disk", 14, 26, disk},      {"members", 10, 0, members}};

const Theme& theme_of(Random& random, bool whole, std::string_view wanted) {
  uint32_t total = 0;
  for (const Theme& theme : kThemes) {
    if (theme.name == wanted) return theme;
    total += whole ? theme.weight : theme.weight_small;
  }
  uint64_t pick = random.below(total);
  for (const Theme& theme : kThemes) {
    const uint32_t weight = whole ? theme.weight : theme.weight_small;
    if (pick < weight) return theme;
    pick -= weight;
  }
  return kThemes[0];
}

// Of 5,000 operations one sees some dozen faults: more of both would be what further seeds are for.
// Bytes are what a run costs.
void make_longer(Plan& plan) {
  plan.operations_min = 5000;
  plan.faults_min = 10;
  plan.load.think_ns_max = std::min(plan.load.think_ns_max, 2 * kMillisecond);
  plan.load.depth_min = 8;
  plan.load.depth_max = 24;
  plan.load.large_percent = 2;
  plan.load.large_percent_heavy = 6;
  if (!plan.faults.straddle_leases)
    plan.faults.interval_ns = std::max(plan.faults.interval_ns, 250 * kMillisecond);
  plan.faults.down_ns_max = std::min(plan.faults.down_ns_max, 2 * kSecond);
}

void change(Plan& plan, const PlanChanges& changes) {
  for (Fault fault : changes.without) plan.faults.weight[static_cast<size_t>(fault)] = 0;
  if (changes.longer) make_longer(plan);
  if (changes.safety_ns) plan.safety_ns = changes.safety_ns;
  if (changes.clients) plan.director.clients = std::min(plan.director.clients, changes.clients);
  if (changes.volumes) plan.director.volumes = std::min(plan.director.volumes, changes.volumes);
  if (changes.depth) plan.load.depth_max = std::min(plan.load.depth_max, changes.depth);
  plan.load.depth_min = std::min(plan.load.depth_min, plan.load.depth_max);
  if (changes.no_transfers) plan.director.transfer = 0;
  if (changes.no_fences)
    plan.director.exclusive = plan.director.shared = plan.director.detach = plan.director.remove =
        0;
}

}  // namespace

std::string_view fault_name(Fault fault) { return kNames[static_cast<size_t>(fault)]; }

std::optional<Fault> find_fault(std::string_view name) {
  for (size_t i = 0; i < kFaults; ++i) {
    if (kNames[i] == name) return static_cast<Fault>(i);
  }
  return std::nullopt;
}

uint64_t wal_settled_bytes(const Plan& plan) {
  const uint64_t segment = plan.wal_segment_bytes ? plan.wal_segment_bytes : 8ull << 20;
  return 2 * plan.server.wal.inflight_appends_max * std::min<uint64_t>(segment / 4, 2ull << 20);
}

bool FaultPlan::any() const {
  return std::any_of(weight.begin(), weight.end(), [](uint32_t each) { return each != 0; });
}

Plan make_plan(uint64_t seed, bool whole, const PlanChanges& changes) {
  Random random = Random(seed).split(whole ? "plan" : "small plan");
  Plan plan;
  plan.world.disk.slow_op_chance = random.chance(0.5) ? 0.001 : 0.02;
  plan.stores = random.chance(0.6) ? 3 : random.between(4, 5);
  plan.copysets = random.chance(0.5) ? 4 : 8;
  plan.groups = random.between(1, 4);
  plan.faults.power_chance = random.chance(0.3) ? 1.0 : 0.5;
  if (random.chance(0.7)) {  // small, so that it goes round and followers that were away need sync
    plan.wal_segment_bytes = 4ull << 20;
    plan.wal_bytes = random.between(11, 16) * plan.wal_segment_bytes + (1u << 20);
  }
  if (random.chance(0.3)) plan.payload_bytes_max = 512 * 1024;
  plan.server.checkpoint_interval_ns = random.between(200, 4000) * kMillisecond;
  plan.server.wal.inflight_appends_max = static_cast<uint32_t>(random.between(1, 4));
  plan.server.raft.prefer_after_ns =
      random.chance(0.5) ? 0 : random.between(500, 3000) * kMillisecond;
  plan.server.background_blocks_max = static_cast<uint32_t>(random.between(1, 32));
  if (random.chance(0.4)) {  // writes wait for room in the log, and sometimes too many of them
    plan.server.raft.inflight_bytes_max = random.between(4, 64) << 10;
    plan.server.waiting_requests_max = static_cast<uint32_t>(random.between(1, 64));
  }
  plan.load.zeroes_percent = random.chance(0.3) ? 0 : 12;
  const Theme& theme = theme_of(random, whole, changes.theme);
  plan.theme = theme.name;
  theme.apply(plan, random);
  if (!whole) {  // a small log, too (a segment counts half, and 8 MiB are reserved)
    if (plan.wal_segment_bytes && plan.payload_bytes_max <= 64 * 1024) {
      plan.wal_segment_bytes = 1ull << 20;
      plan.wal_bytes = random.between(24, 32) * plan.wal_segment_bytes;
    }
    if (plan.theme == "sync") plan.groups = 4;  // that make the log of another go round
    plan.faults.weight[static_cast<size_t>(Fault::kLostWrite)] = 0;
  }
  change(plan, changes);
  plan.server.checkpoint_idle_ns = plan.server.checkpoint_interval_ns / 2;
  return plan;
}

std::string describe(const Plan& plan) {
  std::string out = plan.theme + ", " + std::to_string(plan.safety_ns / kMillisecond) +
                    " ms, a fault every " + std::to_string(plan.faults.interval_ns / kMillisecond) +
                    " ms:";
  for (size_t i = 0; i < kFaults; ++i) {
    if (plan.faults.weight[i]) out += " " + std::string(kNames[i]);
  }
  out += "; " + std::to_string(plan.stores) + " stores, lease " +
         std::to_string(plan.server.raft.lease_ns / kMillisecond) + " ms, a command every " +
         std::to_string(plan.director.interval_ns_max / 2 / kMillisecond) + " ms";
  return out;
}

}  // namespace curve::sim
