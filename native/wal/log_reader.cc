#include "native/wal/log_reader.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "native/base/mutant.h"

namespace curve::wal {

LogReader::LogReader(io::File& file, const Anchor& anchor)
    : file_(file), anchor_(anchor), buffer_(take_aligned(kAppendBytesMax)) {}

std::span<const std::byte> LogReader::at(uint64_t position, uint64_t bytes) {
  assert(bytes > 0 && bytes <= kAppendBytesMax &&
         position + bytes <= anchor_.segment_end(position));
  if (position < position_ || position + bytes > position_ + bytes_) {
    // Ahead only where the log is read one append after the other.
    const bool next = position >= position_ && position < position_ + bytes_ + kGapBytes;
    load(position, std::min(next ? std::max(bytes, kAheadBytes) : bytes,
                            anchor_.segment_end(position) - position));
  }
  return {buffer_.get() + (position - position_), bytes};
}

bool LogReader::failed(uint64_t position, uint64_t bytes) const {
  return std::any_of(failed_.begin(), failed_.end(), [&](uint64_t sector) {
    return sector >= position && sector < position + bytes;
  });
}

bool LogReader::read(uint64_t offset, std::span<std::byte> into) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (file_.read_sync(offset, into) >= 0) return true;
    if (CURVE_MUTANT("r3_one_refusal_is_damage")) return false;
  }
  return false;
}

void LogReader::load(uint64_t position, uint64_t bytes) {
  position_ = position;
  bytes_ = bytes;
  failed_.clear();
  const uint64_t offset = anchor_.file_offset(position);
  if (read(offset, {buffer_.get(), bytes})) return;
  for (uint64_t at = 0; at < bytes; at += kSectorBytes) {
    std::byte* const sector = buffer_.get() + at;
    if (read(offset + at, {sector, kSectorBytes})) continue;
    std::memset(sector, static_cast<int>(kUnreadableByte), kSectorBytes);
    failed_.push_back(position + at);
  }
}

}  // namespace curve::wal
