// Geometry of a store and the sentence of a damage report. See layout.h.
#include "native/chunkstore/layout.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

namespace curve::chunkstore {

namespace {

constexpr uint64_t kAlign = kBlockBytes;

uint64_t round_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

uint32_t pages_for(uint64_t blocks) {
  return static_cast<uint32_t>(std::max(blocks / 16, std::min<uint64_t>(1024, blocks / 4)));
}

void place(Geometry& g) {
  g.pages = pages_for(g.blocks);
  g.root_bytes = round_up(kRootHeaderBytes + sizeof(PageName) * g.pages + g.blob_bytes, kAlign);
  g.pages_offset = kRootsOffset + 2 * g.root_bytes;
  g.blocks_offset = round_up(g.pages_offset + 2ull * g.pages * kStructBytes, kAlign);
}

}  // namespace

Result<Geometry> plan_geometry(uint64_t bytes, uint64_t blob_bytes) {
  Geometry g;
  g.bytes = bytes / kBlockBytes * kBlockBytes;
  g.blob_bytes = blob_bytes ? round_up(blob_bytes, kStructBytes)
                            : std::clamp(bytes / 128 / kBlockBytes * kBlockBytes, kBlobBytesMin,
                                         kBlobBytesMax);
  const auto too_small = [&] {
    return Error{Code::kNoSpace, "a store of " + std::to_string(bytes) +
                                     " bytes is too small: at least " +
                                     std::to_string(std::max(kStoreBytesMin, 8 * g.blob_bytes)) +
                                     " bytes are needed"};
  };
  if (g.blob_bytes > (1ull << 40) || bytes < std::max(kStoreBytesMin, 8 * g.blob_bytes))
    return too_small();
  if (bytes > (uint64_t{UINT32_MAX} - 1) * kBlockBytes)
    return Error{Code::kInvalid, "a store of " + std::to_string(bytes) +
                                     " bytes is too large: block numbers have 32 bits"};
  // From above: a first guess without metadata, then down to what fits. Each step is exact for its
  // own number of pages.
  g.blocks = g.bytes / kBlockBytes;
  for (int round = 0; round < 64; ++round) {
    place(g);
    if (g.blocks_offset + g.blocks * kBlockBytes <= g.bytes) return g;
    const uint64_t fit = g.bytes > g.blocks_offset ? (g.bytes - g.blocks_offset) / kBlockBytes : 0;
    g.blocks = std::min(g.blocks - 1, std::max(fit, g.blocks / 2));
    if (g.blocks < 16) return too_small();
  }
  return too_small();
}

std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%" PRIx64, value);
  return text;
}

Error damage(const std::string& path, const std::string& structure, uint64_t offset_bytes,
             const std::string& expected, const std::string& found) {
  return {Code::kCorrupt, path + ": " + structure + " at offset " + std::to_string(offset_bytes) +
                              " is damaged: expected " + expected + ", found " + found +
                              "; take this store out of service, format its device as a new store "
                              "and let its copysets be "
                              "filled from their other replicas"};
}

}  // namespace curve::chunkstore
