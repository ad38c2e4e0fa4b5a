#include "native/sim/nemesis.h"

#include <algorithm>

#include "native/sim/disk.h"
#include "native/sim/network.h"

namespace curve::sim {

Nemesis::Nemesis(World& world, Verdict& verdict, const NemesisOptions& options, Random random)
    : world_(world), verdict_(verdict), options_(options), random_(random) {
  // Some runs know few kinds of faults, so that each of them also meets an otherwise busy system.
  constexpr uint32_t kUsual[kFaults] = {10, 2, 4, 3, 3, 3, 2, 3, 3, 1, 4};
  const bool few = random_.chance(0.4);
  for (int i = 0; i < kFaults; ++i) weights_[i] = few && random_.chance(0.6) ? 0 : kUsual[i];
  weights_[kQuiet] = kUsual[kQuiet];
  interval_ns_ = random_.between(options_.interval_ns_max / 8, options_.interval_ns_max);
  power_chance_ = random_.chance(0.3) ? 1.0 : 0.5;
}

std::string Nemesis::mood() const {
  static const char* const kNames[kFaults] = {"crash",   "crash_all", "pause", "isolate",
                                              "one_way", "partial",   "split", "reset",
                                              "slow",    "drift",     "quiet"};
  std::string out = "every " + std::to_string(interval_ns_ / kMillisecond) + " ms:";
  for (int i = 0; i < kFaults; ++i) {
    if (weights_[i]) out += std::string(" ") + kNames[i];
  }
  return out;
}

void Nemesis::start() {
  running_ = true;
  world_.after(random_.below(2 * interval_ns_), [this] { tick(); });
}

void Nemesis::tick() {
  if (!running_) return;
  uint32_t total = 0;
  for (uint32_t weight : weights_) total += weight;
  uint64_t pick = random_.below(total);
  int fault = 0;
  while (pick >= weights_[fault]) pick -= weights_[fault++];
  act(static_cast<Fault>(fault));
  world_.after(random_.below(2 * interval_ns_), [this] { tick(); });
}

uint64_t Nemesis::duration() { return random_.skewed(4'000) * kMillisecond; }

uint32_t Nemesis::random_node() {
  const size_t count = options_.stores.size() + options_.others.size();
  const size_t pick = random_.below(count);
  return pick < options_.stores.size() ? options_.stores[pick]
                                       : options_.others[pick - options_.stores.size()];
}

void Nemesis::crash(Node& node, CrashKind kind, uint64_t down_ns_max) {
  if (node.state != NodeState::kUp && node.state != NodeState::kPaused) return;
  ++verdict_.counts[kind == CrashKind::kKill ? "kills" : "power_cuts"];
  world_.crash(node, kind);
  const uint64_t down =
      random_.chance(0.5) ? random_.below(300 * kMillisecond) : random_.below(down_ns_max);
  world_.after(down, [this, &node] {
    if (running_) revive(node);
  });
}

void Nemesis::bury(Node& node) {
  buried_.insert(&node);
  if (node.state == NodeState::kUp || node.state == NodeState::kPaused)
    world_.crash(node, CrashKind::kPower);
}

void Nemesis::revive(Node& node) {
  if (node.state != NodeState::kDown || buried_.count(&node)) return;
  const bool recovery_crash = running_ && random_.chance(recovery_crash_chance_);
  if (recovery_crash) node.disk->crash_in_sync_call(random_.skewed(500));
  world_.restart(node);
  if (node.state != NodeState::kDown) return;
  ++verdict_.counts["crashes_in_recovery"];
  world_.after(random_.below(kSecond), [this, &node] {
    if (running_) revive(node);
  });
}

void Nemesis::heal_later(std::vector<std::pair<uint32_t, uint32_t>> cuts) {
  for (const auto& [from, to] : cuts) world_.network().cut(from, to);
  world_.after(duration(), [this, cuts = std::move(cuts)] {
    for (const auto& [from, to] : cuts) world_.network().heal(from, to);
  });
}

void Nemesis::act(Fault fault) {
  std::vector<std::pair<uint32_t, uint32_t>> cuts;
  std::vector<uint32_t> all = options_.stores;
  all.insert(all.end(), options_.others.begin(), options_.others.end());
  switch (fault) {
    case kCrash:
      return crash(random_store(),
                   random_.chance(power_chance_) ? CrashKind::kPower : CrashKind::kKill,
                   5 * kSecond);
    case kCrashAll: {
      const CrashKind kind = random_.chance(power_chance_) ? CrashKind::kPower : CrashKind::kKill;
      ++verdict_.counts["crashes_of_all"];
      for (uint32_t store : options_.stores) crash(world_.node(store), kind, 2 * kSecond);
      return;
    }
    case kPause: {
      Node& node = world_.node(random_node());
      if (node.state != NodeState::kUp) return;
      ++verdict_.counts["pauses"];
      world_.pause(node);
      world_.after(duration(), [this, &node, boots = node.boots] {
        if (node.state == NodeState::kPaused && node.boots == boots) world_.resume(node);
      });
      return;
    }
    case kIsolate: {
      const uint32_t node = random_node();
      for (uint32_t other : all) {
        cuts.emplace_back(node, other);
        cuts.emplace_back(other, node);
      }
      break;
    }
    case kOneWay: {
      const uint32_t node = random_node();
      const bool out = random_.chance(0.5);
      for (uint32_t other : all) cuts.emplace_back(out ? node : other, out ? other : node);
      break;
    }
    case kPartial: {
      const uint32_t a = random_node(), b = random_node();
      cuts.emplace_back(a, b);
      if (random_.chance(0.6)) cuts.emplace_back(b, a);
      break;
    }
    case kSplit: {
      std::vector<uint32_t> left, right;
      for (uint32_t node : all) (random_.chance(0.5) ? left : right).push_back(node);
      for (uint32_t a : left) {
        for (uint32_t b : right) {
          cuts.emplace_back(a, b);
          cuts.emplace_back(b, a);
        }
      }
      break;
    }
    case kReset:
      ++verdict_.counts["resets"];
      return world_.network().reset_connections(random_node(), random_store().id);
    case kSlowDisk:
      ++verdict_.counts["slow_disks"];
      return random_store().disk->slow_until(world_.now_ns() + duration(), random_.between(5, 200));
    case kDrift: {
      Node& node = world_.node(random_node());
      const auto bound = static_cast<int64_t>(world_.options().drift_ppm_max);
      world_.set_drift(
          node, static_cast<int64_t>(random_.below(static_cast<uint64_t>(2 * bound + 1))) - bound);
      return world_.jump_clock(node, random_.below(10 * kSecond));
    }
    case kQuiet:
    case kFaults:
      return;
  }
  ++verdict_.counts["cuts"];
  heal_later(std::move(cuts));
}

void Nemesis::stop() {
  running_ = false;
  world_.trace(nullptr, "faults_end");
  world_.network().heal_all();
  for (uint32_t store : options_.stores) world_.node(store).disk->slow_until(0, 1);
  for (size_t i = 0; i < world_.node_count(); ++i) {
    Node& node = world_.node(static_cast<uint32_t>(i));
    if (node.state == NodeState::kPaused) world_.resume(node);
  }
  for (uint32_t store : options_.stores) {
    Node& node = world_.node(store);
    node.disk->cancel_sync_crash();
    revive(node);
  }
}

}  // namespace curve::sim
