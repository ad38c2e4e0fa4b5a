#include "native/export/nbd_device.h"

#include <cassert>
#include <utility>

namespace curve::exports {
namespace {

// drivers/block/nbd.c: depth of the queue, and bytes of a request (max_sectors).
constexpr size_t kKernelRequestsMax = 128;
constexpr size_t kKernelBytesMax = 128 * 1024;

}  // namespace

NbdDevice::NbdDevice(io::Loop& loop, base::BufferPool& pool, io::Stream* stream,
                     client::BlockDevice* device, bool read_only)
    : loop_(loop) {
  later_.owner = this;
  later_.fire = [](io::Timer* timer) { static_cast<NbdDevice*>(timer->owner)->report(); };
  NbdExport what;
  what.device = device;
  what.read_only = read_only;
  session_ = new NbdSession(loop, pool, options_, stream, *this, &what);
}

NbdDevice::~NbdDevice() {
  assert(!session_ || loop_.abandoned());
  delete session_;
  loop_.disarm(&later_);
}

void NbdDevice::prepare(base::BufferPool& pool) {
  for (size_t bytes = 4096; bytes <= kKernelBytesMax; bytes *= 2)
    pool.prepare(bytes, kKernelRequestsMax);
}

NbdDeviceStats NbdDevice::stats() const {
  const NbdStats& s = NbdSessions::stats;
  return {s.requests, s.errors, s.read_bytes, s.written_bytes,
          session_ ? session_->inflight() : 0u};
}

void NbdDevice::ended(NbdSession* session) {
  delete session;
  session_ = nullptr;
  loop_.arm(&later_, loop_.now_ns());  // not from inside its own call
}

void NbdDevice::report() {
  if (session_ || !closed_) return;
  std::exchange(closed_, nullptr)();
}

void NbdDevice::close(std::function<void()> closed) {
  closed_ = std::move(closed);
  if (session_) return session_->close();
  loop_.arm(&later_, loop_.now_ns());
}

}  // namespace curve::exports
