#include "native/copyset/scrub.h"

#include <algorithm>
#include <bit>

#include "native/base/log.h"
#include "native/copyset/background.h"
#include "native/copyset/repair.h"

namespace curve::copyset {

namespace {

constexpr uint8_t kRecordVersion = 1;
constexpr uint64_t kYieldMax = 4;      // turns that foreground work may take before a block is read
constexpr uint32_t kBusyRequests = 4;  // open ones of clients: foreground work
constexpr uint64_t kIdleCheckNs = 60'000'000'000;  // whether a pass is due
constexpr uint64_t kSaveBlocks = 4096;  // a checkpoint remembers the position at least so often

}  // namespace

void Scrub::arm(uint64_t delay_ns) {
  if (!stopped_) server_.loop.arm(&timer_, server_.loop.now_ns() + delay_ns);
}

// Comparisons of earlier runs must not be taken for ours.
void Scrub::start() {
  next_id_ = server_.loop.random_u64();
  if (status_.started_ns == 0) status_.started_ns = server_.loop.wall_ns();
  arm(status_.running ? 0 : std::min(kIdleCheckNs, server_.options.scrub_interval_ns));
}

void Scrub::begin(uint64_t bytes_per_second) {
  if (bytes_per_second) status_.bytes_per_second = bytes_per_second;
  if (status_.bytes_per_second == 0) status_.bytes_per_second = 8u << 20;
  if (!status_.running) {
    status_.running = true;
    status_.started_ns = server_.loop.wall_ns();
    status_.blocks_done = 0;
    status_.blocks_total = server_.store->usage().blocks_mapped;
    at_ = {};
    block_ = chunkstore::kBlocksPerPage;
  }
  if (!reading_) arm(0);
}

ScrubStatus Scrub::status() const { return status_; }

void Scrub::encode(base::Writer& writer) const {
  writer.put(kRecordVersion);
  writer.put(static_cast<uint8_t>(status_.running));
  writer.put(at_.page);
  writer.put(at_.copyset);
  writer.put(at_.chunk.volume);
  writer.put(at_.chunk.chunk);
  for (uint64_t value :
       {status_.bytes_per_second, status_.passes, status_.started_ns, status_.finished_ns,
        status_.blocks_done, status_.blocks_total, status_.damaged_blocks, status_.damaged_pages,
        status_.chunks_compared, status_.chunks_differ})
    writer.put(value);
}

// Absent in stores of earlier versions.
void Scrub::decode(base::Reader& reader) {
  if (reader.left() == 0 || reader.get<uint8_t>() != kRecordVersion) return;
  status_.running = reader.get<uint8_t>() != 0;
  at_.page = reader.get<uint8_t>();
  at_.copyset = reader.get<CopysetId>();
  at_.chunk.volume = reader.get<VolumeId>();
  at_.chunk.chunk = reader.get<uint32_t>();
  for (uint64_t* value :
       {&status_.bytes_per_second, &status_.passes, &status_.started_ns, &status_.finished_ns,
        &status_.blocks_done, &status_.blocks_total, &status_.damaged_blocks,
        &status_.damaged_pages, &status_.chunks_compared, &status_.chunks_differ})
    *value = reader.get<uint64_t>();
  block_ = 0;
  if (!reader.ok()) status_ = {}, at_ = {};
  if (!status_.running) status_.bytes_per_second = server_.options.scrub_bytes_per_second;
}

void Scrub::tick() {
  if (stopped_ || reading_ || server_.out_of_service) return;
  if (!status_.running) {
    const uint64_t now = server_.loop.wall_ns();
    const bool due = now >= status_.started_ns + server_.options.scrub_interval_ns;
    if (due && server_.options.scrub_bytes_per_second)
      return begin(server_.options.scrub_bytes_per_second);
    return arm(std::min(kIdleCheckNs, server_.options.scrub_interval_ns));
  }
  if (server_.requests_open > kBusyRequests && ++yielded_ < kYieldMax)
    return arm(kBlockBytes * 1'000'000'000ull / status_.bytes_per_second);
  yielded_ = 0;
  if (read_next_block()) return;
  if (at_.copyset && block_ >= chunkstore::kBlocksPerPage) {
    const auto next = server_.store->next_page(at_.copyset, at_);
    if (!next || next->chunk != at_.chunk) chunk_done();
  }
  if (!next_page()) return finish();
  reading_ = true;
  page_op_.id = at_;
  server_.store->check_page(&page_op_);
}

// R10: it is written anew anyway, and what an earlier attempt to fill it left in place of older
// content, when it was interrupted, has no checksum: that is no damage of the disk.
bool Scrub::being_filled(CopysetId copyset) const {
  replica::ReplicaGroup* group = server_.replica->find(copyset);
  return group != nullptr && group->raft().syncing();
}

// False: that was the last one.
bool Scrub::next_page() {
  if (at_.copyset && !being_filled(at_.copyset)) {
    if (const auto next = server_.store->next_page(at_.copyset, at_)) {
      at_ = *next;
      block_ = 0;
      return true;
    }
  }
  const auto& groups = server_.replica->groups();
  for (auto it = groups.upper_bound(at_.copyset); it != groups.end(); ++it) {
    if (being_filled(it->first)) continue;
    if (const auto first = server_.store->next_page(it->first, {it->first, {0, 0}, 255})) {
      at_ = *first;
      block_ = 0;
      return true;
    }
  }
  return false;
}

bool Scrub::read_next_block() {
  if (!at_.copyset || being_filled(at_.copyset) ||
      !server_.repair->repairable(at_.copyset, at_.chunk.volume))
    return false;
  for (; block_ < chunkstore::kBlocksPerPage; ++block_) {
    const uint32_t block = at_.page * chunkstore::kBlocksPerPage + block_;
    if (block >= kBlocksPerChunk) continue;
    if (!server_.store->is_mapped(at_.copyset, at_.chunk, static_cast<uint16_t>(block))) continue;
    reading_ = true;
    if (!buffer_) buffer_ = server_.pool.take(kBlockBytes);
    read_op_.copyset = at_.copyset;
    read_op_.chunk = at_.chunk;
    read_op_.block = static_cast<uint16_t>(block);
    read_op_.first_sector = 0;
    read_op_.sectors = kSectorsPerBlock;
    read_op_.into = buffer_.span().first(kBlockBytes);
    server_.store->read(&read_op_);
    return true;
  }
  return false;
}

void Scrub::page_done(int32_t result) {
  reading_ = false;
  if (stopped_) return;
  if (result == -EILSEQ) {
    ++status_.damaged_pages;
    server_.background->applied();  // the next checkpoint writes it again
    base::log(base::LogLevel::kError, "page_damaged",
              {{"store", server_.identity.id.text()},
               {"copyset", at_.copyset},
               {"volume", at_.chunk.volume},
               {"chunk", uint64_t{at_.chunk.chunk}},
               {"page", uint64_t{at_.page}},
               {"offset", page_op_.offset_bytes}});
  }
  arm(chunkstore::kBlocksPerPage * 1'000'000'000ull / status_.bytes_per_second);
}

void Scrub::block_done(int32_t result) {
  reading_ = false;
  if (stopped_) return;
  ++status_.blocks_done;
  ++block_;
  if (++since_saved_ >= kSaveBlocks) {
    since_saved_ = 0;
    server_.background->applied();
  }
  if (result < 0 && !being_filled(at_.copyset) &&
      server_.repair->repairable(at_.copyset, at_.chunk.volume)) {
    ++status_.damaged_blocks;
    const auto state = server_.store->block_state(at_.copyset, at_.chunk, read_op_.block);
    if (state.written)
      server_.repair->want({.copyset = at_.copyset,
                            .chunk = at_.chunk,
                            .block = read_op_.block,
                            .mask = state.written});
  }
  arm(kBlockBytes * 1'000'000'000ull / status_.bytes_per_second);
}

// All of a chunk was read here: its replicas are compared, by whoever leads.
void Scrub::chunk_done() {
  auto it = server_.copysets.find(at_.copyset);
  if (it == server_.copysets.end() || !it->second->group || !it->second->group->is_leader()) return;
  if (it->second->fences.deleted(at_.chunk.volume)) return;
  compare(*it->second, at_.chunk, false, [](Comparison&, Code) {});
}

void Scrub::finish() {
  status_.running = false;
  ++status_.passes;
  status_.finished_ns = server_.loop.wall_ns();
  at_ = {};
  block_ = 0;
  buffer_ = {};
  server_.background->applied();
  base::log(base::LogLevel::kInfo, "scrub_finished",
            {{"store", server_.identity.id.text()},
             {"blocks", status_.blocks_done},
             {"damaged_blocks", status_.damaged_blocks},
             {"damaged_pages", status_.damaged_pages}});
  arm(std::min(kIdleCheckNs, server_.options.scrub_interval_ns));
}

}  // namespace curve::copyset
