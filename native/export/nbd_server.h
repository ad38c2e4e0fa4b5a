// NBD server over BlockDevices: fixed newstyle negotiation, several exports by name, several
// connections per export. It knows the protocol and the BlockDevice, and nothing of what is behind
// it. Requests at 512 bytes, up to 32 MiB. Invariants: a connection holds at most
// NbdOptions::inflight_bytes_max plus one request; a reply leaves only after the device has
// answered; acknowledged writes are durable (so FUA and multi-connection flushes cost nothing). NBD
// has no authentication: whoever reaches the address may use the exports. Thread: the loop's;
// nothing blocks but listen().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "native/base/buffer.h"
#include "native/base/status.h"
#include "native/client/block_device.h"
#include "native/io/io.h"

namespace curve::exports {

struct NbdOptions {
  uint32_t connections_max = 256;        // further ones are closed at once
  uint32_t inflight_requests_max = 256;  // per connection; then it is not read from
  uint64_t inflight_bytes_max =
      64u << 20;  // likewise: data of requests and of replies that are not sent
  uint64_t negotiation_timeout_ns = 30'000'000'000;
};

struct NbdExport {
  std::string name;  // at most 4096 bytes; a client that asks for "" gets the only export there is
  std::string description;
  client::BlockDevice* device = nullptr;  // outlives remove_export() or close()
  bool read_only = false;                 // in addition to the device's own
  uint64_t id = 0;                        // given by the server
};

struct NbdStats {
  uint64_t connections = 0;  // now
  uint64_t requests = 0, errors = 0, read_bytes = 0, written_bytes = 0;
};

class NbdServer {
 public:
  // `address`: "unix:/path" or "HOST:PORT" (see the invariant on authentication). May block.
  static Result<std::unique_ptr<NbdServer>> listen(io::Loop& loop, base::BufferPool& pool,
                                                   const io::Address& address,
                                                   const NbdOptions& options = {});
  ~NbdServer();                        // after close() has ended (or Loop::abandon)
  const io::Address& address() const;  // with the real port
  // kExists when the name is taken.
  Code add_export(const NbdExport& what);
  // Its connections are closed; `removed` runs when none of them uses the device any more.
  void remove_export(const std::string& name, std::function<void()> removed);
  NbdStats stats() const;
  // Stops listening and closes all connections; `closed` runs when no request is in any device.
  void close(std::function<void()> closed);

 private:
  struct State;
  std::unique_ptr<State> state_;
  explicit NbdServer(std::unique_ptr<State> state);
};

}  // namespace curve::exports
