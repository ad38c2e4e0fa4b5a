// Requests into pieces: at chunk (or stripe) boundaries, at kIoBytesMax, and, for zeroes, into
// whole sectors and edges.
#include <algorithm>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/client/state.h"

namespace curve::client {
namespace {

template <class Move>
void walk_iov(std::span<const iovec> iov, uint64_t at, size_t bytes, Move move) {
  size_t done = 0;
  for (const iovec& part : iov) {
    if (at >= part.iov_len) {
      at -= part.iov_len;
      continue;
    }
    const size_t n = std::min(part.iov_len - at, bytes - done);
    move(static_cast<std::byte*>(part.iov_base) + at, done, n);
    done += n;
    at = 0;
    if (done == bytes) return;
  }
}

uint32_t touched_sectors(uint32_t offset_bytes, uint32_t bytes) {
  return (offset_bytes + bytes - 1) / kSectorBytes - offset_bytes / kSectorBytes + 1;
}

}  // namespace

void copy_from_iov(std::span<const iovec> iov, uint64_t at, std::span<std::byte> to) {
  walk_iov(iov, at, to.size(),
           [&](std::byte* part, size_t done, size_t n) { std::memcpy(to.data() + done, part, n); });
}

void copy_to_iov(std::span<const iovec> iov, uint64_t at, std::span<const std::byte> from) {
  walk_iov(iov, at, from.size(), [&](std::byte* part, size_t done, size_t n) {
    std::memcpy(part, from.data() + done, n);
  });
}

// Takes the next bytes of the request. Invariant: everything but the first and last piece of a
// request is sector-aligned.
bool VolumeClientState::make_piece(IoRequest* request, Piece* piece) {
  const uint64_t at = request->offset_bytes + request->split_bytes;
  const base::ChunkRange range =
      base::locate(map.layout, at, request->bytes - request->split_bytes);
  const uint32_t in_sector = at % kSectorBytes;
  uint32_t take = range.bytes;
  bool as_zeros = false;
  piece->flags = 0;
  switch (request->type) {
    case IoType::kRead:
      piece->type = wire::FrameType::kRead;
      take = std::min(take, kIoBytesMax - in_sector);
      break;
    case IoType::kWrite:
      piece->type = wire::FrameType::kWrite;
      take = std::min(take, kIoBytesMax - in_sector);
      if (!request->buffers.empty()) {  // within one of them
        take =
            std::min(take, kIoBytesMax - static_cast<uint32_t>(request->split_bytes % kIoBytesMax));
      }
      break;
    case IoType::kBlockStatus:
      piece->type = wire::FrameType::kBlockStatus;
      break;
    default:  // kDiscard, kWriteZeroes
      as_zeros = request->type == IoType::kWriteZeroes &&
                 (request->no_unmap || in_sector || take < kSectorBytes);
      piece->type = as_zeros ? wire::FrameType::kWrite : wire::FrameType::kZero;
      piece->flags = wire::kFlagMayUnmap;
      if (in_sector || take < kSectorBytes) {
        take = std::min(take, kSectorBytes - in_sector);
      } else {
        take -= take % kSectorBytes;
        if (as_zeros) take = std::min(take, kIoBytesMax);
      }
  }
  const uint64_t request_at = request->split_bytes;
  request->split_bytes += take;
  if (request->type == IoType::kDiscard && take % kSectorBytes)
    return false;  // an edge: nothing to give back
  piece->request = request;
  piece->copyset = copysets[base::copyset_index(map.placement_id, range.chunk,
                                                static_cast<uint32_t>(copysets.size()))]
                       .get();
  piece->chunk = range.chunk;
  piece->offset_bytes = range.offset_bytes;
  piece->bytes = piece->wanted_bytes = take;
  piece->crop_bytes = 0;
  piece->request_at = request_at;
  piece->crc_count = 0;
  piece->redirects = piece->damaged = 0;
  piece->sent_term = 0;
  if (piece->type == wire::FrameType::kRead) {
    piece->crop_bytes = range.offset_bytes % kSectorBytes;
    piece->offset_bytes -= piece->crop_bytes;
    piece->bytes = (piece->crop_bytes + take + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  } else if (piece->type == wire::FrameType::kWrite) {
    as_zeros ? fill_zeros(piece) : fill_payload(request, piece);
  }
  return true;
}

// Takes the data and computes its checksums; once, however often it is sent.
void VolumeClientState::fill_payload(IoRequest* request, Piece* piece) {
  if (request->buffers.empty()) {
    piece->payload = pool.take(piece->bytes);
    piece->payload_at = 0;
    copy_from_iov(request->iov, piece->request_at, piece->payload.span());
  } else {
    piece->payload = request->buffers[piece->request_at / kIoBytesMax];
    piece->payload_at = static_cast<uint32_t>(piece->request_at % kIoBytesMax);
  }
  piece->crc_count = touched_sectors(piece->offset_bytes, piece->bytes);
  uint32_t* crcs = piece->crcs_inline.data();
  if (piece->crc_count > kCrcsInline) {
    piece->crcs = pool.take(piece->crc_count * sizeof(uint32_t));
    crcs = reinterpret_cast<uint32_t*>(piece->crcs.data());
  }
  uint32_t at = 0, first = kSectorBytes - piece->offset_bytes % kSectorBytes;
  for (uint32_t n = std::min(first, piece->bytes); at < piece->bytes;
       n = std::min(kSectorBytes, piece->bytes - at)) {
    *crcs++ = base::crc32c(piece->payload.bytes().subspan(piece->payload_at + at, n));
    at += n;
  }
}

bool VolumeClientState::intact(const Piece& piece) const {
  const uint32_t* crcs =
      piece.crcs ? reinterpret_cast<const uint32_t*>(piece.crcs.data()) : piece.crcs_inline.data();
  uint32_t at = 0;
  for (uint32_t i = 0; i < piece.crc_count; ++i) {
    const uint32_t to_sector_end = kSectorBytes - (piece.offset_bytes + at) % kSectorBytes;
    const uint32_t n = std::min(to_sector_end, piece.bytes - at);
    if (base::crc32c(piece.payload.bytes().subspan(piece.payload_at + at, n)) != crcs[i])
      return false;
    at += n;
  }
  return true;
}

void VolumeClientState::fill_zeros(Piece* piece) {
  if (!zeros) {
    zeros = pool.take(kIoBytesMax);
    std::memset(zeros.data(), 0, kIoBytesMax);
  }
  piece->payload = zeros;
  piece->payload_at = 0;
  piece->crc_count = touched_sectors(piece->offset_bytes, piece->bytes);
  uint32_t* crcs = piece->crcs_inline.data();
  if (piece->crc_count > kCrcsInline) {
    piece->crcs = pool.take(piece->crc_count * sizeof(uint32_t));
    crcs = reinterpret_cast<uint32_t*>(piece->crcs.data());
  }
  const uint32_t whole = base::crc32c_zero_sector();
  for (uint32_t i = 0; i < piece->crc_count; ++i) crcs[i] = whole;
  if (piece->bytes < kSectorBytes) crcs[0] = base::crc32c(zeros.bytes().first(piece->bytes));
}

}  // namespace curve::client
