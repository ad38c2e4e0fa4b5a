// R3: walks the log from the anchor's start, decides by the table in recovery.h where it ends, and
// raises the generation. Sealed segments are taken from their footers. Appends that no watermark
// covers yet are held back until one does or the log ends: those that remain are the final window,
// and their inline payloads are verified.
//
// Invariant: an append is visited at most once, in order, and only if it is genuine (format.h).
// Blocks; start-up only.
#include "native/wal/recovery.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <deque>
#include <optional>

#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/wal/log_reader.h"
#include "native/wal/state.h"

namespace curve::wal {
namespace {

// The writer before may have had more in flight than this one is told to.
constexpr uint64_t kWindowAppendsMin = 8;
constexpr uint64_t kDamageLinesMax = 16;

using Visit = std::function<void(const RecoveredRecord&)>;

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

class Recovery {
 public:
  Recovery(Wal::State& state, const Visit& visit)
      : s_(state), anchor_(state.anchor), visit_(visit), reader_(state.file, state.anchor) {}
  Result<RecoveryReport> run();
  Result<RecoveryReport> look();  // and change nothing
  uint64_t end_position() const { return expected_.position; }

 private:
  // Where the next append should be and what it should say.
  struct Expected {
    uint64_t position = 0, sequence = 0;
    uint32_t link = 0;
    bool any_link = false;  // behind damage
  };
  struct Probe {
    Found found = Found::kUnreadable;
    AppendHeader header;
    std::span<const std::byte> used;  // of the header; valid until the next read
    bool read_error = false;          // the device refused some of it
    bool genuine() const { return found == Found::kNext || found == Found::kWrongLink; }
  };
  struct Held {
    AppendHeader header;
    std::vector<std::byte> used;
  };
  struct Behind {
    uint64_t first_position = 0;  // of a genuine append behind; 0: none was found
    uint64_t last_position = 0;   // of the last one that was found
    uint64_t watermark = 0;       // the highest of all that were found
  };

  uint64_t limit() const {  // one lap
    return (anchor_.segment_of(anchor_.start_position) + anchor_.segment_count) *
           anchor_.segment_bytes;
  }
  void walk();
  Probe probe(uint64_t position);
  bool take_footer();
  void take(const AppendHeader& header, std::span<const std::byte> used);
  void accept(const AppendHeader& header, std::span<const std::byte> used, bool promised);
  void visit_records(const AppendHeader& header, std::span<const std::byte> used, bool promised);
  template <class OnGenuine>
  void scan(uint64_t from, uint64_t to, OnGenuine on_genuine);
  Behind look_behind(Found found);
  bool resume_behind_damage(Found found, const Behind& behind);
  Promise promise_of(uint64_t sequence, uint64_t watermark) const;
  void settle_window();
  bool payloads_match(const Held& held);
  void note_damage(Found found, uint64_t position, uint64_t whole_again);
  Outcome raise_generation();

  Wal::State& s_;
  const Anchor& anchor_;
  const Visit& visit_;
  uint32_t gaps_ = 0;
  LogReader reader_;
  RecoveryReport report_;
  Expected expected_;
  uint64_t watermark_ = 0;
  uint64_t furthest_position_ = 0;  // of an append behind damage that was seen
  std::deque<Held> held_;
  uint64_t damages_ = 0;
  uint64_t newer_generation_ = 0;  // an append of it was found though the anchor does not know it
  uint64_t newer_position_ = 0;
};

Result<RecoveryReport> Recovery::run() {
  auto report = look();
  if (!report) return report;
  report_ = std::move(*report);
  if (Outcome raised = raise_generation(); !raised) return raised.error();
  report_.generation = anchor_.generation;
  return std::move(report_);
}

Result<RecoveryReport> Recovery::look() {
  expected_ = {anchor_.start_position, anchor_.start_sequence, anchor_.start_link, false};
  watermark_ = anchor_.watermark;
  report_.anchor_blob = anchor_.blob;
  if (anchor_.damage_position) {
    report_.damaged = true;
    report_.damage_position = anchor_.damage_position;
    report_.damage = "damage in the log before offset " +
                     std::to_string(anchor_.file_offset(anchor_.damage_position)) + " of " +
                     s_.path + " was found by an earlier start";
  }
  walk();
  if (newer_generation_)
    return Error{Code::kCorrupt, "WAL " + s_.path + ": the append at offset " +
                                     std::to_string(anchor_.file_offset(newer_position_)) +
                                     " is of generation " + std::to_string(newer_generation_) +
                                     ", the anchors only know " +
                                     std::to_string(anchor_.generation) +
                                     "; the device lost writes of both anchors"};
  settle_window();
  report_.torn_position = report_.torn_tail ? expected_.position : 0;
  report_.generation = anchor_.generation;
  return std::move(report_);
}

void Recovery::walk() {
  while (expected_.position < limit() && !newer_generation_) {
    if (take_footer()) continue;
    const uint64_t here = expected_.position;
    Probe found = probe(here);
    if (found.found != Found::kNext && here % anchor_.segment_bytes != 0 &&
        anchor_.segment_end(here) < limit()) {
      // Perhaps the segment was sealed here: then the next append is at the start of the next one.
      const Probe found_here = found;
      expected_.position = anchor_.segment_end(here);
      if (take_footer()) continue;
      found = probe(expected_.position);
      if (found.found != Found::kNext) {
        expected_.position = here;
        found.found = found_here.found;
        found.read_error |= found_here.read_error;
      }
    }
    if (found.found == Found::kNext) {
      take(found.header, found.used);
      continue;
    }
    if (found.found == Found::kUnreadable && all_zero(reader_.at(here, kSectorBytes)))
      found.found = Found::kNothing;
    // Looked for once: before the furthest append known, the log goes on anyway.
    const Behind behind = here < furthest_position_ ? Behind{furthest_position_, 0, watermark_}
                                                    : look_behind(found.found);
    Promise promise = promise_of(expected_.sequence, behind.watermark);
    // A torn write can be read. What the device refuses to give was whole once, for all that
    // anybody knows.
    if (promise == Promise::kNone && found.read_error) promise = Promise::kAnchor;
    if (recovery_action(found.found, promise) == Action::kDamage) {
      watermark_ = std::max(watermark_, behind.watermark);
      furthest_position_ = std::max(furthest_position_, behind.last_position);
      if (resume_behind_damage(found.found, behind)) continue;
      return;
    }
    // Zeros or old bytes are a clean end; half an append, or a whole one behind the gap, was in
    // flight.
    AppendHeader half;
    report_.torn_tail = behind.first_position != 0 || found.found == Found::kWrongLink ||
                        (found.found == Found::kUnreadable &&
                         peek_append(reader_.at(here, kSectorBytes), anchor_.log_id, &half));
    return;
  }
}

Promise Recovery::promise_of(uint64_t sequence, uint64_t watermark) const {
  if (CURVE_MUTANT("r3_wal_cut_acknowledged")) return Promise::kNone;
  if (sequence <= std::max(watermark, watermark_)) return Promise::kWatermark;
  if (sequence < anchor_.newest().sequence) return Promise::kAnchor;
  return Promise::kNone;
}

Recovery::Probe Recovery::probe(uint64_t position) {
  Probe out;
  const auto first = reader_.at(position, kSectorBytes);
  out.read_error = reader_.failed(position, kSectorBytes);
  AppendHeader& header = out.header;
  if (!peek_append(first, anchor_.log_id, &header)) return out;
  if (position + header.total_bytes() > anchor_.segment_end(position)) return out;
  out.used = reader_.at(position, header.header_bytes()).first(header.used_bytes);
  out.read_error = reader_.failed(position, header.header_bytes());
  if (!check_append(out.used)) return out;
  if (header.position == position && header.generation > anchor_.generation) {
    newer_generation_ = header.generation;
    newer_position_ = position;
  }
  if (header.position != position || !anchor_.writer_of(position).matches(header.generation))
    out.found = Found::kStale;
  else if (header.sequence == expected_.sequence &&
           (expected_.any_link || header.link == expected_.link))
    out.found = Found::kNext;
  else
    out.found = Found::kWrongLink;
  return out;
}

// The footer of a sealed segment stands for its appends if it continues the log without a gap and
// was written by the generation that wrote the end of the segment: one that was cut later and
// written on is not believed.
bool Recovery::take_footer() {
  const uint64_t start = expected_.position;
  if (start % anchor_.segment_bytes != 0) return false;
  const uint64_t end = anchor_.segment_end(start);
  FooterTrailer trailer;
  if (!check_footer(reader_.at(end - kSectorBytes, kSectorBytes), anchor_.log_id,
                    anchor_.segment_bytes, &trailer))
    return false;
  if (trailer.segment_start != start || !anchor_.writer_of(end - 1).matches(trailer.generation))
    return false;
  if (trailer.first_sequence != expected_.sequence || trailer.body_bytes == 0) return false;
  const uint64_t body_bytes = round_up(trailer.body_bytes, kSectorBytes);
  if (body_bytes + kSectorBytes > s_.footer_bytes_max) return false;
  const uint64_t body_start = end - kSectorBytes - body_bytes;
  const auto body = reader_.at(body_start, body_bytes).first(trailer.body_bytes);

  auto each = [&](auto on_append) {
    Expected next = expected_;
    size_t at = 0;
    while (at < body.size()) {
      AppendHeader header;
      if (body.size() - at < sizeof(header) ||
          !peek_append(body.subspan(at), anchor_.log_id, &header))
        return false;
      if (body.size() - at < round_up(header.used_bytes, 8)) return false;
      const auto used = body.subspan(at, header.used_bytes);
      if (!on_append(next, header, used)) return false;
      next = {header.position + header.total_bytes(), header.sequence + 1, header.crc, false};
      at += round_up(header.used_bytes, 8);
    }
    return next.sequence == trailer.last_sequence + 1;
  };
  const bool good =
      each([&](const Expected& next, const AppendHeader& header, std::span<const std::byte> used) {
        return check_append(used) && header.position == next.position &&
               header.sequence == next.sequence && (next.any_link || header.link == next.link) &&
               header.position + header.total_bytes() <= body_start &&
               anchor_.writer_of(header.position).matches(header.generation);
      });
  if (!good) return false;
  each([&](const Expected&, const AppendHeader& header, std::span<const std::byte> used) {
    take(header, used);
    return true;
  });
  expected_.position = end;
  return true;
}

void Recovery::take(const AppendHeader& header, std::span<const std::byte> used) {
  expected_ = {header.position + header.total_bytes(), header.sequence + 1, header.crc, false};
  watermark_ = std::max(watermark_, header.watermark);
  while (!held_.empty() && held_.front().header.sequence <= watermark_) {
    accept(held_.front().header, held_.front().used, true);
    held_.pop_front();
  }
  if (header.sequence <= watermark_)
    accept(header, used, true);
  else
    held_.push_back({header, {used.begin(), used.end()}});
}

void Recovery::accept(const AppendHeader& header, std::span<const std::byte> used, bool promised) {
  ++report_.appends;
  Segment& segment = s_.slot_of(header.position);
  const uint64_t number = anchor_.segment_of(header.position);
  if (segment.number != number) {
    segment.number = number;
    segment.first_position = header.position;
    segment.first_sequence = header.sequence;
    segment.first_link = header.link;
  }
  FooterDraft& draft = s_.draft;
  if (draft.segment != number) {
    draft.begin(number);
    draft.usable = header.position % anchor_.segment_bytes == 0;
  } else if (header.sequence != draft.last_sequence + 1) {
    draft.usable = false;  // a hole: the segment keeps no footer
  }
  s_.collect_header(used, header.position, header.sequence);
  visit_records(header, used, promised);
}

void Recovery::visit_records(const AppendHeader& header, std::span<const std::byte> used,
                             bool promised) {
  RecordReader reader(used);
  RecordView view;
  for (size_t i = 0; reader.next(&view); ++i) {
    ++report_.records;
    const RecordHead& h = view.head;
    visit_({.type = static_cast<RecordType>(h.type),
            .entry_type = h.entry_type,
            .group = h.group,
            .index = h.index,
            .term = h.term,
            .head = view.head_content,
            .annotation = view.annotation,
            .sector_crcs = {reinterpret_cast<const uint32_t*>(view.crcs.data()),
                            h.crc_count},  // 8-aligned by format
            .payload_bytes = h.crc_count * kSectorBytes,
            .place = place_of(header.position, i),
            .payload_position = h.payload_bytes ? header.position + view.payload_offset : 0,
            .promised = promised,
            .gaps = gaps_});
  }
}

// Calls on_genuine(position, header) for every genuine append in [from, to); false from it ends the
// scan.
template <class OnGenuine>
void Recovery::scan(uint64_t from, uint64_t to, OnGenuine on_genuine) {
  for (uint64_t at = from; at < to;) {
    const Probe found = probe(at);
    if (!found.genuine()) {
      at += kSectorBytes;
      continue;
    }
    if (!on_genuine(at, found.header)) return;
    at += found.header.total_bytes();
  }
}

// Is there anything behind? All of this segment, as much of the next as can have been in flight,
// and the first sector of every other: a log that went on has left something in one of them.
Recovery::Behind Recovery::look_behind(Found found) {
  Behind out;
  auto note = [&](uint64_t position, const AppendHeader& header) {
    if (header.sequence < expected_.sequence) return true;
    if (!out.first_position) out.first_position = position;
    out.last_position = position;
    out.watermark = std::max(out.watermark, header.watermark);
    return true;
  };
  const uint64_t here = expected_.position, end = anchor_.segment_end(here);
  scan(found == Found::kWrongLink ? here : here + kSectorBytes, end, note);
  const uint64_t window = std::min<uint64_t>(
      anchor_.segment_bytes,
      std::max<uint64_t>(s_.options.inflight_appends_max, kWindowAppendsMin) * kAppendBytesMax);
  if (end < limit()) scan(end, end + window, note);
  for (uint64_t start = end + anchor_.segment_bytes; start < limit();
       start += anchor_.segment_bytes)
    scan(start, start + kSectorBytes, note);
  return out;
}

// Finds the next genuine append behind damage; the log is whole again from there on. False: there
// is none, the log ends here. Where an earlier recovery had found the end of the log, this one
// knows that it went at least so far.
bool Recovery::resume_behind_damage(Found found, const Behind& behind) {
  const uint64_t here = expected_.position;
  const Boundary& newest = anchor_.newest();
  const bool boundary_behind = newest.position > here && newest.sequence > expected_.sequence;
  uint64_t to = 0;
  if (behind.first_position) to = behind.first_position + kSectorBytes;
  if (boundary_behind && (to == 0 || newest.position < to)) to = newest.position;
  std::optional<Expected> resume;
  if (to) {
    scan(found == Found::kWrongLink ? here : here + kSectorBytes, to,
         [&](uint64_t position, const AppendHeader& header) {
           if (header.sequence < expected_.sequence) return true;
           resume = {position, header.sequence, 0, true};
           return false;
         });
  }
  if (!resume && boundary_behind) resume = {newest.position, newest.sequence, newest.link, false};
  note_damage(found, here, resume ? resume->position : here);
  if (!resume) return false;
  ++gaps_;
  expected_ = *resume;
  return true;
}

void Recovery::note_damage(Found found, uint64_t position, uint64_t whole_again) {
  if (!report_.damaged || report_.damage_position < whole_again)
    report_.damage_position = whole_again;
  report_.damaged = true;
  const std::string sentence = "append at offset " + std::to_string(anchor_.file_offset(position)) +
                               " of " + s_.path + " (position " + std::to_string(position) +
                               "): found " + std::string(found_name(found)) +
                               " where a promised one was written";
  if (report_.damage.empty()) report_.damage = sentence;
  if (++damages_ <= kDamageLinesMax)
    base::log(base::LogLevel::kError, "wal_damage",
              {{"what", sentence},
               {"sequence", expected_.sequence},
               {"whole_again_position", whole_again}});
}

// The final window: whole appends that no watermark covers. Torn inline payloads end the log,
// except where an earlier recovery had already taken the append.
void Recovery::settle_window() {
  if (CURVE_MUTANT("r3_wal_cut_window")) {  // one torn payload, and all of the window goes
    for (const Held& each : held_) {
      if (payloads_match(each)) continue;
      const AppendHeader& first = held_.front().header;
      expected_ = {first.position, first.sequence, first.link, false};
      held_.clear();
      break;
    }
  }
  for (; !held_.empty(); held_.pop_front()) {
    Held& held = held_.front();
    const AppendHeader& header = held.header;
    const Found found = payloads_match(held) ? Found::kNext : Found::kTornPayload;
    Promise promise = promise_of(header.sequence, 0);
    if (promise == Promise::kNone && reader_.failed(header.position, header.total_bytes()))
      promise = Promise::kAnchor;
    switch (recovery_action(found, promise)) {
      case Action::kTakeDamaged:
        note_damage(found, header.position, header.position + header.total_bytes());
        [[fallthrough]];
      case Action::kTake:
        accept(header, held.used, false);
        break;
      case Action::kDamage:
      case Action::kEnd:
        report_.torn_tail = true;
        expected_ = {header.position, header.sequence, header.link, false};
        held_.clear();
        return;
    }
  }
}

bool Recovery::payloads_match(const Held& held) {
  const uint64_t header_bytes = held.header.header_bytes();
  if (held.header.payload_bytes == 0) return true;
  const auto payloads = reader_.at(held.header.position + header_bytes, held.header.payload_bytes);
  RecordReader reader(held.used);
  RecordView view;
  while (reader.next(&view)) {
    if (view.head.payload_bytes == 0) continue;
    for (size_t i = 0; i < view.head.crc_count; ++i) {
      uint32_t crc;
      std::memcpy(&crc, view.crcs.data() + 4 * i, 4);
      if (base::crc32c(payloads.subspan(view.payload_offset - header_bytes + i * kSectorBytes,
                                        kSectorBytes)) != crc)
        return false;
    }
  }
  return true;
}

// What was read may still be in the device's cache (the process was killed, not the machine): it is
// made durable before the anchor says that it is part of the log. Only then may anything be
// appended.
Outcome Recovery::raise_generation() {
  int error = s_.file.sync_sync();
  Anchor next = anchor_;
  ++next.anchor_sequence;
  if (!CURVE_MUTANT("r3_wal_generation_not_raised")) {
    ++next.generation;
    auto& boundaries = next.boundaries;
    while (!boundaries.empty() && (boundaries.back().position >= expected_.position ||
                                   boundaries.back().sequence >= expected_.sequence))
      boundaries.pop_back();
    if (boundaries.size() == kBoundariesMax) boundaries.erase(boundaries.begin());
    boundaries.push_back(
        {next.generation, expected_.position, expected_.sequence, expected_.link, 0});
  }
  next.watermark = std::min(watermark_, expected_.sequence - 1);
  next.damage_position = report_.damaged ? report_.damage_position : 0;
  if (error >= 0) error = s_.write_anchor_sync(next);
  if (error < 0)
    return Error{Code::kIo,
                 "WAL " + s_.path + ": cannot write the anchor: " + std::strerror(-error)};
  s_.anchor = std::move(next);

  s_.head = expected_.position;
  // At the start of a segment: not entered yet, because it may still be in use.
  const bool entered = s_.head % anchor_.segment_bytes != 0;
  s_.head_segment_end = entered ? anchor_.segment_end(s_.head) : s_.head;
  s_.next_sequence = expected_.sequence;
  s_.last_link = expected_.link;
  s_.done_sequence = s_.published_sequence = s_.anchor.watermark;
  if (!entered || s_.draft.segment != anchor_.segment_of(s_.head)) s_.draft.usable = false;
  s_.recovered = true;
  return {};
}

}  // namespace

Result<RecoveryReport> Wal::recover(const std::function<void(const RecoveredRecord&)>& visit) {
  assert(!state_->recovered);
  return Recovery(*state_, visit).run();
}

Result<LogSummary> Wal::inspect(io::Loop& loop, base::BufferPool& pool, const std::string& path,
                                const StoreId& store,
                                const std::function<void(const RecoveredRecord&)>& visit) {
  auto wal = open_file(loop, pool, path, store, {}, true);
  if (!wal) return wal.error();
  Recovery recovery(*(*wal)->state_, visit);
  auto report = recovery.look();
  if (!report) return report.error();
  LogSummary out;
  out.report = std::move(*report);
  out.start_position = (*wal)->start_position();
  out.end_position = recovery.end_position();
  out.segment_bytes = (*wal)->segment_bytes();
  out.capacity_bytes = (*wal)->capacity_bytes();
  return out;
}

}  // namespace curve::wal
