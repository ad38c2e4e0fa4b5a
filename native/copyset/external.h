// Large writes do not pay twice (docs/decisions/0016): the payload of a write of whole blocks goes
// straight into newly taken blocks of the store. The WAL records its checksums and, as the record's
// annotation, the blocks; the background step only enters them in the map.
//
// Invariants:
//  - R4: such a block is a part of the log, local to this store. From its entry's append until the
//  claim ends it is pinned and nobody writes to it, so that the log, the overlay, followers that
//  lag and a restart find what the checksums of the entry say.
//  - R5: a claim ends only behind the durable checkpoint that holds the entry, which leaves the
//  group's log then (a restart does not retain it either); or, when the entry was truncated, once
//  that is durable. What was never mapped is free then. Until then the entry serves followers that
//  lag, if there are any, as long as few bytes are kept for them.
//  - R2: an append is done when the payloads that it names are durable.
//  - R8: nothing that was set aside for the write is used for it: what is taken comes on top, only
//  while much is free; else the payload goes into the WAL.
// One loop thread; no allocation per write once the lists have grown.
#pragma once

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <unordered_set>
#include <vector>

#include "native/base/mutant.h"
#include "native/copyset/server_state.h"

namespace curve::copyset {

// The annotation of a record: version 1, three zeros, then the blocks (u32 each) in order.
inline constexpr size_t kExternalBlocksMax = kIoBytesMax / kBlockBytes;
struct ExternalBlocks {
  std::array<uint32_t, kExternalBlocksMax> blocks{};
  uint32_t count = 0;
};
std::optional<ExternalBlocks> decode_external(std::span<const std::byte> annotation);

class External {
 public:
  explicit External(StoreServer::State& server);
  ~External();

  void place(CopysetId copyset, replica::Entry& entry);
  void write(const replica::EntryRef& entry, wal::Append& append);
  void read(replica::PayloadRead* op);
  replica::FoundPayload recover(CopysetId copyset, const wal::LoggedEntry& entry);
  // After all of them: what was found whole is durable. 0 or -errno. May block.
  int recovered();

  void apply(Copyset& copyset, const replica::Entry& entry, const RangeCommand& range);
  // R6: the content of a sector of the block while it is not durable, else null.
  const std::byte* pending(uint32_t physical, uint32_t sector);

  // Nobody may write to the block.
  bool holds(uint32_t physical) const {
    return held_.contains(physical) && !CURVE_MUTANT("r5_external_changed_in_place");
  }
  // The block is wanted otherwise: it is let go, with what is before it in the log. False: it
  // cannot be, its entry is in no checkpoint yet.
  bool let_go(uint32_t physical);
  void let_go_of(CopysetId copyset);           // all that is in a checkpoint
  uint64_t unmapped_blocks() const;            // that stay only for followers that lag
  void room_wanted() { room_wanted_ = true; }  // R8: with the next pass they go
  void pass_begins();
  void commits_durable();  // of that pass
  uint64_t placed_bytes() const { return placed_bytes_; }

 private:
  struct Claim {
    CopysetId copyset = 0;
    Index index = 0;
    Term term = 0;
    ExternalBlocks blocks;
    bool is_void = false;  // was not in the log when an earlier pass began
    bool ends = false;     // with the commits of this pass
  };
  struct Write;
  struct Read;
  bool in_log(const Claim& claim) const;
  bool in_checkpoint(const Claim& claim) const;
  void hold(const Claim& claim);
  void release(const ExternalBlocks& blocks);
  void end_through(const std::map<CopysetId, Index>& ends);
  bool verify(const ExternalBlocks& blocks, std::span<const uint32_t> crcs, bool* read_error);
  void write_done(Write* write);
  void read_done(Read* read);

  StoreServer::State& server_;
  uint64_t blocks_total_ = 0;
  uint64_t placed_bytes_ = 0;
  bool sync_after_recovery_ = false, room_wanted_ = false;
  std::deque<Claim> claims_;  // in the order in which they were placed
  std::unordered_set<uint32_t> held_;
  std::vector<std::unique_ptr<Write>> all_writes_;
  std::vector<Write*> free_writes_;
  base::List<Write> writes_;  // in flight
  std::vector<std::unique_ptr<Read>> reads_;
  io::Timer refusal_timer_;
};

}  // namespace curve::copyset
