// The world of world.h: events, stores, disks and connections. Load and faults are in
// world_load.cc, checkers in world_check.cc.
#include "native/raft/world.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

namespace curve::raft::testing {

World::World(const WorldOptions& options) : options_(options), random_state_(mix64(options.seed)) {
  host_options_.prefer_after_ns = options.prefer_after_ns;
  host_options_.append_bytes_max = 64 * 1024;
  host_options_.inflight_bytes_max = 256 * 1024;
  host_options_.inflight_messages_max = 8;
  nodes_.resize(options.stores);
  for (uint32_t n = 0; n < options.stores; ++n)
    nodes_[n].id.bytes[15] = static_cast<uint8_t>(n + 1);
  for (CopysetId g = 1; g <= options.groups; ++g) {
    Config config;
    for (uint32_t i = 0; i < options.voters; ++i) {
      config.members[config.count++] = {nodes_[(g + i) % options.stores].id, MemberRole::kVoter};
    }
    config.preferred = config.members[0].store;
    genesis_[g] = config;
    for (Node& node : nodes_) {
      const bool member = std::any_of(config.members.begin(), config.members.begin() + config.count,
                                      [&](const Member& m) { return m.store == node.id; });
      if (member) node.disk[g].base_config = config;
      if (!member && options.membership) node.disk[g] = {};
    }
  }
}
World::~World() = default;

uint64_t World::random() {
  random_state_ += 0x9e3779b97f4a7c15ull;
  return mix64(random_state_);
}

void World::at(uint64_t time, std::function<void()> action) {
  events_.push({std::max(time, now_), ++event_order_, std::move(action)});
}

void World::trace(const char* format, ...) const {
  if (!options_.trace) return;
  std::fprintf(stderr, "%9lu ", static_cast<unsigned long>(now_ / 1000));
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
}

// Happens in this life of the node, later if it is stopped (SIGSTOP) then.
void World::on_node(uint32_t n, uint64_t time, std::function<void()> action) {
  const uint64_t life = nodes_[n].life;
  at(time, [this, n, life, action = std::move(action)]() mutable {
    Node& node = nodes_[n];
    if (!node.alive || node.life != life) return;
    if (node.paused) {
      node.deferred.push_back(std::move(action));
      return;
    }
    action();
    pump(n);
  });
}

uint64_t World::local(const Node& node) const {
  return node.clock_offset + now_ +
         static_cast<uint64_t>(static_cast<int64_t>(now_ / 1'000'000) * node.clock_ppm);
}
uint64_t World::real(const Node& node, uint64_t local_ns) const {
  const double elapsed = static_cast<double>(local_ns - node.clock_offset);
  return static_cast<uint64_t>(elapsed / (1.0 + static_cast<double>(node.clock_ppm) * 1e-6)) + 1000;
}

void World::start(uint32_t n) {
  trace("%u starts", n);
  Node& node = nodes_[n];
  ++node.life;
  node.alive = true;
  node.paused = false;
  node.deferred.clear();
  node.clock_offset = 10'000'000'000 + below(1'000'000'000'000);
  node.clock_ppm = static_cast<int64_t>(below(9'000)) - 4'500;
  HostOptions options = host_options_;
  options.fresh = node.incarnation == 0;
  node.host = std::make_unique<Host>(node.id, ++node.incarnation, options, local(node), random());
  node.replicas.clear();
  node.tick_at = UINT64_MAX;
  for (auto& [id, disk] : node.disk) {
    GroupInit init;
    init.id = id;
    init.config = disk.base_config;
    init.config_index = disk.base_config_index;
    init.hard = disk.hard;
    init.commit = disk.commit;
    init.applied = disk.applied;
    init.base_index = disk.base;
    init.base_term = disk.base_term;
    init.damaged = disk.damaged;
    init.syncing = disk.syncing;
    Replica& replica = node.replicas[id];
    std::vector<Group::ConfigAt> configs;
    for (size_t i = 0; i < disk.log.size(); ++i) {
      const Content& c = disk.log[i];
      replica.contents[disk.base + 1 + i] = c;
      init.log.push_back({c.term, 0, c.bytes(), c.type});
      if (c.type == EntryType::kConfig) {
        init.later_configs.push_back({disk.base + 1 + i, c.config});
      }
    }
    node.host->create(std::move(init), local(node));
  }
  for (uint32_t other = 0; other < nodes_.size(); ++other) {
    if (other == n) continue;
    at(now_ + between(100'000, 20'000'000), [this, n, other] { connect(n, other); });
  }
  pump(n);
}

void World::crash(uint32_t n) {
  Node& node = nodes_[n];
  if (!node.alive) return;
  // A prefix of what was being written has reached the disk, though nobody was told.
  for (uint64_t survive = below(node.pending.size() + 1); survive > 0; --survive) {
    apply_persist(node.disk[node.pending.front().group], node.pending.front());
    node.pending.pop();
  }
  node.pending = {};
  node.disk_busy = false;
  node.alive = false;
  ++node.life;
  elections_ += node.host->elections_started();
  node.host.reset();
  node.deferred.clear();
  trace("%u crashed", n);
  const bool refused = chance(700);
  for (uint32_t other = 0; other < nodes_.size(); ++other) {
    if (other != n) disconnect(n, other, refused);
  }
  if (options_.damage && chance(300)) damage_disk(node);
}

// A suffix of the log, and perhaps the last term and vote, are lost although others were told. One
// disk at a time.
void World::damage_disk(Node& node) {
  for (auto& [id, disk] : node.disk) {
    bool another = false;
    for (const Node& other : nodes_) {
      auto found = other.disk.find(id);
      another |= found != other.disk.end() && found->second.damaged;
    }
    if (another || disk.syncing) continue;
    ++damages_;
    disk.damaged = true;
    const size_t keep = below(disk.log.size() + 1);
    trace("%s damaged in group %lu: keeps %lu of %lu", node.id.text().c_str() + 34, id,
          disk.base + keep, disk.last());
    disk.log.resize(keep);
    disk.commit = std::min(disk.commit, disk.last());
    disk.applied = std::min(disk.applied, disk.commit);
    if (chance(500)) {
      disk.hard.vote = {};
      disk.hard.term = std::max(disk.term_at(disk.last()),
                                disk.hard.term - below(std::min<Term>(disk.hard.term, 3) + 1));
    }
  }
}

void World::connect(uint32_t a, uint32_t b) {
  Link& l = link(a, b);
  if (l.up || l.cut || !nodes_[a].alive || !nodes_[b].alive) return;
  l.up = true;
  ++l.epoch;
  l.held.clear();
  on_node(a, now_, [this, a, b] { nodes_[a].host->on_peer_up(nodes_[b].id, local(nodes_[a])); });
  on_node(b, now_, [this, a, b] { nodes_[b].host->on_peer_up(nodes_[a].id, local(nodes_[b])); });
}

void World::disconnect(uint32_t a, uint32_t b, bool refused) {
  Link& l = link(a, b);
  if (!l.up) return;
  l.up = false;
  ++l.epoch;
  l.held.clear();
  on_node(a, now_,
          [=, this] { nodes_[a].host->on_peer_down(nodes_[b].id, refused, local(nodes_[a])); });
  on_node(b, now_,
          [=, this] { nodes_[b].host->on_peer_down(nodes_[a].id, refused, local(nodes_[b])); });
  at(now_ + between(1'000'000, 100'000'000), [this, a, b] { connect(a, b); });
}

void World::heal(uint32_t a, uint32_t b) {
  Link& l = link(a, b);
  if (!l.cut) return;
  l.cut = false;
  if (l.up && chance(500)) {
    disconnect(a, b, false);
    return;
  }
  std::vector<std::function<void()>> held;
  held.swap(l.held);
  for (auto& action : held) at(now_, std::move(action));
  if (!l.up) connect(a, b);
}

// In order within a connection; gone with it. A duplicate (beats only) comes later, out of order,
// even to a later process.
void World::transmit(uint32_t from, uint32_t to, std::function<void()> action, bool duplicate) {
  Link& l = link(from, to);
  if (!l.up) return;
  const uint64_t delay = chance(20) ? between(1'000'000, 80'000'000) : between(20'000, 400'000);
  uint64_t& last = l.last_delivery[from < to];
  last = std::max(last, now_ + delay);
  const uint64_t epoch = l.epoch;
  if (duplicate && chance(50)) {
    at(last + between(1'000'000, 500'000'000), [this, from, to, action] {
      if (!link(from, to).cut) on_node(to, now_, action);
    });
  }
  auto arrive = [this, from, to, epoch, action = std::move(action)] {
    Link& path = link(from, to);
    if (!path.up || path.epoch != epoch) return;
    if (path.cut) {
      path.held.push_back([this, from, to, epoch, action] {
        if (link(from, to).up && link(from, to).epoch == epoch) on_node(to, now_, action);
      });
      return;
    }
    on_node(to, now_, action);
  };
  at(last, std::move(arrive));
}

void World::pump(uint32_t n) {
  Node& node = nodes_[n];
  if (!node.alive || failure_) return;
  while (Group* group = node.host->next_ready()) take(n, group);
  OutgoingBeat beat;
  while (node.host->take_beat(&beat, local(node))) {
    const uint32_t to = index_of(beat.to);
    transmit(
        n, to,
        [this, n, to, copy = *beat.beat] {
          Node& receiver = nodes_[to];
          const BeatReply reply = receiver.host->on_beat(nodes_[n].id, copy, local(receiver));
          transmit(
              to, n,
              [this, n, to, reply] {
                nodes_[n].host->on_beat_reply(nodes_[to].id, reply, local(nodes_[n]));
              },
              true);
        },
        true);
  }
  const uint64_t deadline = node.host->next_deadline_ns();
  if (deadline == UINT64_MAX) return;
  const uint64_t when = std::max(now_ + 1000, real(node, deadline));
  if (when >= node.tick_at && node.tick_at > now_) return;
  node.tick_at = when;
  on_node(n, when, [this, n] {
    nodes_[n].tick_at = UINT64_MAX;
    nodes_[n].host->tick(local(nodes_[n]));
  });
}

void World::take(uint32_t n, Group* group) {
  Node& node = nodes_[n];
  const Ready ready = group->take_ready();
  Replica& replica = node.replicas[group->id()];
  if (ready.damage_cleared) node.disk[group->id()].damaged = false;
  if (ready.persist_id != 0 || ready.commit > group->applied()) {
    Pending pending;
    pending.group = group->id();
    pending.persist_id = ready.persist_id;
    pending.hard_changed = ready.hard_changed;
    pending.hard = ready.hard;
    pending.truncated = ready.truncated;
    pending.truncate_after = ready.truncate_after;
    pending.first = ready.append_first;
    pending.commit = ready.commit;
    if (ready.append_first != 0) {
      for (Index i = ready.append_first; i <= ready.append_last; ++i) {
        Content& content = replica.contents[i];
        if (content.term != group->term_at(i))
          content = {group->term_at(i), group->slot(i).type, 0, {}};
        pending.entries.push_back(content);
      }
    }
    node.pending.push(std::move(pending));
    schedule_disk(n);
  }
  if (ready.role_changed) {
    trace("%u group %lu: role %d term %lu leader %s commit %lu last %lu damaged %d", n, group->id(),
          static_cast<int>(ready.role), ready.term, ready.leader.text().c_str() + 34, ready.commit,
          group->last_index(), group->damaged());
  }
  for (const Message& message : ready.send) {
    check_promise(n, message);
    send(n, message);
  }
  if (ready.role_changed && ready.role == Role::kLeader) check_leader(n, group);
  record_commit(n, group, ready.commit, ready.role == Role::kLeader);
  if (ready.commit > group->applied()) {
    const CopysetId id = group->id();
    on_node(n, now_ + (chance(800) ? 0 : between(0, 5'000'000)),
            [this, n, id] { apply(nodes_[n].host->find(id)); });
  }
  if (ready.sync_offered) begin_sync(n, group->id(), ready.sync_from);
}

void World::apply(Group* group) {
  const Index commit = group->commit();
  if (group->syncing() || commit <= group->applied()) return;
  group->on_applied(commit);
}

void World::schedule_disk(uint32_t n) {
  Node& node = nodes_[n];
  if (node.disk_busy || node.pending.empty()) return;
  node.disk_busy = true;
  const uint64_t took = chance(50) ? between(1'000'000, 60'000'000) : between(50'000, 800'000);
  on_node(n, now_ + took, [this, n] {
    Node& done = nodes_[n];
    done.disk_busy = false;
    for (uint64_t batch = 1 + below(3); batch > 0 && !done.pending.empty(); --batch)
      finish_persist(done);
    schedule_disk(n);
  });
}

void World::finish_persist(Node& node) {
  const Pending pending = std::move(node.pending.front());
  node.pending.pop();
  apply_persist(node.disk[pending.group], pending);
  if (pending.persist_id != 0)
    node.host->find(pending.group)->on_durable(pending.persist_id, local(node));
}

void World::apply_persist(DiskReplica& disk, const Pending& pending) {
  if (pending.hard_changed) disk.hard = pending.hard;
  if (pending.truncated && pending.truncate_after < disk.last())
    disk.log.resize(pending.truncate_after - disk.base);
  for (size_t i = 0; i < pending.entries.size(); ++i) {
    const Index index = pending.first + i;
    if (index <= disk.base) continue;
    disk.log.resize(index - disk.base);
    disk.log.back() = pending.entries[i];
  }
  disk.commit = std::max(disk.commit, std::min(pending.commit, disk.last()));
}

void World::send(uint32_t n, const Message& message) {
  const uint32_t to = index_of(message.peer);
  Message arriving = message;
  arriving.peer = nodes_[n].id;
  std::vector<Content> entries;
  if (message.type == MessageType::kAppend) {
    for (Index i = message.first; i <= message.last; ++i)
      entries.push_back(nodes_[n].replicas[message.group].contents[i]);
  }
  if (message.type == MessageType::kAppend && chance(5)) return;  // an owner may drop an append
  transmit(
      n, to, [this, to, arriving, entries] { deliver(to, arriving, entries); }, false);
}

void World::deliver(uint32_t n, const Message& message, const std::vector<Content>& entries) {
  trace("%s -> %u group %lu type %d term %lu index %lu/%lu [%lu, %lu] commit %lu%s%s%s",
        message.peer.text().c_str() + 34, n, message.group, static_cast<int>(message.type),
        message.term, message.index, message.log_term, message.first, message.last, message.commit,
        message.reject ? " reject" : "", message.transfer ? " transfer" : "",
        message.damaged ? " damaged" : "");
  Node& node = nodes_[n];
  Group* group = node.host->find(message.group);
  if (group == nullptr) return;
  if (message.type != MessageType::kAppend || entries.empty())
    return group->step(message, local(node));
  std::vector<EntryMeta> metas;
  std::vector<Group::ConfigAt> configs;
  for (size_t i = 0; i < entries.size(); ++i) {
    metas.push_back({message.first + i, entries[i].term, entries[i].bytes(), entries[i].type});
    if (entries[i].type == EntryType::kConfig)
      configs.push_back({message.first + i, entries[i].config});
  }
  const AppendVerdict verdict = group->step_append(message, metas, configs, local(node));
  if (verdict.first_new == 0) return;
  auto& contents = node.replicas[message.group].contents;
  contents.erase(contents.lower_bound(verdict.first_new), contents.end());
  for (Index i = verdict.first_new; i <= message.last; ++i)
    contents[i] = entries[i - message.first];
}

void World::begin_sync(uint32_t n, CopysetId id, const StoreId& leader) {
  Node& node = nodes_[n];
  Group* group = node.host->find(id);
  if (group->role() == Role::kLeader || node.replicas[id].filling) return;
  node.disk[id].syncing = true;
  node.replicas[id].filling = true;
  group->begin_sync(local(node));
  on_node(n, now_ + between(1'000'000, 300'000'000),
          [this, n, id, leader] { end_sync(n, id, leader); });
}

void World::end_sync(uint32_t n, CopysetId id, const StoreId& leader) {
  Node& node = nodes_[n];
  Group* group = node.host->find(id);
  const uint32_t from = index_of(leader);
  node.replicas[id].filling = false;
  Group* source = nodes_[from].alive && link(n, from).up && !link(n, from).cut
                      ? nodes_[from].host->find(id)
                      : nullptr;
  if (source == nullptr || source->role() != Role::kLeader)
    return;  // the next leader will be asked
  ++syncs_;
  while (!node.pending.empty()) finish_persist(node);
  const Index index = source->applied();
  const Term term = source->term_at(index);
  Index config_index = 0;
  const Config config = config_at(id, index, &config_index);
  DiskReplica& disk = node.disk[id];
  const bool keeps = disk.term_at(index) == term && index >= disk.base;
  group->finish_sync(index, term, config, config_index, local(node));
  if (keeps) {
    disk.log.erase(disk.log.begin(), disk.log.begin() + static_cast<ptrdiff_t>(index - disk.base));
  } else {
    disk.log.clear();
  }
  disk.base = index;
  disk.base_term = term;
  disk.base_config = config;
  disk.base_config_index = config_index;
  disk.commit = keeps ? std::max(disk.commit, index) : index;
  disk.applied = index;
  disk.syncing = false;
  disk.damaged = group->damaged();
}

std::optional<std::string> World::run() {
  for (uint32_t n = 0; n < nodes_.size(); ++n) start(n);
  at(now_, [this] { client_step(); });
  at(now_ + between(0, 1'000'000'000), [this] { fault_step(); });
  const uint64_t calm_at = now_ + options_.chaos_ns, end = calm_at + options_.calm_ns;
  at(calm_at, [this] { calm_down(); });
  while (!events_.empty() && !failure_) {
    const uint64_t time = events_.top().time;
    if (time > end) break;
    now_ = time;
    auto action = std::move(const_cast<Event&>(events_.top()).action);
    events_.pop();
    action();
    check_leases();
  }
  if (!failure_) check_logs();
  if (!failure_) check_converged();
  for (Node& node : nodes_) {
    if (node.host) elections_ += node.host->elections_started();
  }
  return failure_;
}

}  // namespace curve::raft::testing
