#include "native/sim/world.h"

#include <algorithm>
#include <cassert>
#include <cstdio>

#include "native/base/log.h"
#include "native/sim/disk.h"
#include "native/sim/loop_backend.h"
#include "native/sim/network.h"

namespace curve::sim {

uint64_t Node::local(uint64_t world_ns) const {
  const int64_t passed = static_cast<int64_t>(world_ns - clock_base_world);
  return clock_base_local +
         static_cast<uint64_t>(passed + static_cast<int64_t>(static_cast<__int128>(passed) *
                                                             clock_drift_ppm / 1'000'000));
}

uint64_t Node::to_world(uint64_t local_ns) const {
  if (local_ns <= clock_base_local) return clock_base_world;
  const __int128 passed = local_ns - clock_base_local;
  if (passed > (static_cast<__int128>(1) << 62)) return UINT64_MAX;
  uint64_t at =
      clock_base_world + static_cast<uint64_t>(passed * 1'000'000 / (1'000'000 + clock_drift_ppm));
  while (local(at) < local_ns) ++at;
  while (at > clock_base_world && local(at - 1) >= local_ns) --at;
  return at;
}

World::World(uint64_t seed, const WorldOptions& options)
    : options_(options),
      random_(Random(seed).split("world")),
      network_(std::make_unique<Network>(*this)) {
  now_ = kSecond;  // zero means "never" in more than one place
}

void World::end() {
  for (auto& node : nodes_) {
    if (node->loop) node->loop->abandon();
    node->process.reset();
    node->loop.reset();
  }
}

World::~World() {
  end();
  if (log_sink_) base::set_log_sink(nullptr, nullptr);
}

Node& World::add_node(const std::string& name) {
  auto node = std::make_unique<Node>();
  node->id = static_cast<uint32_t>(nodes_.size());
  node->name = name;
  node->world = this;
  node->random = random_.split("node " + name);
  node->disk = std::make_unique<Disk>(*this, *node, options_.disk);
  node->clock_base_world = now_;
  node->clock_base_local = 3600 * kSecond + node->random.below(3600 * kSecond);
  const uint64_t ppm = options_.drift_ppm_max;
  node->clock_drift_ppm =
      static_cast<int64_t>(node->random.between(0, 2 * ppm)) - static_cast<int64_t>(ppm);
  node->wall_offset_ns = 1'800'000'000 * kSecond + node->random.below(kSecond);
  nodes_.push_back(std::move(node));
  network_->resize(nodes_.size());
  return *nodes_.back();
}

Node* World::find_node(std::string_view name) {
  for (auto& node : nodes_) {
    if (node->name == name) return node.get();
  }
  return nullptr;
}

void World::at(uint64_t time_ns, std::function<void()> run) {
  if (free_slots_.empty()) {
    free_slots_.push_back(slots_.size());
    slots_.emplace_back();
  }
  const size_t slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[slot] = std::move(run);
  queue_.push_back({std::max(time_ns, now_), sequence_++, slot});
  std::push_heap(queue_.begin(), queue_.end(), Later{});
}

bool World::step() {
  if (queue_.empty()) return false;
  std::pop_heap(queue_.begin(), queue_.end(), Later{});
  const Event event = queue_.back();
  queue_.pop_back();
  now_ = event.time;
  ++events_;
  const std::function<void()> run = std::exchange(slots_[event.slot], nullptr);
  free_slots_.push_back(event.slot);
  run();
  return true;
}

void World::run_for(uint64_t duration_ns) {
  const uint64_t end = now_ + duration_ns;
  while (!queue_.empty() && queue_.front().time <= end) step();
  now_ = end;
}

bool World::run_until(const std::function<bool()>& done, uint64_t limit_ns) {
  const uint64_t end = now_ + limit_ns;
  while (!done()) {
    if (queue_.empty() || queue_.front().time > end) {
      now_ = std::max(now_, end);
      return done();
    }
    step();
  }
  return true;
}

std::unique_ptr<io::Loop> World::make_loop(Node& node) {
  auto backend = std::make_unique<io::LoopBackend>();
  backend->world = this;
  backend->node = &node;
  backend->id = backends_.size();
  backend->random = Random(node.random.next());
  backend->turn_now_local = node.local(now_);
  backend->hooks.next = backend->hooks.previous = &backend->hooks;
  auto loop = std::make_unique<io::Loop>(backend.get());
  backend->loop = loop.get();
  backends_.push_back(std::move(backend));
  return loop;
}

void World::start(Node& node, Boot boot) {
  assert(node.state == NodeState::kDown || node.state == NodeState::kRefused);
  node.boot = std::move(boot);
  node.host_up = true;
  ++node.boots;
  trace(&node, "boot", node.boots);
  node.disk->booting();
  node.loop = make_loop(node);
  const Node* before = running_;
  running_ = &node;
  try {
    node.process = node.boot(*node.loop);
    node.state = node.process ? NodeState::kUp : NodeState::kRefused;
  } catch (const Crash&) {
    ++node.sync_crashes;
    running_ = before;
    trace(&node, "crash_in_recovery");
    node.state = NodeState::kUp;
    crash(node, CrashKind::kPower);
    return;
  }
  running_ = before;
  if (node.state == NodeState::kRefused) {
    trace(&node, "refused");
    stop_process(node);
    return;
  }
  node.disk->cancel_sync_crash();
  node.loop->backend()->wake(now_);
}

void World::restart(Node& node) {
  Boot boot = node.boot;
  start(node, std::move(boot));
}

void World::stop_process(Node& node) {
  node.loop->abandon();
  node.process.reset();
  node.loop.reset();
}

void World::crash(Node& node, CrashKind kind) {
  assert(node.state == NodeState::kUp || node.state == NodeState::kPaused);
  trace(&node, kind == CrashKind::kKill ? "kill" : "power_cut");
  node.disk->cancel_sync_crash();
  // Writes in flight are resolved while the memory that they come from still exists.
  node.disk->crash(node.loop->backend(), kind);
  node.host_up = kind == CrashKind::kKill || node.random.chance(0.3);
  network_->crash(node, kind);
  stop_process(node);
  node.state = NodeState::kDown;
}

void World::pause(Node& node) {
  assert(node.state == NodeState::kUp);
  trace(&node, "pause");
  node.state = NodeState::kPaused;
}

void World::resume(Node& node) {
  assert(node.state == NodeState::kPaused);
  trace(&node, "resume");
  node.state = NodeState::kUp;
  wake_loops(node);
}

void World::jump_clock(Node& node, uint64_t forward_ns) { node.wall_offset_ns += forward_ns; }

void World::set_drift(Node& node, int64_t ppm) {
  node.clock_base_local = node.local(now_);
  node.clock_base_world = now_;
  node.clock_drift_ppm = ppm;
  wake_loops(node);  // timers are due at another world time now
}

void World::wake_loops(Node& node) {
  for (auto& backend : backends_) {
    if (backend->node == &node) backend->wake(now_);
  }
}

void World::run_turn(io::LoopBackend* backend) {
  Node& node = *backend->node;
  const Node* before = running_;
  running_ = &node;
  try {
    backend->run_turn();
    running_ = before;
  } catch (const Crash&) {
    running_ = before;
    ++node.sync_crashes;
    crash(node, CrashKind::kPower);
  }
}

void World::trace(const Node* node, std::string_view event, uint64_t a, uint64_t b) {
  auto mix = [this](uint64_t value) { trace_hash_ = mix64(trace_hash_ ^ value) + value; };
  mix(now_);
  mix(node ? node->id : UINT64_MAX);
  for (char c : event) trace_hash_ = (trace_hash_ ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  mix(a);
  mix(b);
  if (!trace_sink_) return;
  char line[256];
  std::snprintf(line, sizeof line, "%12.6f %-8s %.*s %llu %llu", static_cast<double>(now_) / 1e9,
                node ? node->name.c_str() : "-", static_cast<int>(event.size()), event.data(),
                static_cast<unsigned long long>(a), static_cast<unsigned long long>(b));
  trace_sink_(line);
}

void World::capture_log(std::function<void(const Node*, std::string_view)> sink) {
  log_sink_ = std::move(sink);
  base::set_log_sink(
      [](void* owner, base::LogLevel, std::string_view line) {
        auto* world = static_cast<World*>(owner);
        world->log_sink_(world->running_, line);
      },
      this);
}

}  // namespace curve::sim
