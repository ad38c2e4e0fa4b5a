// A BlockDevice in memory for tests of exports: answers from the loop, some requests later than
// others; bounds, read-only and failures like the volume client. Test code only.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "native/base/types.h"
#include "native/client/block_device.h"
#include "native/io/io.h"

namespace curve::exports {

class RamDevice final : public client::BlockDevice {
 public:
  RamDevice(io::Loop& loop, uint64_t size_bytes, bool read_only = false)
      : data_(size_bytes), written_(size_bytes / kSectorBytes), loop_(loop), read_only_(read_only) {
    timer_.owner = this;
    timer_.fire = [](io::Timer* timer) { static_cast<RamDevice*>(timer->owner)->run(); };
  }
  ~RamDevice() override { loop_.disarm(&timer_); }

  void submit(client::IoRequest* request) override {
    ++submitted;
    inflight_max = std::max(inflight_max, ++inflight);
    request->code = perform(*request);
    queue_.push_back(request);
    if (!hold) loop_.arm(&timer_, loop_.now_ns());
  }
  uint64_t size_bytes() const override { return data_.size(); }
  bool read_only() const override { return read_only_; }

  void grow(uint64_t size_bytes) {
    data_.resize(size_bytes);
    written_.resize(size_bytes / kSectorBytes);
  }
  void let_go() {
    hold = false;
    loop_.arm(&timer_, loop_.now_ns());
  }
  std::vector<std::byte>& data() { return data_; }
  bool written(uint64_t sector) const { return written_[sector]; }

  bool hold = false;      // answers nothing until let_go()
  Code fail = Code::kOk;  // everything
  uint64_t submitted = 0, inflight = 0, inflight_max = 0;

 private:
  Code perform(const client::IoRequest& r) {
    using client::IoType;
    if (fail != Code::kOk) return fail;
    if (r.type == IoType::kFlush) return Code::kOk;
    const uint64_t unit = r.type == IoType::kBlockStatus ? kSectorBytes : 512;
    if (r.offset_bytes % unit || r.bytes % unit || r.offset_bytes > data_.size() ||
        r.bytes > data_.size() - r.offset_bytes) {
      return Code::kInvalid;
    }
    std::byte* at = data_.data() + r.offset_bytes;
    switch (r.type) {
      case IoType::kRead:
        for (const iovec& part : r.iov) {
          std::memcpy(part.iov_base, at, part.iov_len);
          at += part.iov_len;
        }
        break;
      case IoType::kWrite:
        if (read_only_) return Code::kReadOnly;
        for (const base::Buffer& part : r.buffers)
          at = std::copy(part.bytes().begin(), part.bytes().end(), at);
        for (const iovec& part : r.iov)
          at = std::copy_n(static_cast<std::byte*>(part.iov_base), part.iov_len, at);
        mark(r, true);
        break;
      case IoType::kDiscard:
      case IoType::kWriteZeroes:
        if (read_only_) return Code::kReadOnly;
        std::fill_n(at, r.bytes, std::byte{0});
        mark(r, r.type == IoType::kWriteZeroes && r.no_unmap);
        break;
      case IoType::kBlockStatus:
        for (uint64_t s = 0; s < r.bytes / kSectorBytes; ++s) {
          const bool written = written_[r.offset_bytes / kSectorBytes + s];
          r.status_bits[s / 8] = static_cast<uint8_t>((r.status_bits[s / 8] & ~(1u << (s % 8))) |
                                                      unsigned{written} << (s % 8));
        }
        break;
      default:
        break;
    }
    return Code::kOk;
  }
  // Parts of a sector that are zeroed leave it written, as on a chunkserver.
  void mark(const client::IoRequest& r, bool written) {
    const uint64_t end = r.offset_bytes + r.bytes;
    for (uint64_t s = r.offset_bytes / kSectorBytes; s * kSectorBytes < end; ++s) {
      const bool whole = s * kSectorBytes >= r.offset_bytes && (s + 1) * kSectorBytes <= end;
      if (written || whole) written_[s] = written;
    }
  }
  void run() {
    if (hold) return;
    std::vector<client::IoRequest*> now;
    now.swap(queue_);
    if (now.size() > 2 && ++turns_ % 3 == 0) std::reverse(now.begin(), now.end());  // any order
    for (client::IoRequest* request : now) {
      --inflight;
      request->done(request);
    }
  }

  std::vector<std::byte> data_;
  std::vector<bool> written_;
  io::Loop& loop_;
  bool read_only_;
  io::Timer timer_;
  std::vector<client::IoRequest*> queue_;
  uint64_t turns_ = 0;
};

}  // namespace curve::exports
