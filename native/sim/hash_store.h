// A store whose state machine is a hash chain per group: native/replica, raft, WAL and wire as in
// production, without chunks. Small enough that thousands of seeds run in minutes; it exercises
// consensus, durability, log reclaiming and sync. Each group's state is (applied index, term, hash
// of all entries so far); the checkpoint is a file with two slots. Thread: the world's.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "native/base/buffer.h"
#include "native/raft/config.h"
#include "native/replica/replica.h"
#include "native/sim/plan.h"
#include "native/sim/replica_checker.h"
#include "native/sim/world.h"

namespace curve::sim {

// What all stores of a run share: identities, and what the checkers know.
struct HashCluster {
  HashCluster(World& the_world, Verdict& the_verdict, const Plan& the_plan)
      : world(the_world), verdict(the_verdict), plan(the_plan), checker(the_verdict) {}
  World& world;
  Verdict& verdict;
  const Plan& plan;
  ReplicaChecker checker;
  std::function<void(Node&)> ended;  // a process whose disk failed
  std::vector<uint32_t> stores;      // nodes; the store's number is its place here
  std::vector<CopysetId> groups;
  std::vector<raft::Config> configs;  // of each group
  std::vector<std::byte> secret = std::vector<std::byte>(32, std::byte{7});
  bool load = true;  // proposals are made
  // Groups in which for a time only one store proposes, and much.
  struct Left {
    size_t number;
    uint64_t until_ns;
  };
  std::map<CopysetId, Left> left;
  std::map<std::pair<CopysetId, Index>, uint64_t>
      hashes;  // state after the entry, the same on every replica
  uint64_t proposed = 0, acknowledged = 0;
  static StoreId store_id(size_t number);
  bool has(size_t group, size_t number) const {
    return raft::is_voter(configs[group], store_id(number));
  }
  io::Address address(size_t number) const;
  bool left_to_another(CopysetId group, size_t number);
};

class HashStore final : public Process, public replica::StateMachine, public io::Listener {
 public:
  // Formats at the first start. nullptr: refused to start (the verdict says why).
  static std::unique_ptr<HashStore> boot(HashCluster& cluster, size_t number, io::Loop& loop);
  ~HashStore() override;

  replica::Replica& replica() { return *replica_; }
  Index applied(CopysetId group) const { return states_.at(group).applied; }
  uint64_t hash(CopysetId group) const { return states_.at(group).hash; }
  std::string describe_log() const;  // for messages
  // Flips a bit of what the WAL made durable a while ago.
  void rot(Random& random);

  void accepted(io::Stream* stream) override;
  void apply(replica::ReplicaGroup& group, std::span<const replica::EntryRef> entries) override;
  bool admit(replica::ReplicaGroup&, Index, std::span<const std::byte>) override { return true; }
  void dropped(replica::ReplicaGroup& group, replica::Entry& entry) override;
  void role_changed(replica::ReplicaGroup&) override {}
  void sync_offered(replica::ReplicaGroup& group, const StoreId& leader, Index index) override;
  void peer_frame(const StoreId& peer, wire::Connection* connection, wire::Frame& frame) override;
  void peer_closed(const StoreId&) override {}
  void moved(replica::ReplicaGroup&, replica::Entry&, uint64_t) override {}
  void recovered_local(CopysetId group, const wal::RecoveredRecord& record) override;
  void failed(Code code) override;

 private:
  struct State {
    Index applied = 0;
    Term term = 0;
    uint64_t hash = 0;
  };
  struct SyncReply;
  HashStore(HashCluster& cluster, size_t number, io::Loop& loop);
  Outcome open();
  Outcome load_checkpoint(std::map<CopysetId, replica::GroupBlob>& blobs);
  void tick();
  void propose_some();
  void transfer_some();
  void begin_checkpoint();
  void write_checkpoint(std::function<void(Code)> done);
  void release(const std::map<CopysetId, Index>& applied);
  void finish_checkpoint();
  void out_of_service(const std::string& why);
  void request_sync(CopysetId group, const StoreId& leader);
  void on_sync_reply(const SyncReply& reply, std::span<const std::byte> config);
  io::Address address() const { return cluster_.address(number_); }

  HashCluster& cluster_;
  const size_t number_;
  Node& node_;
  io::Loop& loop_;
  base::BufferPool pool_{64u << 20, base::BufferPool::Resident::kOnUse};
  wire::Identity identity_;
  std::unique_ptr<wal::Wal> wal_;
  std::unique_ptr<replica::Replica> replica_;
  std::vector<wire::Connection*> accepted_;  // that have not ended, in the order they came
  std::map<CopysetId, State> states_;
  std::map<CopysetId, StoreId> syncing_;
  CopysetId finishing_ = 0;  // its last checkpoint of a sync is being written
  std::set<CopysetId> recovered_syncing_;
  io::File checkpoint_;
  uint64_t checkpoint_version_ = 0, cut_position_ = 0;
  std::map<CopysetId, Index> checkpoint_applied_;  // of the last slot written
  bool checkpointing_ = false;
  base::Buffer slot_;
  iovec slot_iov_{};
  io::FileOp slot_op_;
  std::function<void(Code)> slot_done_;
  io::Op release_op_;
  io::Timer timer_;
  uint64_t next_checkpoint_ns_ = 0;
};

}  // namespace curve::sim
