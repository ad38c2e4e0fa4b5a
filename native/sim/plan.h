// The plan of a run: everything that its seed decides before it begins. Each run has a theme (swarm
// testing): some kinds of faults and commands much, others not at all, so that what a mixture of
// everything would drown is met often. A failing run is made smaller by taking things out of its
// plan (minimize.h). Plain data; no clock.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "native/client/volume_client.h"
#include "native/copyset/store_server.h"
#include "native/sim/random.h"
#include "native/sim/world.h"

namespace curve::sim {

// What the nemesis does; see docs/simulation.md, "Fault model".
enum class Fault : uint8_t {
  kCrash,      // one store: kill or power cut
  kCrashAll,   // all stores at once
  kPause,      // SIGSTOP of a store or a client
  kIsolate,    // one node from all others
  kOneWay,     // one direction of that
  kPartial,    // one pair
  kSplit,      // two halves
  kReset,      // of a connection
  kStall,      // the bytes of one connection stand still, arrive late, perhaps after a new one
  kSlowDisk,   // one store
  kSlowDisks,  // all stores
  kDrift,      // another rate of a clock, and a jump of the wall clock
  kIoError,    // EIO of reads, writes and syncs of one store for a while; the process is restarted
  kBitRot,     // at rest, of the run's one unlucky store
  kLostWrite,  // lost and misdirected writes, likewise
  kAttack,     // several faults in one order, against a promise of leases or votes (attacks.cc)
};
inline constexpr size_t kFaults = 16;
std::string_view fault_name(Fault fault);
std::optional<Fault> find_fault(std::string_view name);

struct FaultPlan {
  std::array<uint32_t, kFaults> weight{};  // 0: never
  uint64_t interval_ns = 400 * kMillisecond;
  double power_chance = 0.5;  // of a crash: power cut, not kill
  double recovery_crash_chance = 0.15;
  double leader_chance = 0;      // a victim is a store that leads something
  bool late_requests = false;    // attacks are mostly of clients' bytes that arrive late
  bool overtake = false;         // attacks are mostly of a leader that others go on without
  bool straddle_leases = false;  // pauses and cuts of about the length of a lease and an election
  uint64_t down_ns_max = 5 * kSecond;
  bool any() const;
};

struct DirectorPlan {
  uint64_t interval_ns_max = 4 * kSecond;
  uint32_t volumes = 1;
  uint32_t transfer = 15, exclusive = 35, shared = 25, detach = 15, remove = 5, resize = 5;
  double kill_old_chance = 0.4;  // of a client that is about to be fenced
  uint32_t clients = 6;
};

// Only where there are more stores than a copyset needs.
struct MemberPlan {
  double chance = 0.8;  // that replicas move at all
  uint64_t interval_ns_max = 400 * kMillisecond;
  double late_chance = 0.1, again_chance = 0.15;  // of an order
  double death_chance = 0.4;                      // one store is lost for good
};

struct LoadPlan {
  uint32_t depth_min = 1, depth_max = 8;  // of a client
  uint64_t think_ns_max = 20 * kMillisecond;
  uint32_t hot_units = 0;  // windows of so many units of 512 bytes; 0: various
  bool heavy = false;      // fills the WAL
  uint32_t large_percent = 10, large_percent_heavy = 60;  // of requests, of up to a megabyte
  uint32_t zeroes_percent = 12;
};

struct Plan {
  std::string theme;
  uint64_t safety_ns = 6 * kSecond;
  uint64_t operations_min = 0, faults_min = 0;  // the safety phase goes on until it has seen these
  WorldOptions world;
  FaultPlan faults;
  DirectorPlan director;
  MemberPlan members;
  LoadPlan load;
  // stores
  size_t stores = 3, copysets = 4, groups = 2;  // groups: of the small simulation
  uint64_t data_bytes = 96ull << 20;
  uint64_t data_bytes_more = 0;  // that the first store has beside: full later than the others (R8)
  uint64_t wal_bytes = 64ull << 20, wal_segment_bytes = 0;
  uint32_t reserve_percent = 2, reserve_percent_step = 0;  // R8; the step: from store to store
  uint32_t payload_bytes_max = 64 * 1024;                  // of the small simulation
  copyset::ServerOptions server;
  client::ClientOptions client;  // request_timeout_ns 0: each client its own
};

// What `--minimize` and the command line take out of a plan.
struct PlanChanges {
  std::vector<Fault> without;
  uint64_t safety_ns = 0;  // 0: as planned
  uint32_t clients = 0, volumes = 0, depth = 0;
  bool no_transfers = false, no_fences = false;
  std::string theme;    // instead of the seed's
  bool longer = false;  // at least 5,000 client operations and 10 faults
};

// What lies so far behind the head of a WAL is covered by the watermark of a durable append: what
// was in flight with it was at most half of this, and what is behind that is done.
uint64_t wal_settled_bytes(const Plan& plan);

Plan make_plan(uint64_t seed, bool whole, const PlanChanges& changes);
std::string describe(const Plan& plan);

}  // namespace curve::sim
