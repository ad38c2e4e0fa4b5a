// Deadlines of those groups and peers that wait for something: an indexed binary heap of intrusive
// timers. Deterministic: equal deadlines fire in order of `order`. One thread; allocates only when
// the heap grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace curve::raft {

inline constexpr uint64_t kNever = UINT64_MAX;

enum class TimerKind : uint8_t { kGroup, kBeat, kSilence, kQuiet };

struct Timer {
  static constexpr size_t kIdle = SIZE_MAX;
  uint64_t deadline_ns = kNever;
  uint64_t order = 0;       // unique
  size_t position = kIdle;  // in the heap
  TimerKind kind = TimerKind::kGroup;
  void* owner = nullptr;
};

class TimerHeap {
 public:
  ~TimerHeap() = default;
  // kNever: the timer leaves the heap.
  void set(Timer* timer, uint64_t deadline_ns);
  // Takes out and returns the first timer with deadline <= now; nullptr when none is due.
  Timer* take_due(uint64_t now_ns);
  uint64_t next_deadline_ns() const { return heap_.empty() ? kNever : heap_.front()->deadline_ns; }
  size_t size() const { return heap_.size(); }

 private:
  static bool before(const Timer* a, const Timer* b) {
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->order < b->order;
  }
  void place(Timer* timer, size_t position) {
    heap_[position] = timer;
    timer->position = position;
  }
  void sift_up(size_t position);
  void sift_down(size_t position);
  void erase(Timer* timer);
  std::vector<Timer*> heap_;
};

}  // namespace curve::raft
