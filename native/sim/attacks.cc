// Faults in one order that chance would rarely bring: each tries to make a promise worthless that
// leases and votes rest on (R2, R9). All of it is within the fault model. Part of Nemesis.
#include <algorithm>

#include "native/sim/disk.h"
#include "native/sim/nemesis.h"
#include "native/sim/network.h"

namespace curve::sim {

void Nemesis::cut_pair(uint32_t a, uint32_t b, uint64_t for_ns) {
  world_.network().cut(a, b);
  world_.network().cut(b, a);
  world_.after(for_ns, [this, a, b] {
    world_.network().heal(a, b);
    world_.network().heal(b, a);
  });
}

// Its clients still reach it.
void Nemesis::isolate_from_stores(uint32_t node, uint64_t for_ns) {
  for (uint32_t other : targets_.stores) {
    if (other != node) cut_pair(node, other, for_ns);
  }
}

// The connections break, so that elections hasten; the leader hears of nothing and goes on.
void Nemesis::attack_by_reset(uint32_t leader) {
  for (uint32_t other : targets_.stores) {
    if (other != leader) world_.network().reset_connections(leader, other);
  }
  world_.after(random_.between(500, 4000) * kMicrosecond,
               [this, leader] { isolate_from_stores(leader, 2 * targets_.lease_ns); });
}

// The leader hands over, and does not hear that another leads.
void Nemesis::attack_by_transfer(uint32_t leader) {
  targets_.transfer(leader, random_.next());
  const uint64_t wait =
      random_.chance(0.5) ? random_.below(3 * kMillisecond) : random_.below(30 * kMillisecond);
  world_.after(wait, [this, leader] { isolate_from_stores(leader, 2 * targets_.lease_ns); });
}

// The leader stops for longer than its lease, with answers to its beats and reads of its disk on
// the way; when it goes on it is alone with its clients.
void Nemesis::attack_by_pause(uint32_t leader) {
  Node& node = world_.node(leader);
  if (node.state != NodeState::kUp) return;
  world_.pause(node);
  const uint64_t stopped =
      targets_.lease_ns + targets_.election_ns + random_.below(targets_.lease_ns);
  world_.after(random_.between(5, 40) * kMillisecond,
               [this, leader, stopped] { isolate_from_stores(leader, 2 * stopped); });
  world_.after(stopped, [this, &node, boots = node.boots] {
    if (node.state == NodeState::kPaused && node.boots == boots) world_.resume(node);
  });
}

// One follower has heard nothing for a lease; the other, which has promised, is started again. The
// leader is cut off at the same time.
void Nemesis::attack_by_restart(uint32_t leader, uint32_t voter, uint32_t other) {
  const uint64_t first = targets_.lease_ns + random_.below(targets_.lease_ns / 2);
  cut_pair(leader, other, first + targets_.lease_ns);
  world_.after(first, [this, leader, voter] {
    if (!running_) return;
    isolate_from_stores(leader, 2 * targets_.lease_ns);
    Node& node = world_.node(voter);
    if (node.state != NodeState::kUp) return;
    world_.crash(node, CrashKind::kKill);
    revive_later(node, random_.between(1, 15) * kMillisecond);
  });
}

// Two that do not hear of each other want the vote of the third. Its disk is slow, and its power
// fails about when it has voted.
void Nemesis::attack_by_forgotten_vote(uint32_t voter, uint32_t a, uint32_t b) {
  Node& node = world_.node(voter);
  if (node.state != NodeState::kUp) return;
  const uint64_t lease = targets_.lease_ns;
  cut_pair(a, b, 4 * lease);
  world_.crash(node, CrashKind::kPower);
  const uint64_t down = lease + random_.below(lease / 2);
  world_.after(down, [this, &node] {
    if (!running_) return;
    node.disk->slow_until(world_.now_ns() + 2 * targets_.lease_ns, 100);
    revive(node);
  });
  const uint64_t voted = down + lease + random_.below(targets_.election_ns + 10 * kMillisecond);
  world_.after(voted, [this, &node] {
    if (running_ && node.state == NodeState::kUp) crash(node, CrashKind::kPower, 50 * kMillisecond);
  });
}

// Whoever is being filled is interrupted: by a connection that breaks, or by its end; it begins
// again where it was (R10). False: nobody is.
bool Nemesis::attack_by_interrupting() {
  Node* node = targets_.filled ? targets_.filled(random_.next()) : nullptr;
  if (!node) return false;
  if (random_.chance(0.3)) {
    crash(*node, random_.chance(0.5) ? CrashKind::kPower : CrashKind::kKill, 100 * kMillisecond);
    return true;
  }
  for (uint32_t other : targets_.stores) {
    if (other != node->id) world_.network().reset_connections(node->id, other);
  }
  return true;
}

// What clients have sent to a leader arrives when another has led meanwhile and the same one leads
// again; they have repeated it elsewhere, and cannot connect anew before (R13).
void Nemesis::attack_by_late_requests(uint32_t leader, const std::vector<uint32_t>& followers) {
  const uint64_t late = random_.between(50, 250) * kMillisecond;
  const uint64_t arrives = world_.now_ns() + late;
  for (uint32_t client : targets_.others) {
    world_.network().stall_connections(client, leader, arrives);
    const uint64_t broken = random_.below(5 * kMillisecond);
    world_.after(broken,
                 [this, client, leader] { world_.network().break_connections_at(client, leader); });
    for (uint64_t at = broken + kMicrosecond; at < late; at += 200 * kMicrosecond) {
      world_.after(at, [this, client, leader, arrives] {
        world_.network().stall_connections(client, leader, arrives + 50 * kMillisecond);
      });
    }
  }
  world_.after(random_.below(10 * kMillisecond),
               [this, leader, pick = random_.next()] { targets_.transfer(leader, pick); });
  for (int i = 0; i < 3; ++i) {
    const uint64_t back = late - random_.below(late / 2);
    for (uint32_t follower : followers)
      world_.after(back,
                   [this, follower, pick = random_.next()] { targets_.transfer(follower, pick); });
  }
}

// A leader does not reach those that it leads with, but others do go on with it: its log moves past
// entries that are not committed (R7). Those that go on without it have less to say than it had.
// Its power fails about when it reaches them again, or when it has been filled: the log that this
// replaced does not come back (R10).
void Nemesis::attack_by_starving(uint32_t leader, const std::vector<uint32_t>& followers) {
  const uint64_t length = random_.between(500, 4000) * kMillisecond;
  for (uint32_t follower : followers) cut_pair(leader, follower, length);
  if (targets_.leave_to && random_.chance(0.7))
    targets_.leave_to(leader, world_.now_ns() + length + kSecond);
  const uint64_t ends = random_.chance(0.5) ? length - random_.below(100 * kMillisecond)
                                            : length + random_.below(kSecond);
  world_.after(ends, [this, leader] {
    Node& node = world_.node(leader);
    if (running_ && random_.chance(0.8)) crash(node, CrashKind::kPower, 300 * kMillisecond);
  });
}

// A follower loses part of what only it and its leader have; the leader is cut off, and the third,
// which has heard nothing for a while, wants its vote (R3). The disk is the one that may rot.
bool Nemesis::attack_by_damage(uint32_t leader, const std::vector<uint32_t>& followers) {
  Node& node = world_.node(unlucky_);
  const bool follows = std::find(followers.begin(), followers.end(), unlucky_) != followers.end();
  if (!follows || node.state != NodeState::kUp) return false;
  const uint64_t alone = random_.between(100, 1000) * kMillisecond;
  const uint64_t length = 4 * (targets_.lease_ns + targets_.election_ns);
  for (uint32_t other : followers) {
    if (other == unlucky_) continue;
    cut_pair(other, unlucky_, alone);
    cut_pair(other, leader, alone + length);
  }
  world_.after(alone, [this, leader, length, &node] {
    if (!running_ || node.state != NodeState::kUp) return;
    cut_pair(leader, unlucky_, length);
    world_.crash(node, CrashKind::kPower);
    node.disk->refuse_last_until(world_.now_ns() + 100 * kMillisecond, targets_.log_path,
                                 random_.skewed(256 << 10));
    revive_later(node, random_.between(1, 20) * kMillisecond);
  });
  return true;
}

void Nemesis::attack() {
  if (random_.chance(0.7) && attack_by_interrupting()) return void(++verdict_.counts["attacks"]);
  if (!targets_.leader || !targets_.followers) return;
  const uint32_t leader = targets_.leader(random_.next());
  std::vector<uint32_t> followers = targets_.followers(leader);
  if (followers.size() < 2) return;
  random_.shuffle(followers);
  const bool rots = plan_.weight[static_cast<size_t>(Fault::kBitRot)] != 0;
  if (rots && random_.chance(0.7) && attack_by_damage(leader, followers))
    return void(++verdict_.counts["attacks"]);
  ++verdict_.counts["attacks"];
  if (plan_.late_requests && random_.chance(0.8)) return attack_by_late_requests(leader, followers);
  if (plan_.overtake && random_.chance(0.7)) return attack_by_starving(leader, followers);
  switch (random_.below(8)) {
    case 0:
      return attack_by_reset(leader);
    case 1:
      return attack_by_transfer(leader);
    case 2:
      return attack_by_starving(leader, followers);
    case 3:
      return attack_by_restart(leader, followers[0], followers[1]);
    case 4:
      return attack_by_forgotten_vote(leader, followers[0], followers[1]);
    default:
      return attack_by_pause(leader);
  }
}

}  // namespace curve::sim
