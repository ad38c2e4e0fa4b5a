// Turns of the loop: reap, run, mail, timers, hooks, submit and wait. See uring_backend.h for its
// invariants.
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "native/io/uring_backend.h"

namespace curve::io {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;
constexpr uint64_t kKindMask = 7;

uint64_t clock_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * kNsPerSecond + static_cast<uint64_t>(t.tv_nsec);
}

[[noreturn]] void die(const char* what, int error) {
  std::fprintf(stderr, "event loop: %s: %s\n", what, std::strerror(error));
  std::abort();
}

const char* remedy_of(int error) {
  switch (error) {
    case ENOSYS:
      return "this kernel has no io_uring; Linux 6.1 or later is needed";
    case EPERM:
    case EACCES:
      return "io_uring is not allowed here; look at the sysctl kernel.io_uring_disabled and at the "
             "seccomp profile of "
             "the container";
    case EINVAL:
      return "this kernel's io_uring is too old; Linux 6.1 or later is needed";
    case ENOMEM:
      return "not enough (lockable) memory; raise RLIMIT_MEMLOCK (ulimit -l)";
    case EMFILE:
    case ENFILE:
      return "too many open files; raise RLIMIT_NOFILE (ulimit -n)";
    default:
      return "the kernel refused it";
  }
}

// Loops that ran on this thread. When the thread ends nothing can run on them any more, but the
// kernel may still be writing into buffers: wait for it here, while they exist.
class LoopsOfThread {
 public:
  ~LoopsOfThread() {
    while (!loops_.empty()) loops_.back()->abandon();  // removes itself
  }
  void add(LoopBackend* loop) { loops_.push_back(loop); }
  void remove(LoopBackend* loop) { std::erase(loops_, loop); }

 private:
  std::vector<LoopBackend*> loops_;
};
thread_local LoopsOfThread loops_of_thread;

}  // namespace

uint64_t boot_time_ns() { return clock_ns(CLOCK_BOOTTIME); }

Outcome LoopBackend::create(const LoopOptions& options) {
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                     IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP;
  int error = -io_uring_queue_init_params(options.entries, &ring_, &parameters);
  if (error == 0) {
    ring_created_ = true;
    event_fd_ = eventfd(0, EFD_CLOEXEC);
    if (event_fd_ < 0) error = errno;
  }
  if (error != 0) {
    return Error{Code::kIo, std::string("cannot create the event loop: ") + std::strerror(error) +
                                "; " + remedy_of(error)};
  }
  if (getrandom(random_, sizeof random_, 0) != sizeof random_) die("getrandom", errno);
  return {};
}

LoopBackend::~LoopBackend() {
  abandon();
  free_streams_and_listeners();
  if (ring_created_) io_uring_queue_exit(&ring_);
  if (event_fd_ >= 0) close(event_fd_);
}

uint64_t LoopBackend::now_ns() const { return running_ ? now_ns_ : boot_time_ns(); }

uint64_t LoopBackend::random_u64() {  // xoshiro256** (Blackman, Vigna 2018)
  uint64_t* s = random_;
  const uint64_t result = std::rotl(s[1] * 5, 7) * 9;
  const uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = std::rotl(s[3], 45);
  return result;
}

io_uring_sqe* LoopBackend::request() {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  while (!entry) {
    if (!enabled_) die("more operations before run() than LoopOptions::entries", EOVERFLOW);
    const int submitted = io_uring_submit(&ring_);
    if (submitted < 0 && submitted != -EINTR && submitted != -EAGAIN) die("submit", -submitted);
    entry = io_uring_get_sqe(&ring_);
  }
  ++inflight_;
  return entry;
}

void LoopBackend::cancel(Completion kind, void* target) {
  io_uring_sqe* entry = request();
  const uint64_t user_data = reinterpret_cast<uint64_t>(target) | static_cast<uint64_t>(kind);
  io_uring_prep_cancel64(entry, user_data, 0);
  tag(entry, Completion::kIgnored, nullptr);
}

void LoopBackend::arm_wake() {
  io_uring_sqe* entry = request();
  io_uring_prep_read(entry, event_fd_, &event_count_, sizeof event_count_, 0);
  tag(entry, Completion::kReadable, nullptr);
}

void LoopBackend::enable() {
  // liburing 2.3 declares io_uring_enable_rings() but its shared library does not export it.
  if (syscall(__NR_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) !=
      0) {
    die("enabling the ring", errno);
  }
  enabled_ = true;
  io_uring_register_ring_fd(&ring_);  // saves a lookup per enter; may fail
  thread_ = std::this_thread::get_id();
  process_ = getpid();
  loops_of_thread.add(this);
  arm_wake();
}

void LoopBackend::start() {
  if (!enabled_) enable();
  if (thread_ != std::this_thread::get_id()) die("run() on another thread than before", EINVAL);
  running_ = true;
}

void LoopBackend::run_what_came() {
  now_ns_ = boot_time_ns();
  reap();
  run_ready();
  if (mail_.load(std::memory_order_relaxed)) run_mail();
  run_timers();
}

void LoopBackend::run() {
  if (abandoned_) return;
  start();
  for (;;) {
    run_what_came();
    run_hooks();
    if (abandoned_) break;
    if (stop_.load(std::memory_order_acquire)) {
      stop_.store(false, std::memory_order_relaxed);
      io_uring_submit_and_get_events(&ring_);
      break;
    }
    submit_and_wait(true);
  }
  running_ = false;
}

// The other way round than in run(): who drives the loop by hand wants back control when something
// was run.
bool LoopBackend::turn(uint64_t wait_ns) {
  if (abandoned_) return false;
  start();
  now_ns_ = boot_time_ns();
  run_hooks();
  if (!abandoned_) {
    turn_timer_.fire = [](Timer*) {};  // it only ends the wait
    if (wait_ns > 0 && wait_ns < kNever - now_ns_) timers_.arm(&turn_timer_, now_ns_ + wait_ns);
    submit_and_wait(wait_ns > 0);
    timers_.disarm(&turn_timer_);
    stop_.store(false, std::memory_order_relaxed);  // it has ended the wait
    run_what_came();
  }
  running_ = false;
  return !abandoned_;
}

// One timeout request stands in the kernel, at or before the earliest timer. A wait with a timeout
// of its own would program the clock anew at each turn, which costs more than the rest of the wait.
// Timers mostly move away, so the request is left where it is when they do: it fires once for
// nothing and is made again.
void LoopBackend::arm_timeout(uint64_t deadline_ns) {
  timeout_.tv_sec = static_cast<int64_t>(deadline_ns / kNsPerSecond);
  timeout_.tv_nsec = static_cast<int64_t>(deadline_ns % kNsPerSecond);
  io_uring_sqe* entry = request();
  if (timeout_at_ns_ == kNever) {
    io_uring_prep_timeout(entry, &timeout_, 0, IORING_TIMEOUT_ABS | IORING_TIMEOUT_BOOTTIME);
    tag(entry, Completion::kTimeout, nullptr);
  } else {  // fails when it fires at this moment: then its completion makes a new one
    io_uring_prep_timeout_update(entry, &timeout_, static_cast<uint64_t>(Completion::kTimeout),
                                 IORING_TIMEOUT_ABS);
    tag(entry, Completion::kIgnored, nullptr);
  }
  timeout_at_ns_ = deadline_ns;
}

void LoopBackend::submit_and_wait(bool may_wait) {
  bool wait = may_wait && ready_.empty();
  if (wait && !timers_.empty()) {
    const uint64_t earliest_ns = timers_.earliest_ns();
    wait = earliest_ns > now_ns_ + 1;  // see Loop::arm
    if (wait && earliest_ns < timeout_at_ns_) arm_timeout(earliest_ns);
  }
  if (wait) {
    sleeping_.store(true, std::memory_order_seq_cst);
    wait = !mail_.load(std::memory_order_seq_cst) && !stop_.load(std::memory_order_seq_cst);
  }
  const int result =
      wait ? io_uring_submit_and_wait(&ring_, 1) : io_uring_submit_and_get_events(&ring_);
  sleeping_.store(false, std::memory_order_relaxed);
  // Out of memory for a moment (EAGAIN) or a full completion queue (EBUSY): the next turn tries
  // again.
  if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
    die("submit and wait", -result);
  }
}

void LoopBackend::reap() {
  unsigned head, reaped = 0;
  io_uring_cqe* completion;
  io_uring_for_each_cqe(&ring_, head, completion) {
    complete(completion->user_data, completion->res, completion->flags);
    ++reaped;
  }
  io_uring_cq_advance(&ring_, reaped);
}

void LoopBackend::complete(uint64_t user_data, int32_t result, uint32_t flags) {
  if (!(flags & IORING_CQE_F_MORE)) --inflight_;
  void* target = reinterpret_cast<void*>(user_data & ~kKindMask);
  const auto kind = static_cast<Completion>(user_data & kKindMask);
  if (abandoned_) {  // nobody to tell; the target may be gone
    if (kind == Completion::kAccept && result >= 0) close(result);
    return;
  }
  switch (kind) {
    case Completion::kIgnored:
      return;
    case Completion::kFile:
      return file_completed(static_cast<FileOp*>(target), result);
    case Completion::kReceive:
      return receive_completed(static_cast<StreamBackend*>(target), result, flags);
    case Completion::kSend:
      return send_completed(static_cast<StreamBackend*>(target), result);
    case Completion::kConnect:
      return connect_completed(static_cast<StreamBackend*>(target), result);
    case Completion::kAccept:
      return accept_completed(static_cast<ListenerBackend*>(target), result, flags);
    case Completion::kReadable:
      return target ? finish(static_cast<Op*>(target), result) : arm_wake();
    case Completion::kTimeout:
      timeout_at_ns_ = kNever;
      return;
  }
}

// Runs what is ready now; what becomes ready meanwhile waits for the next turn.
void LoopBackend::run_ready() {
  uint32_t count = ready_count_;
  while (count-- > 0) {
    Op* op = ready_.pop_front();
    if (!op) return;  // abandoned by a callback
    --ready_count_;
    if (auto* stream = reinterpret_cast<StreamBackend*>(op->backend[0])) {
      Transfer& transfer = stream->receiving.op == op ? stream->receiving : stream->sending;
      transfer.op = nullptr;
      if (stream->closing) free_stream_when_idle(stream);
    }
    op->done(op);
  }
}

void LoopBackend::post(Mail* mail) {
  Mail* head = mail_.load(std::memory_order_relaxed);
  do {
    mail->next = head;
  } while (!mail_.compare_exchange_weak(head, mail, std::memory_order_seq_cst,
                                        std::memory_order_relaxed));
  wake();
}

void LoopBackend::stop() {
  stop_.store(true, std::memory_order_seq_cst);
  wake();
}

void LoopBackend::wake() {
  if (!sleeping_.load(std::memory_order_seq_cst)) return;
  if (!sleeping_.exchange(false, std::memory_order_seq_cst)) return;  // somebody else does it
  const uint64_t one = 1;
  if (write(event_fd_, &one, sizeof one) != sizeof one) die("waking the loop", errno);
}

void LoopBackend::run_mail() {
  Mail* newest = mail_.exchange(nullptr, std::memory_order_acquire);
  Mail* oldest = nullptr;
  while (newest) {
    Mail* next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  while (oldest && !abandoned_) {
    Mail* next = oldest->next;  // it may be posted again, or die, while it runs
    oldest->run(oldest);
    oldest = next;
  }
}

// A timer that is armed meanwhile is due in a later turn at the earliest: see Loop::arm.
void LoopBackend::run_timers() {
  while (!timers_.empty() && timers_.earliest_ns() <= now_ns_) {
    Timer* timer = timers_.front();
    timers_.disarm(timer);
    timer->fire(timer);
  }
}

void LoopBackend::run_hooks() {
  for (TurnHook* hook = hooks_.front(); hook; hook = next_hook_) {
    next_hook_ = hooks_.next(hook);
    hook->run(hook);
  }
}

// Ends everything that the kernel does for this loop and waits for it.
void LoopBackend::drain() {
  for (StreamBackend* s = streams_.front(); s; s = streams_.next(s)) shutdown(s->fd, SHUT_RDWR);
  io_uring_sqe* entry = request();
  io_uring_prep_cancel64(entry, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
  tag(entry, Completion::kIgnored, nullptr);
  while (inflight_ > 0) {
    const int result = io_uring_submit_and_wait(&ring_, 1);
    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
      die("waiting for operations to end", -result);
    }
    reap();
  }
}

void LoopBackend::abandon() {
  if (abandoned_) return;
  const bool forked =
      enabled_ && process_ != getpid();  // the ring and its operations are the parent's
  if (enabled_ && !forked && thread_ != std::this_thread::get_id()) {
    die("abandon() while the loop's thread still runs, and not on it", EINVAL);
  }
  abandoned_ = true;
  timers_.clear();
  next_hook_ = nullptr;
  while (hooks_.pop_front()) {
  }
  while (ready_.pop_front()) {
  }
  ready_count_ = 0;
  mail_.store(nullptr, std::memory_order_relaxed);
  if (!enabled_) return;
  if (!forked) drain();
  io_uring_unregister_ring_fd(
      &ring_);  // here, because it is this thread's: elsewhere it would hit another ring
  loops_of_thread.remove(this);
}

// --- the interface ---

Loop::~Loop() { delete backend_; }
uint64_t Loop::now_ns() const { return backend_->now_ns(); }
uint64_t Loop::precise_now_ns() const { return boot_time_ns(); }
uint64_t Loop::wall_ns() const { return clock_ns(CLOCK_REALTIME); }
uint64_t Loop::random_u64() { return backend_->random_u64(); }

void Loop::arm(Timer* timer, uint64_t deadline_ns) {
  if (backend_->abandoned_) return;
  timer->deadline_ns = deadline_ns;
  backend_->timers_.arm(timer, std::max(deadline_ns, backend_->now_ns_ + 1));
}

void Loop::disarm(Timer* timer) { backend_->timers_.disarm(timer); }

void Loop::add_turn_hook(TurnHook* hook) {
  if (!backend_->abandoned_) backend_->hooks_.push_back(hook);
}

void Loop::remove_turn_hook(TurnHook* hook) {
  if (backend_->next_hook_ == hook) backend_->next_hook_ = backend_->hooks_.next(hook);
  hook->unlink();
}

void Loop::post(Mail* mail) { backend_->post(mail); }
void Loop::stop() { backend_->stop(); }
void Loop::run() { backend_->run(); }
bool Loop::turn(uint64_t wait_ns) { return backend_->turn(wait_ns); }
void Loop::abandon() { backend_->abandon(); }
bool Loop::abandoned() const { return backend_->abandoned_; }

Result<std::unique_ptr<Loop>> make_loop(const LoopOptions& options) {
  auto backend = std::make_unique<LoopBackend>();
  if (Outcome created = backend->create(options); !created) return created.error();
  return std::make_unique<Loop>(backend.release());
}

}  // namespace curve::io
