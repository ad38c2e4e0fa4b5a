// A FUSE export as a block device: /dev/fuse, a file system that is mounted nowhere (so that
// nothing is to be unmounted, in no mount namespace), and the kernel's loop device over its file
// with direct I/O. The device keeps the file system alive; when it is detached the file system
// goes, and the export has ended. Invariant: a device of ours is known by the name of its file
// (loop_file_name), which sysfs tells without asking us; no other device is ever touched.
// Thread: any but the loop's, which must be running, since the kernel asks it while these wait.
#pragma once

#include <cstdint>
#include <string>

#include "native/base/status.h"

namespace curve::exports {

inline constexpr uint32_t kLoopBlockBytes = 4096;

// "curve:<uuid>": what FuseExport is to call its file.
std::string loop_file_name(const std::string& uuid);
// A descriptor of /dev/fuse, for FuseExport.
Result<int> open_fuse();
// Makes the file system of `fuse_fd`, which is being served, and a device over its file; its
// number.
Result<uint32_t> attach_loop(int fuse_fd, const std::string& uuid, bool read_only);
// The device takes the size that the file has now.
Outcome grow_loop(uint32_t number);
// kBusy while it is mounted or open, unless `force`: then it goes when the last one closes it. Ok
// if it is not ours (any more).
Outcome detach_loop(uint32_t number, const std::string& uuid, bool force);
// The UUID of the volume whose device this is; "" when it is not one of ours, or free.
std::string loop_identity(uint32_t number);
uint64_t loop_size_bytes(uint32_t number);  // 0: there is none

}  // namespace curve::exports
