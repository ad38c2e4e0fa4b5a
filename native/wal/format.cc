// Codecs of docs/formats/wal.md.
#include "native/wal/format.h"

#include <algorithm>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"

namespace curve::wal {
namespace {

constexpr size_t kAnchorCrcAt = 8;

template <class T>
T load(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

Error bad_anchor(const std::string& what) { return {Code::kCorrupt, what}; }

Outcome check_anchor(const Anchor& a) {
  if (a.segment_bytes < kSegmentBytesMin || a.segment_bytes > kSegmentBytesMax ||
      a.segment_bytes % kSectorBytes != 0)
    return bad_anchor("segment size out of range");
  if (a.segment_count < kSegmentsMin || a.segment_count > (1ull << 40) / a.segment_bytes * 64)
    return bad_anchor("segment count out of range");
  if (a.start_position < a.segment_bytes || a.start_position > kPositionMax ||
      a.start_position % kSectorBytes)
    return bad_anchor("start position out of range");
  if (a.generation >= kPositionMax || a.start_sequence >= kPositionMax ||
      a.anchor_sequence >= kPositionMax)
    return bad_anchor("numbers out of range");
  if (a.start_sequence == 0 || a.log_id == 0) return bad_anchor("start sequence or log id missing");
  if (a.boundaries.empty()) return bad_anchor("no generation boundary");
  for (size_t i = 0; i < a.boundaries.size(); ++i) {
    const Boundary& b = a.boundaries[i];
    if (b.position < a.segment_bytes || b.position > kPositionMax || b.position % kSectorBytes ||
        b.generation == 0 || b.sequence == 0 || b.sequence >= kPositionMax)
      return bad_anchor("generation boundary out of range");
    if (i > 0) {
      const Boundary& before = a.boundaries[i - 1];
      if (b.generation <= before.generation || b.position <= before.position ||
          b.sequence <= before.sequence)
        return bad_anchor("generation boundaries out of order");
    }
  }
  const uint64_t lap_end = a.segment_of(a.start_position) * a.segment_bytes + a.capacity_bytes();
  if (a.newest().position > lap_end) return bad_anchor("generation boundary beyond the log");
  if (a.newest().generation != a.generation) return bad_anchor("generation without its boundary");
  return {};
}

}  // namespace

Anchor::Writer Anchor::writer_of(uint64_t position) const {
  for (size_t i = boundaries.size(); i-- > 0;)
    if (position >= boundaries[i].position) return {boundaries[i].generation, false};
  return {boundaries.front().generation, true};
}

void encode_anchor(const Anchor& a, std::span<std::byte> out) {
  std::vector<std::byte> bytes;
  bytes.reserve(kAnchorBytes);
  base::Writer w(bytes);
  w.put(kAnchorMagic);
  w.put(kFormatVersion);
  w.put(uint16_t{0});
  w.put(uint32_t{0});  // CRC
  w.put(static_cast<uint32_t>(a.blob.size()));
  w.put(a.store);
  w.put(a.log_id);
  w.put(a.anchor_sequence);
  w.put(a.segment_bytes);
  w.put(a.segment_count);
  w.put(a.generation);
  w.put(a.start_position);
  w.put(a.start_sequence);
  w.put(a.watermark);
  w.put(a.damage_position);
  w.put(a.start_link);
  w.put(static_cast<uint32_t>(a.boundaries.size()));
  for (const Boundary& b : a.boundaries) w.put(b);
  w.raw(a.blob);
  bytes.resize(kAnchorBytes);
  const uint32_t crc = crc_without(bytes, kAnchorCrcAt);
  std::memcpy(bytes.data() + kAnchorCrcAt, &crc, 4);
  std::copy(bytes.begin(), bytes.end(), out.begin());
}

Result<Anchor> decode_anchor(std::span<const std::byte> bytes) {
  if (bytes.size() != kAnchorBytes) return bad_anchor("short anchor");
  base::Reader r(bytes);
  if (r.get<uint32_t>() != kAnchorMagic) return bad_anchor("not an anchor");
  const auto version = r.get<uint16_t>();
  r.get<uint16_t>();
  if (r.get<uint32_t>() != crc_without(bytes, kAnchorCrcAt))
    return bad_anchor("CRC does not match");
  if (version != kFormatVersion)
    return Error{Code::kVersion, "version " + std::to_string(version) + ", this program knows " +
                                     std::to_string(kFormatVersion)};
  Anchor a;
  const auto blob_bytes = r.get<uint32_t>();
  a.store = r.store_id();
  a.log_id = r.get<uint64_t>();
  a.anchor_sequence = r.get<uint64_t>();
  a.segment_bytes = r.get<uint64_t>();
  a.segment_count = r.get<uint64_t>();
  a.generation = r.get<uint64_t>();
  a.start_position = r.get<uint64_t>();
  a.start_sequence = r.get<uint64_t>();
  a.watermark = r.get<uint64_t>();
  a.damage_position = r.get<uint64_t>();
  a.start_link = r.get<uint32_t>();
  const auto boundaries = r.get<uint32_t>();
  if (boundaries > kBoundariesMax || blob_bytes > kBlobBytesMax)
    return bad_anchor("lengths out of range");
  for (uint32_t i = 0; i < boundaries; ++i) a.boundaries.push_back(r.get<Boundary>());
  auto blob = r.raw(blob_bytes);
  a.blob.assign(blob.begin(), blob.end());
  if (!r.ok()) return bad_anchor("short anchor");
  if (Outcome good = check_anchor(a); !good) return good.error();
  return a;
}

uint32_t crc_without(std::span<const std::byte> bytes, size_t at) {
  constexpr std::byte kZeros[4] = {};
  uint32_t crc = base::crc32c(bytes.first(at));
  crc = base::crc32c(kZeros, crc);
  return base::crc32c(bytes.subspan(at + 4), crc);
}

bool peek_append(std::span<const std::byte> bytes, uint64_t log_id, AppendHeader* out) {
  *out = load<AppendHeader>(bytes);
  return out->magic == kAppendMagic && out->log_id == log_id && out->version == kFormatVersion &&
         out->used_bytes >= sizeof(AppendHeader) && out->used_bytes <= kAppendBytesMax &&
         out->payload_bytes <= kAppendBytesMax && out->payload_bytes % kSectorBytes == 0 &&
         out->total_bytes() <= kAppendBytesMax && out->record_count <= kAppendRecordsMax &&
         out->sequence > 0 && out->sequence < kPositionMax && out->watermark < out->sequence;
}

bool check_append(std::span<const std::byte> used) {
  if (used.size() < sizeof(AppendHeader)) return false;
  const auto header = load<AppendHeader>(used);
  if (header.used_bytes != used.size()) return false;
  if (crc_without(used, offsetof(AppendHeader, crc)) != header.crc) return false;
  RecordReader reader(used);
  RecordView view;
  while (reader.next(&view)) {
  }
  return reader.ok();
}

RecordReader::RecordReader(std::span<const std::byte> used) : used_(used) {
  const auto header = load<AppendHeader>(used);
  left_ = header.record_count;
  payload_at_ = header.header_bytes();
}

// A header with a good CRC was written by us; the bounds are checked all the same: recovery trusts
// nothing.
bool RecordReader::next(RecordView* out) {
  if (!ok_) return false;
  if (left_ == 0) {
    const auto header = load<AppendHeader>(used_);
    ok_ = at_ == used_.size() && payload_at_ == header.total_bytes();
    return false;
  }
  ok_ = false;
  if (used_.size() - at_ < sizeof(RecordHead)) return false;
  out->head = load<RecordHead>(used_.subspan(at_));
  const RecordHead& h = out->head;
  const uint64_t bytes = record_bytes(h.crc_count, h.head_bytes, h.annotation_bytes);
  if (used_.size() - at_ < bytes) return false;
  if (h.type < 1 || h.type > static_cast<uint8_t>(RecordType::kRemoved)) return false;
  if (h.head_bytes > kHeadBytesMax) return false;
  if (h.payload_bytes != 0 && h.payload_bytes != uint64_t{h.crc_count} * kSectorBytes) return false;
  size_t at = at_ + sizeof(RecordHead);
  out->crcs = used_.subspan(at, 4 * size_t{h.crc_count});
  at += out->crcs.size();
  out->head_content = used_.subspan(at, h.head_bytes);
  at += h.head_bytes;
  out->annotation = used_.subspan(at, h.annotation_bytes);
  out->payload_offset = h.payload_bytes ? payload_at_ : 0;
  payload_at_ += h.payload_bytes;
  at_ += bytes;
  --left_;
  ok_ = true;
  return true;
}

bool check_footer(std::span<const std::byte> trailer, uint64_t log_id, uint64_t segment_bytes,
                  FooterTrailer* out) {
  if (trailer.size() < sizeof(FooterTrailer)) return false;
  *out = load<FooterTrailer>(trailer);
  return out->magic == kFooterMagic && out->version == kFormatVersion && out->log_id == log_id &&
         crc_without(trailer.first(sizeof(FooterTrailer)), offsetof(FooterTrailer, crc)) ==
             out->crc &&
         round_up(out->body_bytes, kSectorBytes) + kSectorBytes <= segment_bytes;
}

}  // namespace curve::wal
