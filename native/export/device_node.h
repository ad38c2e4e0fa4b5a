// Opening and closing a block device that this process may itself be serving. Both may wait for its
// I/O (partitions are looked for, the last one to close writes pages back), so it is done apart.
// Thread: any but the loop's. Blocks.
#pragma once

#include <string>

#include "native/base/status.h"

namespace curve::exports {

// kBusy: it is mounted, or part of something else. kNotFound: there is none.
Outcome open_and_close_device(const std::string& path);

}  // namespace curve::exports
