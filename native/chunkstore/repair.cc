// Repair of damaged sectors in place (R11), and the look at metadata pages for scrub. See RepairOp
// and CheckPageOp in chunkstore.h.
//
// Invariants: nothing is written but what has the checksum that the map names at that moment; while
// a repair runs its block is pinned (nobody else gets it) and no write to it is in flight. Thread:
// the loop's.
#include <bit>
#include <cassert>
#include <cerrno>

#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/chunkstore/store_state.h"

namespace curve::chunkstore {

using State = ChunkStore::State;

bool State::repairing(uint32_t physical) {
  for (RepairOp* repair = repairs.front(); repair; repair = repairs.next(repair))
    if (repair->physical == physical) return true;
  return false;
}

void ChunkStore::repair(RepairOp* op) {
  State& s = *state_;
  assert(op->block < kBlocksPerChunk && op->from.size() == kBlockBytes);
  op->store = this;
  op->error = 0;
  if (s.failed) return s.complete_later(op, -EIO);
  const uint32_t number = s.map.find(page_id(op->copyset, op->chunk, op->block));
  Page* page = number == PageMap::kNone ? nullptr : &s.map.page(number);
  const uint32_t slot = op->block % kBlocksPerPage;
  Entry* entry = page ? page->find(slot) : nullptr;
  const uint16_t asked = op->mask;
  op->mask = 0;
  if (!entry) return s.complete_later(op, 0);
  if ((page->busy >> slot & 1) || s.repairing(entry->physical))
    return s.complete_later(op, -EAGAIN);
  for (uint32_t sector = 0; sector < kSectorsPerBlock; ++sector) {
    if (!((asked & entry->written) >> sector & 1)) continue;
    // R11: dropped if the sector changed meanwhile.
    if (entry->crc[sector] == op->crc[sector]) {
      op->mask |= 1u << sector;
    } else if (CURVE_MUTANT("r11_repair_over_newer_write")) {
      op->mask |= 1u << sector;
      entry->crc[sector] = op->crc[sector];
      s.mark_dirty(number);
    }
  }
  if (op->mask == 0) return s.complete_later(op, 0);
  op->physical = entry->physical;
  s.space.pin(op->physical);
  s.repairs.push_back(op);
  op->running = 1;  // of this function
  uint8_t run = 0;
  for (uint32_t left = op->mask; left != 0;) {
    const auto sector = static_cast<uint32_t>(std::countr_zero(left));
    const auto count = static_cast<uint32_t>(std::countr_one(left >> sector));
    left &= ~(((1u << count) - 1) << sector);
    op->iov[run] = {const_cast<std::byte*>(op->from.data()) + sector * kSectorBytes,
                    size_t{count} * kSectorBytes};
    io::FileOp& file_op = op->file_ops[run];
    file_op.done = State::on_repair;
    file_op.owner = op;
    file_op.offset_bytes = s.geometry.block_offset(op->physical) + uint64_t{sector} * kSectorBytes;
    file_op.iov = {&op->iov[run], 1};
    file_op.durable = true;
    ++run;
    ++op->running;
    s.file.write(&file_op);
  }
  --op->running;
}

void State::on_repair(io::Op* file_op) {
  auto* op = static_cast<RepairOp*>(file_op->owner);
  if (file_op->result < 0) op->error = file_op->result;
  if (--op->running == 0) op->store->state_->finish_repair(op);
}

void State::finish_repair(RepairOp* op) {
  op->unlink();
  space.unpin(op->physical);
  if (op->error) {
    failed = true;
    base::log(base::LogLevel::kError, "store_repair_failed",
              {{"path", path}, {"errno", int64_t{-op->error}}});
  }
  restart_reads(op->physical);
  for (WriteOp *write = waiting_writes.front(), *next; write; write = next) {
    next = waiting_writes.next(write);
    if (write->physical != op->physical) continue;
    write->unlink();
    --writes_running;
    start_write(write);
  }
  if (checkpoint.phase == Checkpoint::Phase::kDrain && writes_running == 0) start_stream();
  op->result = op->error;
  op->done(op);
}

void ChunkStore::check_page(CheckPageOp* op) {
  State& s = *state_;
  const uint32_t number = s.map.find(op->id);
  op->store = this;
  if (number == PageMap::kNone || !s.names[number].used() || checkpoint_running())
    return s.complete_later(op, -ENOENT);
  op->number = number;
  op->crc = s.names[number].crc;
  op->version = s.version;
  op->buffer = s.pool.take(kStructBytes);
  op->iov = {op->buffer.data(), kStructBytes};
  op->offset_bytes = s.geometry.page_offset(number, s.names[number].slot());
  op->file_op.offset_bytes = op->offset_bytes;
  op->file_op.iov = {&op->iov, 1};
  op->file_op.owner = op;
  op->file_op.done = State::on_check_page;
  s.file.read(&op->file_op);
}

// A checkpoint that began meanwhile may have written to the slot: nothing is said then.
void State::on_check_page(io::Op* file_op) {
  auto* op = static_cast<CheckPageOp*>(file_op->owner);
  State& s = *op->store->state_;
  const bool same = !op->store->checkpoint_running() && s.version == op->version &&
                    s.map.find(op->id) == op->number;
  const bool bad =
      file_op->result < 0 || base::crc32c(op->buffer.bytes().first(kStructBytes)) != op->crc;
  op->buffer = {};
  op->result = !same ? -ENOENT : bad ? -EILSEQ : 0;
  if (same && bad) s.mark_dirty(op->number);
  op->done(op);
}

}  // namespace curve::chunkstore
