// The native volume client: splits requests at chunk boundaries, routes each piece to the leader of
// its copyset, retries through leader changes, verifies checksums. It knows the control plane only
// as a volume map (docs/formats/volume-map.md) that its owner gives it and renews. Invariants: R13
// (a retried piece goes only over a newer connection or to a newer term; connection counter rises),
// R12 (a fenced client answers kFenced to everything, for good). A write is done only when every
// piece is acknowledged as durable. Overlapping requests in flight may be applied in any order, as
// on any disk. Thread: the loop's; submit() etc. are to be called there. Nothing blocks; no
// allocation per request in steady state.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/placement.h"
#include "native/base/status.h"
#include "native/client/block_device.h"
#include "native/io/io.h"

namespace curve::client {

struct StoreAddress {
  StoreId store;
  io::Address address;
};
struct CopysetRoute {
  std::vector<uint16_t> stores;  // indexes into VolumeMap::stores
  uint8_t preferred = 0;         // position in `stores`
};
struct VolumeMap {
  uint64_t version = 0;
  VolumeId volume = 0;
  uint64_t placement_id = 0;
  uint64_t size_bytes = 0;
  Epoch epoch = 0;
  bool read_only = false;
  base::Layout layout;
  uint32_t pool = 0;
  std::vector<StoreAddress> stores;
  std::vector<CopysetRoute> copysets;  // power of two
};
Result<VolumeMap> decode_volume_map(std::span<const std::byte> bytes);

struct ClientOptions {
  uint64_t request_timeout_ns =
      300'000'000;  // then the leader is doubted: other replicas are probed
  uint64_t retry_min_ns = 5'000'000, retry_max_ns = 200'000'000;
  uint64_t dead_connection_ns =
      5'000'000'000;  // a store that owes replies and says nothing that long is dialled anew
  uint32_t inflight_pieces_max = 4096;       // further ones wait in the client
  uint64_t inflight_bytes_max = 256u << 20;  // likewise
};

struct ClientStats {
  uint64_t reads = 0, writes = 0, read_bytes = 0, written_bytes = 0, retries = 0, reconnects = 0,
           leader_changes = 0, inflight = 0;
  uint64_t longest_ns = 0;
  uint64_t checksum_failures = 0;  // of data read; such a read is repeated
};

class VolumeClient final : public BlockDevice {
 public:
  // `secret` is copied.
  static std::unique_ptr<VolumeClient> open(io::Loop& loop, base::BufferPool& pool, VolumeMap map,
                                            std::span<const std::byte> secret,
                                            const ClientOptions& options = {});
  ~VolumeClient() override;  // after close() has ended (or Loop::abandon)
  void submit(IoRequest* request) override;
  uint64_t size_bytes() const override;
  bool read_only() const override;
  void update_map(VolumeMap map);  // newer version: size, addresses, routes; same volume and epoch
  bool fenced() const;
  ClientStats stats() const;
  // Requests in flight end with kShuttingDown; `closed` runs when all connections are gone.
  void close(std::function<void()> closed);

 private:
  struct State;
  std::unique_ptr<State> state_;
  explicit VolumeClient(std::unique_ptr<State> state);
};

}  // namespace curve::client
