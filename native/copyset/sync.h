// Chunk sync (R10): a replica whose leader no longer keeps the entries it needs is filled from the
// leader's applied state.
//
// Target: raft stops it from standing for election and acknowledging; a checkpoint makes "being
// filled" durable before the first change. Then: kBegin (the leader's applied index S with its
// term, fences and configuration at S), kPages (which pages exist and changed), kBlock (content of
// a block as the leader has it applied now, at some index >= S), written straight to the chunk
// store. A last checkpoint says "applied S, not being filled"; then the log goes on at S + 1. Why
// blocks read at different indexes >= S are right: everything read is committed, so whoever can be
// elected has those entries and this replica replays them in order before it serves anything;
// writing sectors is idempotent; fences are those of S. A broken connection, a new leader or a
// restart leaves "being filled" in place and starts again, but for pages that were complete: their
// index says so.
//
// Passes: what the leader changes while it fills must be in its log still when the replica is
// filled, and one pass over everything may take longer than a small log lasts. So a pass that was
// long is followed by another, which asks only for the blocks that changed since the one before
// began (docs/decisions/0015).
//
// The leader needs no lease, only an S at or behind what the target has applied: with a lease asked
// for, followers that are filled could be what a new leader waits for to get one. One loop thread.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "native/copyset/server_state.h"

namespace curve::copyset {

enum class SyncKind : uint8_t { kBegin = 1, kPages = 2, kBlock = 3 };

// kSyncRequest and kSyncReply (docs/formats/wire.md, "Chunk sync").
struct SyncRequestBody {
  uint8_t kind = 0;
  uint8_t reserved[3] = {};
  uint32_t cursor = 0;  // kPages: number of pages already listed
  CopysetId copyset = 0;
  VolumeId volume = 0;  // kBlock
  uint32_t chunk = 0;
  uint32_t block = 0;
  // kBegin: pages that have not changed since `applied` stay; S must not be before `commit`.
  Index applied = 0, commit = 0;
};
static_assert(sizeof(SyncRequestBody) == 48);
// kBegin: index, term; the payload's first `count` bytes: u64 bytes that will be asked for, about;
// u64 config_index, u32 config bytes, config, fences. kPages: `count` x SyncPage;
// count 0: that was all. kBlock: written, `count` CRCs (one per written sector); the payload is the
// whole block.
struct SyncReplyBody {
  uint8_t kind = 0;
  uint8_t reserved = 0;
  uint16_t code = 0;  // curve::Code
  uint32_t count = 0;
  CopysetId copyset = 0;
  Index index = 0;
  Term term = 0;
  VolumeId volume = 0;
  uint32_t chunk = 0;
  uint16_t block = 0;
  uint16_t written = 0;
};
static_assert(sizeof(SyncReplyBody) == 48);
struct SyncPage {
  VolumeId volume = 0;
  uint32_t chunk = 0;
  uint32_t page = 0;
  Index index = 0;      // nothing in it has changed since, but for `recent`
  uint64_t blocks = 0;  // bit per block: may hold data
  uint64_t recent = 0;  // bit per block: changed behind what the target has, whatever `index` says
};
static_assert(sizeof(SyncPage) == 40);

// A pass of at most this share of the log is the last one: what comes meanwhile is small against
// what a leader keeps of its own (a quarter).
inline constexpr uint64_t kLastPassShare = 64;

// The leader's side. Holds per peer and copyset the list of pages made at kBegin, and which blocks
// have moved to the store since, until the peer is filled.
class SyncSource {
 public:
  explicit SyncSource(StoreServer::State& server) : server_(server) {}
  void request(const StoreId& peer, wire::Connection* connection, wire::Frame& frame);
  void block_read(Request* request);  // a kBlock read is complete
  // A background pass begins: these blocks of the overlay change in the store.
  void moving(Copyset& copyset, std::span<const Overlay::FrozenBlock> blocks);
  void peer_closed(const StoreId& peer);
  void forget(CopysetId copyset);

 private:
  void begin(const StoreId& peer, wire::Connection* connection, Copyset& copyset,
             const SyncRequestBody& body, uint64_t tag);
  struct Filling {
    Index start = 0;                   // S of the last kBegin; 0: none
    uint64_t begun_ns = 0, bytes = 0;  // when, and how much had to be filled then
    std::vector<SyncPage> pages;
    // Blocks that went to the store since: with those in the overlay, all that changed behind S.
    std::map<chunkstore::PageId, uint64_t> moved;
  };
  void keep_ahead(Copyset& copyset, const Filling& before, uint64_t bytes);
  uint64_t list_pages(Copyset& copyset, Index unchanged_since, bool follows, Filling& filling);
  void pages(const StoreId& peer, wire::Connection* connection, Copyset& copyset,
             const SyncRequestBody& body, uint64_t tag);
  void block(const StoreId& peer, Copyset& copyset, const SyncRequestBody& body, uint64_t tag);
  StoreServer::State& server_;
  std::map<std::pair<CopysetId, StoreId>, Filling> fillings_;
};

// The side that is filled; one per copyset while it lasts.
class SyncTarget {
 public:
  SyncTarget(StoreServer::State& server, Copyset& copyset, const StoreId& leader);
  ~SyncTarget();
  void start();
  void reply(wire::Frame& frame);
  void restart(const StoreId& leader);  // another leads
  void lost();                          // the connection broke: goes on when it is back
  const StoreId& leader() const { return leader_; }
  // What the last checkpoint of the sync must say instead of the replica's own word.
  bool finishing() const { return phase_ == Phase::kFinishing; }
  // R8: the replica acknowledges nothing (R10), so its log has no blocks set aside: what is filled
  // in needs the same ones. Before the end it gets its own, see finish().
  bool log_has_no_space() const;
  Index index() const { return index_; }
  uint64_t bytes_done() const { return bytes_done_; }
  uint64_t bytes_total() const { return std::max(bytes_total_, bytes_done_); }
  void override_blob(replica::GroupBlob& blob, std::vector<std::byte>& fences) const;

 private:
  enum class Phase : uint8_t { kMarking, kBeginning, kListing, kFinishing, kDone };
  struct Write;
  void send(SyncKind kind, uint64_t tag, const ChunkKey& chunk, uint32_t block);
  void on_begin(const SyncReplyBody& reply, std::span<const std::byte> rest);
  void on_pages(const SyncReplyBody& reply, std::span<const std::byte> rest);
  void on_block(const SyncReplyBody& reply, std::span<const std::byte> rest, base::Buffer payload);
  void plan_page(const SyncPage& page);
  void clear_up_to(const chunkstore::PageId& end);  // pages of ours that the leader does not have
  void want(const chunkstore::PageId& page, uint64_t blocks);
  void block_done(const ChunkKey& chunk, uint16_t block);
  void pump();
  void write_next();
  void mark_complete();
  bool reserve(Write& write);
  void begin_list();
  void end_pass();
  void finish();
  void wait_for_space();
  Index unchanged_since() const;

  StoreServer::State& server_;
  Copyset& copyset_;
  StoreId leader_;
  Phase phase_ = Phase::kMarking;
  uint64_t attempt_ = 0;  // replies of an earlier attempt are ignored (tag)
  Index index_ = 0;
  Index holds_ = 0;  // the highest index that a block which came may be of
  // S of the last pass of this attempt that came to its end: everything through it is here.
  Index passed_ = 0;
  uint64_t pass_blocks_ = 0;  // asked for in this pass
  uint32_t passes_ = 0;       // that have ended
  Term term_ = 0;
  raft::Config config_;
  Index config_index_ = 0;
  std::vector<std::byte> fences_;
  uint32_t listed_ = 0;
  bool waits_for_space_ = false;
  uint64_t said_waits_ns_ = 0;
  bool listing_ = false, all_listed_ = false, begin_sent_ = false;
  uint64_t begin_after_ns_ = 0;
  chunkstore::PageId last_page_;
  struct Want {
    ChunkKey chunk;
    uint16_t block;
  };
  std::deque<Want> wanted_;
  uint32_t requested_ = 0;  // blocks asked for and not yet written; each is in the store's budget
  std::map<chunkstore::PageId, uint32_t> pages_left_;  // blocks of it that are not written yet
  std::vector<std::pair<chunkstore::PageId, Index>> complete_;  // to be marked with that index
  uint64_t bytes_done_ = 0, bytes_total_ = 0;
  std::deque<std::unique_ptr<Write>> ready_;  // wait while a checkpoint runs
  uint32_t writes_ = 0;
  io::Timer timer_;  // asks again, looks whether a checkpoint has ended
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace curve::copyset
