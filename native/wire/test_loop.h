// For tests of code on a loop: runs turns until a condition holds. The same test runs on io_uring
// and on the simulated world (virtual time), whichever it is linked with. Test code only.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>

#include "native/io/io.h"

namespace curve::wire {

class TestLoop {
 public:
  TestLoop() {
    auto made = io::make_loop();
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().message);
    if (!made.ok()) std::abort();
    loop_ = std::move(*made);
    check_.owner = limit_.owner = this;
    check_.run = [](io::TurnHook* hook) { static_cast<TestLoop*>(hook->owner)->look(); };
    limit_.fire = [](io::Timer* timer) {
      auto* self = static_cast<TestLoop*>(timer->owner);
      self->timed_out_ = true;
      self->loop_->stop();
    };
    loop_->add_turn_hook(&check_);
  }
  ~TestLoop() { loop_->abandon(); }

  io::Loop& operator*() { return *loop_; }
  io::Loop* operator->() { return loop_.get(); }

  // False when `limit_ns` of the loop's time went by first.
  [[nodiscard]] bool run_until(std::function<bool()> condition,
                               uint64_t limit_ns = 20'000'000'000) {
    condition_ = std::move(condition);
    timed_out_ = false;
    if (condition_()) return true;
    loop_->arm(&limit_, loop_->now_ns() + limit_ns);
    loop_->run();
    loop_->disarm(&limit_);
    condition_ = nullptr;
    return !timed_out_;
  }
  void run_for(uint64_t duration_ns) {
    EXPECT_FALSE(run_until([] { return false; }, duration_ns));
  }

 private:
  void look() {
    if (condition_ && condition_()) loop_->stop();
  }
  std::unique_ptr<io::Loop> loop_;
  io::TurnHook check_;
  io::Timer limit_;
  std::function<bool()> condition_;
  bool timed_out_ = false;
};

}  // namespace curve::wire
