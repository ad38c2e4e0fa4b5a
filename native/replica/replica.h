// The replicas of one store: raft Host + WAL + connections to the other stores. Once per turn it
// takes raft's output, makes one WAL append of everything to persist, sends each peer its frames,
// and hands committed entries to the state machine.
//
// Invariants: R2 (what promises something leaves raft only after on_durable, called in WAL order),
// R6 (applied only when committed and placed in the WAL), R7 (unapplied entries move to the head as
// copies before their segment is given up), R1 (a group exists only from a genesis record, a
// checkpoint or a sync). Thread: the loop's. recover() may block; nothing else does.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "native/base/latency.h"
#include "native/raft/host.h"
#include "native/replica/entry.h"
#include "native/replica/state_machine.h"
#include "native/wal/group_log.h"
#include "native/wal/wal.h"
#include "native/wire/connection.h"

namespace curve::replica {

class Replica;

struct Genesis {  // R1: committed by the metaserver before anybody forms the group
  CopysetId group = 0;
  raft::Config config;
};

// What a checkpoint says of a group, before the state machine's own part.
struct GroupBlob {
  Index applied = 0;
  Term applied_term = 0;
  raft::HardState hard;
  Index commit = 0;
  raft::Config config;
  Index config_index = 0;
  bool damaged = false;
  bool syncing = false;
  // R1: the replica was taken off this store. What is left is what it promised (hard, damaged): it
  // takes part in nothing, and joins again without configuration and without a vote given twice.
  bool removed = false;
};
std::vector<std::byte> encode_group_blob(const GroupBlob& blob);
Result<GroupBlob> decode_group_blob(std::span<const std::byte> bytes);

// One group of this store.
class ReplicaGroup {
 public:
  CopysetId id() const { return id_; }
  raft::Group& raft() { return *raft_; }
  const raft::Group& raft() const { return *raft_; }
  bool is_leader() const { return raft_->role() == raft::Role::kLeader; }
  // Taken off this store: no raft() any more. The object stays while an append knows it.
  bool gone() const { return raft_ == nullptr; }
  // Through here every member had made all durable that the leader could tell; 0: it could not.
  Index all_have() const { return is_leader() ? raft_->all_have() : all_have_; }
  void* user = nullptr;  // of the state machine

 private:
  friend class Replica;
  CopysetId id_ = 0;
  raft::Group* raft_ = nullptr;
  std::deque<EntryRef> recent_;  // contents by index, recent_first_ .. ; not every entry is there
  Index recent_first_ = 1;       // index of recent_.front()
  Index applied_ = 0;            // handed to the state machine
  Index commit_ = 0;             // as raft says
  Index all_have_ = 0;           // as leaders said
  Index durable_commit_ = 0;     // R6: a kCommit record of it is durable here
  Index logged_commit_ = 0;      // and this is in an append on its way
  bool commit_dirty_ = false;    // in Replica::dirty_commits_
  bool apply_queued_ = false;
  raft::Role role_ = raft::Role::kFollower;
};

struct PeerStatus {
  StoreId store;
  std::string address;
  bool connected;
};

class Replica {
 public:
  // The WAL is open and not yet recovered. `fresh`: the store was never started before (R9).
  Replica(io::Loop& loop, base::BufferPool& pool, wal::Wal& wal, StateMachine& machine,
          const wire::Identity& self, const raft::HostOptions& options);
  ~Replica();

  // Start-up. Blobs come from the state machine's checkpoint; records before `cut_position` are in
  // it (kLocal ones are skipped).
  Result<wal::RecoveryReport> recover(const std::map<CopysetId, GroupBlob>& blobs,
                                      uint64_t cut_position);
  void start();  // after recover: dial peers, run elections
  void stop();   // closes peers; the WAL goes idle

  void set_peer(const StoreId& store, const io::Address& address);
  std::vector<PeerStatus> peers() const;
  // A connection of another store was accepted and authenticated.
  bool peer_accepted(wire::Connection* connection);
  void peer_frame(wire::Connection* connection, wire::Frame& frame);
  void peer_closed(wire::Connection* connection, Code code, int error);
  wire::Connection* peer_connection(const StoreId& store);  // null when down
  Room peer_room(const StoreId& store) const;               // R8: as it said last

  // R1. Durable when `done` runs (may be at once when it existed already: idempotent).
  // kExists: a replica of this group was here and was removed; it can only join.
  void form_group(const Genesis& genesis, std::function<void(Code)> done);
  // R1: a replica without configuration and vote; its leader makes it a member. Durable when `done`
  // runs; idempotent. What an earlier replica of this group promised here stays in force.
  void join_group(CopysetId id, std::function<void(Code)> done);
  // Takes the replica off this store: from now on it answers nobody; its contents are forgotten.
  // `done` when that is durable. Proposals are dropped(); the owner must not use the group any
  // more.
  void remove_group(CopysetId id, std::function<void(Code)> done);
  // Groups that were removed here, for the checkpoint.
  const std::map<CopysetId, GroupBlob>& removed() const { return removed_; }
  // How often it was removed since the start: what was ordered before is void.
  uint64_t removals(CopysetId id) const;
  ReplicaGroup* find(CopysetId id);
  const std::map<CopysetId, ReplicaGroup*>& groups() const { return by_id_; }
  raft::Host& host() { return host_; }
  // Somewhere is an entry that is not applied.
  bool has_unapplied() const { return unapplied_bytes_ != 0; }
  bool much_unapplied() const;  // nothing is proposed until some of it is applied

  // kOk: an entry of this size can be proposed now. kNotLeader, kBusy (raft's window or the WAL's
  // room: R7), kShuttingDown.
  [[nodiscard]] Code may_propose(const ReplicaGroup& group, uint64_t payload_bytes,
                                 size_t head_bytes) const;
  // Only right after may_propose() said kOk for this entry. It has its index then, and will be
  // applied or dropped. Fill head, sector_crcs, payload, context before.
  void propose(ReplicaGroup& group, const EntryRef& entry);
  // The WAL takes such a proposal now.
  bool has_room(uint64_t payload_bytes, size_t head_bytes) const;
  uint64_t room_bytes() const;     // what is left for proposals, of any size
  uint64_t waiting_bytes() const;  // for the WAL
  // A member change (raft::Group::propose_config); `entry` carries nothing but its context.
  Code propose_config(ReplicaGroup& group, const raft::Config& config, const EntryRef& entry);
  EntryRef take_entry() { return entries_.take(); }
  // R14: the newest content of entries not yet applied, newest first; nullptr when `index` is not
  // in memory.
  Entry* entry_at(ReplicaGroup& group, Index index);

  // Local records (sync data and state). `done` in WAL order.
  struct LocalRecord {
    CopysetId group = 0;
    uint8_t type = 0;
    Index index = 0;
    Term term = 0;
    std::vector<std::byte> head;
    std::vector<uint32_t> sector_crcs;
    base::Buffer payload;
    void (*done)(LocalRecord* record, Code code) = nullptr;
    void* owner = nullptr;
    uint64_t payload_position = 0;  // set when placed
  };
  void append_local(LocalRecord* record);
  // R10: the state machine holds everything through `index` (entry of `term`) and its checkpoint
  // that says so is durable. Own entries behind `index` stay only if the log agrees with the
  // leader's at `index` (they may have been acknowledged).
  void finish_sync(ReplicaGroup& group, Index index, Term term, const raft::Config& config,
                   Index config_index);
  // Before that checkpoint: makes durable that own entries > index are void, when the log disagrees
  // at `index`.
  void prepare_finish_sync(ReplicaGroup& group, Index index, Term term,
                           std::function<void(Code)> done);

  // Payload of an entry that is in the WAL but perhaps not yet durable (R6): memory if so, else
  // null: read the WAL.
  const base::Buffer* pending_payload(uint64_t payload_position, uint32_t* offset_bytes) const;

  // Background apply: R6 wants the commit index durable first. `done` when every group's commit
  // known now is durable.
  void flush_commits(std::function<void(Code)> done);
  Index durable_commit(const ReplicaGroup& group) const { return group.durable_commit_; }
  // What a checkpoint at this moment must say of the group, with everything <= applied in it.
  GroupBlob blob(ReplicaGroup& group, Index applied) const;
  // Everything placed in the WAL before this is durable and its callbacks have run.
  uint64_t durable_position() const;
  // R7: entries > applied placed before `position` are copied to the head; when that is durable
  // trims the groups' logs and says before which position the WAL may be released: `position`, or
  // the start of the segment of an entry that cannot be read.
  void relocate_before(uint64_t position, const std::map<CopysetId, Index>& applied,
                       std::function<void(Code, uint64_t)> done);

  // The entries <= index, which are in a durable checkpoint, leave the group's log.
  void trim_through(ReplicaGroup& group, Index index);

  bool stopped() const { return stopped_; }
  // After stop(): whoever waits for records that will not be written is told so.
  void refuse_unwritten();
  // After stop(), as the last thing: what is in the log and not applied is dropped(); whether it
  // will ever be, the others know.
  void drop_proposals();
  // After stop(): nothing of ours is in flight.
  bool idle() const;
  uint64_t appends() const { return appends_; }
  const base::Latency& append_latency() const { return append_latency_; }  // write to durable
  uint64_t pending_records() const;

 private:
  struct Link;     // to one peer
  struct Batch;    // one WAL append being filled or in flight
  struct CatchUp;  // records read back for a slow follower
  void turn();
  void take_ready(ReplicaGroup& group);
  void persist(ReplicaGroup& group, const raft::Ready& ready);
  void send(ReplicaGroup& group, const raft::Message& message);
  void send_append(ReplicaGroup& group, const raft::Message& message, wire::Connection* connection);
  void send_entry(const ReplicaGroup& group, wire::Connection* connection,
                  const raft::Message& message, const Entry* entry, Index previous,
                  Term previous_term);
  void catch_up(ReplicaGroup& group, const raft::Message& message);
  void catch_up_next(CatchUp* job);
  void forget_catch_ups(const StoreId& store);
  void catch_up_read_done(CatchUp* job);
  bool catch_up_send(CatchUp& job);
  void catch_up_read(CatchUp& job);
  void submit_batches();
  void batch_durable(Batch* batch);
  void apply_ready(ReplicaGroup& group);
  void forget_old(ReplicaGroup& group);
  void drop_from(ReplicaGroup& group, Index first);
  void drop_proposals(ReplicaGroup& group);
  static bool has_entry(ReplicaGroup& group, Index index, Term term);
  void void_log(ReplicaGroup& group);
  void put_entry(ReplicaGroup& group, const EntryRef& entry);
  void fill_made(ReplicaGroup& group, Index last);
  void add_commit_records(Batch& batch);
  Batch& open_batch(uint64_t bytes);
  void send_beats();
  void reset_timer();
  void dial(Link& link);
  Link& link(const StoreId& store);
  void on_peer_append(wire::Connection* connection, wire::Frame& frame);
  void flush_replies(Link& link);
  ReplicaGroup* add_group(raft::GroupInit init);
  bool may_begin(CopysetId id, uint64_t removals_then) const;
  void malformed(wire::Connection* connection, const char* what);
  struct Relocation;
  void relocate_next(std::shared_ptr<Relocation> job);
  void copy_entry(ReplicaGroup& group, const EntryRef& entry);
  void trim_before(uint64_t position, const std::map<CopysetId, Index>& applied);
  struct Recovering;
  bool find_payloads(CopysetId id, Index applied, wal::GroupLog::Assembled& assembled);
  void recover_group(CopysetId id, Recovering& found, bool all_damaged);
  void apply_recovered(ReplicaGroup& group, std::vector<wal::LoggedEntry>& entries, Index through);

  io::Loop& loop_;
  base::BufferPool& pool_;
  wal::Wal& wal_;
  StateMachine& machine_;
  wire::Identity self_;
  raft::Host host_;
  EntryPool entries_;
  std::unordered_map<CopysetId, std::unique_ptr<ReplicaGroup>> groups_;
  std::map<CopysetId, ReplicaGroup*> by_id_;
  std::map<CopysetId, GroupBlob> removed_;
  std::map<CopysetId, uint64_t> removals_;           // how often since the start
  std::vector<std::unique_ptr<ReplicaGroup>> gone_;  // until no append knows them
  std::map<StoreId, std::unique_ptr<Link>> links_;
  std::deque<std::unique_ptr<Batch>>
      filled_;  // waiting for the WAL, in order; the last one is being filled
  std::deque<std::unique_ptr<Batch>> in_flight_;  // handed to the WAL, in order
  std::vector<std::unique_ptr<Batch>> free_batches_;
  std::vector<ReplicaGroup*> dirty_commits_;
  std::vector<ReplicaGroup*> apply_queue_;
  std::vector<std::unique_ptr<CatchUp>> catch_ups_;
  size_t catch_up_reads_ = 0;                         // under way, of all of them
  std::vector<std::shared_ptr<Relocation>> reading_;  // relocations with a read under way
  std::vector<std::byte> scratch_;
  std::vector<EntryRef> apply_scratch_;
  io::TurnHook hook_;
  io::Timer timer_;
  uint64_t timer_deadline_ = 0;
  uint64_t appends_ = 0;
  base::Latency append_latency_;
  uint64_t cached_bytes_ = 0;
  uint64_t accepted_bytes_ = 0;   // of entries taken in this turn, not yet in a batch
  uint64_t unapplied_bytes_ = 0;  // of entries > applied, as they stand in the WAL
  uint32_t relocations_ = 0;      // under way
  bool started_ = false, stopped_ = false;
};

}  // namespace curve::replica
