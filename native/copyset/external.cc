#include "native/copyset/external.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "native/base/crc32c.h"
#include "native/base/mutant.h"

namespace curve::copyset {

namespace {

constexpr uint8_t kAnnotationVersion = 1;
// R8: so much of the store stays for what is set aside before anybody acknowledges.
constexpr uint64_t kFreeShare = 8;
// Of the WAL's capacity: so much stays for followers that lag, beside as much of the WAL itself.
constexpr uint64_t kKeepShare = 4;

void encode(const ExternalBlocks& blocks, std::vector<std::byte>& out) {
  out.resize(4 + 4 * size_t{blocks.count});
  const uint8_t head[4] = {kAnnotationVersion};
  std::memcpy(out.data(), head, sizeof head);
  std::memcpy(out.data() + 4, blocks.blocks.data(), 4 * size_t{blocks.count});
}

}  // namespace

std::optional<ExternalBlocks> decode_external(std::span<const std::byte> annotation) {
  ExternalBlocks out;
  if (annotation.size() < 8 || annotation.size() % 4 != 0 ||
      annotation[0] != std::byte{kAnnotationVersion} ||
      annotation.size() > 4 + 4 * kExternalBlocksMax) {
    return std::nullopt;
  }
  out.count = static_cast<uint32_t>(annotation.size() / 4 - 1);
  std::memcpy(out.blocks.data(), annotation.data() + 4, 4 * size_t{out.count});
  return out;
}

// Blocks that lie side by side are one write.
struct External::Write : base::ListHook {
  External* external = nullptr;
  replica::EntryRef entry;  // keeps the payload
  wal::Append* append = nullptr;
  uint32_t physical = 0, blocks = 0, offset_bytes = 0;  // of the payload
  bool counted = true;
  io::FileOp op;
  iovec iov{};
};

struct External::Read {
  External* external = nullptr;
  replica::PayloadRead* op = nullptr;
  ExternalBlocks blocks;
  std::array<io::FileOp, kExternalBlocksMax> ops;
  std::array<iovec, kExternalBlocksMax> iov{};
  uint32_t left = 0;
  int32_t result = 0;
};

External::External(StoreServer::State& server) : server_(server) {
  blocks_total_ = server.store->usage().blocks_total;
  refusal_timer_.owner = this;
  refusal_timer_.fire = [](io::Timer* timer) {
    auto* self = static_cast<External*>(timer->owner);
    std::vector<Read*> refused;
    for (const auto& read : self->reads_)
      if (read->left == 0) refused.push_back(read.get());
    for (Read* read : refused) self->read_done(read);
  };
}

External::~External() {
  if (refusal_timer_.armed()) server_.loop.disarm(&refusal_timer_);
}

// ---- writing

void External::place(CopysetId copyset, replica::Entry& entry) {
  if (entry.type != raft::EntryType::kData || entry.is_external() ||
      command_type(entry.head) != CommandType::kWrite)
    return;
  const auto range = decode_range(entry.head);
  if (!range || range->first_sector % kSectorsPerBlock || range->sectors % kSectorsPerBlock ||
      range->sectors != entry.sector_crcs.size() || !entry.in_memory())
    return;
  const uint32_t count = range->sectors / kSectorsPerBlock;
  if (count > kExternalBlocksMax ||
      server_.store->blocks_loose() < count + blocks_total_ / kFreeShare)
    return;
  Claim claim{.copyset = copyset, .index = entry.index, .term = entry.term, .blocks = {}};
  for (; claim.blocks.count < count; ++claim.blocks.count) {
    const uint32_t block = server_.store->take_block();
    if (block == 0 || !server_.store->pin_block(block)) break;
    claim.blocks.blocks[claim.blocks.count] = block;
  }
  if (claim.blocks.count < count) return release(claim.blocks);
  encode(claim.blocks, entry.annotation);
  placed_bytes_ += entry.payload.size();
  hold(claim);
}

void External::write(const replica::EntryRef& entry, wal::Append& append) {
  const auto blocks = decode_external(entry->annotation);
  for (uint32_t at = 0; blocks && at < blocks->count;) {
    uint32_t end = at + 1;
    while (end < blocks->count && blocks->blocks[end] == blocks->blocks[end - 1] + 1) ++end;
    if (free_writes_.empty()) {
      all_writes_.push_back(std::make_unique<Write>());
      free_writes_.push_back(all_writes_.back().get());
    }
    Write* write = free_writes_.back();
    free_writes_.pop_back();
    write->external = this;
    write->entry = entry;
    write->append = &append;
    write->physical = blocks->blocks[at];
    write->blocks = end - at;
    write->offset_bytes = at * kBlockBytes;
    write->counted = !CURVE_MUTANT("r2_external_not_awaited");
    write->iov = {entry->payload.data() + write->offset_bytes, size_t{write->blocks} * kBlockBytes};
    write->op.owner = write;
    write->op.iov = {&write->iov, 1};
    write->op.offset_bytes = 0;
    write->op.durable = true;
    write->op.done = [](io::Op* op) {
      auto* done = static_cast<Write*>(op->owner);
      done->external->write_done(done);
    };
    append.external_pending += write->counted;
    writes_.push_back(write);
    server_.store->write_block(&write->op, write->physical);
    at = end;
  }
}

void External::write_done(Write* write) {
  write->unlink();
  write->entry = {};
  server_.counters.direct_bytes += uint64_t{write->blocks} * kBlockBytes;
  wal::Append* append = write->append;
  const bool counted = write->counted;
  free_writes_.push_back(write);
  if (counted) server_.wal->external_done(append, write->op.result);
}

const std::byte* External::pending(uint32_t physical, uint32_t sector) {
  for (Write* write = writes_.front(); write; write = writes_.next(write)) {
    if (physical < write->physical || physical >= write->physical + write->blocks) continue;
    return static_cast<const std::byte*>(write->iov.iov_base) +
           (physical - write->physical) * size_t{kBlockBytes} + sector * size_t{kSectorBytes};
  }
  return nullptr;
}

void External::apply(Copyset& copyset, const replica::Entry& entry, const RangeCommand& range) {
  const auto blocks = decode_external(entry.annotation);
  for (uint32_t i = 0; blocks && i < blocks->count; ++i) {
    copyset.overlay.place(
        {range.volume, range.chunk}, range.first_sector / kSectorsPerBlock + i,
        std::span(entry.sector_crcs).subspan(i * size_t{kSectorsPerBlock}, kSectorsPerBlock),
        blocks->blocks[i], entry.index);
  }
}

// ---- reading back, for a follower that lags

void External::read(replica::PayloadRead* op) {
  auto made = std::make_unique<Read>();
  Read* read = made.get();
  reads_.push_back(std::move(made));
  read->external = this;
  read->op = op;
  const auto blocks = decode_external(op->annotation);
  if (blocks && blocks->count * size_t{kSectorsPerBlock} == op->sector_crcs.size()) {
    while (read->blocks.count < blocks->count &&
           server_.store->pin_block(blocks->blocks[read->blocks.count])) {
      read->blocks.blocks[read->blocks.count] = blocks->blocks[read->blocks.count];
      ++read->blocks.count;
    }
  }
  if (!blocks || read->blocks.count < blocks->count) {
    for (uint32_t i = 0; i < read->blocks.count; ++i)
      server_.store->unpin_block(read->blocks.blocks[i]);
    read->blocks.count = 0;
    read->result = -EILSEQ;
    return server_.loop.arm(&refusal_timer_, server_.loop.now_ns());
  }
  op->payload = server_.pool.take(read->blocks.count * size_t{kBlockBytes});
  read->left = read->blocks.count;
  for (uint32_t i = 0; i < read->blocks.count; ++i) {
    io::FileOp& file_op = read->ops[i];
    read->iov[i] = {op->payload.data() + i * size_t{kBlockBytes}, kBlockBytes};
    file_op.owner = read;
    file_op.iov = {&read->iov[i], 1};
    file_op.offset_bytes = 0;
    file_op.done = [](io::Op* each) {
      auto* done = static_cast<Read*>(each->owner);
      if (each->result < 0) done->result = each->result;
      if (--done->left == 0) done->external->read_done(done);
    };
    server_.store->read_block(&file_op, read->blocks.blocks[i]);
  }
}

void External::read_done(Read* read) {
  replica::PayloadRead* op = read->op;
  for (uint32_t i = 0; i < read->blocks.count; ++i)
    server_.store->unpin_block(read->blocks.blocks[i]);
  for (size_t i = 0; read->result == 0 && i < op->sector_crcs.size(); ++i) {
    if (base::crc32c(op->payload.bytes().subspan(i * kSectorBytes, kSectorBytes)) !=
        op->sector_crcs[i])
      read->result = -EILSEQ;
  }
  op->result = read->result;
  if (op->result < 0) op->payload = {};
  std::erase_if(reads_, [read](const auto& each) { return each.get() == read; });
  op->done(op);
}

// ---- start-up

// R3, R4: what nobody was promised may have been in flight, and is looked at. What the device
// refuses to give was whole, for all that anybody knows.
replica::FoundPayload External::recover(CopysetId copyset, const wal::LoggedEntry& entry) {
  using replica::FoundPayload;
  const auto blocks = decode_external(entry.annotation);
  const auto range = decode_range(entry.head);
  if (!blocks || !range || blocks->count * size_t{kSectorsPerBlock} != entry.sector_crcs.size() ||
      range->sectors != entry.sector_crcs.size() || range->first_sector % kSectorsPerBlock)
    return FoundPayload::kLost;
  Claim claim{.copyset = copyset, .index = entry.index, .term = entry.term, .blocks = {}};
  for (; claim.blocks.count < blocks->count; ++claim.blocks.count) {
    const uint32_t block = blocks->blocks[claim.blocks.count];
    if (!server_.store->retake_block(block)) break;
    (void)server_.store->pin_block(block);
    claim.blocks.blocks[claim.blocks.count] = block;
  }
  if (claim.blocks.count < blocks->count) {
    release(claim.blocks);
    return FoundPayload::kLost;
  }
  if (!entry.promised && !CURVE_MUTANT("r4_external_not_verified")) {
    bool read_error = false;
    if (!verify(claim.blocks, entry.sector_crcs, &read_error)) {
      release(claim.blocks);
      ++server_.counters.torn_payloads;
      return CURVE_MUTANT("r4_torn_external_is_lost") ? FoundPayload::kLost : FoundPayload::kTorn;
    }
    sync_after_recovery_ = true;
  }
  hold(claim);
  return FoundPayload::kWhole;
}

bool External::verify(const ExternalBlocks& blocks, std::span<const uint32_t> crcs,
                      bool* read_error) {
  base::Buffer buffer = server_.pool.take(kBlockBytes);
  for (uint32_t i = 0; i < blocks.count; ++i) {
    if (server_.store->read_block_sync(blocks.blocks[i], buffer.span().first(kBlockBytes)) < 0) {
      *read_error = true;
      continue;
    }
    for (uint32_t sector = 0; sector < kSectorsPerBlock; ++sector) {
      const auto bytes = buffer.bytes().subspan(sector * size_t{kSectorBytes}, kSectorBytes);
      if (base::crc32c(bytes) != crcs[i * size_t{kSectorsPerBlock} + sector]) return false;
    }
  }
  return true;
}

// It may be in a cache of the device: the process died, not the machine.
int External::recovered() {
  return std::exchange(sync_after_recovery_, false) ? server_.store->sync_sync() : 0;
}

// ---- the end of claims

bool External::in_log(const Claim& claim) const {
  const auto it = server_.copysets.find(claim.copyset);
  if (it == server_.copysets.end() || it->second->group == nullptr) return false;
  if (claim.index <= it->second->applied) return true;  // or replaced: known with the checkpoint
  const raft::Group& raft = it->second->group->raft();
  return claim.index >= raft.first_index() && claim.index <= raft.last_index() &&
         raft.term_at(claim.index) == claim.term;
}

bool External::in_checkpoint(const Claim& claim) const {
  const auto known = server_.checkpoint_applied.find(claim.copyset);
  return known != server_.checkpoint_applied.end() && claim.index <= known->second;
}

void External::hold(const Claim& claim) {
  for (uint32_t i = 0; i < claim.blocks.count; ++i) held_.insert(claim.blocks.blocks[i]);
  claims_.push_back(claim);
}

void External::release(const ExternalBlocks& blocks) {
  for (uint32_t i = 0; i < blocks.count; ++i) {
    held_.erase(blocks.blocks[i]);
    server_.store->release_block(blocks.blocks[i]);
  }
}

// What is let go leaves the log, and with it everything before.
void External::end_through(const std::map<CopysetId, Index>& ends) {
  if (ends.empty()) return;
  for (const auto& [id, index] : ends) {
    replica::ReplicaGroup* group = server_.replica->find(id);
    if (group) server_.replica->trim_through(*group, index);
  }
  std::erase_if(claims_, [&](const Claim& claim) {
    const auto end = ends.find(claim.copyset);
    if (end == ends.end() || claim.index > end->second || !in_checkpoint(claim)) return false;
    release(claim.blocks);
    return true;
  });
}

bool External::let_go(uint32_t physical) {
  for (const Claim& claim : claims_) {
    const auto end = claim.blocks.blocks.begin() + claim.blocks.count;
    if (std::find(claim.blocks.blocks.begin(), end, physical) == end) continue;
    if (!in_checkpoint(claim)) return false;
    end_through({{claim.copyset, claim.index}});
    return true;
  }
  return true;
}

void External::let_go_of(CopysetId copyset) { end_through({{copyset, UINT64_MAX}}); }

uint64_t External::unmapped_blocks() const {
  uint64_t count = 0;
  for (const Claim& claim : claims_) {
    if (!in_checkpoint(claim)) continue;
    for (uint32_t i = 0; i < claim.blocks.count; ++i)
      count += server_.store->is_taken(claim.blocks.blocks[i]);
  }
  return count;
}

// R5. What a checkpoint holds stays in the log while there is room for it. A truncated entry is in
// the log on the device until the record that voids it is durable. That one may be in no append yet
// when it is missed here, but is when the next pass begins, and durable with the commits of that.
void External::pass_begins() {
  const bool tight = std::exchange(room_wanted_, false) ||
                     server_.store->blocks_loose() < blocks_total_ / kFreeShare;
  uint64_t kept = tight ? 0 : server_.wal->capacity_bytes() / kKeepShare;
  std::map<CopysetId, Index> ends;
  for (auto claim = claims_.rbegin(); claim != claims_.rend(); ++claim) {
    if (!in_checkpoint(*claim)) {
      const bool held = in_log(*claim);
      claim->ends = !held && claim->is_void;
      claim->is_void = !held;
      continue;
    }
    const replica::ReplicaGroup* group = server_.replica->find(claim->copyset);
    const bool retained = group != nullptr && claim->index >= group->raft().first_index() &&
                          claim->index > group->all_have();
    const uint64_t bytes = uint64_t{claim->blocks.count} * kBlockBytes;
    if (retained && bytes <= kept) {
      kept -= bytes;
      continue;
    }
    kept = retained ? 0 : kept;
    Index& end = ends[claim->copyset];
    end = std::max(end, claim->index);
  }
  end_through(ends);
  if (CURVE_MUTANT("r5_external_ends_early")) {
    std::erase_if(claims_, [&](const Claim& claim) {
      const bool applied = server_.copyset_of(claim.copyset).applied >= claim.index;
      if (applied) release(claim.blocks);
      return applied;
    });
  }
}

void External::commits_durable() {
  std::erase_if(claims_, [&](const Claim& claim) {
    if (claim.ends) release(claim.blocks);
    return claim.ends;
  });
}

}  // namespace curve::copyset
