// Reads and writes of blocks. See chunkstore.h for what they promise.
//
// Invariants: a block that is read is pinned (R5); a read that meets a checksum that does not fit
// looks at the map again before it calls that damage; the map changes when all of a write is done.
// Never blocks, never allocates in steady state.
#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/base/mutant.h"
#include "native/chunkstore/store_state.h"

namespace curve::chunkstore {

using State = ChunkStore::State;

namespace {

constexpr uint8_t kReadAttemptsMax = 64;  // each needs a write to the same block meanwhile

constexpr uint16_t sector_mask(uint32_t first, uint32_t count) {
  return static_cast<uint16_t>(((1u << count) - 1) << first);
}

}  // namespace

// --- reads

void ChunkStore::read(ReadOp* op) {
  assert(op->sectors > 0 && op->first_sector + op->sectors <= kSectorsPerBlock);
  assert(op->into.size() == size_t{op->sectors} * kSectorBytes && op->block < kBlocksPerChunk);
  op->store = this;
  op->attempts = 0;
  state_->start_read(op);
}

// One operation from the first to the last written sector: what lies between belongs to the block
// anyway.
void State::start_read(ReadOp* op) {
  op->seen = store->block_state(op->copyset, op->chunk, op->block);
  op->physical = op->seen.physical;
  const uint16_t wanted = op->seen.written & sector_mask(op->first_sector, op->sectors);
  if (op->physical == 0 || wanted == 0) {
    std::memset(op->into.data(), 0, op->into.size());
    if (op->crcs) std::fill_n(op->crcs, op->sectors, base::crc32c_zero_sector());
    return complete_later(op, 0);
  }
  const auto first = static_cast<uint32_t>(std::countr_zero(wanted));
  const auto end = static_cast<uint32_t>(std::bit_width(wanted));
  op->iov = {op->into.data() + (first - op->first_sector) * kSectorBytes,
             size_t{end - first} * kSectorBytes};
  op->file_op.done = on_read;
  op->file_op.owner = op;
  op->file_op.offset_bytes = geometry.block_offset(op->physical) + uint64_t{first} * kSectorBytes;
  op->file_op.iov = {&op->iov, 1};
  space.pin(op->physical);
  file.read(&op->file_op);
}

void State::on_read(io::Op* file_op) {
  auto* op = static_cast<ReadOp*>(file_op->owner);
  State& self = *op->store->state_;
  self.space.unpin(op->physical);
  if (file_op->result < 0) {
    ++self.read_errors;
    return self.finish_read(op, file_op->result);
  }
  if (self.check_read(op)) return self.finish_read(op, 0);
  if (self.retry_read(op)) return;
  ++self.crc_errors;
  self.finish_read(op, -EILSEQ);
}

void State::finish_read(ReadOp* op, int32_t result) {
  op->result = result;
  op->done(op);
}

// Zeroes what is not written, checks the rest.
bool State::check_read(ReadOp* op) {
  for (uint8_t i = 0; i < op->sectors; ++i) {
    const uint8_t sector = op->first_sector + i;
    auto bytes = op->into.subspan(size_t{i} * kSectorBytes, kSectorBytes);
    if (!(op->seen.written >> sector & 1)) {
      std::memset(bytes.data(), 0, bytes.size());
      if (op->crcs) op->crcs[i] = base::crc32c_zero_sector();
      continue;
    }
    if (base::crc32c(bytes) != op->seen.crc[sector] && !CURVE_MUTANT("r11_serve_unverified")) {
      op->bad_sector = sector;
      return false;
    }
    if (op->crcs)
      op->crcs[i] =
          CURVE_MUTANT("r11_serve_unverified") ? base::crc32c(bytes) : op->seen.crc[sector];
  }
  return true;
}

// A mismatch is damage only if nothing was written to the block while it was read. True: the read
// goes on.
bool State::retry_read(ReadOp* op) {
  if (++op->attempts >= kReadAttemptsMax) return false;
  for (WriteOp* write = writes.front(); write; write = writes.next(write)) {
    if (write->physical != op->physical) continue;
    waiting_reads.push_back(op);  // finish_write starts it again
    return true;
  }
  if (repairing(op->physical)) {
    waiting_reads.push_back(op);  // finish_repair starts it again
    return true;
  }
  const BlockState now = store->block_state(op->copyset, op->chunk, op->block);
  if (now.physical == op->seen.physical && now.written == op->seen.written &&
      now.crc == op->seen.crc)
    return false;
  start_read(op);
  return true;
}

// --- writes

// Beside the nearest mapped block of the page, at the distance that the two have in the chunk.
uint32_t State::choose_block(const Page& page, uint16_t block) {
  const uint32_t slot = block % kBlocksPerPage;
  const uint64_t below = page.present & ((uint64_t{1} << slot) - 1), above = page.present >> slot;
  int64_t hint = 0;
  if (below) {
    const auto neighbour = static_cast<uint32_t>(std::bit_width(below)) - 1;
    hint = static_cast<int64_t>(page.find(neighbour)->physical) + (slot - neighbour);
  } else if (above) {
    const auto neighbour = slot + static_cast<uint32_t>(std::countr_zero(above));
    hint = static_cast<int64_t>(page.find(neighbour)->physical) - (neighbour - slot);
  }
  const bool usable = hint > 0 && hint <= static_cast<int64_t>(space.total());
  return space.allocate(usable ? static_cast<uint32_t>(hint) : 0, block);
}

void ChunkStore::write(WriteOp* op) {
  assert(!checkpoint_running() && op->mask != 0 && op->from.size() == kBlockBytes);
  op->store = this;
  op->error = 0;
  state_->start_write(op);
}

void State::start_write(WriteOp* op) {
  State& s = *this;
  if (s.failed) return s.complete_later(op, -EIO);
  assert(op->block < kBlocksPerChunk);
  op->page = s.page_for(page_id(op->copyset, op->chunk, op->block));
  if (op->page == PageMap::kNone) return s.complete_later(op, -ENOSPC);
  Page& page = s.map.page(op->page);
  const uint32_t slot = op->block % kBlocksPerPage;
  const Entry* entry = page.find(slot);
  assert(!(page.busy >> slot & 1));
  op->physical = entry ? entry->physical : 0;
  if (entry && (op->fresh || s.space.references(entry->physical) > 1)) {
    assert((entry->written & ~op->mask) == 0);  // else sectors would be lost
    op->physical = 0;
  }
  op->in_place = op->physical != 0;
  if (op->in_place && s.repairing(op->physical)) {  // R11: the newer content is written last
    ++s.writes_running;
    s.waiting_writes.push_back(op);
    return;
  }
  if (!op->in_place) op->physical = s.choose_block(page, op->block);
  if (op->physical == 0) return s.complete_later(op, -ENOSPC);
  page.busy |= uint64_t{1} << slot;
  op->page_life = page.life;
  s.writes.push_back(op);
  ++s.writes_running;
  op->running = 1;  // of this function: no completion before all are started
  const uint64_t block_offset = s.geometry.block_offset(op->physical);
  uint8_t run = 0;
  for (uint32_t left = op->mask, sector = 0; left != 0;) {
    sector = static_cast<uint32_t>(std::countr_zero(left));
    const auto count = static_cast<uint32_t>(std::countr_one(left >> sector));
    left &= ~static_cast<uint32_t>(sector_mask(sector, count));
    op->iov[run] = {const_cast<std::byte*>(op->from.data()) + sector * kSectorBytes,
                    size_t{count} * kSectorBytes};
    io::FileOp& file_op = op->file_ops[run];
    file_op.done = State::on_write;
    file_op.owner = op;
    file_op.offset_bytes = block_offset + uint64_t{sector} * kSectorBytes;
    file_op.iov = {&op->iov[run], 1};
    file_op.durable = false;
    ++run;
    ++op->running;
    s.file.write(&file_op);
  }
  --op->running;
}

void State::on_write(io::Op* file_op) {
  auto* op = static_cast<WriteOp*>(file_op->owner);
  if (file_op->result < 0) op->error = file_op->result;
  if (--op->running == 0) op->store->state_->finish_write(op);
}

void State::finish_write(WriteOp* op) {
  op->unlink();
  --writes_running;
  Page& page = map.page(op->page);
  const uint32_t slot = op->block % kBlocksPerPage;
  const bool alive = page.live && page.life == op->page_life;
  if (alive) page.busy &= ~(uint64_t{1} << slot);
  if (op->error) {
    failed = true;  // the block stays taken: nothing is known about it
  } else if (!alive) {
    // Dropped meanwhile. In place: the block waits among the freed ones. New: it is in no map.
    if (!op->in_place) space.give_back(op->physical);
  } else {
    Entry* entry = page.find(slot);
    if (entry == nullptr) entry = &map.insert(page, slot);
    if (entry->physical != op->physical) {
      space.reference(op->physical);
      if (entry->physical != 0) space.unreference(entry->physical);
      entry->physical = op->physical;
      entry->written = 0;
      entry->crc = {};
    }
    entry->written |= op->mask;
    for (uint32_t sector = 0; sector < kSectorsPerBlock; ++sector)
      if (op->mask >> sector & 1) entry->crc[sector] = op->crc[sector];
    page.index = std::max(page.index, op->index);
    mark_dirty(op->page);
  }
  restart_reads(op->physical);
  if (checkpoint.phase == Checkpoint::Phase::kDrain && writes_running == 0) start_stream();
  op->result = op->error;
  op->done(op);
}

// What was read while the block was written is read again.
void State::restart_reads(uint32_t physical) {
  for (ReadOp *read = waiting_reads.front(), *next; read; read = next) {
    next = waiting_reads.next(read);
    if (read->physical != physical) continue;
    read->unlink();
    start_read(read);
  }
}

void ChunkStore::write_block(io::FileOp* op, uint32_t physical) {
  op->offset_bytes += state_->geometry.block_offset(physical);
  state_->file.write(op);
}

void ChunkStore::read_block(io::FileOp* op, uint32_t physical) {
  op->offset_bytes += state_->geometry.block_offset(physical);
  state_->file.read(op);
}

int ChunkStore::read_block_sync(uint32_t physical, std::span<std::byte> into) {
  return state_->file.read_sync(state_->geometry.block_offset(physical), into);
}

int ChunkStore::sync_sync() { return state_->file.sync_sync(); }

}  // namespace curve::chunkstore
