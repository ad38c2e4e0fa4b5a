// The heap against a sorted multimap of the same timers.
#include "native/io/timer_heap.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace curve::io {
namespace {

TEST(TimerHeap, BehavesLikeASortedMap) {
  std::mt19937_64 random(3);
  std::vector<Timer> timers(200);
  std::map<Timer*, uint64_t> twin;
  TimerHeap heap;
  for (int step = 0; step < 20000; ++step) {
    Timer* timer = &timers[random() % timers.size()];
    switch (random() % 4) {
      case 0:
      case 1: {
        const uint64_t key = random() % 1000;
        heap.arm(timer, key);
        twin[timer] = key;
        break;
      }
      case 2:
        heap.disarm(timer);
        twin.erase(timer);
        break;
      default:
        if (heap.empty()) break;
        uint64_t least = UINT64_MAX;
        for (const auto& [unused, key] : twin) least = std::min(least, key);
        ASSERT_EQ(heap.earliest_ns(), least);
        Timer* first = heap.front();
        ASSERT_EQ(twin.at(first), least);
        heap.disarm(first);
        twin.erase(first);
    }
    ASSERT_EQ(heap.size(), twin.size());
    ASSERT_EQ(timer->armed(), twin.count(timer) == 1);
  }
  heap.clear();
  for (const Timer& timer : timers) ASSERT_FALSE(timer.armed());
}

}  // namespace
}  // namespace curve::io
