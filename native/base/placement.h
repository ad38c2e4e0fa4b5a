// Volume offset -> chunk -> copyset (DESIGN.md section 4). Format: clients, chunkservers and Python
// agree on it bit for bit. Pure functions, any thread.
#pragma once

#include <cstdint>

#include "native/base/types.h"

namespace curve::base {

struct Layout {
  uint32_t stripe_unit_bytes = kChunkBytes;  // power of two, kBlockBytes..kChunkBytes
  uint32_t stripe_count = 1;                 // 1..1024
};

struct ChunkRange {
  uint32_t chunk;         // index
  uint32_t offset_bytes;  // within the chunk
  uint32_t bytes;         // contiguous both in the volume and in the chunk
};

// The longest piece of [offset, offset + bytes) from its start that lies in one chunk contiguously.
inline ChunkRange locate(const Layout& layout, uint64_t offset_bytes, uint64_t bytes) {
  const uint64_t su = layout.stripe_unit_bytes, n = layout.stripe_count;
  const uint64_t unit = offset_bytes / su, within = offset_bytes % su;
  const uint64_t row = unit / n, column = unit % n, units_per_chunk = kChunkBytes / su;
  const uint64_t chunk = (row / units_per_chunk) * n + column;
  const uint64_t offset = (row % units_per_chunk) * su + within;
  const uint64_t room = n == 1 ? kChunkBytes - offset : su - within;
  return {static_cast<uint32_t>(chunk), static_cast<uint32_t>(offset),
          static_cast<uint32_t>(bytes < room ? bytes : room)};
}

// Index of the copyset in its pool. `copysets` is a power of two.
inline uint32_t copyset_index(uint64_t placement_id, uint32_t chunk, uint32_t copysets) {
  return static_cast<uint32_t>(mix64(mix64(placement_id) ^ chunk)) & (copysets - 1);
}

inline CopysetId copyset_id(uint32_t pool, uint32_t index) {
  return static_cast<uint64_t>(pool) << 32 | index;
}

}  // namespace curve::base
