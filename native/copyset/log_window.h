// What the background step reads of the log, a window of it at a time: small writes that were
// appended together are read together, in pieces of 256 KiB, and not sector by sector from all over
// the log. Invariant: what copy() gives is what stood at that position when it was read, checked by
// nobody yet; a piece that could not be read is not there. One loop thread; its memory goes back to
// the pool with drop().
#pragma once

#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "native/base/buffer.h"
#include "native/wal/wal.h"

namespace curve::copyset {

class LogWindow {
 public:
  static constexpr uint64_t kBytesMax = 4u << 20;

  LogWindow(wal::Wal& wal, base::BufferPool& pool) : wal_(wal), pool_(pool) {}
  // Precondition: nothing is loaded or loading. Reads the pieces in which many of `positions` (of
  // sectors; they are sorted here) lie. `done` comes later, or not at all: false, nothing is to be
  // read.
  bool load(std::vector<uint64_t>& positions, std::function<void()> done);
  // False: not all of these sectors are there.
  bool copy(uint64_t position, std::span<std::byte> into) const;
  void drop() { pieces_.clear(); }

 private:
  struct Piece {
    LogWindow* owner = nullptr;
    uint64_t start = 0;
    base::Buffer bytes;
    wal::ReadOp op;
  };
  uint64_t start_of(uint64_t position) const;
  std::span<const std::byte> find(uint64_t position) const;  // one sector, or nothing
  void add(uint64_t start);
  void read_next();
  void read_done(Piece* piece);

  wal::Wal& wal_;
  base::BufferPool& pool_;
  std::deque<Piece> pieces_;  // by position; they stay where they are
  std::deque<Piece>::iterator to_read_;
  size_t loading_ = 0;
  std::function<void()> done_;
};

}  // namespace curve::copyset
