// Formatting, opening and appending: group commit, completion in order (R2), the idle watermark,
// failure.
#include "native/wal/wal.h"

#include <cassert>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/wal/state.h"

namespace curve::wal {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kBytesMin = 64 * kMiB;

uint64_t segment_bytes_for(uint64_t file_bytes) {
  const uint64_t wanted = file_bytes / 16 / kMiB * kMiB;
  return std::min(std::max(wanted, 8 * kMiB), 64 * kMiB);
}

uint64_t log_id_for(const StoreId& store, uint64_t random) {
  const uint64_t id = mix64(std::hash<StoreId>{}(store) ^ random);
  return id ? id : 1;
}

// Both slots are written at each change and the change counts once both are durable. So a slot that
// cannot be read was either torn in its own write, then nobody was told of its content, or it was
// damaged later, then the other one holds the same: the newest readable slot is never older than
// what was promised.
Result<Anchor> choose_anchor(const std::string& path, const Result<Anchor>& a,
                             const Result<Anchor>& b) {
  for (const auto* slot : {&a, &b})
    if (!*slot && slot->error().code == Code::kVersion)
      return Error{Code::kVersion, "WAL " + path + ": anchor of " + slot->error().message};
  if (!a && !b)
    return Error{Code::kCorrupt, "WAL " + path +
                                     ": no readable anchor (offset 0: " + a.error().message +
                                     "; offset " + std::to_string(kAnchorOffsets[1]) + ": " +
                                     b.error().message + "); it was never formatted or is damaged"};
  if (a && b) {
    if (a->log_id != b->log_id || a->store != b->store || a->segment_bytes != b->segment_bytes ||
        a->segment_count != b->segment_count)
      return Error{Code::kCorrupt, "WAL " + path + ": the anchors at offsets 0 and " +
                                       std::to_string(kAnchorOffsets[1]) +
                                       " are of different logs"};
    return a->anchor_sequence >= b->anchor_sequence ? *a : *b;
  }
  base::log(base::LogLevel::kWarning, "wal_anchor_unreadable",
            {{"path", path},
             {"offset", a ? kAnchorOffsets[1] : kAnchorOffsets[0]},
             {"reason", a ? b.error().message : a.error().message}});
  return a ? *a : *b;
}

}  // namespace

AlignedBytes take_aligned(size_t bytes) {
  auto* memory =
      static_cast<std::byte*>(std::aligned_alloc(kSectorBytes, round_up(bytes, kSectorBytes)));
  if (!memory) std::abort();
  return AlignedBytes(memory);
}

Outcome Wal::check_free(io::Loop& loop, const std::string& path) {
  auto file = io::File::open(loop, path, {});
  if (!file && file.error().code == Code::kNotFound) return {};
  if (!file) return file.error();
  if (file->size_bytes() < kDataOffset || CURVE_MUTANT("r1_format_again")) return {};
  AlignedBytes bytes = take_aligned(kAnchorBytes);
  for (uint64_t offset : kAnchorOffsets) {
    if (int error = file->read_sync(offset, {bytes.get(), kAnchorBytes}); error < 0)
      return Error{Code::kIo, "WAL " + path + ": cannot read the anchor at offset " +
                                  std::to_string(offset) + ": " + std::strerror(-error)};
    const auto anchor = decode_anchor({bytes.get(), kAnchorBytes});
    if (anchor && anchor->generation > 1)
      return Error{Code::kExists, "WAL " + path + ": holds the log of store " +
                                      anchor->store.text() +
                                      ", which was in use; remove it first, or format with force, "
                                      "which destroys it"};
  }
  return {};
}

Outcome Wal::format(io::Loop& loop, const std::string& path, const FormatOptions& wanted) {
  FormatOptions options = wanted;
  auto file = io::File::open(loop, path, {.create = options.bytes != 0});
  if (!file) return file.error();
  if (options.bytes == 0) options.bytes = file->size_bytes();
  const uint64_t segment =
      options.segment_bytes ? options.segment_bytes : segment_bytes_for(options.bytes);
  if (options.store.is_none()) return Error{Code::kInvalid, "WAL " + path + ": no store id"};
  if (segment < kSegmentBytesMin || segment > kSegmentBytesMax || segment % kSectorBytes)
    return Error{Code::kInvalid, "WAL " + path + ": segment size " + std::to_string(segment) +
                                     " is not a multiple of 4096 from 64 KiB to 1 GiB"};
  if ((options.segment_bytes == 0 && options.bytes < kBytesMin) ||
      options.bytes < kDataOffset + kSegmentsMin * segment)
    return Error{Code::kInvalid, "WAL " + path + ": " + std::to_string(options.bytes) +
                                     " bytes are too few; give it 64 MiB or more"};

  Anchor anchor;
  anchor.store = options.store;
  anchor.log_id = log_id_for(options.store, loop.random_u64());
  anchor.anchor_sequence = 1;
  anchor.segment_bytes = segment;
  anchor.segment_count = (options.bytes - kDataOffset) / segment;
  anchor.generation = 1;
  anchor.start_position = segment;  // segment 0 is skipped: no position is 0
  anchor.start_sequence = 1;
  anchor.boundaries = {{.generation = 1, .position = segment, .sequence = 1}};

  if (int error = file->allocate_zeroed_sync(options.bytes); error < 0)
    return Error{error == -ENOSPC ? Code::kNoSpace : Code::kIo,
                 "WAL " + path + ": cannot zero " + std::to_string(options.bytes) +
                     " bytes: " + std::strerror(-error)};
  int error = file->sync_sync();
  AlignedBytes bytes = take_aligned(kAnchorBytes);
  encode_anchor(anchor, {bytes.get(), kAnchorBytes});
  for (uint64_t offset : kAnchorOffsets)
    if (error >= 0) error = file->write_sync(offset, {bytes.get(), kAnchorBytes});
  if (error >= 0) error = file->sync_sync();
  if (error < 0)
    return Error{Code::kIo, "WAL " + path + ": cannot write the anchors: " + std::strerror(-error)};
  return {};
}

Result<std::unique_ptr<Wal>> Wal::open(io::Loop& loop, base::BufferPool& pool,
                                       const std::string& path, const StoreId& store,
                                       const Options& options) {
  return open_file(loop, pool, path, store, options, false);
}

Result<std::unique_ptr<Wal>> Wal::open_file(io::Loop& loop, base::BufferPool& pool,
                                            const std::string& path, const StoreId& store,
                                            const Options& options, bool read_only) {
  if (options.inflight_appends_max == 0 || options.inflight_appends_max > kInflightAppendsMax)
    return Error{Code::kInvalid, "WAL " + path + ": inflight_appends_max must be 1 to 64"};
  auto file = io::File::open(loop, path, {.read_only = read_only});
  if (!file) return file.error();
  if (file->size_bytes() < kDataOffset + kSegmentsMin * kSegmentBytesMin)
    return Error{Code::kCorrupt, "WAL " + path + ": only " + std::to_string(file->size_bytes()) +
                                     " bytes long; it was never formatted or was cut"};

  AlignedBytes bytes = take_aligned(kAnchorBytes);
  auto slot = [&](uint64_t offset) -> Result<Anchor> {
    if (int error = file->read_sync(offset, {bytes.get(), kAnchorBytes}); error < 0)
      return Error{Code::kIo, std::strerror(-error)};
    return decode_anchor({bytes.get(), kAnchorBytes});
  };
  const auto a = slot(kAnchorOffsets[0]);
  const auto b = slot(kAnchorOffsets[1]);
  auto anchor = choose_anchor(path, a, b);
  if (!anchor) return anchor.error();
  if (anchor->store != store)
    return Error{Code::kCorrupt, "WAL " + path + " belongs to store " + anchor->store.text() +
                                     ", not to " + store.text() +
                                     "; use the data directory that it was made for"};
  if (kDataOffset + anchor->capacity_bytes() > file->size_bytes())
    return Error{Code::kCorrupt, "WAL " + path + ": " + std::to_string(file->size_bytes()) +
                                     " bytes long, its anchor says " +
                                     std::to_string(kDataOffset + anchor->capacity_bytes()) +
                                     "; it was cut"};

  auto state = std::make_unique<State>(loop, pool);
  state->options = options;
  state->path = path;
  state->file = std::move(*file);
  state->anchor = std::move(*anchor);
  auto wal = std::unique_ptr<Wal>(new Wal(std::move(state)));
  wal->state_->wal = wal.get();
  wal->state_->set_up();
  return wal;
}

Wal::Wal(std::unique_ptr<State> state) : state_(std::move(state)) {}

// Of an abandoned loop nothing is touched: what is still in flight may be gone already (io.h).
Wal::~Wal() {
  assert(state_->loop.abandoned() || !busy());
  stop();
  state_->loop.disarm(&state_->deferred_timer);
}

void Wal::State::set_up() {
  segments.resize(anchor.segment_count);
  footer_bytes_max =
      std::min<uint64_t>(segment_bytes() / 8, kAppendBytesMax) / kSectorBytes * kSectorBytes;
  anchor_bytes = take_aligned(kAnchorBytes);
  draft.bytes = take_aligned(footer_bytes_max);
  sealed.bytes = take_aligned(footer_bytes_max);
  deferred_timer.owner = idle_timer.owner = refusal.owner = this;
  deferred_timer.fire = [](io::Timer* t) { static_cast<State*>(t->owner)->run_deferred(); };
  idle_timer.fire = [](io::Timer* t) { static_cast<State*>(t->owner)->idle(); };
}

bool Wal::ready() const {
  return state_->failed || state_->inflight_count < state_->options.inflight_appends_max;
}
bool Wal::busy() const {
  return !state_->inflight.empty() || state_->footer_writing || state_->rewrites ||
         state_->releasing || !state_->deferred.empty();
}
bool Wal::failed() const { return state_->failed; }
uint64_t Wal::generation() const { return state_->anchor.generation; }
uint64_t Wal::head_position() const { return state_->head; }

void Wal::stop() {
  state_->stopped = true;
  state_->loop.disarm(&state_->idle_timer);
}

void Wal::append(Append* append) {
  State& s = *state_;
  assert(s.recovered && ready() && !append->linked());
  append->wal = this;
  append->result = Code::kOk;
  append->written = false;
  append->op.owner = append;
  s.failed ? s.refuse(append) : s.submit(append);
}

// Out of service: it is answered in its turn, behind those whose writes still run (R2: the owner
// relies on the order, and keeps their memory until then).
void Wal::State::refuse(Append* append) {
  append->sequence = UINT64_MAX;
  inflight.push_back(append);
  ++inflight_count;
  refusal.done = [](io::Op* op) {
    auto* self = static_cast<State*>(op->owner);
    for (Append* a = self->inflight.front(); a; a = self->inflight.next(a))
      a->written |= a->sequence == UINT64_MAX;
    self->complete();
  };
  if (!refusal.linked()) defer(&refusal, -EIO);
}

void Wal::State::submit(Append* append) {
  AppendSize size;
  for (const Record& record : append->records) size.add(record);
  // Preconditions (has_room): a log that wraps onto itself would destroy what was promised.
  if (size.records > kAppendRecordsMax || size.total_bytes() > append_bytes_max()) std::abort();
  if (!fits_here(size.total_bytes(), size.used_bytes)) {
    if (!next_segment_free()) std::abort();
    next_segment();
  }
  append->sequence = next_sequence;
  append->position = head;
  append->bytes = static_cast<uint32_t>(size.total_bytes());
  append->watermark = done_sequence;
  encode(append, size.used_bytes);

  ++next_sequence;
  head += append->bytes;
  inflight.push_back(append);
  ++inflight_count;

  append->op.done = [](io::Op* op) {
    auto* a = static_cast<Append*>(op->owner);
    a->wal->state_->written(a);
  };
  append->op.offset_bytes = anchor.file_offset(append->position);
  append->op.iov = append->iov;
  append->op.durable = true;
  file.write(&append->op);
}

// Lays the header out and lists the payloads behind it.
size_t Wal::State::encode(Append* append, size_t used) {
  const size_t header_bytes = round_up(used, kSectorBytes);
  // The header buffer is the append's own and is kept: no other handle exists once the write is
  // done.
  if (append->header.capacity() < header_bytes) {
    append->header = pool.take(header_bytes);
    append->header_used = static_cast<uint32_t>(append->header.capacity());
  }
  append->header.resize(header_bytes);
  std::byte* const base = append->header.data();
  append->iov.clear();
  append->iov.push_back({base, header_bytes});

  std::byte* at = base + sizeof(AppendHeader);
  uint64_t payload_at = append->position + header_bytes;
  size_t number = 0;
  for (Record& record : append->records) {
    const size_t payload_bytes = record.payload.size();
    RecordHead head{.group = record.group,
                    .index = record.index,
                    .term = record.term,
                    .payload_bytes = static_cast<uint32_t>(payload_bytes),
                    .head_bytes = static_cast<uint16_t>(record.head.size()),
                    .annotation_bytes = static_cast<uint16_t>(record.annotation.size()),
                    .crc_count = static_cast<uint16_t>(record.sector_crcs.size()),
                    .type = static_cast<uint8_t>(record.type),
                    .entry_type = record.entry_type};
    assert(record.head.size() <= kHeadBytesMax && record.annotation.size() <= kHeadBytesMax);
    assert(record.sector_crcs.size() <= kPayloadBytesMax / kSectorBytes);
    assert(payload_bytes == 0 || payload_bytes == record.sector_crcs.size() * kSectorBytes);
    std::byte* const start = at;
    auto put = [&at](const void* from, size_t bytes) {
      if (bytes) std::memcpy(at, from, bytes);
      at += bytes;
    };
    put(&head, sizeof(head));
    put(record.sector_crcs.data(), record.sector_crcs.size_bytes());
    put(record.head.data(), record.head.size());
    put(record.annotation.data(), record.annotation.size());
    const size_t padding = round_up(at - start, 8) - (at - start);
    std::memset(at, 0, padding);
    at += padding;

    record.place = place_of(append->position, number++);
    record.payload_position = payload_bytes ? payload_at : 0;
    if (payload_bytes) {
      append->iov.push_back({record.payload.data(), payload_bytes});
      payload_at += payload_bytes;
    }
  }
  // All zeros behind: what an earlier use left is cleared, and nothing more.
  if (append->header_used > used) std::memset(at, 0, append->header_used - used);
  append->header_used = static_cast<uint32_t>(used);

  AppendHeader header{.used_bytes = static_cast<uint32_t>(used),
                      .log_id = anchor.log_id,
                      .generation = anchor.generation,
                      .sequence = append->sequence,
                      .position = append->position,
                      .watermark = append->watermark,
                      .link = last_link,
                      .record_count = static_cast<uint32_t>(append->records.size()),
                      .payload_bytes = static_cast<uint32_t>(append->bytes - header_bytes)};
  std::memcpy(base, &header, sizeof(header));
  header.crc = base::crc32c({base, used});  // `crc` is still 0
  std::memcpy(base + offsetof(AppendHeader, crc), &header.crc, sizeof(header.crc));
  note_append(*append, {base, used});
  last_link = header.crc;
  return used;
}

void Wal::State::written(Append* append) {
  append->written = true;
  if (append->op.result < 0) fail(append->sequence, append->op.result, "append");
  complete();
}

void Wal::external_done(Append* append, int32_t result) {
  assert(append->external_pending > 0);
  --append->external_pending;
  if (result < 0)
    state_->fail(append->linked() ? append->sequence : state_->next_sequence, result,
                 "external payload");
  state_->complete();
}

// R2: strictly from the front. Guarded against re-entry: `done` may append or report an external
// payload.
void Wal::State::complete() {
  if (completing) return;
  completing = true;
  while (Append* append = inflight.front()) {
    if (CURVE_MUTANT("r2_wal_done_out_of_order")) {
      while (append && (!append->written || append->external_pending > 0))
        append = inflight.next(append);
      if (!append) break;
    } else if (!append->written || append->external_pending > 0) {
      break;
    }
    append->unlink();
    --inflight_count;
    if (append->sequence >= failed_sequence) {
      append->result = Code::kIo;
    } else {
      done_sequence = append->sequence;
      published_sequence = append->watermark;
      if (append != &publish) told_sequence = append->sequence;
    }
    append->done(append);
  }
  completing = false;
  write_footer_if_due();
  arm_idle();
}

// Out of service: what follows the failed write is answered with kIo and nothing is written any
// more.
void Wal::State::fail(uint64_t sequence, int error, const char* what) {
  failed_sequence = std::min(failed_sequence, sequence);
  if (failed) return;
  failed = true;
  base::log(base::LogLevel::kError, "wal_failed",
            {{"path", path},
             {"what", std::string(what)},
             {"sequence", sequence},
             {"error", std::string(std::strerror(-error))}});
}

void Wal::State::defer(io::Op* op, int32_t result) {
  op->result = result;
  deferred.push_back(op);
  if (!deferred_timer.armed()) loop.arm(&deferred_timer, loop.now_ns());
}

void Wal::State::run_deferred() {
  base::List<io::Op> now;
  while (io::Op* op = deferred.pop_front()) now.push_back(op);
  while (io::Op* op = now.pop_front()) op->done(op);
}

// Nobody may have been told more than what some durable append says: publish it once things are
// quiet, so that damage to the last appends is known as damage (R3).
void Wal::State::arm_idle() {
  if (stopped || failed || told_sequence <= published_sequence) return;
  last_done_ns = loop.now_ns();
  if (!idle_timer.armed() && !publishing)
    loop.arm(&idle_timer, last_done_ns + options.idle_publish_ns);
}

void Wal::State::idle() {
  if (stopped || failed || publishing || told_sequence <= published_sequence) return;
  const uint64_t due = last_done_ns + options.idle_publish_ns;
  if (inflight_count > 0 || loop.now_ns() < due) {
    loop.arm(&idle_timer, std::max(due, loop.now_ns() + options.idle_publish_ns / 2));
    return;
  }
  if (!fits_here(kSectorBytes, sizeof(AppendHeader)) && !next_segment_free())
    return;  // see release_before
  publishing = true;
  publish.wal = wal;
  publish.owner = this;
  publish.written = false;
  publish.op.owner = &publish;
  publish.done = [](Append* a) { static_cast<State*>(a->owner)->publishing = false; };
  submit(&publish);
}

}  // namespace curve::wal
