// Reading back: payload sectors as they are, and whole records with every check; and writing back
// what was found damaged (R11). Each pins its segment (R7).
#include <algorithm>
#include <cassert>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/wal/state.h"

namespace curve::wal {
namespace {

// Most appends of small writes are read whole with their header.
constexpr uint64_t kFirstReadBytes = 16 * 1024;

}  // namespace

uint64_t Wal::place_position(uint64_t place) { return place & ~uint64_t{kSectorBytes - 1}; }

void Wal::read(ReadOp* op) {
  State& s = *state_;
  if (!s.readable(op->position, op->into.size())) {
    const bool gone = op->position < s.head;
    return s.defer(op, gone && op->position % kSectorBytes == 0 ? -ENODATA : -EINVAL);
  }
  op->wal = this;
  op->segment = s.segment_of(op->position);
  op->iov = {op->into.data(), op->into.size()};
  op->file_op.owner = op;
  op->file_op.iov = {&op->iov, 1};
  op->file_op.offset_bytes = s.anchor.file_offset(op->position);
  op->file_op.done = [](io::Op* file_op) {
    auto* read = static_cast<ReadOp*>(file_op->owner);
    read->wal->unpin(read->position);
    read->result = file_op->result;
    read->done(read);
  };
  pin(op->position);
  s.file.read(&op->file_op);
}

uint64_t Wal::file_offset(uint64_t position) const { return state_->anchor.file_offset(position); }

void Wal::rewrite(RewriteOp* op) {
  State& s = *state_;
  if (s.failed) return s.defer(op, -EIO);
  if (!s.readable(op->position, op->from.size())) {
    const bool gone = op->position < s.head && op->position % kSectorBytes == 0;
    return s.defer(op, gone ? -ENODATA : -EINVAL);
  }
  const Append* oldest = s.inflight.front();
  if (oldest && op->position + op->from.size() > oldest->position) return s.defer(op, -EAGAIN);
  op->wal = this;
  op->iov = {const_cast<std::byte*>(op->from.data()), op->from.size()};
  op->file_op.owner = op;
  op->file_op.iov = {&op->iov, 1};
  op->file_op.offset_bytes = s.anchor.file_offset(op->position);
  op->file_op.durable = true;
  op->file_op.done = [](io::Op* file_op) {
    auto* rewrite = static_cast<RewriteOp*>(file_op->owner);
    State& state = *rewrite->wal->state_;
    --state.rewrites;
    rewrite->wal->unpin(rewrite->position);
    if (file_op->result < 0) state.fail(state.next_sequence, file_op->result, "repair");
    rewrite->result = std::min(file_op->result, 0);
    rewrite->done(rewrite);
  };
  pin(op->position);
  ++s.rewrites;
  s.file.write(&op->file_op);
}

// Stages: the first sectors of the append; the rest of its header when that is longer; the payload
// when it is not there yet.
struct RecordReadOp::Private {
  RecordReadOp* op = nullptr;
  Wal::State* state = nullptr;
  uint64_t position = 0;  // of the append
  size_t record = 0;
  io::FileOp file_op;
  iovec iov{};
  base::Buffer bytes;  // of the append, from its start
  bool header_whole = false;
  uint64_t payload_offset = 0;

  void start(uint64_t offset, std::span<std::byte> into);
  void next();
  int32_t on_bytes();
  int32_t on_header(std::span<const std::byte> used);
  int32_t check_payload() const;
  void finish(int32_t result);
};

void Wal::read_record(RecordReadOp* op) {
  State& s = *state_;
  const uint64_t position = Wal::place_position(op->place);
  if (!s.readable(position, kSectorBytes) || op->place % kSectorBytes == 0)
    return s.defer(op, position < s.head ? -ENODATA : -EINVAL);
  op->payload = {};
  op->internal = std::make_shared<RecordReadOp::Private>();
  RecordReadOp::Private& p = *op->internal;
  p.op = op;
  p.state = &s;
  p.position = position;
  p.record = place_record(op->place);
  const uint64_t end = std::min(s.anchor.segment_end(position), s.head);
  p.bytes = s.pool.take(std::min(kFirstReadBytes, end - position));
  pin(position);
  p.start(0, p.bytes.span());
}

void RecordReadOp::Private::start(uint64_t offset, std::span<std::byte> into) {
  iov = {into.data(), into.size()};
  file_op.owner = this;
  file_op.iov = {&iov, 1};
  file_op.offset_bytes = state->anchor.file_offset(position) + offset;
  file_op.done = [](io::Op* file_op) {
    auto* p = static_cast<Private*>(file_op->owner);
    if (file_op->result < 0) return p->finish(file_op->result);
    p->next();
  };
  state->file.read(&file_op);
}

void RecordReadOp::Private::next() {
  int32_t result = op->payload ? check_payload() : on_bytes();
  if (result != -EAGAIN) finish(result);
}

// -EAGAIN: another read was started.
int32_t RecordReadOp::Private::on_bytes() {
  AppendHeader header;
  if (!peek_append(bytes.bytes(), state->anchor.log_id, &header)) return -EILSEQ;
  if (header.position != position || position + header.total_bytes() > state->head ||
      position + header.total_bytes() > state->anchor.segment_end(position) ||
      !state->anchor.writer_of(position).matches(header.generation))
    return -EILSEQ;
  if (header.header_bytes() > bytes.size()) {
    if (header_whole) return -EILSEQ;
    header_whole = true;
    bytes = state->pool.take(header.header_bytes());
    start(0, bytes.span());
    return -EAGAIN;
  }
  return on_header(bytes.bytes().first(header.used_bytes));
}

int32_t RecordReadOp::Private::on_header(std::span<const std::byte> used) {
  if (!check_append(used)) return -EILSEQ;
  RecordReader reader(used);
  RecordView view;
  for (size_t i = 0; i <= record; ++i)
    if (!reader.next(&view)) return -EILSEQ;
  op->type = static_cast<RecordType>(view.head.type);
  op->entry_type = view.head.entry_type;
  op->group = view.head.group;
  op->index = view.head.index;
  op->term = view.head.term;
  op->head.assign(view.head_content.begin(), view.head_content.end());
  op->annotation.assign(view.annotation.begin(), view.annotation.end());
  op->sector_crcs.resize(view.head.crc_count);
  if (!view.crcs.empty()) std::memcpy(op->sector_crcs.data(), view.crcs.data(), view.crcs.size());
  if (view.head.payload_bytes == 0) return 0;
  op->payload = state->pool.take(view.head.payload_bytes);
  if (view.payload_offset + view.head.payload_bytes <= bytes.size()) {
    std::memcpy(op->payload.data(), bytes.data() + view.payload_offset, view.head.payload_bytes);
    return check_payload();
  }
  start(view.payload_offset, op->payload.span());
  return -EAGAIN;
}

int32_t RecordReadOp::Private::check_payload() const {
  for (size_t i = 0; i < op->sector_crcs.size(); ++i)
    if (base::crc32c(op->payload.bytes().subspan(i * kSectorBytes, kSectorBytes)) !=
        op->sector_crcs[i])
      return -EILSEQ;
  return 0;
}

void RecordReadOp::Private::finish(int32_t result) {
  const std::shared_ptr<Private> keep = op->internal;  // `done` may free or reuse the operation
  RecordReadOp* const done_op = op;
  state->wal->unpin(position);
  if (result < 0) done_op->payload = {};
  bytes = {};
  done_op->internal.reset();
  done_op->result = result;
  done_op->done(done_op);
}

}  // namespace curve::wal
