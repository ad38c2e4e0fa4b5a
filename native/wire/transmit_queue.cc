// See transmit_queue.h.
#include "native/wire/transmit_queue.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "native/wire/codec.h"

namespace curve::wire {

void TransmitQueue::Batch::clear() {
  segments.clear();
  if (arena.capacity() > kArenaKeptMax) std::vector<std::byte>().swap(arena);
  arena.clear();
  sent_segments = 0;
  bytes = 0;
}

void TransmitQueue::push(FrameType type, uint64_t tag, std::span<const std::byte> body,
                         std::span<const std::byte> body2, const base::Buffer& payload,
                         uint32_t payload_offset, uint32_t payload_bytes) {
  assert(body.size() + body2.size() <= kBodyBytesMax && payload_bytes <= kPayloadBytesMax);
  assert(payload_bytes == 0 || payload_offset + size_t{payload_bytes} <= payload.size());
  FrameHeader header;
  header.type = type;
  header.tag = tag;
  header.body_bytes = static_cast<uint32_t>(body.size() + body2.size());
  header.payload_bytes = payload_bytes;
  header.crc = frame_crc(header, body, body2);

  append(std::as_bytes(std::span(&header, 1)));
  append(body);
  append(body2);
  append(payload, payload_offset, payload_bytes);
}

void TransmitQueue::append(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  Batch& batch = filling_;
  const size_t at = batch.arena.size();
  const auto count = static_cast<uint32_t>(bytes.size());
  batch.arena.insert(batch.arena.end(), bytes.begin(), bytes.end());
  batch.bytes += count;
  Segment* last = batch.segments.empty() ? nullptr : &batch.segments.back();
  if (last && !last->payload && last->bytes < (1u << 30)) {
    last->bytes += count;  // arena bytes that follow each other are one part
  } else {
    batch.segments.push_back({at, count, 0, {}});
  }
}

void TransmitQueue::append(const base::Buffer& buffer, uint32_t offset_bytes, uint32_t bytes) {
  if (bytes == 0) return;
  filling_.segments.push_back({0, bytes, offset_bytes, buffer});
  filling_.bytes += bytes;
}

std::span<iovec> TransmitQueue::begin_send() {
  if (sending_.segments.empty()) std::swap(filling_, sending_);
  assert(!sending_.segments.empty());
  parts_.clear();
  const size_t end = std::min(sending_.segments.size(), sending_.sent_segments + kPartsMax);
  for (size_t i = sending_.sent_segments; i < end; ++i) {
    const Segment& segment = sending_.segments[i];
    std::byte* from = segment.payload ? segment.payload.data() + segment.payload_offset
                                      : sending_.arena.data() + segment.arena_at;
    parts_.push_back({from, segment.bytes});
  }
  return parts_;
}

void TransmitQueue::sent() {
  const size_t end = sending_.sent_segments + parts_.size();
  for (size_t i = sending_.sent_segments; i < end; ++i) {
    sending_.bytes -= sending_.segments[i].bytes;
    sending_.segments[i].payload = {};
  }
  sending_.sent_segments = end;
  parts_.clear();
  if (end == sending_.segments.size()) sending_.clear();
}

void TransmitQueue::drop_unsent() { filling_.clear(); }

}  // namespace curve::wire
