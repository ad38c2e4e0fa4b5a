// The io_uring world: one ring, its ready list, timers, mail, streams and listeners. Shared by
// uring_*.cc only.
//
// A request that was given to the kernel ends in exactly one final completion; `inflight_` counts
// those that are outstanding. Completions are reaped first (reap() only writes results and links
// operations into `ready_`), and run after (run_ready()), so that no callback ever runs inside the
// reaping loop or inside a call that starts an operation. What fails at once goes through `ready_`
// too. Invariant: memory that the kernel may write to (buffers, operations) belongs to somebody
// alive: abandon() and the end of the loop's thread wait until nothing is in flight. Thread: the
// loop's own, except post() and stop(); until the first run() the creating thread stands in for it
// (the ring is created disabled, requests are prepared but not submitted).
#pragma once

#include <liburing.h>
#include <sys/socket.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>

#include "native/base/list.h"
#include "native/io/address.h"
#include "native/io/io.h"
#include "native/io/timer_heap.h"

namespace curve::io {

// What a completion's user_data points to; in its low three bits.
enum class Completion : uint64_t {
  kIgnored = 0,   // cancellations
  kFile = 1,      // FileOp
  kReceive = 2,   // StreamBackend
  kSend = 3,      // StreamBackend
  kConnect = 4,   // StreamBackend
  kAccept = 5,    // ListenerBackend
  kReadable = 6,  // Op that waits for a descriptor; none: the eventfd
  kTimeout = 7,   // nothing: the standing timeout
};

struct ListenerBackend : base::ListHook {
  LoopBackend* loop = nullptr;
  Listener* listener = nullptr;  // null: closed
  int fd = -1;
  bool in_kernel = false;    // the multishot accept
  uint32_t undelivered = 0;  // accepted streams whose event has not run
  std::string unlink_path;   // of a unix socket
  Timer retry;               // after EMFILE and its like
};

// One direction of a stream. `op` is set from its start until its done runs.
struct Transfer {
  Op* op = nullptr;
  bool in_kernel = false;
  size_t moved_bytes = 0;
  size_t left_bytes = 0;
};

struct StreamBackend : base::ListHook {
  LoopBackend* loop = nullptr;
  Stream stream;
  int fd = -1;
  bool closing = false;
  bool receive_all = false;
  bool receive_empty = false;  // the last receive took all there was: wait for data before trying
  Transfer receiving, sending;
  std::byte* receive_at = nullptr;
  msghdr message{};  // of the send: what is left of the caller's iov
  std::string peer;
  // While it is being made:
  ConnectOp* connecting = nullptr;
  SocketAddress address;
  Op accepted;  // delivers it to `listener`
  ListenerBackend* listener = nullptr;
};

struct LoopBackend {
  ~LoopBackend();
  Outcome create(const LoopOptions& options);

  void run();
  bool turn(uint64_t wait_ns);
  void stop();
  void post(Mail* mail);
  void abandon();
  uint64_t now_ns() const;
  uint64_t random_u64();

  // A free submission entry that counts as in flight: prepare it, then tag it. Submits what is
  // there when the queue is full.
  io_uring_sqe* request();
  static void tag(io_uring_sqe* entry, Completion kind, void* target) {
    entry->user_data = reinterpret_cast<uint64_t>(target) | static_cast<uint64_t>(kind);
  }
  // `op` ends with `result` in the next turn.
  void finish(Op* op, int32_t result) {
    op->result = result;
    ready_.push_back(op);
    ++ready_count_;
  }
  void cancel(Completion kind, void* target);

  // uring_file.cc
  void submit_file(FileOp* op);
  void file_completed(FileOp* op, int32_t result);
  // uring_stream.cc
  StreamBackend* make_stream(int fd);
  void start_receive(StreamBackend* stream);
  void receive_completed(StreamBackend* stream, int32_t result, uint32_t flags);
  void start_send(StreamBackend* stream);
  void send_completed(StreamBackend* stream, int32_t result);
  void close_stream(StreamBackend* stream);
  void free_stream_when_idle(StreamBackend* stream);
  // uring_connect.cc
  void connect(ConnectOp* op, const Address& address);
  void cancel_connect(ConnectOp* op);
  void connect_completed(StreamBackend* stream, int32_t result);
  Result<Address> listen(const Address& address, Listener* listener);
  void close_listener(Listener* listener);
  void start_accept(ListenerBackend* listener);
  void accept_completed(ListenerBackend* listener, int32_t result, uint32_t flags);
  void free_listener_when_idle(ListenerBackend* listener);
  void free_streams_and_listeners();

  base::List<TurnHook> hooks_;
  TurnHook* next_hook_ = nullptr;  // while hooks run
  TimerHeap timers_;
  base::List<StreamBackend> streams_;
  base::List<ListenerBackend> listeners_;
  uint64_t now_ns_ = 0;
  bool abandoned_ = false;
  bool running_ = false;

 private:
  void drain();
  void start();
  void run_what_came();
  void enable();
  void submit_and_wait(bool may_wait);
  void reap();
  void complete(uint64_t user_data, int32_t result, uint32_t flags);
  void run_ready();
  void run_mail();
  void run_timers();
  void run_hooks();
  void arm_wake();
  void arm_timeout(uint64_t deadline_ns);
  void wake();

  io_uring ring_{};
  bool ring_created_ = false;
  bool enabled_ = false;
  int event_fd_ = -1;
  uint64_t event_count_ = 0;  // the kernel reads the eventfd into it
  static constexpr uint64_t kNever = UINT64_MAX;
  Timer turn_timer_;
  uint64_t timeout_at_ns_ = kNever;  // of the request in the kernel
  __kernel_timespec timeout_{};      // read by the kernel when it is submitted
  uint64_t inflight_ = 0;
  base::List<Op> ready_;
  uint32_t ready_count_ = 0;
  std::thread::id thread_;
  pid_t process_ = 0;
  uint64_t random_[4] = {};

  // Shared with other threads. A poster pushes, then looks at `sleeping_`; the loop sets
  // `sleeping_`, then looks at the mail: whatever the order, one of the two sees the other (all
  // four accesses are sequentially consistent).
  alignas(64) std::atomic<Mail*> mail_{nullptr};  // newest first
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> stop_{false};
};

uint64_t boot_time_ns();

}  // namespace curve::io
