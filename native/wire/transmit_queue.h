// Frames on their way out of one connection: headers and bodies are copied into a reused arena,
// payloads are referenced. Two batches: one fills while the other is sent. Invariant: what a send
// in flight points to does not move and is not freed before sent(). No allocation once the batches
// have grown to the connection's load. Thread: the connection's loop.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "native/base/buffer.h"
#include "native/wire/frame.h"

namespace curve::wire {

class TransmitQueue {
 public:
  TransmitQueue() { parts_.reserve(kPartsMax); }
  TransmitQueue(const TransmitQueue&) = delete;
  TransmitQueue& operator=(const TransmitQueue&) = delete;

  void push(FrameType type, uint64_t tag, std::span<const std::byte> body,
            std::span<const std::byte> body2, const base::Buffer& payload, uint32_t payload_offset,
            uint32_t payload_bytes);
  // Bytes of another protocol (native/export): copied, or a part of a buffer, referenced.
  void append(std::span<const std::byte> bytes);
  void append(const base::Buffer& buffer, uint32_t offset_bytes, uint32_t bytes);
  bool empty() const { return filling_.segments.empty() && sending_.segments.empty(); }
  size_t bytes() const { return filling_.bytes + sending_.bytes; }
  // What to send next; valid until sent(). Not to be called while a send is in flight or when
  // empty.
  std::span<iovec> begin_send();
  void sent();         // all of it
  void drop_unsent();  // frames that no send has begun with

 private:
  static constexpr size_t kPartsMax = 1024;         // of one send
  static constexpr size_t kArenaKeptMax = 1 << 20;  // bytes that an idle batch keeps

  struct Segment {
    size_t arena_at;  // when there is no payload
    uint32_t bytes;
    uint32_t payload_offset;
    base::Buffer payload;
  };
  struct Batch {
    std::vector<std::byte> arena;
    std::vector<Segment> segments;
    size_t sent_segments = 0;
    size_t bytes = 0;
    void clear();
  };

  Batch filling_, sending_;
  std::vector<iovec> parts_;
};

}  // namespace curve::wire
