// The heap of timers.h.
#include "native/raft/timers.h"

namespace curve::raft {

void TimerHeap::sift_up(size_t position) {
  Timer* timer = heap_[position];
  while (position > 0 && before(timer, heap_[(position - 1) / 2])) {
    place(heap_[(position - 1) / 2], position);
    position = (position - 1) / 2;
  }
  place(timer, position);
}

void TimerHeap::sift_down(size_t position) {
  Timer* timer = heap_[position];
  for (;;) {
    size_t child = 2 * position + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && before(heap_[child + 1], heap_[child])) ++child;
    if (!before(heap_[child], timer)) break;
    place(heap_[child], position);
    position = child;
  }
  place(timer, position);
}

void TimerHeap::erase(Timer* timer) {
  const size_t position = timer->position;
  timer->position = Timer::kIdle;
  Timer* last = heap_.back();
  heap_.pop_back();
  if (last == timer) return;
  place(last, position);
  sift_up(position);
  sift_down(last->position);
}

void TimerHeap::set(Timer* timer, uint64_t deadline_ns) {
  if (timer->position != Timer::kIdle) {
    if (timer->deadline_ns == deadline_ns) return;
    if (deadline_ns == kNever) {
      erase(timer);
      timer->deadline_ns = kNever;
      return;
    }
    timer->deadline_ns = deadline_ns;
    sift_up(timer->position);
    sift_down(timer->position);
    return;
  }
  timer->deadline_ns = deadline_ns;
  if (deadline_ns == kNever) return;
  heap_.push_back(timer);
  timer->position = heap_.size() - 1;
  sift_up(timer->position);
}

Timer* TimerHeap::take_due(uint64_t now_ns) {
  if (heap_.empty() || heap_.front()->deadline_ns > now_ns) return nullptr;
  Timer* timer = heap_.front();
  erase(timer);
  timer->deadline_ns = kNever;
  return timer;
}

}  // namespace curve::raft
