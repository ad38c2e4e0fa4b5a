#include "native/sim/nemesis.h"

#include <algorithm>

#include "native/sim/disk.h"
#include "native/sim/network.h"

namespace curve::sim {

Nemesis::Nemesis(World& world, Verdict& verdict, const FaultPlan& plan,
                 const NemesisTargets& targets, Random random)
    : world_(world), verdict_(verdict), plan_(plan), targets_(targets), random_(random) {
  unlucky_ = targets_.stores[random_.below(targets_.stores.size())];
}

void Nemesis::start() {
  running_ = true;
  if (plan_.any()) world_.after(random_.below(2 * plan_.interval_ns), [this] { tick(); });
}

void Nemesis::tick() {
  if (!running_) return;
  uint32_t total = 0;
  for (uint32_t weight : plan_.weight) total += weight;
  uint64_t pick = random_.below(total);
  size_t fault = 0;
  while (pick >= plan_.weight[fault]) pick -= plan_.weight[fault++];
  ++verdict_.counts["faults"];
  act(static_cast<Fault>(fault));
  world_.after(random_.below(2 * plan_.interval_ns), [this] { tick(); });
}

uint64_t Nemesis::duration() {
  if (plan_.straddle_leases && random_.chance(0.8)) return random_.between(50, 900) * kMillisecond;
  return random_.skewed(4'000) * kMillisecond;
}

Node& Nemesis::random_store() {
  const bool leader = targets_.leader && random_.chance(plan_.leader_chance);
  const uint64_t pick = random_.next();
  return world_.node(leader ? targets_.leader(pick)
                            : targets_.stores[pick % targets_.stores.size()]);
}

uint32_t Nemesis::random_node() {
  const size_t count = targets_.stores.size() + targets_.others.size();
  const size_t pick = random_.below(count);
  return pick < targets_.stores.size() ? random_store().id
                                       : targets_.others[pick - targets_.stores.size()];
}

void Nemesis::crash(Node& node, CrashKind kind, uint64_t down_ns_max) {
  if (node.state != NodeState::kUp && node.state != NodeState::kPaused) return;
  ++verdict_.counts[kind == CrashKind::kKill ? "kills" : "power_cuts"];
  world_.crash(node, kind);
  revive_later(
      node, random_.chance(0.5) ? random_.below(300 * kMillisecond) : random_.below(down_ns_max));
}

void Nemesis::revive_later(Node& node, uint64_t delay_ns) {
  world_.after(delay_ns, [this, &node] {
    if (running_) revive(node);
  });
}

// Where a disk is rotten nothing else is lost for good: that would be two of three.
void Nemesis::bury(Node& chosen) {
  const bool rots = plan_.weight[static_cast<size_t>(Fault::kBitRot)] ||
                    plan_.weight[static_cast<size_t>(Fault::kLostWrite)];
  Node& node = rots ? world_.node(unlucky_) : chosen;
  if (buried_.count(&node)) return;
  if (node.state == NodeState::kUp || node.state == NodeState::kPaused)
    world_.crash(node, CrashKind::kPower);
  if (rots && targets_.wreck) {  // it refuses to start, and is lost by that
    targets_.wreck(node, random_);
    node.disk->cancel_sync_crash();
    world_.restart(node);
    ++verdict_.counts["stores_refused"];
    if (node.state == NodeState::kUp)
      verdict_.fail("start", node.name + " starts without what it cannot start without");
  }
  buried_.insert(&node);
}

void Nemesis::process_ended(Node& node) {
  ++verdict_.counts["out_of_service"];
  world_.after(1, [this, &node, boots = node.boots] {
    if (node.boots != boots || (node.state != NodeState::kUp && node.state != NodeState::kPaused))
      return;
    world_.crash(node, CrashKind::kKill);
    if (running_) return revive_later(node, random_.below(2 * kSecond));
    revive(node);
  });
}

void Nemesis::revive(Node& node) {
  if (node.state != NodeState::kDown && node.state != NodeState::kRefused) return;
  if (buried_.count(&node)) return;
  const bool recovery_crash = running_ && random_.chance(plan_.recovery_crash_chance);
  if (recovery_crash) node.disk->crash_in_sync_call(random_.skewed(500));
  world_.restart(node);
  if (node.state == NodeState::kDown) ++verdict_.counts["crashes_in_recovery"];
  // Refused: the device gave errors; the operator tries again.
  if (node.state != NodeState::kUp && running_) revive_later(node, random_.below(kSecond));
}

void Nemesis::heal_later(std::vector<std::pair<uint32_t, uint32_t>> cuts) {
  for (const auto& [from, to] : cuts) world_.network().cut(from, to);
  world_.after(duration(), [this, cuts = std::move(cuts)] {
    for (const auto& [from, to] : cuts) world_.network().heal(from, to);
  });
}

void Nemesis::pause() {
  Node& node = world_.node(random_node());
  if (node.state != NodeState::kUp) return;
  ++verdict_.counts["pauses"];
  world_.pause(node);
  world_.after(duration(), [this, &node, boots = node.boots] {
    if (node.state == NodeState::kPaused && node.boots == boots) world_.resume(node);
  });
}

void Nemesis::cut(Fault fault) {
  std::vector<std::pair<uint32_t, uint32_t>> cuts;
  std::vector<uint32_t> all = targets_.stores;
  all.insert(all.end(), targets_.others.begin(), targets_.others.end());
  if (fault == Fault::kIsolate) {
    const uint32_t node = random_node();
    // Sometimes its clients still reach it: a leader without followers.
    for (uint32_t other : random_.chance(0.5) ? all : targets_.stores) {
      cuts.emplace_back(node, other);
      cuts.emplace_back(other, node);
    }
  } else if (fault == Fault::kOneWay) {
    const uint32_t node = random_node();
    const bool out = random_.chance(0.5);
    for (uint32_t other : all) cuts.emplace_back(out ? node : other, out ? other : node);
  } else if (fault == Fault::kPartial) {
    const uint32_t a = random_node(), b = random_node();
    cuts.emplace_back(a, b);
    if (random_.chance(0.6)) cuts.emplace_back(b, a);
  } else {
    std::vector<uint32_t> left, right;
    for (uint32_t node : all) (random_.chance(0.5) ? left : right).push_back(node);
    for (uint32_t a : left) {
      for (uint32_t b : right) {
        cuts.emplace_back(a, b);
        cuts.emplace_back(b, a);
      }
    }
  }
  ++verdict_.counts["cuts"];
  heal_later(std::move(cuts));
}

// A lost packet that is sent again and again: what one side has sent arrives late. Half of the time
// the sender gives the connection up meanwhile (a middlebox reset it), and a new one overtakes it.
void Nemesis::stall() {
  const uint32_t store = random_store().id;
  const uint32_t from = targets_.others.empty() || random_.chance(0.15)
                            ? random_store().id
                            : targets_.others[random_.below(targets_.others.size())];
  ++verdict_.counts["stalls"];
  const uint64_t until = world_.now_ns() + duration();
  const bool broken = random_.chance(0.5);
  world_.network().stall_connections(from, store, until);
  if (!broken) return;
  world_.after(random_.below(30 * kMillisecond),
               [this, from, store] { world_.network().break_connections_at(from, store); });
}

// Transient: a cable, a controller. The process ends at the first error that it cannot bear, and is
// started again.
void Nemesis::io_errors() {
  Node& node = random_store();
  ++verdict_.counts["io_errors"];
  DiskFaults faults;
  const uint64_t kind = random_.below(4);
  // What cannot be read at a start is damage: often enough to outlast the attempts on one disk.
  const bool often = random_.chance(0.5) && (node.id == unlucky_ || kind == 1 || kind == 2);
  const double chance = often ? 0.3 : 0.02;
  if (kind == 0 || kind == 3) faults.read_error_chance = chance;
  if (kind == 1 || kind == 3) faults.write_error_chance = chance;
  if (kind == 2 || kind == 3) faults.sync_error_chance = chance;
  node.disk->fail_until(world_.now_ns() + duration(), faults);
}

// Found at the next start, or when it is read.
void Nemesis::rot() {
  Node& node = world_.node(unlucky_);
  if (!targets_.rot) return;
  for (uint64_t bits = random_.between(1, 6); bits > 0; --bits) targets_.rot(node, random_);
  if (random_.chance(0.5)) crash(node, CrashKind::kPower, 300 * kMillisecond);
  if (random_.chance(0.5)) return;
  // A place in the log cannot be read for a while; after a start its entries are in no memory.
  world_.after(random_.below(kSecond), [this, &node] {
    if (running_)
      node.disk->refuse_last_until(world_.now_ns() + 2 * kSecond, targets_.log_path,
                                   random_.skewed(2 << 20));
  });
}

void Nemesis::lost_writes() {
  Node& node = world_.node(unlucky_);
  ++verdict_.counts["lost_writes"];
  node.disk->lose_blocks_until(world_.now_ns() + duration(), random_.chance(0.5) ? 0.05 : 0.3,
                               random_.chance(0.5) ? 0.0 : 0.1);
}

void Nemesis::act(Fault fault) {
  switch (fault) {
    case Fault::kCrash:
      return crash(random_store(),
                   random_.chance(plan_.power_chance) ? CrashKind::kPower : CrashKind::kKill,
                   plan_.down_ns_max);
    case Fault::kCrashAll: {
      const CrashKind kind =
          random_.chance(plan_.power_chance) ? CrashKind::kPower : CrashKind::kKill;
      ++verdict_.counts["crashes_of_all"];
      for (uint32_t store : targets_.stores)
        crash(world_.node(store), kind, std::min(plan_.down_ns_max, 2 * kSecond));
      return;
    }
    case Fault::kPause:
      return pause();
    case Fault::kIsolate:
    case Fault::kOneWay:
    case Fault::kPartial:
    case Fault::kSplit:
      return cut(fault);
    case Fault::kReset:
      ++verdict_.counts["resets"];
      return world_.network().reset_connections(random_node(), random_store().id);
    case Fault::kStall:
      return stall();
    case Fault::kSlowDisk:
      ++verdict_.counts["slow_disks"];
      return random_store().disk->slow_until(world_.now_ns() + duration(), random_.between(5, 200));
    case Fault::kSlowDisks: {
      ++verdict_.counts["slow_disks"];
      const uint64_t until = world_.now_ns() + duration(), factor = random_.between(5, 200);
      for (uint32_t store : targets_.stores) world_.node(store).disk->slow_until(until, factor);
      return;
    }
    case Fault::kDrift: {
      Node& node = world_.node(random_node());
      const auto bound = static_cast<int64_t>(world_.options().drift_ppm_max);
      world_.set_drift(
          node, static_cast<int64_t>(random_.below(static_cast<uint64_t>(2 * bound + 1))) - bound);
      return world_.jump_clock(node, random_.below(10 * kSecond));
    }
    case Fault::kIoError:
      return io_errors();
    case Fault::kBitRot:
      ++verdict_.counts["rotten_bits"];
      return rot();
    case Fault::kLostWrite:
      return lost_writes();
    case Fault::kAttack:
      return attack();
  }
}

void Nemesis::stop() {
  running_ = false;
  world_.trace(nullptr, "faults_end");
  world_.network().heal_all();
  for (uint32_t store : targets_.stores) {
    Disk& disk = *world_.node(store).disk;
    disk.slow_until(0, 1);
    disk.fail_until(0, {});
    disk.refuse_last_until(0, targets_.log_path, 0);
    disk.lose_blocks_until(0, 0, 0);
  }
  for (size_t i = 0; i < world_.node_count(); ++i) {
    Node& node = world_.node(static_cast<uint32_t>(i));
    if (node.state == NodeState::kPaused) world_.resume(node);
  }
  for (uint32_t store : targets_.stores) {
    Node& node = world_.node(store);
    node.disk->cancel_sync_crash();
    // Its device gave errors: it may be about to end (a slow operation has yet to fail).
    if (node.state == NodeState::kUp && node.disk->gave_errors())
      world_.crash(node, CrashKind::kKill);
    revive(node);
  }
  world_.after(kSecond, [this] { world_.network().end_half_open(); });
}

}  // namespace curve::sim
