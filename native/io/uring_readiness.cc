#include "native/io/readiness.h"

#include <poll.h>

#include "native/io/uring_backend.h"

namespace curve::io {

void wait_readable(Loop& loop, Op* op, int fd) {
  LoopBackend* backend = loop.backend();
  if (backend->abandoned_) return;
  op->backend[0] = 0;  // no stream's
  io_uring_sqe* entry = backend->request();
  io_uring_prep_poll_add(entry, fd, POLLIN);
  LoopBackend::tag(entry, Completion::kReadable, op);
}

void cancel_wait(Loop& loop, Op* op) {
  if (loop.backend()->abandoned_) return;
  loop.backend()->cancel(Completion::kReadable, op);
}

}  // namespace curve::io
