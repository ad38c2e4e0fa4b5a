// A native thread that runs one event loop, and the ways across: call() from other threads, events
// back by a queue with an eventfd. This is all that control (Python) sees of a loop; the I/O path
// never comes here. Owner's order: make -> call(...) as wanted (it runs once the loop runs) -> run
// -> stop_and_join.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "native/io/io.h"

namespace curve::io {

// Events from the loop to one consumer. push() on the loop thread, take() on any; fd() is readable
// while events wait.
template <class T>
class EventQueue {
 public:
  EventQueue() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~EventQueue() { close(fd_); }
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;
  int fd() const { return fd_; }
  void push(T event) {
    std::lock_guard lock(mutex_);
    if (events_.empty()) {
      const uint64_t one = 1;
      [[maybe_unused]] const auto written = write(fd_, &one, sizeof one);
    }
    events_.push_back(std::move(event));
  }
  std::vector<T> take(size_t max) {
    std::lock_guard lock(mutex_);
    std::vector<T> out;
    while (!events_.empty() && out.size() < max) {
      out.push_back(std::move(events_.front()));
      events_.pop_front();
    }
    if (events_.empty()) {
      uint64_t count;
      [[maybe_unused]] const auto got = read(fd_, &count, sizeof count);
    }
    return out;
  }
  size_t size() const {
    std::lock_guard lock(mutex_);
    return events_.size();
  }

 private:
  int fd_;
  mutable std::mutex mutex_;
  std::deque<T> events_;
};

class LoopThread {
 public:
  explicit LoopThread(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
  ~LoopThread() { stop_and_join(); }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;
  Loop& loop() { return *loop_; }

  void run() {
    thread_ = std::thread([this] { loop_->run(); });
  }
  bool running() const { return thread_.joinable(); }
  // Any thread. Runs on the loop, in order. Not run at all when the loop has ended.
  void call(std::function<void()> task) {
    auto* letter = new Letter;
    letter->task = std::move(task);
    letter->mail.owner = letter;
    letter->mail.run = [](Mail* mail) {
      std::unique_ptr<Letter> mine(static_cast<Letter*>(mail->owner));
      mine->task();
    };
    loop_->post(&letter->mail);
  }
  // Blocks until `task` ran. The loop must be running.
  void call_and_wait(const std::function<void()>& task) {
    std::mutex mutex;
    std::condition_variable done_condition;
    bool done = false;
    call([&] {
      task();
      std::lock_guard lock(mutex);
      done = true;
      done_condition.notify_one();
    });
    std::unique_lock lock(mutex);
    done_condition.wait(lock, [&] { return done; });
  }
  void stop_and_join() {
    if (!thread_.joinable()) return;
    loop_->stop();
    thread_.join();
  }

 private:
  struct Letter {
    Mail mail;
    std::function<void()> task;
  };
  std::unique_ptr<Loop> loop_;
  std::thread thread_;
};

}  // namespace curve::io
