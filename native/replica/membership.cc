// Replicas that come and go (R1): joining without configuration and vote, leaving for good but for
// what was promised. Durable first: a replica exists once its record is, and its removal is
// answered once that is; in between it is silent.
#include <algorithm>

#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/replica/internal.h"

namespace curve::replica {

uint64_t Replica::removals(CopysetId id) const {
  const auto it = removals_.find(id);
  return it == removals_.end() ? 0 : it->second;
}

// R1: an order that became durable when its replica had been removed again (it was repeated, and
// the log was slow) would bring it back with what it knew then, and without the vote that it gave
// since.
bool Replica::may_begin(CopysetId id, uint64_t removals_then) const {
  return !groups_.contains(id) &&
         (removals(id) == removals_then || CURVE_MUTANT("r1_begin_after_removal"));
}

void Replica::join_group(CopysetId id, std::function<void(Code)> done) {
  if (stopped_) return done(Code::kShuttingDown);
  if (find(id)) return done(Code::kOk);
  GroupBlob blob;
  if (auto grave = removed_.find(id); grave != removed_.end() && !CURVE_MUTANT("r1_forget_hard")) {
    blob.hard = grave->second.hard;
    blob.damaged = grave->second.damaged;  // R3: what it promised may be more than it knows
  }
  Batch& batch = open_batch(0);
  batch.heads.push_back(encode_group_blob(blob));
  wal::Record& record = batch.add(nullptr, id, wal::RecordType::kGroup);
  record.head = batch.heads.back();
  batch.head_bytes += record.head.size();
  batch.callbacks.push_back(
      [this, id, blob, removals = removals(id), done = std::move(done)](Code code) {
        if (code == Code::kOk && may_begin(id, removals)) {
          removed_.erase(id);
          raft::GroupInit init;
          init.id = id;
          init.hard = blob.hard;
          init.damaged = blob.damaged;
          machine_.role_changed(*add_group(std::move(init)));
        }
        done(code == Code::kOk && !find(id) ? Code::kBusy : code);
      });
}

// From the first line on nothing of the group leaves this store: acknowledgements and votes that
// wait for the disk die with it (R2 allows that: nobody was told).
void Replica::remove_group(CopysetId id, std::function<void(Code)> done) {
  auto it = groups_.find(id);
  if (stopped_) return done(Code::kShuttingDown);
  if (it == groups_.end()) return done(Code::kOk);
  ReplicaGroup& group = *it->second;
  GroupBlob grave;
  grave.removed = true;
  grave.hard = group.raft().hard();
  grave.damaged = group.raft().damaged();
  removed_[id] = grave;
  ++removals_[id];
  gone_.push_back(std::move(it->second));
  groups_.erase(it);
  by_id_.erase(id);
  group.raft_ = nullptr;
  host_.remove(id);
  std::erase(dirty_commits_, &group);
  std::erase(apply_queue_, &group);
  for (auto& job : catch_ups_) {
    if (job->group == &group) job->group = nullptr;
  }
  std::erase_if(catch_ups_, [](const auto& job) { return !job->group && !job->reading; });
  drop_from(group, 0);
  if (CURVE_MUTANT("r1_removal_not_durable")) {
    removed_.erase(id);
    return done(Code::kOk);
  }
  Batch& batch = open_batch(0);
  batch.heads.push_back(encode_group_blob(grave));
  wal::Record& record = batch.add(nullptr, id, wal::RecordType::kRemoved);
  record.head = batch.heads.back();
  batch.head_bytes += record.head.size();
  batch.callbacks.push_back(std::move(done));
}

}  // namespace curve::replica
