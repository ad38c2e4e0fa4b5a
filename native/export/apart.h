// Runs a function that may wait for this process's own loop thread (a system call on a file system
// that we serve) so that the process can always be killed. A thread that waits in FUSE for an
// answer cannot be interrupted, keeps the process's descriptors open, and so would wait for ever
// for the process that is being killed, itself. Hence a child with the same memory and a descriptor
// table of its own; the calling thread waits for it, and dies when it is killed.
// Thread: any but the loop's. Blocks.
#pragma once

#include <functional>

namespace curve::exports {

// What `task` returns, or -errno when no child could be made. What it changes in memory stays; the
// descriptors that it opens are gone afterwards. Of this process's it has only `fd` (-1: none) and
// the standard ones: it must not keep a connection alive that it may be waiting for.
int run_apart(int fd, const std::function<int()>& task);

}  // namespace curve::exports
