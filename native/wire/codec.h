// Encoding and checking of frame headers (docs/formats/wire.md). Pure functions, any thread.
// Invariant: check_header() accepts no length beyond the limits, so callers may allocate by an
// accepted header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "native/base/crc32c.h"
#include "native/wire/frame.h"

namespace curve::wire {

inline constexpr uint32_t kHandshakeBodyBytesMax =
    512;  // of any frame before the peer is authenticated

enum class HeaderCheck : uint8_t { kOk, kMagic, kVersion, kLength };

inline FrameHeader load_header(const std::byte* from) {
  FrameHeader header;
  std::memcpy(&header, from, sizeof(header));
  return header;
}

// A refusal is readable in every version: it is how a peer of another version learns why.
inline HeaderCheck check_header(const FrameHeader& header, bool authenticated) {
  if (header.magic != kMagic) return HeaderCheck::kMagic;
  if (header.version != kVersion && header.type != FrameType::kRefused)
    return HeaderCheck::kVersion;
  if (header.body_bytes > (authenticated ? kBodyBytesMax : kHandshakeBodyBytesMax))
    return HeaderCheck::kLength;
  if (header.payload_bytes > (authenticated ? kPayloadBytesMax : 0)) return HeaderCheck::kLength;
  return HeaderCheck::kOk;
}

// Over the header with `crc` = 0, then the body, which may be in two parts.
inline uint32_t frame_crc(FrameHeader header, std::span<const std::byte> body,
                          std::span<const std::byte> body2 = {}) {
  header.crc = 0;
  uint32_t crc = base::crc32c(std::as_bytes(std::span(&header, 1)));
  if (!body.empty()) crc = base::crc32c(body, crc);
  if (!body2.empty()) crc = base::crc32c(body2, crc);
  return crc;
}

// A fixed struct at the start of a body, if the body is long enough for it.
template <class T>
bool load_body(std::span<const std::byte> body, T& out) {
  if (body.size() < sizeof(T)) return false;
  std::memcpy(&out, body.data(), sizeof(T));
  return true;
}

template <class T>
std::span<const std::byte> body_bytes(const T& body) {
  return std::as_bytes(std::span(&body, 1));
}

}  // namespace curve::wire
