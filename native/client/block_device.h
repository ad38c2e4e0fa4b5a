// What an export serves: one open volume as a linear device. Exports know this and nothing of
// copysets. One loop thread. Sizes and offsets in bytes, multiples of 512. Requests are
// caller-owned and stay in place until `done`. I/O waits through faults and does not fail, except:
// kFenced, kNoSpace, kInvalid (out of bounds), kReadOnly, kShuttingDown, and kBadChecksum for a
// write whose data was damaged in memory, or again and again on its way.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "native/base/buffer.h"
#include "native/base/list.h"
#include "native/base/status.h"

namespace curve::client {

enum class IoType : uint8_t { kRead, kWrite, kDiscard, kWriteZeroes, kFlush, kBlockStatus };

struct IoRequest : base::ListHook {
  IoType type = IoType::kRead;
  bool no_unmap = false;  // kWriteZeroes: keep it allocated
  uint64_t offset_bytes = 0;
  uint64_t bytes = 0;          // any length; split inside
  std::span<const iovec> iov;  // kRead, kWrite: caller memory, any alignment, total == bytes
  // kWrite, instead of `iov`: pooled buffers of kIoBytesMax bytes each (the last may be shorter),
  // unchanged until `done`. They are sent as they are; data in `iov` is copied once.
  std::span<const base::Buffer> buffers;
  uint8_t* status_bits = nullptr;  // kBlockStatus: one bit per 4 KiB sector of the range (range
                                   // sector-aligned): 1 written
  void (*done)(IoRequest* request) = nullptr;
  void* owner = nullptr;
  Code code = Code::kOk;  // when done
  // of the client:
  uint32_t pieces_left = 0;
  uint64_t split_bytes = 0;  // of `bytes`, that pieces were made of
  uint64_t started_ns = 0;
};

class BlockDevice {
 public:
  virtual void submit(IoRequest* request) = 0;  // never blocks; done later from the loop. Virtual:
                                                // once per request of an export.
  virtual uint64_t size_bytes() const = 0;      // may grow
  virtual bool read_only() const = 0;
  virtual ~BlockDevice() = default;
};

}  // namespace curve::client
