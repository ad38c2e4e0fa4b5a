// The seam to the world: time, randomness, timers, files and byte streams of one event-loop thread.
// Everything above is written against this header; curve_io_uring (real) and curve_io_sim
// (native/sim) implement it, chosen at link time.
//
// Turn: (1) reap all completions, then run their `done`; (2) mail posted by other threads; (3)
// timers that are due; (4) turn hooks in order of registration; (5) submit everything and wait.
// `done` is never called from inside the call that started an operation. Nothing here blocks except
// what is named *_sync and run().
//
// Operations are caller-owned structs that must stay in place until `done` ran. After
// Loop::abandon() (simulated crash, or tear-down after stop) no callback ever runs and every call
// is a no-op, so owners may be destroyed in any order, but before the Loop.
//
// Thread: the loop's own, except post() and stop(). The loop's thread is the one that calls run()
// first, and it stays that; until then the creating thread may do everything (what it starts is
// submitted by run()). When the loop's thread ends, the loop is abandoned.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "native/base/list.h"
#include "native/base/status.h"

namespace curve::io {

class Loop;
struct LoopBackend;    // of the implementation
struct StreamBackend;  // of the implementation

struct Op : base::ListHook {
  void (*done)(Op* op) = nullptr;  // runs on the loop thread
  void* owner = nullptr;           // for the owner's use
  int32_t result = 0;              // >= 0: bytes (or 0), < 0: -errno
  uint64_t backend[6] = {};        // of the implementation
};

struct FileOp : Op {
  uint64_t offset_bytes = 0;
  // At most 1024 entries and 2 GiB; 4 KiB-aligned addresses and lengths when the file is `direct`.
  std::span<const iovec> iov;
  bool durable = false;  // writes: on stable storage when done (RWF_DSYNC)
};

struct FileOptions {
  bool create = false;
  bool read_only = false;
  bool direct =
      true;  // O_DIRECT; falls back with File::direct() == false where the file system refuses it
  // Advisory lock: exclusive, shared when `read_only`. kLocked when another process, or another
  // File of this one, holds it.
  bool lock = true;
};

// An open file or block device. Movable handle; closes when destroyed (operations must have ended).
class File {
 public:
  File() = default;
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();
  // May block. Errors name the path and the remedy.
  static Result<File> open(Loop& loop, const std::string& path, const FileOptions& options);
  explicit operator bool() const { return loop_ != nullptr; }
  uint64_t size_bytes() const;
  bool direct() const;

  // Never block. A short transfer is -EIO. Completion order is any.
  void read(FileOp* op);
  void write(FileOp* op);
  void sync(FileOp* op);  // fdatasync
  // Punches a hole. Best effort: 0 also where the file system or device cannot give space back, so
  // the contents afterwards are the old ones or zeros.
  void discard(FileOp* op, uint64_t offset_bytes, uint64_t bytes);

  // May block: start-up and recovery only. 0 or -errno; a short transfer is -EIO. Buffers aligned
  // as above.
  int read_sync(uint64_t offset_bytes, std::span<std::byte> into);
  int write_sync(uint64_t offset_bytes, std::span<const std::byte> from);
  int sync_sync();
  // Makes the file `bytes` long with every byte written as zero (so that later writes change no
  // file-system metadata).
  int allocate_zeroed_sync(uint64_t bytes);
  // Reserves the space (fallocate); contents zero but not necessarily written.
  int allocate_sync(uint64_t bytes);

 private:
  Loop* loop_ = nullptr;
  int64_t handle_ = -1;
  friend class Loop;
};

struct Timer : base::ListHook {
  void (*fire)(Timer* timer) = nullptr;
  void* owner = nullptr;
  uint64_t deadline_ns = 0;
  uint32_t heap_at = UINT32_MAX;  // of the implementation; UINT32_MAX: not armed
  bool armed() const { return heap_at != UINT32_MAX; }
};

// Runs once per turn, before submission.
struct TurnHook : base::ListHook {
  void (*run)(TurnHook* hook) = nullptr;
  void* owner = nullptr;
};

// A task from another thread; caller-owned until run.
struct Mail {
  void (*run)(Mail* mail) = nullptr;
  void* owner = nullptr;
  Mail* next = nullptr;
};

// "127.0.0.1:7000", "[::1]:7000", "unix:/path". Port 0: the system chooses.
struct Address {
  std::string text;
  bool operator==(const Address&) const = default;
};

// A connected TCP or unix stream. At most one receive and one send in flight. TCP_NODELAY is set.
class Stream {
 public:
  // `op->result`: bytes received, 0 at end of stream, -errno. With `all`, done only when `into` is
  // full (or end/error; at the end of the stream the result is what came before it).
  void receive(Op* op, std::span<std::byte> into, bool all);
  // Sends everything (retries short sends) or fails. `iov` (at most 1024) stays valid until done;
  // entries may be changed by the implementation while sending.
  void send(Op* op, std::span<iovec> iov);
  // Ends the stream: operations whose done has not run complete with -ECANCELED; the object dies
  // when the last one has (or now, if none). The caller must not use the stream again. Never calls
  // back.
  void close();
  // Peer address for logs.
  std::string peer() const;
  StreamBackend* backend = nullptr;
};

// Accepts until closed. `accepted` owns the stream it is given.
class Listener {
 public:
  virtual void accepted(Stream* stream) = 0;  // virtual: once per connection, not per I/O
  virtual ~Listener() = default;
};

struct ConnectOp : Op {
  Stream* stream = nullptr;  // set when result == 0
};

class Loop {
 public:
  explicit Loop(LoopBackend* backend) : backend_(backend) {}
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  uint64_t now_ns() const;          // CLOCK_BOOTTIME at the start of this turn
  uint64_t precise_now_ns() const;  // now; for measurements
  uint64_t wall_ns() const;         // CLOCK_REALTIME, for logs only
  uint64_t random_u64();            // seeded from the system, or from the simulation's seed

  void arm(Timer* timer, uint64_t deadline_ns);  // moves it if it is armed
  void disarm(Timer* timer);
  void add_turn_hook(TurnHook* hook);
  void remove_turn_hook(TurnHook* hook);

  void connect(ConnectOp* op, const Address& address);
  void cancel_connect(ConnectOp* op);  // done follows with -ECANCELED (or with a stream: close it)
  // May block. The bound address (with the real port) comes back.
  Result<Address> listen(const Address& address, Listener* listener);
  void close_listener(Listener* listener);

  // Any thread. Wakes the loop.
  void post(Mail* mail);
  // Any thread. run() returns at the end of the current turn.
  void stop();
  // Runs turns until stop(). Blocks. May be called again, on the same thread; a stop() that came
  // before makes it run exactly one turn without waiting.
  void run();
  // One turn, for a thread that drives its loop itself instead of by run(): runs the hooks,
  // submits, waits at most `wait_ns` for something to do (0: not at all), runs what came. False
  // after abandon().
  bool turn(uint64_t wait_ns);
  // See the head of this file. Waits until the kernel has ended what was in flight.
  void abandon();
  bool abandoned() const;

  LoopBackend* backend() const { return backend_; }

 private:
  LoopBackend* backend_;
};

// The real implementation's factory (curve_io_uring). May block. Errors say what is missing
// (kernel, limits, seccomp).
struct LoopOptions {
  uint32_t entries = 4096;
};
Result<std::unique_ptr<Loop>> make_loop(const LoopOptions& options = {});

}  // namespace curve::io
