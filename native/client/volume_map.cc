// Reader of docs/formats/volume-map.md. The bytes come from the control plane, and are not trusted
// to be well formed.
#include <arpa/inet.h>

#include <bit>
#include <cstring>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/client/volume_client.h"

namespace curve::client {
namespace {

constexpr size_t kHeaderBytes = 76, kStoreBytes = 36, kCopysetBytes = 16, kChecksumBytes = 4;
constexpr uint16_t kFormatVersion = 1, kFlagReadOnly = 1, kNoStore = 0xffff;

Error malformed(const std::string& what) {
  return Error{Code::kInvalid, "The volume map is malformed: " + what + "."};
}

bool read_address(base::Reader& reader, io::Address& out) {
  const auto port = reader.get<uint16_t>();
  const auto family = reader.get<uint8_t>();
  reader.get<uint8_t>();
  const auto number = reader.raw(16);
  char text[INET6_ADDRSTRLEN] = {};
  if (number.size() != 16 || (family != 4 && family != 6)) return false;
  inet_ntop(family == 4 ? AF_INET : AF_INET6, number.data(), text, sizeof(text));
  const std::string host = family == 4 ? text : "[" + std::string(text) + "]";
  out.text = host + ":" + std::to_string(port);
  return true;
}

bool read_copyset(base::Reader& reader, size_t stores, CopysetRoute& out) {
  const auto count = reader.get<uint8_t>();
  out.preferred = reader.get<uint8_t>();
  if (count < 1 || count > kReplicasMax || out.preferred >= count) return false;
  for (size_t slot = 0; slot < kReplicasMax; ++slot) {
    const auto store = reader.get<uint16_t>();
    if (slot >= count ? store != kNoStore : store >= stores) return false;
    if (slot < count) out.stores.push_back(store);
  }
  return true;
}

}  // namespace

Result<VolumeMap> decode_volume_map(std::span<const std::byte> bytes) {
  base::Reader reader(bytes);
  const auto magic = reader.raw(4);
  if (magic.size() != 4 || std::memcmp(magic.data(), "CVMP", 4) != 0)
    return malformed("wrong magic");
  if (const auto version = reader.get<uint16_t>(); version != kFormatVersion) {
    return Error{Code::kVersion, "The volume map has version " + std::to_string(version) +
                                     "; this program reads version 1. Update it."};
  }
  VolumeMap map;
  const auto flags = reader.get<uint16_t>();
  const auto total = reader.get<uint32_t>();
  map.version = reader.get<uint64_t>();
  map.volume = reader.get<uint64_t>();
  map.placement_id = reader.get<uint64_t>();
  map.size_bytes = reader.get<uint64_t>();
  map.epoch = reader.get<uint64_t>();
  map.layout.stripe_unit_bytes = reader.get<uint32_t>();
  map.layout.stripe_count = reader.get<uint32_t>();
  const auto copysets = reader.get<uint32_t>();
  const auto stores = reader.get<uint32_t>();
  const auto pool = reader.get<uint64_t>();
  if (!reader.ok()) return malformed("shorter than its header");
  // 64-bit arithmetic on 32-bit counts: no overflow, and nothing was reserved for them yet.
  if (total != bytes.size() ||
      total != kHeaderBytes + stores * kStoreBytes + copysets * kCopysetBytes + kChecksumBytes) {
    return malformed("its counts do not add up to its size");
  }
  uint32_t crc;
  std::memcpy(&crc, bytes.data() + total - kChecksumBytes, sizeof(crc));
  if (base::crc32c(bytes.first(total - kChecksumBytes)) != crc)
    return malformed("its checksum does not match");
  if (flags & ~kFlagReadOnly) return malformed("unknown flags");
  if (!std::has_single_bit(copysets)) return malformed("the copyset count is not a power of two");
  if (stores >= kNoStore) return malformed("too many stores");
  const uint32_t unit = map.layout.stripe_unit_bytes;
  if (!std::has_single_bit(unit) || unit < kBlockBytes || unit > kChunkBytes)
    return malformed("the stripe unit is out of range");
  if (map.layout.stripe_count < 1 || map.layout.stripe_count > 1024)
    return malformed("the stripe count is out of range");
  if (map.size_bytes % kSectorBytes != 0 || map.size_bytes / kChunkBytes >= UINT32_MAX)
    return malformed("the size is out of range");
  if (map.volume == 0) return malformed("no volume id");
  if (pool > UINT32_MAX) return malformed("the pool id is out of range");
  map.pool = static_cast<uint32_t>(pool);
  map.read_only = flags & kFlagReadOnly;
  map.stores.resize(stores);
  for (StoreAddress& store : map.stores) {
    store.store = reader.store_id();
    if (!read_address(reader, store.address))
      return malformed("a store has an unknown address family");
  }
  map.copysets.resize(copysets);
  for (CopysetRoute& copyset : map.copysets) {
    if (!read_copyset(reader, stores, copyset))
      return malformed("a copyset names a replica that is not there");
  }
  return map;
}

}  // namespace curve::client
