// Armed timers by deadline, in a 4-ary heap (shallower and kinder to caches than a binary one). A
// timer knows its place, so that it can be moved and removed. Invariant: heap_[t->heap_at].timer ==
// t for every armed timer; no child is due before its parent. Memory grows to the largest number of
// timers ever armed at once, then stays. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "native/io/io.h"

namespace curve::io {

class TimerHeap {
 public:
  bool empty() const { return heap_.empty(); }
  size_t size() const { return heap_.size(); }
  uint64_t earliest_ns() const { return heap_.front().deadline_ns; }
  Timer* front() { return heap_.front().timer; }

  // Moves it if it is armed. `key_ns` orders it; the timer's own deadline_ns is left to the caller.
  void arm(Timer* timer, uint64_t key_ns) {
    if (!timer->armed()) {
      heap_.push_back({key_ns, timer});
      timer->heap_at = static_cast<uint32_t>(heap_.size() - 1);
      rise(timer->heap_at, {key_ns, timer});
      return;
    }
    const uint32_t at = timer->heap_at;
    if (key_ns < heap_[at].deadline_ns) {
      rise(at, {key_ns, timer});
    } else {
      sink(at, {key_ns, timer});
    }
  }

  void disarm(Timer* timer) {
    if (!timer->armed()) return;
    const uint32_t at = timer->heap_at;
    timer->heap_at = UINT32_MAX;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (last.timer == timer) return;
    if (at > 0 && last.deadline_ns < heap_[(at - 1) / 4].deadline_ns) {
      rise(at, last);
    } else {
      sink(at, last);
    }
  }

  void clear() {
    for (const Entry& entry : heap_) entry.timer->heap_at = UINT32_MAX;
    heap_.clear();
  }

 private:
  struct Entry {
    uint64_t deadline_ns;
    Timer* timer;
  };

  void place(uint32_t at, const Entry& entry) {
    heap_[at] = entry;
    entry.timer->heap_at = at;
  }
  void rise(uint32_t at, Entry entry) {
    while (at > 0) {
      const uint32_t parent = (at - 1) / 4;
      if (heap_[parent].deadline_ns <= entry.deadline_ns) break;
      place(at, heap_[parent]);
      at = parent;
    }
    place(at, entry);
  }
  void sink(uint32_t at, Entry entry) {
    const auto count = static_cast<uint32_t>(heap_.size());
    for (;;) {
      const uint32_t first = at * 4 + 1;
      if (first >= count) break;
      uint32_t least = first;
      for (uint32_t child = first + 1; child < count && child < first + 4; ++child) {
        if (heap_[child].deadline_ns < heap_[least].deadline_ns) least = child;
      }
      if (heap_[least].deadline_ns >= entry.deadline_ns) break;
      place(at, heap_[least]);
      at = least;
    }
    place(at, entry);
  }

  std::vector<Entry> heap_;
};

}  // namespace curve::io
