// Configurations of a group: their encoding (docs/formats/group-config.md),
// which changes are allowed (one member at a time: Ongaro's thesis 4.1), and the history that a
// truncation rolls back. One thread; allocates on change.
#pragma once

#include <vector>

#include "native/raft/types.h"

namespace curve::raft {

const Member* find_member(const Config& config, const StoreId& store);
inline bool is_voter(const Config& config, const StoreId& store) {
  const Member* member = find_member(config, store);
  return member && member->role == MemberRole::kVoter;
}
size_t voters_in(const Config& config);
// Distinct stores, none of them "none", at most kReplicasMax.
bool well_formed(const Config& config);
// Add a learner, promote a learner, remove a member, or change `preferred`: exactly one of these,
// and a voter stays.
bool single_step(const Config& from, const Config& to);

// The configuration in force is the last one in the log, committed or not; a truncation brings the
// one before back. Invariant: never empty; indexes rise.
class ConfigHistory {
 public:
  void reset(Index index, const Config& config) { steps_.assign(1, {index, config}); }
  void push(Index index, const Config& config) { steps_.push_back({index, config}); }
  // Entries > index are gone. True if the configuration in force changed.
  bool roll_back(Index index);
  // Entries <= commit stay: earlier configurations are of no use any more.
  void settle(Index commit);
  // In the configuration in force, or in one before it that may yet come back.
  bool may_vote(const StoreId& store) const;
  const Config& current() const { return steps_.back().config; }
  Index current_index() const { return steps_.back().index; }
  const Config& oldest() const { return steps_.front().config; }  // the committed one
  Index oldest_index() const { return steps_.front().index; }

 private:
  struct Step {
    Index index;
    Config config;
  };
  std::vector<Step> steps_ = {{0, {}}};
};

}  // namespace curve::raft
