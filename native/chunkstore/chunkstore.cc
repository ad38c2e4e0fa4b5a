// The map and the space of one store. See chunkstore.h; reads and writes are in block_io.cc,
// checkpoints in checkpoint.cc, opening in open.cc.
#include "native/chunkstore/chunkstore.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "native/chunkstore/store_state.h"

namespace curve::chunkstore {

using State = ChunkStore::State;

ChunkStore::ChunkStore(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->store = this;
  state_->ready_timer.owner = state_.get();
  state_->ready_timer.fire = State::on_ready;
}

ChunkStore::~ChunkStore() = default;
ChunkStore::State::~State() {
  if (ready_timer.armed()) loop.disarm(&ready_timer);
}

const StoreId& ChunkStore::store_id() const { return state_->superblock.store; }
const StoreId& ChunkStore::cluster_id() const { return state_->superblock.cluster; }
bool ChunkStore::direct_io() const { return state_->file.direct(); }
Incarnation ChunkStore::incarnation() const { return state_->superblock.incarnation; }
uint32_t ChunkStore::pages_lost() const { return state_->pages_lost; }
uint64_t ChunkStore::checkpoint_version() const { return state_->version; }
bool ChunkStore::failed() const { return state_->failed; }

// --- operations that need no I/O: done at the loop's next timers, never inside the call

void State::complete_later(io::Op* op, int32_t result) {
  op->result = result;
  ready.push_back(op);
  if (!ready_timer.armed()) loop.arm(&ready_timer, loop.now_ns());
}

void State::on_ready(io::Timer* timer) {
  auto* self = static_cast<State*>(timer->owner);
  io::Op mark;  // what is completed from here on waits for the next round
  self->ready.push_back(&mark);
  while (io::Op* op = self->ready.pop_front()) {
    if (op == &mark) break;
    op->done(op);
  }
  if (!self->ready.empty() && !timer->armed()) self->loop.arm(timer, self->loop.now_ns());
}

// --- the map

BlockState ChunkStore::block_state(CopysetId copyset, const ChunkKey& chunk, uint16_t block) const {
  BlockState state;
  const uint32_t number = state_->map.find(page_id(copyset, chunk, block));
  if (number == PageMap::kNone) return state;
  const Entry* entry = std::as_const(state_->map).page(number).find(block % kBlocksPerPage);
  if (entry == nullptr) return state;
  state.physical = entry->physical;
  state.written = entry->written;
  state.crc = entry->crc;
  return state;
}

bool ChunkStore::is_mapped(CopysetId copyset, const ChunkKey& chunk, uint16_t block) const {
  const uint32_t number = state_->map.find(page_id(copyset, chunk, block));
  if (number == PageMap::kNone) return false;
  const Entry* entry = std::as_const(state_->map).page(number).find(block % kBlocksPerPage);
  return entry != nullptr && entry->physical != 0;
}

Index ChunkStore::page_index(const PageId& id) const {
  const uint32_t number = state_->map.find(id);
  return number == PageMap::kNone ? 0 : state_->map.page(number).index;
}

bool ChunkStore::has_page(const PageId& id) const { return state_->map.find(id) != PageMap::kNone; }

bool ChunkStore::needs_copy(CopysetId copyset, const ChunkKey& chunk, uint16_t block) const {
  const uint32_t physical = block_state(copyset, chunk, block).physical;
  return physical != 0 && state_->space.references(physical) > 1;
}

void State::mark_dirty(uint32_t number) {
  Page& page = map.page(number);
  if (page.dirty) return;
  page.dirty = true;
  dirty.set(number);
  ++dirty_count;
}

// Creates it if it is absent; PageMap::kNone when the page pool is full.
uint32_t State::page_for(const PageId& id) {
  uint32_t number = map.find(id);
  if (number != PageMap::kNone) return number;
  number = map.create(id);
  if (number != PageMap::kNone)
    mark_dirty(number);  // the durable root may still name another page of this number
  return number;
}

void State::unmap(uint32_t number, uint32_t slot) {
  Page& page = map.page(number);
  space.unreference(page.find(slot)->physical);
  map.erase(page, slot);
}

bool ChunkStore::map_block(CopysetId copyset, const ChunkKey& chunk, uint16_t block,
                           uint32_t physical, std::span<const uint32_t, kSectorsPerBlock> crcs,
                           Index index) {
  assert(!checkpoint_running());
  assert(block < kBlocksPerChunk && physical != 0 && physical <= state_->space.total());
  const uint32_t number = state_->page_for(page_id(copyset, chunk, block));
  if (number == PageMap::kNone) return false;
  Page& page = state_->map.page(number);
  const uint32_t slot = block % kBlocksPerPage;
  assert(!(page.busy >> slot & 1));
  Entry* entry = page.find(slot);
  state_->space.reference(physical);
  if (entry) {
    state_->space.unreference(entry->physical);
  } else {
    entry = &state_->map.insert(page, slot);
  }
  entry->physical = physical;
  entry->written = 0xffff;
  std::memcpy(entry->crc.data(), crcs.data(), crcs.size_bytes());
  page.index = std::max(page.index, index);
  state_->mark_dirty(number);
  return true;
}

void ChunkStore::clear(CopysetId copyset, const ChunkKey& chunk, uint16_t block, uint16_t mask,
                       Index index) {
  assert(!checkpoint_running());
  const uint32_t number = state_->map.find(page_id(copyset, chunk, block));
  if (number == PageMap::kNone) return;  // thin already: nothing that replay could bring back
  Page& page = state_->map.page(number);
  const uint32_t slot = block % kBlocksPerPage;
  assert(!(page.busy >> slot & 1));
  page.index = std::max(page.index, index);
  state_->mark_dirty(number);
  Entry* entry = page.find(slot);
  if (entry == nullptr) return;
  entry->written &= static_cast<uint16_t>(~mask);
  for (uint32_t sector = 0; sector < kSectorsPerBlock; ++sector)
    if (mask >> sector & 1) entry->crc[sector] = 0;
  if (entry->written == 0) state_->unmap(number, slot);
}

void State::drop_page(uint32_t number) {
  Page& page = map.page(number);
  while (page.present) unmap(number, static_cast<uint32_t>(std::countr_zero(page.present)));
  if (page.dirty) {
    page.dirty = false;
    dirty.reset(number);
    --dirty_count;
  }
  map.remove(number);
}

void State::drop_range(const PageId& from, const PageId& to) {
  for (uint32_t number;
       (number = map.first_at_or_after(from)) != PageMap::kNone && map.page(number).id < to;)
    drop_page(number);
}

void ChunkStore::drop_chunk(CopysetId copyset, const ChunkKey& chunk) {
  assert(!checkpoint_running());
  state_->drop_range({copyset, chunk, 0}, {copyset, chunk, UINT8_MAX});
}

void ChunkStore::drop_volume(CopysetId copyset, VolumeId volume) {
  assert(!checkpoint_running());
  state_->drop_range({copyset, {volume, 0}, 0}, {copyset, {volume, UINT32_MAX}, UINT8_MAX});
}

void ChunkStore::drop_copyset(CopysetId copyset) {
  assert(!checkpoint_running());
  state_->drop_range({copyset, {}, 0}, {copyset, {UINT64_MAX, UINT32_MAX}, UINT8_MAX});
}

uint64_t ChunkStore::forget_empty_pages(CopysetId copyset, Index through,
                                        const std::function<bool(const PageId&)>& keep) {
  assert(!checkpoint_running());
  uint64_t forgotten = 0;
  for (PageId at{copyset, {}, 0};;) {
    const uint32_t number = state_->map.first_at_or_after(at);
    if (number == PageMap::kNone || state_->map.page(number).id.copyset != copyset)
      return forgotten;
    const Page& page = state_->map.page(number);
    const PageId id = at = page.id;
    ++at.page;  // no page has the number after the last one: this only steps over `page`
    if (page.present != 0 || page.busy != 0 || page.index > through) continue;
    if (keep && keep(id)) continue;
    state_->drop_page(number);
    ++forgotten;
  }
}

std::optional<PageId> ChunkStore::next_page(CopysetId copyset, const PageId& after) const {
  const uint32_t number = after.copyset == copyset
                              ? state_->map.first_after(after)
                              : state_->map.first_at_or_after({copyset, {}, 0});
  if (number == PageMap::kNone || state_->map.page(number).id.copyset != copyset)
    return std::nullopt;
  return state_->map.page(number).id;
}

uint64_t ChunkStore::mapped_blocks(CopysetId copyset, VolumeId volume) const {
  return state_->map.volume_blocks(copyset, volume);
}

uint64_t ChunkStore::mapped_blocks(CopysetId copyset) const {
  return state_->map.copyset_blocks(copyset);
}

uint64_t ChunkStore::mapped_in_page(const PageId& id) const {
  const uint32_t number = state_->map.find(id);
  return number == PageMap::kNone ? 0 : state_->map.page(number).present;
}

// --- space

uint32_t ChunkStore::take_block(bool into_reserve) { return state_->space.take(into_reserve); }
void ChunkStore::drop_block(uint32_t physical) { state_->space.give_back(physical); }
bool ChunkStore::retake_block(uint32_t physical) { return state_->space.retake(physical); }
bool ChunkStore::pin_block(uint32_t physical) {
  if (physical == 0 || physical > state_->space.total() || state_->space.is_free(physical))
    return false;
  state_->space.pin(physical);
  return true;
}
void ChunkStore::unpin_block(uint32_t physical) { state_->space.unpin(physical); }
bool ChunkStore::is_taken(uint32_t physical) const { return state_->space.is_taken(physical); }
void ChunkStore::release_block(uint32_t physical) {
  if (state_->space.is_taken(physical)) state_->space.give_back(physical);
  state_->space.unpin(physical);
}
uint64_t ChunkStore::block_offset_bytes(uint32_t physical) const {
  return state_->geometry.block_offset(physical);
}

bool ChunkStore::reserve(uint32_t blocks, uint32_t pages, bool into_reserve) {
  State& s = *state_;
  const uint64_t pages_free = s.map.capacity() - s.map.live();
  if (pages != 0 && pages_free < s.pages_reserved + pages + (into_reserve ? 0 : s.pages_kept))
    return false;
  if (!s.space.reserve(blocks, into_reserve)) return false;
  s.pages_reserved += pages;
  return true;
}

void ChunkStore::unreserve(uint32_t blocks, uint32_t pages) {
  state_->space.unreserve(blocks);
  assert(state_->pages_reserved >= pages);
  state_->pages_reserved -= pages;
}

uint32_t ChunkStore::blocks_available() const {
  const State& s = *state_;
  const auto left = [](uint64_t free, uint64_t taken) { return free > taken ? free - taken : 0; };
  const uint64_t pages = left(s.map.capacity() - s.map.live(), s.pages_reserved + s.pages_kept);
  return static_cast<uint32_t>(std::min<uint64_t>({s.space.available(), pages, UINT32_MAX}));
}

uint64_t ChunkStore::blocks_loose() const { return state_->space.available(); }

uint32_t ChunkStore::blocks_kept() const {
  return static_cast<uint32_t>(
      std::min<uint64_t>({state_->space.kept(), state_->pages_kept, UINT32_MAX}));
}

Usage ChunkStore::usage() const {
  const State& s = *state_;
  Usage usage;
  usage.blocks_total = s.space.total();
  usage.blocks_free = s.space.free();
  usage.blocks_reserved = s.space.reserved();
  usage.blocks_pending_free = s.space.pending();
  usage.blocks_mapped = s.space.mapped();
  usage.blocks_taken = s.space.taken();
  usage.pages_total = s.map.capacity();
  usage.pages_free = s.map.capacity() - s.map.live();
  usage.pages_reserved = s.pages_reserved;
  usage.pages_empty = s.map.empty_pages();
  usage.read_errors = s.read_errors;
  usage.crc_errors = s.crc_errors;
  usage.blob_bytes = s.blob_bytes;
  usage.blob_bytes_max = s.geometry.blob_bytes;
  usage.memory_bytes = s.map.memory_bytes();
  return usage;
}

// --- checks

Outcome ChunkStore::check() const {
  const State& s = *state_;
  std::vector<uint32_t> counted(s.space.total() + 1);
  uint64_t mapped = 0;
  for (uint32_t number = 0; number < s.map.capacity(); ++number) {
    const Page& page = s.map.page(number);
    if (!page.live) continue;
    for (uint32_t slot = 0; slot < kBlocksPerPage; ++slot)
      if (const Entry* entry = page.find(slot)) mapped += counted[entry->physical]++ == 0;
  }
  for (uint32_t block = 1; block <= s.space.total(); ++block) {
    if (counted[block] != s.space.references(block))
      return Error{Code::kCorrupt, "block " + std::to_string(block) + " is in " +
                                       std::to_string(counted[block]) + " maps and has " +
                                       std::to_string(s.space.references(block)) + " references"};
    if (counted[block] && s.space.is_free(block))
      return Error{Code::kCorrupt, "block " + std::to_string(block) + " is mapped and free"};
  }
  const Usage usage = this->usage();
  if (mapped != usage.blocks_mapped ||
      usage.blocks_total !=
          usage.blocks_free + usage.blocks_pending_free + usage.blocks_mapped + usage.blocks_taken)
    return Error{Code::kCorrupt, "blocks are lost: " + std::to_string(usage.blocks_total) +
                                     " in all, " + std::to_string(usage.blocks_free) + " free, " +
                                     std::to_string(usage.blocks_pending_free) + " freed, " +
                                     std::to_string(mapped) + " mapped, " +
                                     std::to_string(usage.blocks_taken) + " taken"};
  return {};
}

}  // namespace curve::chunkstore
