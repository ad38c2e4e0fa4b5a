// A chunkserver's core: one store (chunk store + WAL), its replicas, its peers and its clients, on
// one event loop. Source files: server.cc (life cycle, control), server_status.cc, session.cc
// (clients: admission, writes), read.cc, apply.cc (state machine), background.cc (overlay -> chunk
// store, checkpoint, WAL release), sync_source.cc and sync_target.cc (filling a replica from its
// leader), membership.cc (replicas that come and go).
//
// Invariants: R6, R8, R12, R13, R14 are kept here, each named where it is kept.
// Thread: the loop's. format() and open() may block; nothing else does. It works without any
// metaserver.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/buffer.h"
#include "native/base/histogram.h"
#include "native/base/latency.h"
#include "native/base/status.h"
#include "native/io/io.h"
#include "native/raft/host.h"
#include "native/replica/replica.h"
#include "native/wal/wal.h"

namespace curve::copyset {

// The two files or block devices of a store.
struct StorePaths {
  std::string wal, data;
  static StorePaths in(const std::string& directory) {
    return {directory + "/wal", directory + "/data"};
  }
};

struct StoreFormat {
  StoreId store, cluster;
  uint64_t data_bytes = 0, wal_bytes = 0;  // of the two files; devices: their size when 0
  uint64_t wal_segment_bytes = 0;          // 0: by the size of the WAL
  uint32_t reserve_percent = 2;            // of the blocks: leaders accept no new ones there (R8)
  bool force = false;                      // also over a store, which is destroyed first
  bool zeroed = false;                     // all of the data is written once: docs/operations.md
};

struct ServerOptions {
  raft::HostOptions raft;
  wal::Options wal;
  // What has come is moved to its place and into a checkpoint once nobody has written for so long,
  // and at the latest so long after it came; sooner when the log has become fuller.
  uint64_t checkpoint_idle_ns = 2'000'000'000, checkpoint_interval_ns = 60'000'000'000;
  uint32_t background_blocks_max = 16;     // in flight
  uint64_t session_bytes_max = 64u << 20;  // back-pressure per client connection
  // Writes that find the log full wait for room, up to so many and so many bytes of payload.
  uint64_t waiting_bytes_max = 64u << 20;
  uint32_t waiting_requests_max = 4096;
  uint32_t unauthenticated_max = 256;
  uint64_t sync_bytes_inflight_max = 4u << 20;
  uint64_t scrub_bytes_per_second = 8u << 20;                     // 0: no scrub
  uint64_t scrub_interval_ns = 7ull * 24 * 3600 * 1'000'000'000;  // from one pass to the next
};

struct CopysetStatus {
  CopysetId copyset;
  raft::Role role;
  Term term;
  StoreId leader;
  StoreId preferred;
  Index first, last, commit, applied;
  bool damaged, syncing;
  bool learner;  // no voter of its configuration, or without one (R1)
  Index config_index;
  bool config_settled;                         // leader
  uint64_t used_blocks;                        // mapped, or set aside for what is in the log (R8)
  uint64_t sync_bytes_done, sync_bytes_total;  // while it is being filled; 0 of 0: not known yet
  std::vector<raft::Member> members;
  std::vector<raft::Progress> progress;  // leader only
  bool operator==(const CopysetStatus&) const = default;
};

struct ServerCounters {
  uint64_t reads = 0, writes = 0, zeroes = 0, read_bytes = 0, written_bytes = 0, refused = 0,
           parked = 0, waited = 0,
           bounced = 0,  // for the lease; for room in the log; told to come again
      resignations = 0;  // R8: of leaders whose followers were full
  // R4: of large writes, put in their place at once; of those, found torn by the start.
  uint64_t direct_bytes = 0, torn_payloads = 0;
  uint64_t wal_appends = 0, checkpoints = 0, background_blocks = 0, syncs_started = 0,
           syncs_finished = 0, sync_bytes = 0;
  uint64_t corrupt_reads = 0, merges = 0;
  // R11, in sectors: found damaged here, repaired (read again since), given up; answers to peers,
  // answers dropped because the sector had changed
  uint64_t damaged_sectors = 0, repaired_sectors = 0, repairs_failed = 0, repairs_answered = 0,
           repairs_dropped = 0, blocks_restored = 0;
};

// The reading of a whole store in the background (scrub.h).
struct ScrubStatus {
  bool running = false;
  uint64_t bytes_per_second = 0;
  uint64_t passes = 0;                       // whole ones
  uint64_t started_ns = 0, finished_ns = 0;  // wall clock: this pass; the last whole one
  uint64_t blocks_done = 0, blocks_total = 0;
  uint64_t damaged_blocks = 0, damaged_pages = 0;  // found by scrub; repaired: see ServerCounters
  uint64_t chunks_compared = 0, chunks_differ = 0;
};

// Chunks 0 .. chunks - 1 of the volume that lie in this copyset.
struct CheckRequest {
  VolumeId volume = 0, placement_id = 0;
  uint32_t chunks = 0, copysets = 1;  // of the volume; of the pool
  CopysetId copyset = 0;
};
// How the replicas of one copyset's part of a volume compare.
struct CheckReport {
  Code code = Code::kOk;  // kNotLeader: ask `leader`; kBusy: try again
  StoreId leader;
  uint64_t chunks = 0, replicas = 0;
  struct Difference {
    StoreId store;
    uint32_t chunk = 0;
    bool missing = false;  // no answer in time, or being filled
    uint32_t blocks = 0;   // whose content or written sectors differ from those of most replicas
    uint32_t damaged_blocks =
        0;  // with sectors that it could not read (and that are being repaired)
  };
  std::vector<Difference> differences;
};

// Of the requests that ended well, on the store that led: from frame to answer. replicate: from the
// log index to applied. wal_append: from the write to the WAL to durable.
struct ServerLatency {
  base::Latency read, write, replicate, wal_append;
};

// Where writes of a volume spend their time (trace.h). kCommit is what they wait for; kLog and
// kFollower go on side by side within it. Client, network, queue, commit and answer make the total.
enum class TraceStage : uint8_t {
  kClient,    // in the client, before it was sent
  kNetwork,   // there and back, with what lies in sockets
  kQueue,     // in the leader: a merge, room in the log, its turn
  kLog,       // from the log index to durable on the leader
  kFollower,  // from the log index to durable on the first follower, as the leader hears it
  kCommit,    // from the log index to durable on a majority
  kAnswer,    // from there to applied and answered
  kTotal,     // as the client sees it
};
inline constexpr size_t kTraceStages = 8;
inline constexpr uint64_t kTraceNsMax = 600'000'000'000;
struct TraceRequest {
  VolumeId volume = 0;
  uint64_t duration_ns = 0;
};
struct TraceReport {
  Code code = Code::kOk;  // kBusy: another volume's trace runs here
  VolumeId volume = 0;
  uint64_t writes = 0;                  // led here, answered
  uint64_t whole = 0;                   // of those, the client's part is known
  std::vector<base::Histogram> stages;  // kTraceStages, by TraceStage
};

struct ServerStatus {
  uint32_t pages_lost = 0;
  ScrubStatus scrub;
  StoreId store, cluster;
  Incarnation incarnation = 0;
  uint64_t blocks_total = 0, blocks_free = 0, blocks_reserved = 0, blocks_pending_free = 0;
  uint64_t pages_total = 0, pages_free = 0;
  uint64_t wal_capacity_bytes = 0, wal_used_bytes = 0;
  uint64_t wal_undrained_bytes = 0, overlay_blocks = 0;  // log and blocks that wait for their place
  uint64_t fence_bytes = 0, fence_bytes_max = 0;  // in a checkpoint; more volumes are refused then
  uint64_t wal_start_position = 0, wal_head_position = 0;  // docs/formats/wal.md
  bool direct_io = true;
  bool wal_torn_tail = false, wal_damaged = false;
  uint32_t sessions = 0;
  ServerCounters counters;
  ServerLatency latency;
  std::string failure;  // not empty: out of service, and why
  std::vector<CopysetStatus> copysets;
  std::vector<replica::PeerStatus> peers;
};

// How it went, per copyset of the call.
struct FenceResult {
  std::vector<CopysetId> applied;
  std::vector<CopysetId> not_leader;  // lead somewhere else (or nowhere now): ask there
  // Refused: the checkpoints of this store or of a peer have no room for more fences (R8).
  std::vector<CopysetId> no_space;
};

// One change of a copyset's members, or of its preferred leader.
enum class MemberChange : uint8_t { kAddLearner, kPromote, kRemove, kPrefer };
struct MemberOrder {
  CopysetId copyset = 0;
  MemberChange change = MemberChange::kAddLearner;
  StoreId store;
  uint32_t voters_min = 0;  // kRemove leaves at least so many voters
};
struct MemberOutcome {
  bool applied = false;  // committed, now or earlier
  StoreId leader;        // not applied: who leads; none when unknown
  std::string busy;      // not applied, led here: why not now
  Index config_index = 0;
  raft::Config config;  // in force
};

// The configuration that a leader has in force, settled (raft::Group::config_settled).
struct CommittedConfig {
  Index index = 0;  // 0: genesis
  Term leader_term = 0;
};

struct SyncLimits {
  uint64_t bytes_per_second = 0;  // taken in by chunk sync, all copysets together; 0: no limit
  uint32_t syncs_at_once = 0;     // copysets being filled at a time; 0: no limit
};

class StoreServer {
 public:
  // kExists where a complete store is, or a log that was in use. The superblocks come last: cut off
  // before, it left no store, and is done again with another id (R1).
  static Outcome format(io::Loop& loop, const StorePaths& paths, const StoreFormat& format);
  // Whether format() came to its end there. Takes no lock.
  static Result<bool> exists(io::Loop& loop, const StorePaths& paths);
  // As much as one client may have in flight (session_bytes_max), in the sizes that come most: a
  // client on this machine that writes because memory is short must not need more of it for that.
  static void prepare(base::BufferPool& pool);
  // Errors say which structure at which offset and what to do. `secret` is copied.
  static Result<std::unique_ptr<StoreServer>> open(io::Loop& loop, base::BufferPool& pool,
                                                   const StorePaths& paths,
                                                   std::span<const std::byte> secret,
                                                   const ServerOptions& options);
  ~StoreServer();

  Result<io::Address> listen(const io::Address& address);
  void start();
  // Answers what can be answered, closes everything; `stopped` runs when no operation is in flight
  // any more.
  void stop(std::function<void()> stopped);
  // The store is out of service (device error): called once.
  void on_failure(std::function<void(Code, std::string)> failed);

  const StoreId& store_id() const;
  const StoreId& cluster_id() const;
  bool direct_io() const;
  Incarnation incarnation() const;
  void set_peer(const StoreId& store, const io::Address& address);
  void form(const replica::Genesis& genesis, std::function<void(Code)> done);  // idempotent
  // R12. Applied where this store leads; `done` when each copyset has answered.
  void fence(VolumeId volume, Epoch floor, Epoch ceiling, const std::vector<Epoch>& revoked,
             const std::vector<CopysetId>& copysets, std::function<void(FenceResult)> done);
  void delete_volume(VolumeId volume, const std::vector<CopysetId>& copysets,
                     std::function<void(FenceResult)> done);
  [[nodiscard]] Code transfer(CopysetId copyset, const StoreId& to);
  StoreId leader_of(CopysetId copyset) const;  // as far as this store knows; else none
  // R1: replicas without configuration and vote. Idempotent. `done` with those that are here now,
  // durably.
  void join(const std::vector<CopysetId>& copysets,
            std::function<void(std::vector<CopysetId>)> done);
  // By the leader; idempotent; `done` when committed, or when it is clear that it will not be.
  void change_members(const MemberOrder& order, std::function<void(MemberOutcome)> done);
  // Takes the replica off this store, which is no member by the configuration `without`. What it
  // promised stays (R2); its space comes back with the next checkpoint. `done(true)` when that is
  // durable, also when there was none; false: it may be a member by a later configuration.
  void remove_replica(CopysetId copyset, const CommittedConfig& without,
                      std::function<void(bool)> done);
  void set_limits(const SyncLimits& limits);
  void checkpoint_now(std::function<void(Code)> done);
  // Begins a pass now, or goes on with the one that runs; 0: at the rate of the options.
  void scrub(uint64_t bytes_per_second);
  // Every replica reads its part of the volume, and they are compared. Led here only.
  void check_volume(const CheckRequest& request, std::function<void(CheckReport)> done);
  // The writes of one volume that this store leads from now on; `done` when the time is over.
  void trace(const TraceRequest& request, std::function<void(TraceReport)> done);
  ServerStatus status(bool with_copysets) const;
  uint64_t mapped_blocks(
      VolumeId volume) const;  // physical space of a volume on this store, in blocks
  replica::Replica& replica();

  // For tests and the simulation: maps, reference counts and free space agree,
  // and what is counted as it goes (fences) is what a count finds. Slow.
  Outcome check() const;
  // For tests and the simulation: the state of one copyset as this replica has applied it. May not
  // be called with I/O in flight on it; content is compared by CRC32C per sector (zero sectors
  // included).
  struct SectorView {
    bool written = false;
    uint32_t crc = 0;
    uint64_t data_offset_bytes = 0;  // in the data file; 0: not there (yet)
  };
  void visit_sectors(
      CopysetId copyset,
      const std::function<void(const ChunkKey&, uint32_t sector, SectorView)>& visit) const;

  struct State;  // of the implementation (server_state.h)

 private:
  std::unique_ptr<State> state_;
  explicit StoreServer(std::unique_ptr<State> state);
};

}  // namespace curve::copyset
