// The names of things: identifiers, sizes and limits that every part shares (DESIGN.md section 3).
// Invariant: constants here are part of the formats in docs/formats/; changing one changes a format
// version. Plain values, any thread.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace curve {

using Term = uint64_t;
using Index = uint64_t;        // position in a replicated log; the first entry is 1
using CopysetId = uint64_t;    // pool_id << 32 | index in the pool
using VolumeId = uint64_t;     // never used twice; 0 is no volume
using Epoch = uint64_t;        // of an attachment (R12)
using Incarnation = uint64_t;  // raised durably at each start of a store (R9)

inline constexpr uint32_t kSectorBytes = 4096;      // unit of checksum and of logical addressing
inline constexpr uint32_t kBlockBytes = 64 * 1024;  // unit of allocation
inline constexpr uint32_t kChunkBytes = 16 * 1024 * 1024;
inline constexpr uint32_t kSectorsPerBlock = kBlockBytes / kSectorBytes;
inline constexpr uint32_t kBlocksPerChunk = kChunkBytes / kBlockBytes;
inline constexpr uint32_t kSectorsPerChunk = kChunkBytes / kSectorBytes;
inline constexpr uint32_t kIoBytesMax = 1024 * 1024;  // one data request
inline constexpr size_t kReplicasMax = 7;

// 128-bit UUID of a store. Names the store and its replica of each copyset (R1). All zero is
// "none".
struct StoreId {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const StoreId&) const = default;
  bool is_none() const { return *this == StoreId{}; }
  // Canonical 8-4-4-4-12 text.
  std::string text() const;
};

struct ChunkKey {
  VolumeId volume = 0;
  uint32_t chunk = 0;  // offset in the volume's address space / kChunkBytes
  auto operator<=>(const ChunkKey&) const = default;
};

inline uint64_t mix64(uint64_t x) {  // splitmix64 finalizer (Steele, Lea, Flood 2014)
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace curve

template <>
struct std::hash<curve::StoreId> {
  size_t operator()(const curve::StoreId& id) const noexcept {
    uint64_t h = 0;
    for (uint8_t b : id.bytes) h = h * 0x100000001b3ull + b;
    return curve::mix64(h);
  }
};
template <>
struct std::hash<curve::ChunkKey> {
  size_t operator()(const curve::ChunkKey& k) const noexcept {
    return curve::mix64(k.volume * 0x9e3779b97f4a7c15ull + k.chunk);
  }
};
