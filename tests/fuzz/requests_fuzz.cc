// libFuzzer target: what a client that holds the secret may send to a chunkserver. The input is a
// list of frames: type, which fields of a good request are replaced, lengths. The store must answer
// or close, and go on serving somebody else.
#include <cstdlib>

#include "native/base/log.h"
#include "small_cluster.h"

namespace {

using namespace curve;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool more() const { return at_ < size_; }
  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  uint64_t number() {  // small, near a boundary, or anything
    const uint8_t kind = byte();
    if (kind < 128) return kind;
    uint64_t value = 0;
    for (int i = 0; i < (kind & 7) + 1; ++i) value = value << 8 | byte();
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

void one_frame(fuzz::SmallCluster& cluster, Input& in) {
  static constexpr wire::FrameType kTypes[] = {
      wire::FrameType::kRead, wire::FrameType::kWrite, wire::FrameType::kZero,
      wire::FrameType::kBlockStatus, wire::FrameType::kProbe};
  const uint8_t chosen = in.byte();
  const auto type =
      chosen < 200 ? kTypes[chosen % std::size(kTypes)] : static_cast<wire::FrameType>(in.byte());
  wire::RequestBody request;
  request.volume = fuzz::kVolume;
  request.epoch = fuzz::kEpoch;
  request.copyset = fuzz::kCopyset;
  request.term = cluster.term();
  const uint8_t replaced = in.byte();
  request.offset_bytes = static_cast<uint32_t>(in.number()) * (replaced & 1 ? 1 : 512);
  request.bytes = static_cast<uint32_t>(in.number()) * (replaced & 2 ? 1 : 512);
  if (replaced & 4) request.chunk = static_cast<uint32_t>(in.number());
  if (replaced & 8) request.flags = static_cast<uint32_t>(in.number());
  if (replaced & 16) request.volume = in.number();
  if (replaced & 32) request.epoch = in.number();
  if (replaced & 64) request.copyset = in.number();
  if (replaced & 128) request.term = in.number();

  std::vector<std::byte> payload;
  const uint8_t shape = in.byte();
  if (type == wire::FrameType::kWrite || shape & 1) {
    const uint64_t wanted = shape & 2 ? in.number() * 512 : request.bytes;
    payload.assign(std::min<uint64_t>(wanted, 256 << 10), static_cast<std::byte>(shape));
  }
  std::vector<std::byte> body(sizeof(request));
  std::memcpy(body.data(), &request, sizeof(request));
  // A CRC per sector touched, over the bytes of this request in it.
  for (size_t at = 0; at < payload.size();) {
    const size_t end = std::min<size_t>(
        payload.size(), at + kSectorBytes - (request.offset_bytes + at) % kSectorBytes);
    uint32_t crc = base::crc32c(std::span(payload).subspan(at, end - at));
    if (shape & 4 && at == 0) ++crc;
    const auto* raw = reinterpret_cast<const std::byte*>(&crc);
    body.insert(body.end(), raw, raw + sizeof(crc));
    at = end;
  }
  if (shape & 8) body.resize(in.number() % (body.size() + 64));
  cluster.send(type, in.byte(), body, payload);
  if (shape & 16) cluster.world().run_for(in.byte() * sim::kMillisecond);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  base::set_log_level(base::LogLevel::kError);
  fuzz::SmallCluster cluster;
  cluster.create();
  cluster.connect();
  Input in(data, std::min<size_t>(size, 2000));
  while (in.more()) one_frame(cluster, in);
  cluster.world().run_for(300 * sim::kMillisecond);
  if (!cluster.running()) std::abort();
  // It still serves.
  cluster.connect();
  cluster.write(1, 0, kSectorBytes, 1);
  return 0;
}
