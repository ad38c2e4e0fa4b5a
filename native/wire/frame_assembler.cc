// See frame_assembler.h.
#include "native/wire/frame_assembler.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "native/wire/codec.h"

namespace curve::wire {
namespace {

constexpr size_t kBufferBytes = 64 * 1024;
constexpr size_t kBusyBufferBytes = 256 * 1024;  // once a receive has filled the first one
constexpr size_t kReadAheadBytes = 4096;         // while large payloads come

}  // namespace

void FrameAssembler::authenticated() {
  authenticated_ = true;
  move_to(pool_.take(kBufferBytes));
}

// Keeps what begins at begin_. The bytes of a frame that is handed out stay where they are: its
// body is still in use.
void FrameAssembler::move_to(base::Buffer to) {
  begin_ += handed_out_;
  handed_out_ = 0;
  std::memcpy(to.data(), data_ + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  buffer_ = std::move(to);
  data_ = buffer_.data();
  capacity_ = buffer_.capacity();
}

void FrameAssembler::make_room(size_t bytes) {
  if (bytes > capacity_) {
    assert(authenticated_);  // a frame before that always fits
    move_to(pool_.take(bytes));
    return;
  }
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (begin_ > 0 && (begin_ + bytes > capacity_ || capacity_ - end_ < capacity_ / 4)) {
    std::memmove(data_, data_ + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
}

FrameAssembler::Window FrameAssembler::window() {
  if (direct_) return {payload_.span().subspan(payload_at_), true};
  make_room(std::max(wanted_, sizeof(FrameHeader)));
  size_t room = capacity_ - end_;
  if (large_frames_) {
    const size_t missing = wanted_ > end_ - begin_ ? wanted_ - (end_ - begin_) : 0;
    room = std::min(room, std::max(missing, kReadAheadBytes));
  }
  return {{data_ + end_, room}, false};
}

void FrameAssembler::received(size_t bytes) {
  received_bytes_ += bytes;
  if (direct_) {
    payload_at_ += bytes;
    return;
  }
  end_ += bytes;
  assert(end_ <= capacity_);
  if (authenticated_ && end_ == capacity_ && capacity_ < kBusyBufferBytes)
    move_to(pool_.take(kBusyBufferBytes));
}

FrameAssembler::Step FrameAssembler::fail(Step step, const char* problem) {
  failed_ = true;
  problem_ = problem;
  return step;
}

void FrameAssembler::hand_out(Frame& out, const FrameHeader& header) {
  out.type = header.type;
  out.tag = header.tag;
  out.body = {data_ + begin_ + sizeof(FrameHeader), header.body_bytes};
  out.payload = std::move(payload_);
  handed_out_ = sizeof(FrameHeader) + header.body_bytes;
  header_checked_ = direct_ = false;
  wanted_ = 0;
}

FrameAssembler::Step FrameAssembler::next(Frame& out) {
  begin_ += handed_out_;
  handed_out_ = 0;
  if (failed_) return Step::kMalformed;
  if (!authenticated_ && received_bytes_ > kUnauthenticatedBytesMax)
    return fail(Step::kMalformed, "too many bytes before the handshake ended");
  const size_t have = end_ - begin_;
  if (have < sizeof(FrameHeader)) return Step::kMore;
  const FrameHeader header = load_header(data_ + begin_);
  const size_t head = sizeof(FrameHeader) + header.body_bytes;
  if (!header_checked_) {
    switch (check_header(header, authenticated_)) {
      case HeaderCheck::kOk:
        break;
      case HeaderCheck::kMagic:
        return fail(Step::kMalformed, "no frame begins here: wrong magic");
      case HeaderCheck::kVersion:
        return fail(Step::kVersion, "the frame has another version");
      case HeaderCheck::kLength:
        return fail(Step::kMalformed, "the frame is too long");
    }
    wanted_ = head + (header.payload_bytes < kDirectPayloadBytes ? header.payload_bytes : 0);
    if (have < head) return Step::kMore;
    const std::span<const std::byte> body(data_ + begin_ + sizeof(FrameHeader), header.body_bytes);
    if (frame_crc(header, body) != header.crc)
      return fail(Step::kMalformed, "the frame's checksum does not match");
    header_checked_ = true;
  }
  if (direct_) {
    if (payload_at_ < payload_.size()) return Step::kMore;
    hand_out(out, header);
    return Step::kFrame;
  }
  if (header.payload_bytes == 0) {
    hand_out(out, header);
    return Step::kFrame;
  }
  const size_t ready = std::min<size_t>(have - head, header.payload_bytes);
  const bool complete = ready == header.payload_bytes;
  large_frames_ = header.payload_bytes >= kDirectPayloadBytes;
  if (!complete && !large_frames_) return Step::kMore;
  payload_ = pool_.take(header.payload_bytes);
  std::memcpy(payload_.data(), data_ + begin_ + head, ready);
  if (complete) {
    hand_out(out, header);
    handed_out_ += header.payload_bytes;
    return Step::kFrame;
  }
  end_ = begin_ + head;  // the rest of the payload goes to its buffer, past this one
  payload_at_ = ready;
  direct_ = true;
  return Step::kMore;
}

}  // namespace curve::wire
