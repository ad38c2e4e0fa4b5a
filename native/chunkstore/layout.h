// The bytes of a store on disk: structures, their checks and where they lie. The format page is
// docs/formats/store.md and changes together with this file. No I/O here. Any thread.
//
// Invariants: all integers are little-endian; every structure is sealed by a CRC32C over all its
// bytes behind the CRC field; spare bytes are zero. Geometry is a pure function of (bytes, blob
// area), so a superblock cannot lie about it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include "native/base/crc32c.h"
#include "native/base/status.h"
#include "native/base/types.h"
#include "native/chunkstore/chunkstore.h"

namespace curve::chunkstore {

inline constexpr uint32_t kFormatVersion = 1;
inline constexpr uint64_t kSuperblockMagic = 0x3145524f54535643;  // "CVSTORE1"
inline constexpr uint64_t kRootMagic = 0x3130544f4f525643;        // "CVROOT01"
inline constexpr uint32_t kPageMagic = 0x31475043;                // "CPG1"

inline constexpr uint64_t kSuperblockOffsets[2] = {0, 64 * 1024};
inline constexpr uint64_t kRootsOffset = 128 * 1024;
inline constexpr uint32_t kStructBytes = 4096;  // superblock, root header copy, page slot
inline constexpr uint32_t kRootHeaderBytes = 2 * kStructBytes;  // two copies, one write
inline constexpr uint64_t kStoreBytesMin = 16ull << 20;
inline constexpr uint64_t kBlobBytesMin = 1ull << 20, kBlobBytesMax = 512ull << 20;

// Feature bits of the superblock. A store with a bit that is not known here is refused.
inline constexpr uint64_t kFeaturesKnown = 0;

struct Superblock {
  uint64_t magic;
  uint32_t crc;  // of everything behind it
  uint32_t format_version;
  StoreId store;
  StoreId cluster;
  uint64_t bytes;
  uint64_t blob_bytes;  // of one root
  uint64_t blocks;
  uint64_t blocks_offset;
  uint32_t pages;
  uint32_t reserve_percent;  // of a small store more is kept: open.cc
  uint64_t incarnation;
  uint64_t features;
  std::array<std::byte, 3992> spare;
};
static_assert(sizeof(Superblock) == kStructBytes);
static_assert(std::is_trivially_copyable_v<Superblock>);

// A root: header (two copies), then `pages` names, then the blobs: {copyset u64, bytes u32, zero
// u32, bytes...} each.
struct RootHeader {
  uint64_t magic;
  uint32_t crc;
  uint32_t format_version;
  StoreId store;
  uint64_t version;  // of the checkpoint
  uint64_t incarnation;
  uint64_t body_bytes;
  uint64_t blob_bytes;
  uint32_t pages;  // names in the body: page numbers 0 .. pages - 1
  uint32_t blobs;
  uint32_t body_crc;
  uint32_t copy;  // 0, 1
  std::array<std::byte, 4016> spare;
};
static_assert(sizeof(RootHeader) == kStructBytes);

struct BlobHead {
  uint64_t copyset;
  uint32_t bytes;
  uint32_t zero;
};
static_assert(sizeof(BlobHead) == 16);

// How a root names a page: by the checksum of the slot's 4096 bytes and by version. 0/0: no such
// page.
struct PageName {
  uint32_t crc = 0;
  uint32_t state =
      0;  // bit 0: used, bit 1: slot, bits 2..31: low bits of the checkpoint version that wrote it
  bool used() const { return state & 1; }
  uint32_t slot() const { return state >> 1 & 1; }
  uint32_t version_low() const { return state >> 2; }
  static PageName of(uint32_t crc, uint32_t slot, uint64_t version) {
    return {crc, 1 | slot << 1 | static_cast<uint32_t>(version) << 2};
  }
  bool operator==(const PageName&) const = default;
};
static_assert(sizeof(PageName) == 8);
inline constexpr uint32_t kVersionLowMask = 0x3fffffff;

struct PageSlot {
  uint32_t magic;
  uint32_t crc;  // of everything behind it
  uint64_t version;
  uint64_t incarnation;
  uint64_t copyset;
  uint64_t volume;
  uint64_t index;  // applied through
  uint32_t chunk;
  uint32_t number;  // of the page in the pool
  uint8_t page;     // in the chunk
  uint8_t slot;
  uint16_t format_version;
  uint32_t zero;
  std::array<uint32_t, kBlocksPerPage> physical;
  std::array<uint16_t, kBlocksPerPage> written;
  std::array<std::array<uint32_t, kSectorsPerBlock>, kBlocksPerPage> crcs;
  std::array<std::byte, 392> spare;
};
static_assert(sizeof(PageSlot) == kStructBytes);
static_assert(std::is_trivially_copyable_v<PageSlot>);

// CRC32C of all bytes behind the `crc` field.
template <class T>
uint32_t seal_of(const T& structure) {
  constexpr size_t kFrom = offsetof(T, crc) + sizeof(uint32_t);
  return base::crc32c(std::as_bytes(std::span(&structure, 1)).subspan(kFrom));
}

// Blocks of the chunk that page `page` of it holds (the last one holds fewer).
constexpr uint32_t blocks_in_page(uint8_t page) {
  return page + 1u < kPagesPerChunk ? kBlocksPerPage : kBlocksPerChunk - page * kBlocksPerPage;
}

struct Geometry {
  uint64_t bytes = 0;       // used of the file
  uint64_t blob_bytes = 0;  // most that the blobs of one root may take, heads included
  uint64_t blocks = 0;      // numbered 1 .. blocks
  uint32_t pages = 0;       // numbered 0 .. pages - 1
  uint64_t root_bytes = 0;  // of one root slot
  uint64_t pages_offset = 0;
  uint64_t blocks_offset = 0;

  uint64_t root_offset(uint32_t slot) const { return kRootsOffset + slot * root_bytes; }
  uint64_t page_offset(uint32_t number, uint32_t slot) const {
    return pages_offset + (static_cast<uint64_t>(slot) * pages + number) * kStructBytes;
  }
  uint64_t block_offset(uint32_t physical) const {
    return blocks_offset + static_cast<uint64_t>(physical - 1) * kBlockBytes;
  }
};

// Pages are a sixteenth of the blocks (at least 1024, or a quarter of the blocks of a small store):
// a store whose pages hold fewer than 16 blocks each on average is full when its pages are.
// `blob_bytes` 0: by size. kNoSpace names the minimum.
Result<Geometry> plan_geometry(uint64_t bytes, uint64_t blob_bytes);

// "PATH: STRUCTURE at offset N is damaged: expected X, found Y; REMEDY"
Error damage(const std::string& path, const std::string& structure, uint64_t offset_bytes,
             const std::string& expected, const std::string& found);
std::string hex(uint64_t value);

}  // namespace curve::chunkstore
