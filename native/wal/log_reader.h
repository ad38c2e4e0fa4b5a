// Reads the log at recovery: by logical position, synchronously; where one append after the other
// is looked at, in pieces of 1 to 4 MiB. A sector that the device does not give reads as
// kUnreadableByte throughout, so that it is judged like any other damage.
#pragma once

#include <span>
#include <vector>

#include "native/wal/format.h"
#include "native/wal/state.h"

namespace curve::wal {

class LogReader {
 public:
  static constexpr uint64_t kAheadBytes = 1 << 20, kGapBytes = 256 << 10;
  static constexpr std::byte kUnreadableByte{0xbd};

  LogReader(io::File& file, const Anchor& anchor);
  // [position, position + bytes) of one segment, sectors, at most kAppendBytesMax. Valid until the
  // next call.
  std::span<const std::byte> at(uint64_t position, uint64_t bytes);
  // Did the device refuse any sector of what at() gave last for this range?
  bool failed(uint64_t position, uint64_t bytes) const;

 private:
  // Damage that is remembered takes the vote of every replica of the store (R3), so that what a
  // device refuses only once must not become damage.
  static constexpr int kAttempts = 4;
  bool read(uint64_t offset, std::span<std::byte> into);
  void load(uint64_t position, uint64_t bytes);

  io::File& file_;
  const Anchor& anchor_;
  AlignedBytes buffer_;
  uint64_t position_ = 0, bytes_ = 0;
  std::vector<uint64_t> failed_;  // positions of sectors within it
};

}  // namespace curve::wal
