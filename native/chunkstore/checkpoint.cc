// A checkpoint: everything that is applied becomes durable as one new root. See
// docs/formats/store.md.
//
// kDrain   writes in flight end (nothing new is applied while a checkpoint runs);
// kStream  dirty pages go to the slots that the durable root does NOT name, then the body of the
// new root to the root slot
//          that is not in use; at most kWritersMax writes in flight;
// kFlush   one sync makes data, pages and body durable;
// kRoot    the header, durable by itself: from here on the new root is the one.
// R5, order data -> pages -> root: nothing on disk refers to the new pages and body before the
// header does, so one sync between them and the header keeps the order. Until the header is durable
// the old root and all it names are untouched: old pages (other slots), old body (other root slot),
// old blocks (freed ones are not used again before finish_checkpoint).
#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/chunkstore/store_state.h"

namespace curve::chunkstore {

using State = ChunkStore::State;
using Phase = Checkpoint::Phase;

void ChunkStore::checkpoint(io::Op* op, std::vector<GroupBlob> blobs) {
  state_->begin_checkpoint(op, std::move(blobs));
}
bool ChunkStore::checkpoint_running() const { return state_->checkpoint.phase != Phase::kIdle; }
uint64_t ChunkStore::dirty_pages() const { return state_->dirty_count; }
std::span<const GroupBlob> ChunkStore::group_blobs() const { return state_->blobs; }

void State::begin_checkpoint(io::Op* op, std::vector<GroupBlob> blobs_in) {
  assert(checkpoint.phase == Phase::kIdle);
  if (failed) return complete_later(op, -EIO);
  uint64_t bytes = 0;
  for (const GroupBlob& blob : blobs_in) bytes += sizeof(BlobHead) + blob.bytes.size();
  const bool large = bytes > geometry.blob_bytes / 2;
  if (large && (!blobs_large || bytes > geometry.blob_bytes))
    base::log(base::LogLevel::kWarning, "store_blobs_large",
              {{"path", path}, {"bytes", bytes}, {"bytes_max", geometry.blob_bytes}});
  blobs_large = large;
  if (bytes > geometry.blob_bytes) return complete_later(op, -ENOSPC);
  checkpoint.op = op;
  checkpoint.blobs = std::move(blobs_in);
  checkpoint.blob_bytes = bytes;
  checkpoint.error = 0;
  checkpoint.phase = Phase::kDrain;
  if (writes_running == 0) start_stream();
}

void State::start_stream() {
  Checkpoint& c = checkpoint;
  if (failed) {  // a write that was waited for
    c.error = -EIO;
    return finish_checkpoint();
  }
  c.phase = Phase::kStream;
  space.begin_checkpoint();
  c.pages = map.numbers_end();
  c.heads.clear();
  for (const GroupBlob& blob : c.blobs)
    c.heads.push_back({blob.copyset, static_cast<uint32_t>(blob.bytes.size()), 0});
  c.body_bytes = uint64_t{c.pages} * sizeof(PageName) + c.blob_bytes;
  c.body_at = 0;
  c.body_crc = 0;
  c.pass = 0;
  c.next_page = 0;
  c.piece = c.piece_at = 0;
  c.running = 1;  // of this function
  for (Checkpoint::Writer& writer : c.writers) {
    writer.op.done = on_checkpoint_write;
    writer.op.owner = this;
    if (!fill_page_writer(writer) && !fill_body_writer(writer)) break;
  }
  if (--c.running == 0) flush();  // there was nothing to write
}

void State::flush() {
  checkpoint.phase = Phase::kFlush;
  checkpoint.file_op.done = on_checkpoint_step;
  checkpoint.file_op.owner = this;
  file.sync(&checkpoint.file_op);
}

void State::serialize_page(uint32_t number, uint32_t slot, PageSlot& out) {
  Page& page = map.page(number);
  std::memset(&out, 0, sizeof out);
  out.magic = kPageMagic;
  out.version = version + 1;
  out.incarnation = superblock.incarnation;
  out.copyset = page.id.copyset;
  out.volume = page.id.chunk.volume;
  out.chunk = page.id.chunk.chunk;
  out.index = page.index;
  out.number = number;
  out.page = page.id.page;
  out.slot = static_cast<uint8_t>(slot);
  out.format_version = kFormatVersion;
  const Entry* entry = page.entries;
  for (uint64_t left = page.present; left; left &= left - 1, ++entry) {
    const auto at = static_cast<uint32_t>(std::countr_zero(left));
    out.physical[at] = entry->physical;
    out.written[at] = entry->written;
    out.crcs[at] = entry->crc;
  }
  out.crc = seal_of(out);
  names[number] = PageName::of(base::crc32c(std::as_bytes(std::span(&out, 1))), slot, version + 1);
  page.dirty = false;
  dirty.reset(number);
  --dirty_count;
}

// The next run of dirty pages that lie side by side. False: no dirty page is left.
bool State::fill_page_writer(Checkpoint::Writer& writer) {
  Checkpoint& c = checkpoint;
  const auto target = [&](uint64_t number) {
    return names[number].used() ? 1 - names[number].slot() : 0;
  };
  while (c.pass < 2) {
    const uint64_t first = dirty.next(c.next_page);
    if (first == BitTree::kNone) {
      ++c.pass;
      c.next_page = 0;
      continue;
    }
    if (target(first) != c.pass) {
      c.next_page = first + 1;
      continue;
    }
    writer.buffer = pool.take(Checkpoint::kWriterBytes);
    auto* out = reinterpret_cast<PageSlot*>(writer.buffer.data());
    uint32_t count = 0;
    uint64_t number = first;
    while (count < Checkpoint::kWriterBytes / kStructBytes && number < dirty.size() &&
           dirty.test(number) && target(number) == c.pass)
      serialize_page(static_cast<uint32_t>(number++), c.pass, out[count++]);
    c.next_page = number;
    writer.iov = {writer.buffer.data(), size_t{count} * kStructBytes};
    writer.op.offset_bytes = geometry.page_offset(static_cast<uint32_t>(first), c.pass);
    writer.op.iov = {&writer.iov, 1};
    writer.op.durable = false;
    ++c.running;
    file.write(&writer.op);
    return true;
  }
  return false;
}

// The next part of the body: page names, then head and bytes of each blob. False: it is all written
// or on its way.
bool State::fill_body_writer(Checkpoint::Writer& writer) {
  Checkpoint& c = checkpoint;
  if (c.body_at == c.body_bytes) return false;
  if (c.body_at == 0)
    for (uint32_t number = 0; number < c.pages; ++number)
      if (!map.page(number).live) names[number] = {};
  writer.buffer = pool.take(Checkpoint::kWriterBytes);
  std::span<std::byte> room = writer.buffer.span();
  while (!room.empty() && c.piece <= 2 * c.blobs.size()) {
    std::span<const std::byte> piece;
    if (c.piece == 0) {
      piece = std::as_bytes(std::span(names).first(c.pages));
    } else if (c.piece % 2 == 1) {
      piece = std::as_bytes(std::span(&c.heads[c.piece / 2], 1));
    } else {
      piece = c.blobs[c.piece / 2 - 1].bytes;
    }
    const auto part = piece.subspan(c.piece_at, std::min(piece.size() - c.piece_at, room.size()));
    if (!part.empty()) std::memcpy(room.data(), part.data(), part.size());
    room = room.subspan(part.size());
    c.piece_at += part.size();
    if (c.piece_at == piece.size()) {
      ++c.piece;
      c.piece_at = 0;
    }
  }
  const size_t bytes = Checkpoint::kWriterBytes - room.size();
  c.body_crc = base::crc32c(writer.buffer.span().first(bytes), c.body_crc);
  const size_t aligned = (bytes + kStructBytes - 1) / kStructBytes * kStructBytes;
  std::memset(writer.buffer.data() + bytes, 0, aligned - bytes);
  writer.iov = {writer.buffer.data(), aligned};
  writer.op.offset_bytes = geometry.root_offset(1 - root_slot) + kRootHeaderBytes + c.body_at;
  writer.op.iov = {&writer.iov, 1};
  writer.op.durable = false;
  c.body_at += bytes;
  ++c.running;
  file.write(&writer.op);
  return true;
}

void State::on_checkpoint_write(io::Op* file_op) {
  auto& self = *static_cast<State*>(file_op->owner);
  Checkpoint& c = self.checkpoint;
  Checkpoint::Writer* writer = c.writers.data();
  while (&writer->op != file_op) ++writer;
  writer->buffer = {};
  if (file_op->result < 0) c.error = file_op->result;
  --c.running;
  if (c.error == 0 && (self.fill_page_writer(*writer) || self.fill_body_writer(*writer))) return;
  if (c.running > 0) return;
  if (c.error) return self.finish_checkpoint();
  if (CURVE_MUTANT("r5_root_without_sync")) return self.write_root();
  self.flush();
}

void State::on_checkpoint_step(io::Op* file_op) {
  auto& self = *static_cast<State*>(file_op->owner);
  if (file_op->result < 0 && self.checkpoint.phase == Phase::kFlush && CURVE_MUTANT("retry_fsync"))
    return self.flush();
  if (file_op->result < 0) {  // never again: what a second sync reports says nothing of the first
    self.checkpoint.error = file_op->result;
    return self.finish_checkpoint();
  }
  if (self.checkpoint.phase == Phase::kFlush) return self.write_root();
  self.finish_checkpoint();
}

void State::write_root() {
  Checkpoint& c = checkpoint;
  c.phase = Phase::kRoot;
  c.header = pool.take(kRootHeaderBytes);
  std::memset(c.header.data(), 0, kRootHeaderBytes);
  auto* copies = reinterpret_cast<RootHeader*>(c.header.data());
  for (uint32_t copy = 0; copy < 2; ++copy) {
    RootHeader& header = copies[copy];
    header.magic = kRootMagic;
    header.format_version = kFormatVersion;
    header.store = superblock.store;
    header.version = version + 1;
    header.incarnation = superblock.incarnation;
    header.body_bytes = c.body_bytes;
    header.blob_bytes = c.blob_bytes;
    header.pages = c.pages;
    header.blobs = static_cast<uint32_t>(c.blobs.size());
    header.body_crc = c.body_crc;
    header.copy = copy;
    header.crc = seal_of(header);
  }
  c.iov = {c.header.data(), kRootHeaderBytes};
  c.file_op.done = on_checkpoint_step;
  c.file_op.owner = this;
  c.file_op.offset_bytes = geometry.root_offset(1 - root_slot);
  c.file_op.iov = {&c.iov, 1};
  c.file_op.durable = true;
  file.write(&c.file_op);
}

void State::finish_checkpoint() {
  Checkpoint& c = checkpoint;
  c.header = {};
  c.phase = Phase::kIdle;
  io::Op* op = c.op;
  if (c.error) {  // never tried again: what the device holds now is not known
    failed = true;
    base::log(base::LogLevel::kError, "store_checkpoint_failed",
              {{"path", path}, {"errno", int64_t{-c.error}}});
  } else {
    ++version;
    root_slot = 1 - root_slot;
    blobs = std::move(c.blobs);
    blob_bytes = c.blob_bytes;
    space.checkpoint_durable();
  }
  op->result = c.error;
  op->done(op);
}

}  // namespace curve::chunkstore
