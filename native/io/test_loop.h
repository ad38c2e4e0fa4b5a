// For tests: a loop on the test's own thread that runs until a condition holds, temporary
// directories, aligned memory.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "native/io/io.h"

namespace curve::io {

class TestLoop {
 public:
  TestLoop() {
    auto made = make_loop();
    if (!made) {
      ADD_FAILURE() << made.error().message;
      abort();
    }
    loop_ = std::move(*made);
    hook_.owner = this;
    hook_.run = [](TurnHook* hook) {
      auto* self = static_cast<TestLoop*>(hook->owner);
      if (self->until_ && self->until_()) self->loop_->stop();
    };
    deadline_.owner = this;
    deadline_.fire = [](Timer* timer) {
      ADD_FAILURE() << "the condition never held";
      static_cast<TestLoop*>(timer->owner)->loop_->stop();
    };
    loop_->add_turn_hook(&hook_);
  }
  Loop& operator*() { return *loop_; }
  Loop* operator->() { return loop_.get(); }

  // Runs turns until the condition holds at the end of one; 20 s at most.
  void run_until(std::function<bool()> condition) {
    until_ = std::move(condition);
    loop_->arm(&deadline_, loop_->now_ns() + 20'000'000'000);
    loop_->run();
    loop_->disarm(&deadline_);
    until_ = nullptr;
  }
  void run_turns(int turns) {
    for (int i = 0; i < turns; ++i) {
      loop_->stop();
      loop_->run();
    }
  }

 private:
  std::unique_ptr<Loop> loop_;
  std::function<bool()> until_;
  TurnHook hook_;
  Timer deadline_;
};

// An operation that remembers that it is done.
template <class T>
struct Tracked : T {
  Tracked() {
    this->done = [](Op* op) { ++static_cast<Tracked*>(op)->runs; };
  }
  int runs = 0;
  bool is_done() const { return runs > 0; }
};

struct TemporaryDirectory {
  TemporaryDirectory() {
    char name[] = "io_test_XXXXXX";
    path = std::filesystem::absolute(std::filesystem::temp_directory_path() / name).string();
    if (!mkdtemp(path.data())) abort();
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
  std::string file(const std::string& name) const { return path + "/" + name; }
  std::string path;
};

struct AlignedBytes {
  explicit AlignedBytes(size_t bytes, int fill = 0)
      : data(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)), &std::free), size(bytes) {
    std::fill_n(data.get(), bytes, static_cast<std::byte>(fill));
  }
  iovec part(size_t at, size_t bytes) { return {data.get() + at, bytes}; }
  std::span<std::byte> span() { return {data.get(), size}; }
  std::unique_ptr<std::byte, void (*)(void*)> data;
  size_t size;
};

}  // namespace curve::io
