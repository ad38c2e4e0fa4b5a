// Cuts a byte stream into frames. Sans-IO: says where the next bytes belong, is told how many came,
// hands out frames. Small frames are batched in one receive buffer; a payload of
// kDirectPayloadBytes or more is received straight into its aligned buffer, and as long as such
// payloads come, little is read ahead of them. Invariants: every length is checked before memory is
// taken for it; before authenticated() there is only the built-in buffer, and
// kUnauthenticatedBytesMax bytes in all are accepted. Thread: the connection's loop.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "native/base/buffer.h"
#include "native/wire/frame.h"

namespace curve::wire {

inline constexpr uint32_t kDirectPayloadBytes = 32 * 1024;

struct Frame {
  FrameType type;
  uint64_t tag;
  std::span<const std::byte> body;  // valid during the call
  base::Buffer payload;             // aligned; empty when none
};

class FrameAssembler {
 public:
  enum class Step : uint8_t { kFrame, kMore, kMalformed, kVersion };
  struct Window {
    std::span<std::byte> into;  // never empty
    bool all;                   // wait until it is full
  };

  explicit FrameAssembler(base::BufferPool& pool) : pool_(pool) {}
  FrameAssembler(const FrameAssembler&) = delete;
  FrameAssembler& operator=(const FrameAssembler&) = delete;

  void authenticated();
  // Only after next() said kMore.
  Window window();
  void received(size_t bytes);  // into the last window
  // kFrame: `out` is valid until the next call of next() or window(). After kMalformed or kVersion
  // nothing more comes.
  Step next(Frame& out);
  const char* problem() const { return problem_; }  // of kMalformed and kVersion

 private:
  Step fail(Step step, const char* problem);
  void hand_out(Frame& out, const FrameHeader& header);
  void make_room(size_t bytes);  // contiguous from begin_
  void move_to(base::Buffer to);

  base::BufferPool& pool_;
  std::array<std::byte, 1024> small_;  // until authenticated
  base::Buffer buffer_;                // then
  std::byte* data_ = small_.data();
  size_t capacity_ = 1024;
  size_t begin_ = 0, end_ = 0;  // bytes received and not yet consumed
  size_t handed_out_ = 0;  // bytes of the frame that was handed out last; consumed by the next call
  size_t wanted_ = 0;      // bytes from begin_ that the next frame needs in the buffer
  uint64_t received_bytes_ = 0;
  base::Buffer payload_;  // being received directly
  size_t payload_at_ = 0;
  bool header_checked_ = false;  // of the frame at begin_
  bool direct_ = false;          // payload_ belongs to the frame at begin_
  bool large_frames_ = false;    // the last payload came directly
  bool authenticated_ = false;
  bool failed_ = false;
  const char* problem_ = "";
};

}  // namespace curve::wire
