// Private state of StoreServer, shared by its source files. See store_server.h for the rules.
#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "native/chunkstore/chunkstore.h"
#include "native/copyset/commands.h"
#include "native/copyset/fences.h"
#include "native/copyset/overlay.h"
#include "native/copyset/store_server.h"
#include "native/copyset/write_pace.h"
#include "native/wire/connection.h"

namespace curve::copyset {

struct Copyset;
struct Session;
struct Request;
class Background;
class External;
class Repair;
class Scrub;
class SyncSource;
class SyncTarget;
class Trace;

// What hangs on a log entry of the leader until it is applied or dropped.
struct Proposal {
  void (*finished)(Proposal* proposal, Code code) = nullptr;
};

// A command that waits for room in the log.
struct WaitingControl {
  std::vector<std::byte> head;
  Proposal* proposal = nullptr;
};

struct BlockKey {
  ChunkKey chunk;
  uint32_t block = 0;
  bool operator==(const BlockKey&) const = default;
};
struct BlockKeyHash {
  size_t operator()(const BlockKey& k) const {
    return mix64(std::hash<ChunkKey>{}(k.chunk) + k.block);
  }
};

// A discard in the log that is not applied yet (R8).
struct PendingZero {
  Index index = 0;
  uint32_t first = 0, sectors = 0;  // in the chunk
};

// R8, of a leader: how many new blocks its entries take, by index, so that it knows what a follower
// that has acknowledged through some index has yet to take. Bounded: many entries in a row count as
// one at the index of the last of them.
class NewBlocks {
 public:
  void add(Index index, uint64_t blocks);
  uint64_t after(Index match) const;  // never less than what is there
  void forget_through(Index match);
  void clear() { entries_.clear(); }
  bool empty() const { return entries_.empty(); }

 private:
  static constexpr size_t kEntriesMax = 256;
  struct Entry {
    Index index = 0;
    uint64_t blocks = 0;
  };
  std::deque<Entry> entries_;
};

// R8, of a leader: what one other store has yet to take of all copysets that are led here.
struct Ahead {
  uint64_t blocks = 0;   // not less than that
  uint64_t counted = 0;  // the turn in which it was counted
};

// One replica's state machine.
struct Copyset {
  CopysetId id = 0;
  replica::ReplicaGroup* group = nullptr;
  Overlay overlay;
  Fences fences;
  std::vector<VolumeId> dropped_volumes;  // deleted since the last freeze: the background step
                                          // gives their blocks back
  // R8: blocks that applied or appended writes will need and that are not mapped yet (space.cc).
  std::unordered_set<BlockKey, BlockKeyHash> reserved_blocks;
  std::unordered_set<BlockKey, BlockKeyHash> reserved_pages;  // block: page number
  std::unordered_map<ChunkKey, std::vector<PendingZero>> pending_zeros;
  NewBlocks new_blocks;    // of a leader
  Index stuck_at = 0;      // of a leader: commit index when the log was last looked at ...
  uint32_t stuck_for = 0;  // ... and so many looks before, with more in it (room.cc)
  // R14: chunks with a merge under way; further writes to them wait, in order.
  std::unordered_map<ChunkKey, std::deque<Request*>> merging;
  std::deque<WaitingControl> waiting_control;  // before all writes (waiting.cc)
  std::vector<Request*> parked;                // reads that wait for the lease (R9)
  std::deque<Request*> waiting;  // writes that wait for room in the log, in order (waiting.cc)
  Request* woken = nullptr;      // the first of those, while it tries again
  Index applied = 0;
  // R10: what it was filled with lately may be as of this index. Until that is applied, its blocks
  // are of several. (Not kept over a restart: Scrub::peer_closed.)
  Index holds = 0;
  std::unique_ptr<SyncTarget> sync;  // being filled (R10)
  WritePace pace;                    // of a leader that fills another (R10)
  // The replica was removed: its contents go with the next checkpoint that begins (kWanted), which
  // then is under way (kRunning).
  enum class Drop : uint8_t { kNone, kWanted, kRunning };
  Drop drop = Drop::kNone;

  Copyset(CopysetId copyset, OverlayPool& pool, uint64_t& fence_bytes);
  ~Copyset();
};

// A client connection. Invariant (R13): at most one per client identity; what it has not yet
// proposed dies with it.
struct Session : base::ListHook {
  StoreServer::State* server = nullptr;
  wire::Connection* connection = nullptr;
  StoreId client;
  uint64_t counter = 0;
  base::List<Request> requests;  // not yet answered
  uint64_t inflight_bytes = 0;
  bool paused = false;
};

// Part of a read: from the store or from the WAL.
struct ReadPiece {
  Request* request = nullptr;
  uint32_t first = 0, sectors = 0;  // within the request
  uint32_t sector = 0;              // in the chunk
  uint32_t repairs = 0;             // R11: blocks of it that are being repaired
  enum class From : uint8_t { kStore, kWal, kBlock };
  From from = From::kStore;
  std::span<std::byte> into;
  chunkstore::ReadOp store_op;
  wal::ReadOp wal_op;
  io::FileOp block_op;  // an external payload (R4), pinned while it is read
  iovec block_iov{};
  uint32_t physical = 0;
};

// When a traced write was where (trace.h); 0: not seen yet.
struct RequestTimes {
  uint64_t proposed_ns = 0, durable_ns = 0, followed_ns = 0, committed_ns = 0;
};

// One request of a client, pooled.
struct Request : base::ListHook, Proposal {
  StoreServer::State* server = nullptr;
  Session* session = nullptr;  // null: the client is gone
  Copyset* copyset = nullptr;
  wire::FrameType type{};
  uint64_t tag = 0;
  wire::RequestBody body;
  base::Buffer buffer;         // read: result; write: payload as received
  std::vector<uint32_t> crcs;  // read: per sector; write: per piece as received
  replica::EntryRef entry;     // write under way
  uint32_t pieces_left = 0;
  uint64_t received_ns = 0, proposed_ns = 0;
  Term term = 0;  // the leadership it was accepted in
  Code code = Code::kOk;
  bool parked = false;
  bool waiting = false;   // for room in the log
  bool verified = false;  // its payload matches its checksums
  bool merging = false;   // R14: holds the chunk's lock
  bool proposed = false;
  std::array<bool, 2> merge_need{};  // first and last sector must be read before
  base::Buffer merge_buffer;         // their old content, one sector each
  StoreId peer;                      // kSyncRequest: who is filled
  uint16_t written = 0;  // kSyncRequest: sectors of the block; kRepairRequest: asked for
  uint16_t bad = 0;      // kRepairRequest: of those, damaged here
  Index index = 0;       // kRepairRequest: applied when it was read; traced write: of its entry
  bool traced = false;   // known to State::trace
  RequestTimes times;    // of a traced one
};

// How fast this store may be filled, over all copysets. Foreground first: while clients or leaders
// write here, few blocks are on their way at a time.
struct SyncBudget {
  static constexpr uint64_t kForegroundNs = 100'000'000;
  static constexpr uint32_t kForegroundShare = 64;
  SyncLimits limits;
  uint64_t foreground_ns = 0;  // when somebody last wanted something else of this store
  uint64_t inflight_bytes = 0;
  uint64_t tokens = 0, filled_ns = 0;

  void set(const SyncLimits& to, uint64_t now_ns) {
    limits = to;
    tokens = 0;
    filled_ns = now_ns;
  }
  // False: not now; ask again soon.
  bool take(uint64_t bytes, uint64_t now_ns, uint64_t inflight_max) {
    const bool busy = foreground_ns != 0 && now_ns < foreground_ns + kForegroundNs;
    const uint64_t most = busy ? inflight_max / kForegroundShare : inflight_max;
    if (inflight_bytes != 0 && inflight_bytes + bytes > most) return false;  // one always goes on
    if (limits.bytes_per_second != 0) {
      const uint64_t saved = std::max(limits.bytes_per_second / 10, bytes);  // 100 ms
      const uint64_t more = (now_ns - filled_ns) / 1000 * limits.bytes_per_second / 1'000'000;
      if (more != 0) {
        tokens = std::min(saved, tokens + more);
        filled_ns = now_ns;
      }
      if (tokens < bytes) return false;
      tokens -= bytes;
    }
    inflight_bytes += bytes;
    return true;
  }
  void give_back(uint64_t bytes) { inflight_bytes -= bytes; }
};

struct StoreServer::State final : replica::StateMachine, io::Listener {
  State(io::Loop& loop, base::BufferPool& pool, const ServerOptions& options);
  ~State() override;

  io::Loop& loop;
  base::BufferPool& pool;
  ServerOptions options;
  std::vector<std::byte> secret;
  wire::Identity identity;
  std::unique_ptr<chunkstore::ChunkStore> store;
  std::unique_ptr<wal::Wal> wal;
  OverlayPool overlay_pool;
  uint64_t fence_bytes = 0;  // R8: sum over `copysets`, kept by their fences; outlives them
  std::unordered_map<CopysetId, std::unique_ptr<Copyset>> copysets;
  std::unique_ptr<replica::Replica> replica;
  std::unique_ptr<Background> background;
  std::unique_ptr<External> external;
  std::unique_ptr<SyncSource> sync_source;
  std::unique_ptr<Repair> repair;
  std::unique_ptr<Scrub> scrub;
  std::map<void*, std::shared_ptr<void>> sync_writes;  // in flight; may outlive their SyncTarget
  std::map<StoreId, Session*> sessions;                // by client
  // All accepted ones that have not ended, in the order in which they came: a run of the
  // simulation must not depend on addresses.
  std::vector<wire::Connection*> connections;
  uint32_t unauthenticated = 0;
  std::vector<Copyset*> parked_copysets;
  std::vector<Copyset*> waiting_copysets;  // with writes that wait for room in the log
  uint64_t waiting_bytes = 0, waiting_requests = 0;
  std::vector<std::unique_ptr<Request>> all_requests;
  std::vector<Request*> free_requests;
  std::unique_ptr<Trace> trace;  // null: nobody asked. Knows requests
  std::vector<std::unique_ptr<ReadPiece>> all_pieces;
  std::vector<ReadPiece*> free_pieces;
  std::map<CopysetId, Index> checkpoint_applied;  // of the last durable checkpoint
  std::map<CopysetId, std::vector<std::byte>> recovered_fences;
  wal::RecoveryReport recovery;
  ServerCounters counters;
  SyncBudget sync_budget;
  std::map<CopysetId, std::vector<std::function<void(bool)>>> removals;  // not durable yet
  ServerLatency latency;
  uint64_t requests_open = 0;
  std::map<StoreId, Ahead> ahead;
  uint64_t turns = 0, room_looked_ns = 0;
  uint64_t gave_back_ns = 0;     // when a discard or deletion was applied last
  bool gives_back = false;       // a discard or deletion was applied, and no pass began since then
  bool giving_back = false;      // the pass that runs now has some
  bool wants_space = false;      // an entry was not taken, or a replica not filled, since then
  uint32_t short_of_blocks = 0;  // what the largest entry that was not taken needs
  bool some_stuck = false;       // the last look at the logs found one (room.cc)
  uint32_t leaders_elsewhere = 1;  // stores that may lead a copyset of this one, as last counted
  std::vector<uint32_t> scratch_blocks;
  bool listening = false, stopping = false, out_of_service = false;
  std::function<void()> stopped;
  std::string failed_because;
  std::function<void(Code, std::string)> failure;
  io::TurnHook hook;
  io::Timer stop_timer, failure_timer, pace_timer;

  // server.cc
  Outcome recover();
  Copyset& copyset_of(CopysetId id);
  void accepted(io::Stream* stream) override;
  bool opened(wire::Connection* connection);
  void frame(wire::Connection* connection, wire::Frame& frame);
  void trace_frame(const Session& session, const wire::Frame& frame);
  void closed(wire::Connection* connection, Code code, int error);
  void check_stopped();
  bool requests_with_io() const;
  void leave_service();
  void turn();
  uint64_t wal_position(uint32_t low) const;  // from the low 32 bits of a sector number
  std::vector<chunkstore::GroupBlob> make_blobs(uint64_t cut);
  std::vector<std::byte> encode_blob(Copyset& copyset, Index applied);

  // session.cc
  bool open_session(wire::Connection* connection);
  void close_session(Session* session);
  void request_frame(Session& session, wire::Frame& frame);
  void dispatch(Request* request);
  void answer(Request* request, Code code);
  void note_latency(const Request& request);
  Request* take_request();
  void release(Request* request);
  Code check_leader(Request* request);
  void start_write(Request* request);
  bool nothing_to_zero(const Request& request) const;
  void propose_range(Request* request);
  bool within_pace(Copyset& copyset);
  void start_merge(Request* request);
  void merge_step(Request* request);
  void end_merge(Request* request);
  bool newest_appended(Copyset& copyset, const ChunkKey& chunk, uint32_t sector, std::byte* into);

  // space.cc (R8)
  enum class Space : uint8_t {
    kOk,
    kWait,    // for what is on its way to others
    kComing,  // full, but a checkpoint will give blocks back
    kFull,
  };
  Space reserve(Copyset& copyset, const ChunkKey& chunk, uint32_t first_sector, uint32_t sectors,
                uint32_t* fresh);
  void settle_block(Copyset& copyset, const ChunkKey& chunk, uint32_t block);
  void sweep_reservations(Copyset& copyset);
  bool reserve_logged(Copyset& copyset, Index applied);
  void reserve_recovered(Copyset& copyset);
  std::unordered_set<BlockKey, BlockKeyHash> pages_relied_on(const Copyset& copyset) const;
  void note_zero(Copyset& copyset, const RangeCommand& range, Index index);
  bool may_unmap(Copyset& copyset, const ChunkKey& chunk, uint32_t block);
  // room.cc (R8)
  replica::Room room() const override;
  void note_giving_back();
  bool blocks_coming() const;
  replica::Room room_of(const StoreId& store) const;
  uint64_t ahead_of(const StoreId& store, uint64_t enough);
  Space majority_room(const Copyset& copyset, uint64_t blocks);
  void note_new_blocks(Copyset& copyset, Index index, uint64_t blocks);
  void look_at_room();
  void look_for_stuck_logs(uint64_t now);
  bool others_are_full(const Copyset& copyset) const;
  uint64_t blob_bytes() const;
  uint64_t fence_bytes_max() const;
  bool fences_fit(uint64_t more_bytes) const;
  bool fence_has_room(const Copyset& copyset, uint64_t more_bytes) const;

  // waiting.cc
  void propose_control(Copyset& copyset, std::span<const std::byte> head, Proposal* proposal);
  Code try_control(Copyset& copyset, std::span<const std::byte> head, Proposal* proposal);
  void wake_control(Copyset& copyset);
  void wake_later(Copyset& copyset);
  void wait_for_room(Request* request);
  void wake_waiting();
  void resume(Request* request);
  void leave_waiting(Request* request);

  // read.cc
  bool may_look(const Copyset& copyset) const;
  void start_read(Request* request);
  void park(Request* request);
  void unpark();
  // Reads sectors of the applied state into `into`; request->pieces_left counts; crcs[i] per
  // sector. False: malformed place.
  void read_sectors(Request* request, const ChunkKey& chunk, uint32_t first_sector,
                    uint32_t sectors, std::byte* into);
  uint32_t read_external(Request* request, const ChunkKey& chunk, uint32_t first_sector, uint32_t i,
                         uint32_t sectors, std::byte* at, uint32_t* crc);
  bool external_moved(const ReadPiece& piece, uint32_t physical) const;
  void piece_done(ReadPiece* piece, int32_t result);
  void end_piece(ReadPiece* piece);
  void finish_read(Request* request);
  void block_status(Request* request);
  ReadPiece* take_piece();
  bool sector_written(Copyset& copyset, const ChunkKey& chunk, uint32_t sector) const;

  // apply.cc (StateMachine)
  void apply(replica::ReplicaGroup& group, std::span<const replica::EntryRef> entries) override;
  Code apply_one(Copyset& copyset, const replica::Entry& entry);
  bool admit(replica::ReplicaGroup& group, Index index, std::span<const std::byte> head) override;
  void place_payload(replica::ReplicaGroup& group, replica::Entry& entry) override;
  void write_payload(const replica::EntryRef& entry, wal::Append& append) override;
  void read_payload(replica::PayloadRead* op) override;
  replica::FoundPayload recover_payload(CopysetId group, const wal::LoggedEntry& entry) override;
  void dropped(replica::ReplicaGroup& group, replica::Entry& entry) override;
  void role_changed(replica::ReplicaGroup& group) override;
  void moved(replica::ReplicaGroup& group, replica::Entry& entry,
             uint64_t old_payload_position) override;
  void recovered_local(CopysetId group, const wal::RecoveredRecord& record) override;
  void failed(Code code) override;
  // membership.cc
  void forget(Copyset& copyset);
  void drop_contents(Copyset& copyset);
  // sync_target.cc
  void sync_offered(replica::ReplicaGroup& group, const StoreId& leader, Index index) override;
  void peer_frame(const StoreId& peer, wire::Connection* connection, wire::Frame& frame) override;
  void peer_closed(const StoreId& peer) override;
};

}  // namespace curve::copyset
