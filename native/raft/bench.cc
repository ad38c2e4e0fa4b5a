// What consensus costs in processor time: three hosts in memory, 64 groups, propose to commit.
// Disks and network cost nothing here. Prints nanoseconds per entry and host, for several depths,
// and for idle groups per second of beats. Not a test.
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "native/raft/host.h"

namespace curve::raft {
namespace {

constexpr size_t kHosts = 3;

struct Packet {
  Message message;
  std::vector<EntryMeta> metas;
};

struct Network {
  std::vector<std::unique_ptr<Host>> hosts;
  std::vector<StoreId> ids;
  std::vector<Packet> now[kHosts], next[kHosts];
  size_t now_used[kHosts] = {}, next_used[kHosts] = {};
  std::vector<std::pair<Group*, uint64_t>> persists[kHosts];
  uint64_t time = 1'000'000'000;
  uint64_t messages = 0;

  size_t index_of(const StoreId& id) const { return id.bytes[15] - 1u; }

  void post(size_t from, Group* group, const Message& message) {
    ++messages;
    const size_t to = index_of(message.peer);
    if (next_used[to] == next[to].size()) next[to].emplace_back();
    Packet& packet = next[to][next_used[to]++];
    packet.message = message;
    packet.message.peer = ids[from];
    packet.metas.clear();
    if (message.type != MessageType::kAppend) return;
    for (Index i = message.first; i <= message.last; ++i) {
      const LogSlot& slot = group->slot(i);
      packet.metas.push_back({i, slot.term, slot.bytes, slot.type});
    }
  }

  void take(size_t h) {
    while (Group* group = hosts[h]->next_ready()) {
      const Ready ready = group->take_ready();
      if (ready.persist_id != 0) persists[h].emplace_back(group, ready.persist_id);
      for (const Message& message : ready.send) post(h, group, message);
      if (ready.commit > group->applied()) {
        group->on_applied(ready.commit);
        if (ready.commit > group->first_index() + 1024) group->trim(ready.commit - 512);
      }
    }
  }

  // One turn of every host. False when nothing happened.
  bool turn() {
    bool busy = false;
    for (size_t h = 0; h < kHosts; ++h) {
      now[h].swap(next[h]);
      now_used[h] = std::exchange(next_used[h], 0);
    }
    for (size_t h = 0; h < kHosts; ++h) {
      std::vector<std::pair<Group*, uint64_t>> done;
      done.swap(persists[h]);
      for (const auto& [group, id] : done) group->on_durable(id, time);
      for (size_t i = 0; i < now_used[h]; ++i) {
        const Packet& packet = now[h][i];
        Group* group = hosts[h]->find(packet.message.group);
        if (packet.message.type == MessageType::kAppend) {
          group->step_append(packet.message, packet.metas, {}, time);
        } else {
          group->step(packet.message, time);
        }
      }
      busy |= now_used[h] != 0 || !done.empty();
      take(h);
      done.clear();
      if (persists[h].empty()) persists[h].swap(done);
    }
    return busy;
  }

  void beats() {
    for (size_t h = 0; h < kHosts; ++h) {
      hosts[h]->tick(time);
      take(h);
      OutgoingBeat beat;
      while (hosts[h]->take_beat(&beat, time)) {
        const size_t to = index_of(beat.to);
        hosts[h]->on_beat_reply(ids[to], hosts[to]->on_beat(ids[h], *beat.beat, time), time);
      }
    }
  }
};

Network make(size_t groups) {
  Network net;
  for (size_t h = 0; h < kHosts; ++h) {
    StoreId id;
    id.bytes[15] = static_cast<uint8_t>(h + 1);
    net.ids.push_back(id);
    HostOptions options;
    options.fresh = true;
    net.hosts.push_back(std::make_unique<Host>(id, 1, options, net.time, h));
  }
  for (size_t h = 0; h < kHosts; ++h) {
    for (size_t g = 0; g < groups; ++g) {
      GroupInit init;
      init.id = g + 1;
      for (const StoreId& id : net.ids)
        init.config.members[init.config.count++] = {id, MemberRole::kVoter};
      init.config.preferred = net.ids[g % kHosts];
      net.hosts[h]->create(std::move(init), net.time);
    }
    for (size_t other = 0; other < kHosts; ++other) {
      if (other != h) net.hosts[h]->on_peer_up(net.ids[other], net.time);
    }
  }
  for (int i = 0; i < 200; ++i) {
    net.time += 1'000'000;
    net.beats();
    while (net.turn()) {
    }
  }
  return net;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Each turn every leader proposes `depth` entries in each of its groups, one call per entry.
void measure_commits(size_t groups, size_t depth, uint64_t entries) {
  Network net = make(groups);
  std::vector<Group*> leaders;
  for (auto& host : net.hosts) {
    for (Group* group : host->groups()) {
      if (group->role() == Role::kLeader) leaders.push_back(group);
    }
  }
  if (leaders.size() != groups)
    std::printf("only %zu of %zu groups have a leader\n", leaders.size(), groups);
  EntryMeta meta;
  meta.bytes = 4096;
  uint64_t proposed = 0;
  net.messages = 0;
  const auto start = std::chrono::steady_clock::now();
  while (proposed < entries) {
    for (Group* group : leaders) {
      for (size_t i = 0; i < depth; ++i) {
        Index first = 0;
        proposed += group->propose({&meta, 1}, &first) == Code::kOk;
      }
    }
    for (size_t h = 0; h < kHosts; ++h) net.take(h);
    net.turn();
    net.time += 100'000;
    if (net.time % 50'000'000 == 0) net.beats();
  }
  while (net.turn()) {
  }
  const double took = seconds_since(start);
  std::printf(
      "%4zu groups, %3zu entries per group and turn: %6.0f ns per entry and host, %5.2f messages "
      "per entry\n",
      groups, depth, took * 1e9 / static_cast<double>(proposed) / kHosts,
      static_cast<double>(net.messages) / static_cast<double>(proposed));
}

void measure_idle(size_t groups) {
  Network net = make(groups);
  for (int i = 0; i < 200; ++i) {  // what elections have left to do
    net.time += 10'000'000;
    net.beats();
  }
  const auto start = std::chrono::steady_clock::now();
  constexpr int kSeconds = 10;
  for (int i = 0; i < kSeconds * 100; ++i) {
    net.time += 10'000'000;
    net.beats();
  }
  std::printf("%5zu idle groups: %8.1f us of processor time per second and host\n", groups,
              seconds_since(start) * 1e6 / kSeconds / kHosts);
}

}  // namespace
}  // namespace curve::raft

int main() {
  for (size_t depth : {1, 4, 32}) curve::raft::measure_commits(64, depth, 600'000);
  curve::raft::measure_commits(1, 1, 200'000);
  for (size_t groups : {64, 4096}) curve::raft::measure_idle(groups);
}
