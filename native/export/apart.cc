#include "native/export/apart.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#endif

namespace curve::exports {
namespace {

constexpr size_t kStackBytes = 256 * 1024;

struct Call {
  int fd;
  const std::function<int()>* task;
  int result;
};

int run_call(void* argument) {
  auto* call = static_cast<Call*>(argument);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  constexpr int kFirst = STDERR_FILENO + 1;
  if (call->fd > kFirst) close_range(kFirst, static_cast<unsigned>(call->fd) - 1, 0);
  close_range(static_cast<unsigned>(std::max(call->fd + 1, kFirst)), ~0U, 0);
  call->result = (*call->task)();
  return 0;
}

}  // namespace

int run_apart(int fd, const std::function<int()>& task) {
  void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return -ENOMEM;
  Call call{fd, &task, 0};
  // No handler of this process runs in the child.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  // Without an exit signal: nobody else waits for it by mistake.
  const pid_t child =
      clone(run_call, static_cast<std::byte*>(stack) + kStackBytes, CLONE_VM | CLONE_VFORK, &call);
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  int status = 0;
  if (child > 0) {
    while (waitpid(child, &status, __WALL) < 0 && errno == EINTR) {
    }
  }
  ASAN_UNPOISON_MEMORY_REGION(stack, kStackBytes);  // the child did not return from its frames
  munmap(stack, kStackBytes);
  if (child < 0) return -error;
  return WIFEXITED(status) ? call.result : -EINTR;  // somebody killed the child
}

}  // namespace curve::exports
