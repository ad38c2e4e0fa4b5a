// What of the kernel's FUSE protocol (<linux/fuse.h>, version 7.36 to 7.x) this export speaks, and
// how a message is taken apart. Numbers that the oldest supported kernel headers do not have are
// here. A file system holds one directory with one file, the volume. Pure, any thread.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace curve::exports::fuse {

inline constexpr uint32_t kMinorMin = 36;           // Linux 5.17: 64 flags
inline constexpr uint32_t kMinorSpoken = 40;        // Linux 6.10; a later kernel adapts
inline constexpr uint64_t kHasResend = 1ULL << 39;  // Linux 6.9
inline constexpr int32_t kNotifyResend = 7;
inline constexpr uint64_t kUniqueResent = 1ULL << 63;    // in `unique`: asked before
inline constexpr uint32_t kWriteBytesMax = 1024 * 1024;  // also of a read
inline constexpr uint32_t kPagesMax = kWriteBytesMax / 4096;
inline constexpr uint64_t kRootNode = FUSE_ROOT_ID, kVolumeNode = 2;

// Everything up to a write's data, so that the data is received where it stays.
inline constexpr size_t kHeadBytes = sizeof(fuse_in_header) + sizeof(fuse_write_in);
static_assert(kHeadBytes == 80);

// One message from the kernel. `body` is what follows the header (of a write: up to its data).
struct Message {
  fuse_in_header head{};
  std::span<const std::byte> body;

  // The first bytes of the body as a T; false when there are too few.
  template <class T>
  bool take(T* into) const {
    if (body.size() < sizeof(T)) return false;
    std::memcpy(into, body.data(), sizeof(T));
    return true;
  }
};

}  // namespace curve::exports::fuse
