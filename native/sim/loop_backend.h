// The state of one simulated event loop. Shared by the three files that implement io.h (loop.cc,
// disk.cc, network.cc). Invariant: after `abandoned` nothing here calls back and nothing here is
// touched through a callback.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "native/io/io.h"
#include "native/sim/world.h"

namespace curve::sim {
struct VirtualFile;
}  // namespace curve::sim

namespace curve::io {

struct LoopBackend {
  sim::World* world = nullptr;
  sim::Node* node = nullptr;
  Loop* loop = nullptr;
  uint64_t id = 0;  // of this start of the node; names the loop in events
  bool abandoned = false;
  bool stopping = false;

  uint64_t turn_now_local = 0;  // what now_ns() says
  uint64_t busy_until = 0;      // world time: the turn's CPU time
  uint64_t wake_at = UINT64_MAX;
  uint64_t wake_generation = 0;
  bool in_turn = false;
  uint64_t turns = 0;

  // Reaped operations whose `done` runs in the next turn, and streams for listeners.
  struct Completion {
    Op* op = nullptr;
    Listener* listener = nullptr;
    Stream* stream = nullptr;
  };
  std::vector<Completion> ready;
  std::vector<Completion> running;
  Mail* mail_first = nullptr;
  Mail* mail_last = nullptr;
  TurnHook hooks;  // head of a ring
  TurnHook* next_hook = nullptr;

  struct HeapItem {
    uint64_t deadline;
    uint64_t sequence;
    Timer* timer;
  };
  std::vector<HeapItem> timers;  // binary heap; Timer::heap_at is the position
  uint64_t timer_sequence = 0;
  uint64_t timer_sequence_limit = UINT64_MAX;

  // Files: handles and operations in flight, by number.
  struct Handle {
    sim::VirtualFile* file = nullptr;
    bool read_only = false;
    bool direct = true;
    bool locked = false;
    uint32_t inflight = 0;
  };
  std::vector<Handle> handles;

  sim::Random random{0};

  // The result is set and `done` runs in a turn soon.
  void complete(Op* op, int32_t result);
  void wake(uint64_t world_time);
  void run_turn();
  void schedule_timer_wake();

 private:
  void run_completions();
  void run_mail();
  void run_timers();
  void run_hooks();
};

}  // namespace curve::io
