// Room in the log, segments and their footers, and the anchor that lets segments be used again
// (R7).
#include <cassert>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/base/mutant.h"
#include "native/wal/state.h"

namespace curve::wal {

uint64_t Wal::start_position() const { return state_->anchor.start_position; }
uint64_t Wal::segment_bytes() const { return state_->segment_bytes(); }
uint64_t Wal::capacity_bytes() const { return state_->anchor.capacity_bytes(); }
uint64_t Wal::used_bytes() const { return state_->head - state_->anchor.start_position; }
uint32_t Wal::append_bytes_max() const { return state_->append_bytes_max(); }
uint64_t Wal::segment_start(uint64_t position) const {
  return position - position % state_->segment_bytes();
}

void Wal::pin(uint64_t position) { ++state_->slot_of(position).pins; }
void Wal::unpin(uint64_t position) {
  assert(state_->slot_of(position).pins > 0);
  --state_->slot_of(position).pins;
}

uint32_t Wal::State::append_bytes_max() const {
  return static_cast<uint32_t>(
      std::min<uint64_t>(kAppendBytesMax, segment_bytes() / 2 / kSectorBytes * kSectorBytes));
}

// What the footer needs when `more_used` more bytes of headers go into it; 0 when the segment gets
// none.
uint64_t Wal::State::footer_room(size_t more_used) const {
  if (!draft.usable) return 0;
  const uint64_t bytes =
      round_up(draft.body_bytes + round_up(more_used, 8), kSectorBytes) + kSectorBytes;
  return bytes <= footer_bytes_max ? bytes : 0;
}

bool Wal::State::fits_here(uint64_t total, size_t used) const {
  return head + total + footer_room(used) <= head_segment_end;
}

bool Wal::State::next_segment_free() const {
  const uint64_t next = segment_of(head_segment_end);
  return next < segment_of(anchor.start_position) + anchor.segment_count &&
         segments[next % segments.size()].pins == 0;
}

bool Wal::has_room(uint64_t payload_bytes, size_t records, size_t head_bytes,
                   uint64_t reserve_bytes) const {
  const State& s = *state_;
  if (s.failed) return true;
  const uint64_t used = sizeof(AppendHeader) + records * (sizeof(RecordHead) + 7) + head_bytes +
                        payload_bytes / kSectorBytes * 4;
  const uint64_t total = round_up(used, kSectorBytes) + payload_bytes;
  if (total > s.append_bytes_max() || records > kAppendRecordsMax) return false;
  // One sector more: the watermark may be published between this answer and the append.
  const uint64_t wanted = total + kSectorBytes;
  const bool here = s.fits_here(wanted, used + sizeof(AppendHeader));
  if (!here && !s.next_segment_free()) return false;
  if (reserve_bytes == 0) return true;
  return s.free_bytes(here, here ? wanted : 0) >= reserve_bytes + (here ? 0 : wanted);
}

uint64_t Wal::free_bytes() const { return state_->free_bytes(true, 0); }

// `here`: behind that many bytes more in this segment, not only from the next one on.
uint64_t Wal::State::free_bytes(bool here, uint64_t bytes) const {
  // Of a whole free segment, what a sequence of appends of any size can surely use.
  const uint64_t segment = segment_bytes(), append_max = append_bytes_max();
  const uint64_t usable = std::max(segment / 2, segment - footer_bytes_max - append_max);
  const uint64_t free_segments =
      segment_of(anchor.start_position) + anchor.segment_count - segment_of(head_segment_end);
  const uint64_t rest = head_segment_end - head - bytes;
  const uint64_t here_left =
      here && rest > footer_bytes_max + append_max ? rest - footer_bytes_max - append_max : 0;
  return free_segments * usable + here_left;
}

void FooterDraft::begin(uint64_t segment_number) {
  segment = segment_number;
  usable = true;
  first_sequence = last_sequence = 0;
  body_bytes = 0;
}

void Wal::State::next_segment() {
  // A footer still being written or waiting keeps its buffer; this segment then stays without one.
  const bool fits = head + footer_room(0) <= head_segment_end;
  if (draft.usable && draft.body_bytes > 0 && fits && !footer_writing && sealed.segment == 0)
    std::swap(draft, sealed);
  head = head_segment_end;
  head_segment_end += segment_bytes();
  draft.begin(segment_of(head));
}

void Wal::State::note_append(const Append& append, std::span<const std::byte> used) {
  Segment& segment = slot_of(append.position);
  const uint64_t number = segment_of(append.position);
  if (segment.number != number) {
    segment.number = number;
    segment.first_position = append.position;
    segment.first_sequence = append.sequence;
    segment.first_link = last_link;
  }
  collect_header(used, append.position, append.sequence);
}

void Wal::State::collect_header(std::span<const std::byte> used, uint64_t position,
                                uint64_t sequence) {
  if (!draft.usable || draft.segment != segment_of(position)) return;
  if (footer_room(used.size()) == 0) {
    draft.usable = false;
    return;
  }
  std::byte* at = draft.bytes.get() + draft.body_bytes;
  const size_t padded = round_up(used.size(), 8);
  std::memcpy(at, used.data(), used.size());
  std::memset(at + used.size(), 0, padded - used.size());
  draft.body_bytes += padded;
  if (draft.first_sequence == 0) draft.first_sequence = sequence;
  draft.last_sequence = sequence;
}

// A footer is a shortcut for recovery and promises nothing: it is written once all that it lists is
// durable, and where it is missing or torn the segment is read instead.
void Wal::State::write_footer_if_due() {
  if (sealed.segment == 0 || footer_writing || failed || done_sequence < sealed.last_sequence)
    return;
  const size_t body = round_up(sealed.body_bytes, kSectorBytes);
  std::memset(sealed.bytes.get() + sealed.body_bytes, 0, body + kSectorBytes - sealed.body_bytes);
  FooterTrailer trailer{.body_bytes = static_cast<uint32_t>(sealed.body_bytes),
                        .log_id = anchor.log_id,
                        .generation = anchor.generation,
                        .segment_start = sealed.segment * segment_bytes(),
                        .first_sequence = sealed.first_sequence,
                        .last_sequence = sealed.last_sequence};
  trailer.crc = base::crc32c({reinterpret_cast<const std::byte*>(&trailer), sizeof(trailer)});
  std::memcpy(sealed.bytes.get() + body, &trailer, sizeof(trailer));

  const uint64_t end = (sealed.segment + 1) * segment_bytes();
  footer_writing = true;
  wal->pin(trailer.segment_start);  // never into a segment that is in use again
  footer_iov = {sealed.bytes.get(), body + kSectorBytes};
  footer_op.owner = this;
  footer_op.iov = {&footer_iov, 1};
  footer_op.offset_bytes = anchor.file_offset(end - 1) + 1 - footer_iov.iov_len;
  footer_op.durable = false;
  footer_op.done = [](io::Op* op) {
    auto* s = static_cast<State*>(op->owner);
    s->footer_writing = false;
    s->wal->unpin(s->sealed.segment * s->segment_bytes());
    s->sealed.segment = 0;
    if (op->result < 0) s->fail(s->next_sequence, op->result, "segment footer");
  };
  file.write(&footer_op);
}

void Wal::release_before(uint64_t position, std::span<const std::byte> blob, io::Op* op) {
  state_->release_before(position, blob, op);
}

void Wal::State::release_before(uint64_t position, std::span<const std::byte> blob, io::Op* op) {
  assert(recovered && !releasing);
  if (failed) return defer(op, -EIO);
  if (blob.size() > kBlobBytesMax || position > head) return defer(op, -EINVAL);
  next_anchor = anchor;
  next_anchor.blob.assign(blob.begin(), blob.end());
  next_anchor.watermark = done_sequence;
  ++next_anchor.anchor_sequence;
  // The first append of the segment of `position`, or of the next segment that has one: damage may
  // have taken a whole one.
  uint64_t at = std::max(position, anchor.start_position);
  while (at < head && slot_of(at).number != segment_of(at)) at = anchor.segment_end(at);
  if (at >= head) {
    next_anchor.start_position = head;
    next_anchor.start_sequence = next_sequence;
    next_anchor.start_link = last_link;
  } else if (const Segment& segment = slot_of(at); segment.first_position > anchor.start_position) {
    next_anchor.start_position = segment.first_position;
    next_anchor.start_sequence = segment.first_sequence;
    next_anchor.start_link = segment.first_link;
  }
  // Forgotten only when all of it lies before what the owner still needs.
  if (next_anchor.damage_position <= position - position % segment_bytes())
    next_anchor.damage_position = 0;
  auto& boundaries = next_anchor.boundaries;
  while (boundaries.size() > 1 && boundaries[1].position <= next_anchor.start_position)
    boundaries.erase(boundaries.begin());
  if (CURVE_MUTANT("r7_wal_reuse_before_anchor"))
    anchor.start_position = next_anchor.start_position;
  releasing = op;
  anchor_slot = 0;
  encode_anchor(next_anchor, {anchor_bytes.get(), kAnchorBytes});
  write_anchor_slot();
}

// R7: both slots durable, one after the other; only then is the space behind the new start free.
void Wal::State::write_anchor_slot() {
  anchor_iov = {anchor_bytes.get(), kAnchorBytes};
  anchor_op.owner = this;
  anchor_op.iov = {&anchor_iov, 1};
  anchor_op.durable = true;
  anchor_op.offset_bytes = kAnchorOffsets[anchor_slot];
  anchor_op.done = [](io::Op* op) {
    auto* s = static_cast<State*>(op->owner);
    if (op->result < 0) {
      s->fail(s->next_sequence, op->result, "anchor");
    } else if (++s->anchor_slot < 2) {
      s->write_anchor_slot();
      return;
    } else {
      s->anchor = s->next_anchor;
      s->arm_idle();
    }
    io::Op* const waiting = std::exchange(s->releasing, nullptr);
    waiting->result = op->result < 0 ? op->result : 0;
    waiting->done(waiting);
  };
  file.write(&anchor_op);
}

int Wal::State::write_anchor_sync(const Anchor& next) {
  encode_anchor(next, {anchor_bytes.get(), kAnchorBytes});
  for (uint64_t offset : kAnchorOffsets) {
    if (int error = file.write_sync(offset, {anchor_bytes.get(), kAnchorBytes}); error < 0)
      return error;
    if (int error = file.sync_sync(); error < 0) return error;
  }
  return 0;
}

bool Wal::State::readable(uint64_t position, uint64_t bytes) const {
  if (position % kSectorBytes || bytes == 0 || bytes % kSectorBytes) return false;
  if (position < segment_bytes() || position >= head || bytes > segment_bytes()) return false;
  if (position + bytes > anchor.segment_end(position) || position + bytes > head) return false;
  return segment_of(position) + anchor.segment_count > segment_of(head_segment_end) - 1;
}

}  // namespace curve::wal
