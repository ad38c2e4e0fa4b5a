// What a checkpoint needs of the replicas: durable commits before it (R6), what to say of each
// group, from where a restart replays, and getting live entries out of segments that are to be used
// again (R7).
#include <algorithm>

#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/replica/internal.h"

namespace curve::replica {

void Replica::flush_commits(std::function<void(Code)> done) {
  bool waiting = !filled_.empty() || !in_flight_.empty();
  for (const auto& [id, group] : by_id_) waiting |= group->durable_commit_ < group->commit_;
  if (!waiting) return done(Code::kOk);
  do {
    add_commit_records(open_batch(0));
  } while (!dirty_commits_.empty());
  open_batch(0).callbacks.push_back(std::move(done));
}

GroupBlob Replica::blob(ReplicaGroup& group, Index applied) const {
  raft::Group& raft = group.raft();
  GroupBlob blob;
  blob.applied = applied;
  blob.applied_term = raft.term_at(applied);
  blob.hard = raft.hard();
  blob.commit = group.durable_commit_;
  blob.config = raft.committed_config();
  blob.config_index = raft.committed_config_index();
  blob.damaged = raft.damaged();
  blob.syncing = raft.syncing();
  return blob;
}

uint64_t Replica::durable_position() const {
  return in_flight_.empty() ? wal_.head_position() : in_flight_.front()->append.position;
}

struct Replica::Relocation {
  uint64_t position = 0;
  std::map<CopysetId, Index> applied;
  std::function<void(Code, uint64_t)> done;
  std::vector<std::pair<ReplicaGroup*, Index>> todo;
  size_t at = 0;
  wal::RecordReadOp read;
  Replica* replica = nullptr;
};

void Replica::relocate_before(uint64_t position, const std::map<CopysetId, Index>& applied,
                              std::function<void(Code, uint64_t)> done) {
  auto job = std::make_shared<Relocation>();
  ++relocations_;
  job->replica = this;
  job->position = position;
  job->applied = applied;
  job->done = [this, done = std::move(done)](Code code, uint64_t position) {
    --relocations_;
    done(code, position);
  };
  for (const auto& [id, group] : by_id_) {
    auto it = applied.find(id);
    const Index known = it == applied.end() ? 0 : it->second;
    raft::Group& raft = group->raft();
    for (Index index = std::max(known + 1, raft.first_index()); index <= raft.last_index();
         ++index) {
      const uint64_t place = raft.slot(index).place;
      if (place && wal::Wal::place_position(place) < position &&
          !CURVE_MUTANT("r7_leave_live_entries"))
        job->todo.emplace_back(group, index);
    }
  }
  job->read.owner = job.get();
  job->read.done = [](io::Op* op) {
    Relocation* raw = static_cast<Relocation*>(op->owner);
    auto& reading = raw->replica->reading_;
    const auto at = std::find_if(reading.begin(), reading.end(),
                                 [raw](const auto& each) { return each.get() == raw; });
    const std::shared_ptr<Relocation> keep = *at;
    reading.erase(at);
    if (raw->replica->stopped_) return keep->done(Code::kShuttingDown, 0);
    raw->replica->relocate_next(keep);
  };
  relocate_next(job);
}

void Replica::relocate_next(std::shared_ptr<Relocation> job) {
  while (job->at < job->todo.size()) {
    auto [group, index] = job->todo[job->at];
    if (group->gone()) {
      ++job->at;
      continue;
    }
    raft::Group& raft = group->raft();
    const bool still = index >= raft.first_index() && index <= raft.last_index() &&
                       raft.slot(index).place &&
                       wal::Wal::place_position(raft.slot(index).place) < job->position;
    if (!still) {
      ++job->at;
      continue;
    }
    Entry* entry = entry_at(*group, index);
    if (entry && entry->in_memory()) {
      copy_entry(*group, EntryRef(entry));
      ++job->at;
      continue;
    }
    if (job->read.place != raft.slot(index).place) {
      job->read.place = raft.slot(index).place;
      reading_.push_back(job);
      return wal_.read_record(&job->read);
    }
    if (job->read.result < 0) {
      base::log(
          base::LogLevel::kError, "wal_record_unreadable",
          {{"copyset", group->id()}, {"index", index}, {"result", int64_t{job->read.result}}});
      if (CURVE_MUTANT("r7_unreadable_entry_is_fatal")) return job->done(Code::kCorrupt, 0);
      // One damaged record is no reason to leave service. It stays where it is, with what is behind
      // it, until it is not needed: it comes from a peer when it is applied (R11), or goes when its
      // group is filled (R10).
      job->position = wal_.segment_start(wal::Wal::place_position(raft.slot(index).place));
      job->read.place = 0;
      ++job->at;
      continue;
    }
    EntryRef filled = entry ? EntryRef(entry) : entries_.take();
    fill_entry(*filled, job->read);
    if (entry) cached_bytes_ += entry->payload.size();
    copy_entry(*group, filled);
    job->read.place = 0;
    ++job->at;
  }
  // Durable copies first, then the originals may go.
  Batch& last = open_batch(0);
  last.callbacks.push_back([this, job](Code code) {
    if (code == Code::kOk) trim_before(job->position, job->applied);
    job->done(code, job->position);
  });
}

void Replica::copy_entry(ReplicaGroup& group, const EntryRef& entry) {
  const uint64_t old_position = entry->payload_position;
  // R4: an external payload stays where it is; the copy says so, too.
  const base::Buffer payload = entry->is_external() ? base::Buffer{} : entry->payload;
  Batch& batch = open_batch(payload.size());
  const auto type =
      CURVE_MUTANT("r7_copy_truncates") ? wal::RecordType::kEntry : wal::RecordType::kEntryCopy;
  wal::Record& record = batch.add(&group, group.id(), type);
  record.entry_type = static_cast<uint8_t>(entry->type);
  record.index = entry->index;
  record.term = entry->term;
  batch.heads.push_back(entry->head);
  record.head = batch.heads.back();
  batch.crcs.push_back(entry->sector_crcs);
  record.sector_crcs = batch.crcs.back();
  record.payload = payload;
  batch.heads.push_back(entry->annotation);
  record.annotation = batch.heads.back();
  batch.owners.back().copy_of = entry->index;
  batch.owners.back().copy_term = entry->term;
  batch.owners.back().moved = entry;
  batch.owners.back().old_position = old_position;
  batch.payload_bytes += payload.size();
  batch.head_bytes +=
      entry->head.size() + entry->annotation.size() + entry->sector_crcs.size() * 4 + 64;
}

// R5: what stands in blocks that are to be used otherwise leaves the log: a follower that needs it
// is filled.
void Replica::trim_through(ReplicaGroup& group, Index index) {
  raft::Group& raft = group.raft();
  if (index >= raft.first_index()) raft.trim(std::min(index, raft.applied()));
}

void Replica::trim_before(uint64_t position, const std::map<CopysetId, Index>& applied) {
  for (const auto& [id, group] : by_id_) {
    auto it = applied.find(id);
    if (it == applied.end()) continue;
    raft::Group& raft = group->raft();
    Index through = 0;
    for (Index index = raft.first_index(); index <= std::min(it->second, raft.last_index());
         ++index) {
      const uint64_t place = raft.slot(index).place;
      if (place && wal::Wal::place_position(place) < position) through = index;
    }
    if (through) raft.trim(through);
  }
}

void Replica::void_log(ReplicaGroup& group) {
  if (CURVE_MUTANT("r10_keep_replaced_log")) return;
  open_batch(0).add(&group, group.id(), wal::RecordType::kTruncate).index = 0;
}

void Replica::prepare_finish_sync(ReplicaGroup& group, Index index, Term term,
                                  std::function<void(Code)> done) {
  if (has_entry(group, index, term) || group.raft().last_index() <= index) return done(Code::kOk);
  Batch& batch = open_batch(0);
  batch.add(&group, group.id(), wal::RecordType::kTruncate).index = index;
  batch.callbacks.push_back(std::move(done));
}

// In the log, or the last that is no longer in it.
bool Replica::has_entry(ReplicaGroup& group, Index index, Term term) {
  const raft::Group& raft = group.raft();
  return index + 1 >= raft.first_index() && index <= raft.last_index() &&
         raft.term_at(index) == term;
}

// R3, R10: a log that what was filled in replaces is void on disk as well, before anything is
// appended behind it: recovery walks back from the checkpoint's index, and would find the replaced
// entries where indexes and terms happen to fit, and hand them to others as if they were committed.
void Replica::finish_sync(ReplicaGroup& group, Index index, Term term, const raft::Config& config,
                          Index config_index) {
  const bool keeps = has_entry(group, index, term);
  group.raft().finish_sync(index, term, config, config_index, loop_.now_ns());
  if (!keeps) void_log(group);
  const Index kept_last = group.raft().last_index();
  while (!group.recent_.empty() && group.recent_first_ <= index) {
    cached_bytes_ -= group.recent_.front()->bytes();
    if (group.recent_first_ > group.applied_)
      unapplied_bytes_ -= logged_bytes(*group.recent_.front());
    group.recent_.pop_front();
    ++group.recent_first_;
  }
  drop_from(group, kept_last + 1);
  group.applied_ = std::max(group.applied_, index);
  group.commit_ = std::max(group.commit_, index);
  group.durable_commit_ = std::max(group.durable_commit_, index);
  group.logged_commit_ = std::max(group.logged_commit_, index);
  if (group.recent_.empty()) group.recent_first_ = group.applied_ + 1;
}

}  // namespace curve::replica
