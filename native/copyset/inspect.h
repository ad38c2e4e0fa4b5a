// A stopped store, looked at with the readers that a start uses. Read only: not even the
// incarnation changes. Answers are JSON, for `curve store inspect` and `curve store dump-wal`. Any
// thread; blocks.
#pragma once

#include <functional>
#include <string>

#include "native/copyset/store_server.h"

namespace curve::copyset {

// One object: superblock, checkpoint, space, copysets with fences. kLocked while the store runs.
Result<std::string> inspect_store(const StorePaths& paths);
// One object per record of the log, in order, then one that sums up. `line` returns false to end.
Outcome dump_wal(const StorePaths& paths, const std::function<bool(const std::string&)>& line);

}  // namespace curve::copyset
