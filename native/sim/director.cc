#include "native/sim/director.h"

#include <algorithm>

namespace curve::sim {

Director::Director(World& world, Verdict& verdict, const Plan& plan, const ClusterShape& shape,
                   StoreNodes& stores, Random random)
    : world_(world),
      verdict_(verdict),
      plan_(plan),
      shape_(shape),
      stores_(stores),
      random_(random) {}

Director::~Director() = default;

void Director::start() {
  running_ = true;
  for (uint32_t i = 0; i < plan_.director.volumes; ++i) make_volume();
  world_.after(random_.below(plan_.director.interval_ns_max), [this] { act(); });
}

void Director::stop() { running_ = false; }

void Director::act() {
  if (!running_) return;
  const DirectorPlan& plan = plan_.director;
  world_.after(plan.interval_ns_max / 40 + random_.below(plan.interval_ns_max), [this] { act(); });
  Volume& volume = *volumes_[random_.below(volumes_.size())];
  uint64_t dice = random_.below(plan.transfer + plan.exclusive + plan.shared + plan.detach +
                                plan.remove + plan.resize + 5);
  auto is = [&dice](uint32_t weight) {
    const bool hit = dice < weight;
    dice -= hit ? 0 : weight;
    return hit;
  };
  if (is(plan.transfer)) return transfer_some();
  if (volume.busy) return;
  if (is(plan.exclusive)) return attach(volume, false);
  if (is(plan.shared)) return attach(volume, true);
  if (is(plan.detach)) return detach(volume);
  if (is(plan.remove) && !deleted_.count(volume.id)) return remove(volume, true);
  if (is(plan.resize)) return resize(volume);
}

// --- commands to the stores ---

void Director::begin_job(Job job) {
  job.id = next_job_++;
  for (size_t index = 0; index < shape_.copysets.size(); ++index)
    job.left.insert(stores_.copyset_id(index));
  const uint64_t id = job.id;
  jobs_.emplace(id, std::move(job));
  push(id);
}

void Director::push(uint64_t id) {
  const auto at = jobs_.find(id);
  if (at == jobs_.end()) return;
  const Job job = at->second;
  for (size_t number = 0; number < stores_.count(); ++number) {
    if (random_.chance(0.2)) continue;  // lost
    // Now and then a message is late: a newer fence may have overtaken it.
    const uint64_t late =
        random_.chance(0.1) ? random_.below(3 * kSecond) : random_.below(5 * kMillisecond);
    world_.after(late, [this, job, number, id] {
      StoreNode* store = stores_.running(number);
      if (!store) return;
      store->call([this, job, id](copyset::StoreServer& server) {
        const std::vector<CopysetId> copysets(job.left.begin(), job.left.end());
        auto done = [this, id](const copyset::FenceResult& result) { applied(id, result.applied); };
        if (job.remove) {
          server.delete_volume(job.volume, copysets, done);
        } else {
          server.fence(job.volume, job.floor, job.ceiling, job.revoked, copysets, done);
        }
      });
    });
  }
  world_.after(20 * kMillisecond + random_.below(300 * kMillisecond), [this, id] { push(id); });
}

void Director::applied(uint64_t id, const std::vector<CopysetId>& copysets) {
  const auto at = jobs_.find(id);
  if (at == jobs_.end()) return;
  for (CopysetId copyset : copysets) at->second.left.erase(copyset);
  if (!at->second.left.empty()) return;
  auto done = std::move(at->second.done);
  jobs_.erase(at);
  ++verdict_.counts["fences"];
  // The answer to the client comes with the next event.
  done();
}

void Director::transfer_some() {
  const size_t index = random_.below(shape_.copysets.size());
  const std::vector<size_t>& members = shape_.copysets[index];
  const size_t to = members[random_.below(members.size())];
  for (size_t number : members) {
    if (StoreNode* store = stores_.running(number)) {
      store->call([this, index, to](copyset::StoreServer& server) {
        if (server.transfer(stores_.copyset_id(index), StoreNodes::store_id(to)) == Code::kOk)
          ++verdict_.counts["transfers"];
      });
    }
  }
}

// --- volumes and attachments ---

void Director::make_volume() {
  auto volume = std::make_unique<Volume>();
  volume->id = next_volume_++;
  auto history = std::make_unique<VolumeHistory>();
  history->volume = volume->id;
  volume->size_bytes = shape_.volume_bytes;
  volume->history = history.get();
  histories_.push_back(std::move(history));
  volumes_.push_back(std::move(volume));
  const uint64_t count = plan_.load.hot_units ? random_.between(1, 2) : random_.between(2, 6);
  for (uint64_t i = 0; i < count; ++i) add_window(*volumes_.back(), 0, shape_.volume_bytes);
  attach(*volumes_.back(), random_.chance(0.5));
}

void Director::add_window(Volume& volume, uint64_t from_bytes, uint64_t to_bytes) {
  const LoadPlan& load = plan_.load;
  uint64_t size = random_.chance(load.heavy ? 0.9 : 0.2) ? 4096 : random_.between(4, 64) * 16;
  if (load.hot_units) size = load.hot_units;
  const uint64_t from = from_bytes / kUnitBytes, units = (to_bytes - from_bytes) / kUnitBytes;
  uint64_t first = from + random_.below(units - size) / 8 * 8;
  // Some lie across the border of two chunks.
  const uint64_t chunks = (to_bytes - from_bytes) / kChunkBytes;
  if (chunks > 1 && random_.chance(0.3))
    first = from + kChunkBytes / kUnitBytes * random_.between(1, chunks - 1) - size / 16 * 8;
  volume.history->windows.push_back({first, size});
}

// Grows by some chunks, under load; a client hears of it at some time.
void Director::resize(Volume& volume) {
  if (deleted_.count(volume.id) || volume.size_bytes >= 2 * shape_.volume_bytes) return;
  const uint64_t before = volume.size_bytes;
  volume.size_bytes += random_.between(1, 3) * kChunkBytes;
  ++verdict_.counts["resizes"];
  add_window(volume, before, volume.size_bytes);
  routes_changed();
}

client::VolumeMap Director::map_of(const Volume& volume, Epoch epoch) const {
  client::VolumeMap map;
  map.version = map_version_;
  map.volume = volume.id;
  map.placement_id = volume.id;
  map.size_bytes = volume.size_bytes;
  map.epoch = epoch;
  map.layout = shape_.layout;
  map.pool = shape_.pool;
  for (size_t number = 0; number < stores_.count(); ++number) {
    map.stores.push_back({StoreNodes::store_id(number), stores_.address(number)});
  }
  for (size_t index = 0; index < shape_.copysets.size(); ++index) {
    client::CopysetRoute to;
    for (size_t member : route ? route(index) : shape_.copysets[index])
      to.stores.push_back(static_cast<uint16_t>(member));
    to.preferred = static_cast<uint8_t>(index % to.stores.size());
    map.copysets.push_back(std::move(to));
  }
  return map;
}

void Director::routes_changed() {
  ++map_version_;
  for (const auto& [node, attachment] : attachments_) {
    const client::VolumeMap map = map_of(*attachment.volume, attachment.epoch);
    world_.after(random_.below(300 * kMillisecond),
                 [this, node = node, epoch = attachment.epoch, map] {
                   const auto at = attachments_.find(node);
                   Workload* load = workload(node);
                   if (at == attachments_.end() || at->second.epoch != epoch || !load) return;
                   if (world_.node(node).state == NodeState::kUp) load->take_map(map);
                 });
  }
}

Workload* Director::workload(uint32_t node) {
  Node& at = world_.node(node);
  return at.process ? static_cast<Workload*>(at.process.get()) : nullptr;
}

bool Director::free_node(uint32_t* node) {
  const size_t count = std::min<size_t>(shape_.clients.size(), plan_.director.clients);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t candidate = shape_.clients[i];
    if (attachments_.count(candidate)) continue;
    *node = candidate;
    return true;
  }
  return false;
}

// Tells the attachments that `which` chooses that their fence has begun, or that it is complete
// (R12).
void Director::fence_others(Volume& volume, const std::function<bool(const Attachment&)>& which,
                            bool begin) {
  std::vector<uint32_t> gone;
  for (auto& [node, attachment] : attachments_) {
    if (attachment.history != volume.history || !which(attachment)) continue;
    Workload* load = workload(node);
    attachment.fencing = true;
    if (load && begin) load->expect_fence();
    if (load && !begin) load->fenced(world_.now_ns());
    if (!begin) {
      for (uint64_t write : volume.history->orphans[attachment.epoch]) {
        volume.history->checker.bound_write(write, world_.now_ns());
      }
      gone.push_back(node);
    }
  }
  // Some stay for long after, and try again and again.
  for (uint32_t node : gone) retire(node, random_.below(3 * kSecond));
}

// A write of a killed client may be on its way until the fence that follows; that is why its node
// is freed only after a fence.
void Director::retire(uint32_t node, uint64_t delay_ns) {
  world_.after(delay_ns, [this, node, boots = world_.node(node).boots] {
    Node& at = world_.node(node);
    if (at.boots != boots) return;
    if (at.state == NodeState::kUp || at.state == NodeState::kPaused)
      world_.crash(at, CrashKind::kKill);
    attachments_.erase(node);
  });
}

void Director::start_client(Volume& volume, Epoch epoch) {
  uint32_t node;
  if (!free_node(&node)) return;
  attachments_[node] = {epoch, node, false, volume.history, &volume};
  Node& at = world_.node(node);
  WorkloadOptions options;
  options.depth =
      static_cast<uint32_t>(random_.between(plan_.load.depth_min, plan_.load.depth_max));
  options.think_ns_max = random_.between(plan_.load.think_ns_max / 4, plan_.load.think_ns_max);
  options.client = plan_.client;
  // Some hear of a new leader soon, some hold on to the old one.
  if (options.client.request_timeout_ns == 0)
    options.client.request_timeout_ns = random_.chance(0.5) ? 100 * kMillisecond : 2 * kSecond;
  options.halves_percent = volume.shared && random_.chance(0.5) ? 60 : 0;
  options.parity = static_cast<uint32_t>(epoch % 2);
  options.zeroes_percent = plan_.load.zeroes_percent;
  options.large_percent =
      plan_.load.heavy ? plan_.load.large_percent_heavy : plan_.load.large_percent;
  const std::string name =
      at.name + " epoch " + std::to_string(epoch) + " of volume " + std::to_string(volume.id);
  ++verdict_.counts["attachments"];
  world_.start(at, [this, history = volume.history, map = map_of(volume, epoch), options,
                    name](io::Loop& loop) {
    return std::make_unique<Workload>(world_, verdict_, loop, *history, map, shape_.secret, options,
                                      name);
  });
  if (attached_) attached_(*workload(node));
}

void Director::attach(Volume& volume, bool shared) {
  uint32_t node;
  if (!free_node(&node)) return;
  volume.busy = true;
  const Epoch epoch = volume.next_epoch++;
  const bool exclusive = !shared || !volume.shared;
  volume.shared = shared;
  if (exclusive) {
    volume.floor = epoch;
    volume.revoked.clear();
  }
  volume.ceiling = epoch;
  auto others = [epoch](const Attachment& attachment) { return attachment.epoch < epoch; };
  if (exclusive) {
    // The usual reason: the old client is dead. Or it only seems so, and goes on.
    for (auto& [at, attachment] : attachments_) {
      if (attachment.history != volume.history || !random_.chance(plan_.director.kill_old_chance))
        continue;
      Node& old = world_.node(at);
      if (old.state == NodeState::kUp || old.state == NodeState::kPaused) {
        workload(at)->expect_fence();
        attachment.fencing = true;
        world_.crash(old, CrashKind::kKill);
      }
    }
    fence_others(volume, others, true);
  }
  Job job;
  job.volume = volume.id;
  job.floor = volume.floor;
  job.ceiling = volume.ceiling;
  job.revoked = volume.revoked;
  job.done = [this, &volume, epoch, exclusive, others] {
    if (exclusive) {
      fence_others(volume, others, false);
      for (const auto& [old, writes] : volume.history->orphans) {
        if (old >= epoch) break;
        for (uint64_t write : writes) volume.history->checker.bound_write(write, world_.now_ns());
      }
    }
    volume.busy = false;
    start_client(volume, epoch);
  };
  begin_job(std::move(job));
}

void Director::detach(Volume& volume) {
  if (!volume.shared) return;
  std::vector<Epoch> attached;
  for (const auto& [node, attachment] : attachments_) {
    if (attachment.history == volume.history && !attachment.fencing)
      attached.push_back(attachment.epoch);
  }
  if (attached.size() < 2) return;
  const Epoch epoch = attached[random_.below(attached.size())];
  volume.busy = true;
  volume.revoked.push_back(epoch);
  auto one = [epoch](const Attachment& attachment) { return attachment.epoch == epoch; };
  fence_others(volume, one, true);
  Job job;
  job.volume = volume.id;
  job.floor = volume.floor;
  job.ceiling = volume.ceiling;
  job.revoked = volume.revoked;
  job.done = [this, &volume, one] {
    fence_others(volume, one, false);
    volume.busy = false;
  };
  begin_job(std::move(job));
}

void Director::remove(Volume& volume, bool another) {
  volume.busy = true;
  wants_volume_ = another;
  auto all = [](const Attachment&) { return true; };
  fence_others(volume, all, true);
  Job job;
  job.volume = volume.id;
  job.remove = true;
  job.done = [this, &volume, all, another] {
    fence_others(volume, all, false);
    deleted_.insert(volume.id);
    ++verdict_.counts["deletions"];
    // volume.busy stays: nothing is done with it any more. Another one takes its place.
    if (!another) return;
    wants_volume_ = false;
    world_.after(1, [this] { make_volume(); });
  };
  begin_job(std::move(job));
}

bool Director::give_up_a_volume() {
  for (auto& volume : volumes_) {
    if (volume->busy || deleted_.count(volume->id)) continue;
    remove(*volume, false);
    return true;
  }
  return false;
}

void Director::attach_all_afresh(std::function<void(Workload&)> attached) {
  attached_ = std::move(attached);
  // Every other client is dead now; the fence comes before the new one all the same.
  for (uint32_t node : shape_.clients) {
    Node& at = world_.node(node);
    if (at.state == NodeState::kUp || at.state == NodeState::kPaused) {
      workload(node)->expect_fence();
      world_.crash(at, CrashKind::kKill);
    }
  }
  attachments_.clear();
  for (auto& volume : volumes_) {
    if (!deleted_.count(volume->id)) attach(*volume, false);
  }
}

std::vector<Workload*> Director::current() {
  std::vector<Workload*> out;
  for (const auto& [node, attachment] : attachments_) {
    Workload* load = workload(node);
    if (load && !attachment.fencing) out.push_back(load);
  }
  return out;
}

std::vector<Workload*> Director::everybody() {
  std::vector<Workload*> out;
  for (const auto& [node, attachment] : attachments_) {
    if (Workload* load = workload(node)) out.push_back(load);
  }
  return out;
}

}  // namespace curve::sim
