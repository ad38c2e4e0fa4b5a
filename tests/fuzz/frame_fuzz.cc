// libFuzzer target: any bytes, cut anywhere, before and after authentication. The first byte
// chooses both. With checksums repaired, so that the fuzzer gets past them.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "native/wire/codec.h"
#include "native/wire/frame_assembler.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace curve::wire;
  if (size < 2) return 0;
  const bool authenticated = data[0] & 1, repair = data[0] & 2;
  const size_t piece = 1 + (data[0] >> 2) * 97;
  std::vector<std::byte> bytes(size - 1);
  std::memcpy(bytes.data(), data + 1, size - 1);
  if (repair && bytes.size() >= sizeof(FrameHeader)) {
    FrameHeader header = load_header(bytes.data());
    const auto body = std::span<const std::byte>(bytes).subspan(sizeof(header));
    if (header.body_bytes <= body.size()) {
      header.crc = frame_crc(header, body.first(header.body_bytes));
      std::memcpy(bytes.data(), &header, sizeof(header));
    }
  }
  curve::base::BufferPool pool(1 << 20);
  {
    FrameAssembler assembler(pool);
    if (authenticated) assembler.authenticated();
    for (size_t at = 0;;) {
      Frame frame;
      const auto step = assembler.next(frame);
      if (step == FrameAssembler::Step::kFrame) {
        if (frame.body.size() > kBodyBytesMax || frame.payload.size() > kPayloadBytesMax) abort();
        if (!authenticated && frame.payload) abort();
        continue;
      }
      if (step != FrameAssembler::Step::kMore || at == bytes.size()) break;
      const auto window = assembler.window();
      const size_t n = std::min({window.into.size(), piece, bytes.size() - at});
      if (n == 0) abort();
      std::memcpy(window.into.data(), bytes.data() + at, n);
      assembler.received(n);
      at += n;
    }
  }
  if (pool.used_bytes() != 0) abort();
  return 0;
}
