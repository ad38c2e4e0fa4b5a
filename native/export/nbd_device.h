// One BlockDevice for the kernel's nbd: our end of a socketpair whose other end the kernel has been
// given (netlink, node_agent/nbd.py), so there is nothing to negotiate and nobody else to talk to.
//
// Invariants: a reply leaves only after the device has answered. ended() holds only when the
// device has given back every request of this connection: what the kernel sends again by another
// one (R13) cannot be overtaken by what it sent by this one. All memory for as much as the kernel
// has in flight is there after prepare(), so that pages can be written back when there is no other.
// Thread: the loop's; never blocks.
#pragma once

#include <functional>

#include "native/base/buffer.h"
#include "native/client/block_device.h"
#include "native/export/nbd_session.h"
#include "native/io/io.h"

namespace curve::exports {

struct NbdDeviceStats {
  uint64_t requests = 0, errors = 0, read_bytes = 0, written_bytes = 0, inflight = 0;
};

class NbdDevice final : NbdSessions {
 public:
  // `stream` is owned. `device` outlives close(); null: every request is answered with an error,
  // for a device whose volume is lost and that somebody still has mounted.
  NbdDevice(io::Loop& loop, base::BufferPool& pool, io::Stream* stream, client::BlockDevice* device,
            bool read_only);
  // Fills the pool with what the kernel has in flight at most.
  static void prepare(base::BufferPool& pool);
  ~NbdDevice();  // after close() has ended (or Loop::abandon)
  // The kernel has ended the connection.
  bool ended() const { return session_ == nullptr; }
  NbdDeviceStats stats() const;
  // Ends the connection; `closed` runs when the device has given back all requests.
  void close(std::function<void()> closed);

 private:
  const NbdExport* find(std::string_view) override { return nullptr; }
  std::vector<const NbdExport*> all() override { return {}; }
  void ended(NbdSession* session) override;
  void report();

  io::Loop& loop_;
  NbdOptions options_;
  NbdSession* session_ = nullptr;
  io::Timer later_;
  std::function<void()> closed_;
};

}  // namespace curve::exports
