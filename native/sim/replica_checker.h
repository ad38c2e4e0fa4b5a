// What must hold between the replicas of a group, whatever the state machine is:
//  - one leader per term (R9 rests on it);
//  - log matching: what is committed at an index is the same entry everywhere, for ever, and terms
//  do not go back;
//  - one configuration per index, never with fewer than three voters;
//  - a leader with a valid lease has applied everything that was acknowledged to anybody (R9: no
//  stale read);
//  - a replica that restarts still has every committed entry that its leader counted it for (R2,
//  R3);
//  - what a replica has applied does not become less while it runs, also when it is filled (R10).
// Looks at raft::Group from outside, between turns. Thread: the world's.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "native/raft/group.h"
#include "native/sim/verdict.h"

namespace curve::sim {

class ReplicaChecker {
 public:
  explicit ReplicaChecker(Verdict& verdict) : verdict_(verdict) {}
  // Call often, for every group of every running store.
  void look(uint32_t store, raft::Group& group, uint64_t local_now_ns);
  // A proposal at `index` was answered with success.
  void acknowledged(CopysetId group, Index index) {
    Index& highest = acknowledged_[group];
    if (index > highest) highest = index;
  }
  Index acknowledged_through(CopysetId group) const {
    const auto at = acknowledged_.find(group);
    return at == acknowledged_.end() ? 0 : at->second;
  }
  // Looking at a committed log again after a restart starts from its first entry.
  void restarted(uint32_t store);
  // After each restart, for every group: what it had acknowledged and was committed is still there
  // (R2, R3), unless it says itself that it is damaged.
  void recovered(const StoreId& store, const raft::Group& group);
  uint64_t committed_entries() const { return committed_.size(); }

 private:
  // A replica as it was when it was last looked at.
  struct Seen {
    const raft::Group* life = nullptr;
    Index applied = 0, config_index = 0;
    Index looked = 0;            // committed entries through this
    Index committed_config = 0;  // the one that was checked; nothing: kNone
    static constexpr Index kNone = UINT64_MAX;
  };
  void look_at_config(uint32_t store, raft::Group& group, Seen& seen);
  void look_at_applied(uint32_t store, const raft::Group& group, Seen& seen);
  void look_at_leader(uint32_t store, raft::Group& group, uint64_t local_now_ns);
  Verdict& verdict_;
  std::map<std::pair<CopysetId, Term>, uint32_t> leaders_;
  std::map<std::pair<CopysetId, Index>, Term> committed_;
  std::map<std::pair<CopysetId, uint32_t>, Seen> seen_;
  std::map<CopysetId, Index> acknowledged_;
  std::map<CopysetId, std::map<Index, raft::Config>> configs_;  // committed
  static constexpr size_t kVotersMin = 3;
  struct Counted {
    Term term = 0;  // of the leader that counts
    Index index = 0;
  };
  std::map<std::pair<CopysetId, StoreId>, Counted> counted_;
};

// One line on a group, for messages.
std::string describe(const raft::Group& group);

}  // namespace curve::sim
