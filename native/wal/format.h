// The bytes of the write-ahead log: anchors, append headers, segment footers. Format page:
// docs/formats/wal.md (changes in the same commit). Pure functions over spans; they never read
// beyond what they are given and believe no length before it was checked. Any thread.
//
// Invariant: an append is genuine at a position only if its CRC, log id and position match and its
// generation is the one that the anchor's boundaries say was written there (R3). Everything else at
// that place is not part of the log.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "native/base/status.h"
#include "native/base/types.h"
#include "native/wal/wal.h"

namespace curve::wal {

inline constexpr uint16_t kFormatVersion = 1;
inline constexpr uint32_t kAppendMagic = 0x50415743;  // "CWAP"
inline constexpr uint32_t kAnchorMagic = 0x4e415743;  // "CWAN"
inline constexpr uint32_t kFooterMagic = 0x54465743;  // "CWFT"
inline constexpr uint64_t kAnchorOffsets[2] = {0, 64 * 1024};
inline constexpr uint64_t kDataOffset = 128 * 1024;  // segment slot 0
inline constexpr size_t kAnchorBytes = kSectorBytes;
inline constexpr size_t kBlobBytesMax = 2048;
inline constexpr size_t kBoundariesMax = 32;
inline constexpr uint64_t kSegmentBytesMin = 64 * 1024;
inline constexpr uint64_t kSegmentBytesMax = 1ull << 30;
inline constexpr uint64_t kSegmentsMin = 4;
inline constexpr uint64_t kPositionMax = 1ull << 62;

inline constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// First bytes of an append, followed by `record_count` records; `used_bytes` in all, zero-padded to
// whole sectors; then the payloads in the order of their records.
struct AppendHeader {
  uint32_t magic = kAppendMagic;
  uint16_t version = kFormatVersion;
  uint16_t reserved = 0;
  uint32_t crc = 0;         // CRC32C of used_bytes with this field as zero
  uint32_t used_bytes = 0;  // this struct and the records
  uint64_t log_id = 0;      // digest of the store id and a random number of the formatting
  uint64_t generation = 0;
  uint64_t sequence = 0;
  uint64_t position = 0;
  uint64_t watermark =
      0;  // sequence: this append and all before it were durable, and somebody may have been told
  uint32_t link = 0;  // `crc` of append sequence - 1
  uint32_t record_count = 0;
  uint32_t payload_bytes = 0;
  uint32_t reserved2 = 0;

  uint64_t header_bytes() const { return round_up(used_bytes, kSectorBytes); }
  uint64_t total_bytes() const { return header_bytes() + payload_bytes; }
};
static_assert(sizeof(AppendHeader) == 72);

// A record: this struct, sector CRCs, head, annotation, zeros up to 8 bytes.
struct RecordHead {
  uint64_t group = 0;
  uint64_t index = 0;
  uint64_t term = 0;
  uint32_t payload_bytes = 0;  // within this append; 0 with crc_count > 0: the payload is elsewhere
  uint16_t head_bytes = 0;
  uint16_t annotation_bytes = 0;
  uint16_t crc_count = 0;
  uint8_t type = 0;
  uint8_t entry_type = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(RecordHead) == 40);

inline constexpr uint64_t record_bytes(size_t crcs, size_t head_bytes, size_t annotation_bytes) {
  return round_up(sizeof(RecordHead) + 4 * crcs + head_bytes + annotation_bytes, 8);
}

// The last sector of a sealed segment. Before it, `body_bytes` of append headers (used_bytes each,
// padded to 8), in order: recovery reads them instead of the appends.
struct FooterTrailer {
  uint32_t magic = kFooterMagic;
  uint16_t version = kFormatVersion;
  uint16_t reserved = 0;
  uint32_t crc = 0;  // CRC32C of this struct with this field as zero
  uint32_t body_bytes = 0;
  uint64_t log_id = 0;
  uint64_t generation = 0;     // of the writer
  uint64_t segment_start = 0;  // logical position
  uint64_t first_sequence = 0;
  uint64_t last_sequence = 0;
};
static_assert(sizeof(FooterTrailer) == 56);

// From `position` on, until the next boundary, the log is written by `generation`; its first append
// is `sequence`.
struct Boundary {
  uint64_t generation = 0;
  uint64_t position = 0;
  uint64_t sequence = 0;
  uint32_t link = 0;  // of the append before
  uint32_t reserved = 0;
  bool operator==(const Boundary&) const = default;
};
static_assert(sizeof(Boundary) == 32);

// Decoded anchor. Two slots, both written at each change, one after the other.
struct Anchor {
  StoreId store;
  uint64_t log_id = 0;
  uint64_t anchor_sequence = 0;  // grows with each change; the newest valid slot counts
  uint64_t segment_bytes = 0;
  uint64_t segment_count = 0;
  uint64_t generation = 0;
  uint64_t start_position = 0;  // of the first append that counts
  uint64_t start_sequence = 0;
  uint32_t start_link = 0;
  uint64_t watermark = 0;  // known when the anchor was written
  uint64_t damage_position =
      0;  // where the log is whole again behind the last damage; 0: none in what is retained
  std::vector<Boundary> boundaries;  // 1 .. kBoundariesMax, rising in every field
  std::vector<std::byte> blob;       // of the owner

  uint64_t capacity_bytes() const { return segment_bytes * segment_count; }
  uint64_t segment_of(uint64_t position) const { return position / segment_bytes; }
  uint64_t segment_end(uint64_t position) const {
    return (segment_of(position) + 1) * segment_bytes;
  }
  uint64_t file_offset(uint64_t position) const {
    return kDataOffset + segment_of(position) % segment_count * segment_bytes +
           position % segment_bytes;
  }
  // Which generation wrote `position`. Positions before the oldest boundary kept: only `older` is
  // known (any below it).
  struct Writer {
    uint64_t generation;
    bool older;
    bool matches(uint64_t g) const { return older ? g < generation && g > 0 : g == generation; }
  };
  Writer writer_of(uint64_t position) const;
  const Boundary& newest() const { return boundaries.back(); }
  bool operator==(const Anchor&) const = default;
};

// `out` is kAnchorBytes long.
void encode_anchor(const Anchor& anchor, std::span<std::byte> out);
// Errors: kCorrupt (not an anchor, damaged, inconsistent), kVersion.
Result<Anchor> decode_anchor(std::span<const std::byte> bytes);

// One record as it lies in a header. Spans point into it.
struct RecordView {
  RecordHead head;
  std::span<const std::byte> crcs, head_content, annotation;
  uint64_t payload_offset = 0;  // from the append's start; 0 when none
};

// CRC32C of `bytes` with the four bytes at `at` taken as zero.
uint32_t crc_without(std::span<const std::byte> bytes, size_t at);

// Reads the fixed part; false: cannot be an append header of this log at this position (magic, id,
// lengths). `bytes` holds at least one sector.
bool peek_append(std::span<const std::byte> bytes, uint64_t log_id, AppendHeader* out);
// Whole header (`used_bytes` long) good: CRC and every length within it.
bool check_append(std::span<const std::byte> used);
// Walks the records of a header that check_append() has accepted.
class RecordReader {
 public:
  explicit RecordReader(std::span<const std::byte> used);
  bool next(RecordView* out);
  bool ok() const { return ok_; }

 private:
  std::span<const std::byte> used_;
  size_t at_ = sizeof(AppendHeader);
  uint32_t left_;
  uint64_t payload_at_;
  bool ok_ = true;
};

bool check_footer(std::span<const std::byte> trailer, uint64_t log_id, uint64_t segment_bytes,
                  FooterTrailer* out);

// A place is the append's position with the record's number in the low 12 bits.
inline constexpr uint64_t place_of(uint64_t position, size_t record) {
  return position | (record + 1);
}
inline constexpr size_t place_record(uint64_t place) { return (place & (kSectorBytes - 1)) - 1; }

}  // namespace curve::wal
