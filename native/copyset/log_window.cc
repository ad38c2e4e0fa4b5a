#include "native/copyset/log_window.h"

#include <algorithm>
#include <cstring>

namespace curve::copyset {
namespace {

// Appends wait at the device behind what is being read: one after the other.
constexpr uint64_t kPieceBytes = 256u << 10;
// Fewer of a piece are read one by one: that costs less than what nobody wants of it.
constexpr size_t kSectorsMin = 8;

}  // namespace

// Pieces do not cross the end of a segment.
uint64_t LogWindow::start_of(uint64_t position) const {
  const uint64_t segment = wal_.segment_start(position);
  return segment + (position - segment) / kPieceBytes * kPieceBytes;
}

bool LogWindow::load(std::vector<uint64_t>& positions, std::function<void()> done) {
  std::sort(positions.begin(), positions.end());
  for (size_t at = 0; at < positions.size();) {
    const uint64_t start = start_of(positions[at]);
    size_t end = at + 1;
    while (end < positions.size() && start_of(positions[end]) == start) ++end;
    if (end - at >= kSectorsMin) add(start);
    at = end;
  }
  if (pieces_.empty()) return false;
  done_ = std::move(done);
  loading_ = pieces_.size();
  to_read_ = pieces_.begin();
  read_next();
  return true;
}

void LogWindow::read_next() {
  if (to_read_ != pieces_.end()) wal_.read(&(to_read_++)->op);
}

void LogWindow::add(uint64_t start) {
  const uint64_t segment_end = wal_.segment_start(start) + wal_.segment_bytes();
  const uint64_t bytes = std::min({kPieceBytes, segment_end - start, wal_.head_position() - start});
  Piece& piece = pieces_.emplace_back();
  piece.owner = this;
  piece.start = start;
  piece.bytes = pool_.take(bytes);
  piece.op.position = start;
  piece.op.into = piece.bytes.span();
  piece.op.owner = &piece;
  piece.op.done = [](io::Op* op) {
    auto* piece = static_cast<Piece*>(op->owner);
    piece->owner->read_done(piece);
  };
}

void LogWindow::read_done(Piece* piece) {
  if (piece->op.result < 0) piece->bytes = {};
  read_next();
  if (--loading_ == 0) std::exchange(done_, nullptr)();
}

bool LogWindow::copy(uint64_t position, std::span<std::byte> into) const {
  for (size_t at = 0; at < into.size(); at += kSectorBytes) {
    const auto sector = find(position + at);
    if (sector.empty()) return false;
    std::memcpy(into.data() + at, sector.data(), sector.size());
  }
  return true;
}

std::span<const std::byte> LogWindow::find(uint64_t position) const {
  auto it =
      std::upper_bound(pieces_.begin(), pieces_.end(), position,
                       [](uint64_t wanted, const Piece& piece) { return wanted < piece.start; });
  if (it == pieces_.begin()) return {};
  --it;
  const uint64_t offset = position - it->start;
  if (offset + kSectorBytes > it->bytes.size()) return {};
  return it->bytes.bytes().subspan(offset, kSectorBytes);
}

}  // namespace curve::copyset
