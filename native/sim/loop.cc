// io::Loop on virtual time: turns, timers, mail, hooks, in the order of io.h. See loop_backend.h.
#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "native/sim/disk.h"
#include "native/sim/loop_backend.h"
#include "native/sim/network.h"
#include "native/sim/standalone.h"
#include "native/sim/world.h"

namespace curve::io {

using sim::kMicrosecond;
using sim::kMillisecond;

void LoopBackend::complete(Op* op, int32_t result) {
  if (abandoned) return;
  op->result = result;
  ready.push_back({op, nullptr, nullptr});
  wake(world->now_ns());
}

void LoopBackend::wake(uint64_t world_time) {
  if (abandoned) return;
  // During a turn the next one is planned at its end.
  if (in_turn) return;
  const uint64_t time = std::max({world_time, busy_until, world->now_ns()});
  if (time >= wake_at) return;
  wake_at = time;
  const uint64_t generation = ++wake_generation;
  world->at(time, [this, generation] {
    if (abandoned || generation != wake_generation) return;
    wake_at = UINT64_MAX;
    if (node->state == sim::NodeState::kUp) world->run_turn(this);
  });
}

void LoopBackend::schedule_timer_wake() {
  if (timers.empty()) return;
  const uint64_t due = node->to_world(timers.front().deadline);
  if (due == UINT64_MAX) return;
  // The kernel wakes late, not early.
  wake(due + random.below(60 * kMicrosecond));
}

void LoopBackend::run_turn() {
  in_turn = true;
  ++turns;
  turn_now_local = node->local(world->now_ns());
  run_completions();
  run_mail();
  run_timers();
  run_hooks();
  in_turn = false;
  if (abandoned) return;
  const sim::WorldOptions& options = world->options();
  uint64_t cost = random.between(options.turn_ns_min, options.turn_ns_max);
  if (random.chance(options.slow_turn_chance)) cost = random.below(20 * kMillisecond);
  busy_until = world->now_ns() + cost;
  if (!ready.empty() || mail_first) wake(busy_until);
  schedule_timer_wake();
}

void LoopBackend::run_completions() {
  running.swap(ready);
  random.shuffle(running);
  for (size_t i = 0; i < running.size() && !abandoned; ++i) {
    const Completion item = running[i];
    if (item.op) {
      item.op->done(item.op);
    } else if (item.listener) {
      item.listener->accepted(item.stream);
    }
  }
  running.clear();
}

void LoopBackend::run_mail() {
  Mail* mail = mail_first;
  mail_first = mail_last = nullptr;
  while (mail && !abandoned) {
    Mail* next = mail->next;
    mail->next = nullptr;
    mail->run(mail);
    mail = next;
  }
}

void LoopBackend::run_timers() {
  // A timer armed by a timer for a time already past waits for the next turn.
  timer_sequence_limit = timer_sequence;
  while (!timers.empty() && !abandoned && timers.front().deadline <= turn_now_local &&
         timers.front().sequence < timer_sequence_limit) {
    Timer* timer = timers.front().timer;
    loop->disarm(timer);
    timer->fire(timer);
  }
}

void LoopBackend::run_hooks() {
  base::ListHook* at = hooks.next;
  while (at != &hooks && !abandoned) {
    auto* hook = static_cast<TurnHook*>(at);
    next_hook = static_cast<TurnHook*>(hook->next);  // kept right by remove_turn_hook
    hook->run(hook);
    at = next_hook;
  }
  next_hook = nullptr;
}

Loop::~Loop() { abandon(); }

uint64_t Loop::now_ns() const {
  return backend_->in_turn ? backend_->turn_now_local
                           : backend_->node->local(backend_->world->now_ns());
}
uint64_t Loop::precise_now_ns() const { return now_ns(); }
uint64_t Loop::wall_ns() const { return now_ns() + backend_->node->wall_offset_ns; }
uint64_t Loop::random_u64() { return backend_->random.next(); }

namespace {

using Heap = std::vector<LoopBackend::HeapItem>;

bool earlier(const LoopBackend::HeapItem& a, const LoopBackend::HeapItem& b) {
  return a.deadline != b.deadline ? a.deadline < b.deadline : a.sequence < b.sequence;
}

void put(Heap& heap, size_t at, const LoopBackend::HeapItem& item) {
  heap[at] = item;
  item.timer->heap_at = static_cast<uint32_t>(at);
}

void sift(Heap& heap, size_t at) {
  const LoopBackend::HeapItem item = heap[at];
  while (at > 0 && earlier(item, heap[(at - 1) / 2])) {
    put(heap, at, heap[(at - 1) / 2]);
    at = (at - 1) / 2;
  }
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= heap.size()) break;
    if (child + 1 < heap.size() && earlier(heap[child + 1], heap[child])) ++child;
    if (!earlier(heap[child], item)) break;
    put(heap, at, heap[child]);
    at = child;
  }
  put(heap, at, item);
}

}  // namespace

void Loop::arm(Timer* timer, uint64_t deadline_ns) {
  if (backend_->abandoned) return;
  disarm(timer);
  timer->deadline_ns = deadline_ns;
  backend_->timers.push_back({deadline_ns, backend_->timer_sequence++, timer});
  sift(backend_->timers, backend_->timers.size() - 1);
  if (!backend_->in_turn) backend_->schedule_timer_wake();
}

void Loop::disarm(Timer* timer) {
  if (backend_->abandoned || !timer->armed()) return;
  Heap& heap = backend_->timers;
  const size_t at = timer->heap_at;
  assert(at < heap.size() && heap[at].timer == timer);
  timer->heap_at = UINT32_MAX;
  const LoopBackend::HeapItem last = heap.back();
  heap.pop_back();
  if (at == heap.size()) return;
  put(heap, at, last);
  sift(heap, at);
}

void Loop::add_turn_hook(TurnHook* hook) {
  if (backend_->abandoned) return;
  assert(!hook->linked());
  TurnHook& head = backend_->hooks;
  hook->previous = head.previous;
  hook->next = &head;
  head.previous->next = hook;
  head.previous = hook;
}

void Loop::remove_turn_hook(TurnHook* hook) {
  if (backend_->abandoned || !hook->linked()) return;
  if (backend_->next_hook == hook) backend_->next_hook = static_cast<TurnHook*>(hook->next);
  hook->unlink();
}

void Loop::post(Mail* mail) {
  if (backend_->abandoned) return;
  mail->next = nullptr;
  if (backend_->mail_last) {
    backend_->mail_last->next = mail;
  } else {
    backend_->mail_first = mail;
  }
  backend_->mail_last = mail;
  backend_->wake(backend_->world->now_ns());
}

void Loop::stop() { backend_->stopping = true; }

// For tests of code that drives its own loop: the world turns until this loop was told to stop.
void Loop::run() {
  backend_->stopping = false;
  backend_->wake(backend_->world->now_ns());
  while (!backend_->stopping && !backend_->abandoned) {
    if (!backend_->world->step()) {
      std::fprintf(stderr, "simulated loop runs, but nothing will ever happen again\n");
      std::abort();
    }
  }
}

// For the same tests: the world goes on to this loop's next turn, or until `wait_ns` of its time
// have passed.
bool Loop::turn(uint64_t wait_ns) {
  if (backend_->abandoned) return false;
  sim::World& world = *backend_->world;
  const uint64_t generation = backend_->turns,
                 end = world.now_ns() + std::min(wait_ns, UINT64_MAX - world.now_ns());
  backend_->wake(world.now_ns());
  while (backend_->turns == generation && !backend_->abandoned && world.now_ns() <= end &&
         world.step()) {
  }
  return !backend_->abandoned;
}

void Loop::abandon() {
  if (backend_->abandoned) return;
  backend_->abandoned = true;
  backend_->node->disk->abandon(backend_);
  backend_->world->network().abandon(backend_);
  backend_->ready.clear();
  // Owners may look at their own timers and hooks while they are destroyed: leave them unarmed and
  // unlinked.
  for (const LoopBackend::HeapItem& item : backend_->timers) item.timer->heap_at = UINT32_MAX;
  backend_->timers.clear();
  while (backend_->hooks.next != &backend_->hooks) backend_->hooks.next->unlink();
  backend_->next_hook = &backend_->hooks;
  backend_->mail_first = backend_->mail_last = nullptr;
}

bool Loop::abandoned() const { return backend_->abandoned; }

void Loop::connect(ConnectOp* op, const Address& address) {
  if (backend_->abandoned) return;
  backend_->world->network().connect(backend_, op, address);
}

void Loop::cancel_connect(ConnectOp* op) {
  if (backend_->abandoned) return;
  backend_->world->network().cancel_connect(backend_, op);
}

Result<Address> Loop::listen(const Address& address, Listener* listener) {
  if (backend_->abandoned) return Error{Code::kCancelled, "the loop was abandoned"};
  return backend_->world->network().listen(backend_, address, listener);
}

void Loop::close_listener(Listener* listener) {
  if (backend_->abandoned) return;
  backend_->world->network().close_listener(backend_, listener);
}

Result<std::unique_ptr<Loop>> make_loop(const LoopOptions&) {
  sim::World& world = sim::standalone_world();
  sim::Node& node = world.add_node("standalone" + std::to_string(world.node_count()));
  node.state = sim::NodeState::kUp;
  return world.make_loop(node);
}

}  // namespace curve::io
