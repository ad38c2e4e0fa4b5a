// Waiting until a descriptor that io.h does not know (a device like /dev/fuse) can be read without
// blocking. Of the real world only (curve_io_uring): such descriptors do not exist in the
// simulation. Thread: the loop's.
#pragma once

#include "native/io/io.h"

namespace curve::io {

// `op->result`: the poll(2) events that hold (POLLIN, POLLERR, ...), or -errno. Done at once, in
// the next turn, if there is something to read already. One waits again after each.
void wait_readable(Loop& loop, Op* op, int fd);
// `done` follows, with -ECANCELED or with what came first.
void cancel_wait(Loop& loop, Op* op);

}  // namespace curve::io
