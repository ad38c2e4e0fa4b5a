// Replica: one turn, from raft's output to the WAL and the state machine. Links and frames are in
// links.cc, start-up in recovery.cc, what checkpoints need in relocate.cc.
#include "native/replica/replica.h"

#include <algorithm>
#include <cassert>

#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/replica/internal.h"

namespace curve::replica {

void Replica::Batch::clear() {
  append.records.clear();
  append.result = Code::kOk;
  append.external_pending = 0;
  owners.clear();
  persists.clear();
  commits.clear();
  callbacks.clear();
  heads.clear();
  crcs.clear();
  payload_bytes = head_bytes = 0;
  copies = false;
}

wal::Record& Replica::Batch::add(ReplicaGroup* group, CopysetId id, wal::RecordType type) {
  wal::Record& record = append.records.emplace_back();
  record.group = id;
  record.type = type;
  owners.emplace_back().group = group;
  return record;
}

Replica::Replica(io::Loop& loop, base::BufferPool& pool, wal::Wal& wal, StateMachine& machine,
                 const wire::Identity& self, const raft::HostOptions& options)
    : loop_(loop),
      pool_(pool),
      wal_(wal),
      machine_(machine),
      self_(self),
      host_(self.id, self.incarnation, options, loop.now_ns(), loop.random_u64()) {
  hook_.owner = this;
  hook_.run = [](io::TurnHook* hook) { static_cast<Replica*>(hook->owner)->turn(); };
  timer_.owner = this;
  timer_.fire = [](io::Timer*) {};  // the turn hook does the work
}

// Connections that this side dialed die with an abandoned loop; those that it accepted belong to
// whoever accepted them.
Replica::~Replica() {
  if (!loop_.abandoned()) return;
  for (auto& [store, peer] : links_) {
    if (!(self_.id < store)) continue;
    if (peer->connection) peer->connection->destroy();
    if (peer->dialing) peer->dialing->destroy();
  }
}

void Replica::start() {
  started_ = true;
  loop_.add_turn_hook(&hook_);
  for (auto& [store, peer] : links_) dial(*peer);
  reset_timer();
}

void Replica::stop() {
  if (stopped_) return;
  stopped_ = true;
  if (started_) loop_.remove_turn_hook(&hook_);
  loop_.disarm(&timer_);
  for (auto& [store, peer] : links_) {
    loop_.disarm(&peer->retry);
    if (peer->connection) peer->connection->close();
    if (peer->dialing) peer->dialing->close();
  }
  wal_.stop();
}

ReplicaGroup* Replica::find(CopysetId id) {
  auto it = groups_.find(id);
  return it == groups_.end() ? nullptr : it->second.get();
}

ReplicaGroup* Replica::add_group(raft::GroupInit init) {
  auto group = std::make_unique<ReplicaGroup>();
  const CopysetId id = init.id;
  group->id_ = id;
  group->applied_ = init.applied;
  group->commit_ = group->durable_commit_ = group->logged_commit_ = init.commit;
  group->recent_first_ = init.applied + 1;
  group->raft_ = host_.create(std::move(init), loop_.now_ns());
  ReplicaGroup* raw = group.get();
  groups_.emplace(id, std::move(group));
  by_id_.emplace(id, raw);
  return raw;
}

void Replica::form_group(const Genesis& genesis, std::function<void(Code)> done) {
  if (find(genesis.group)) return done(Code::kOk);
  if (removed_.contains(genesis.group) && !CURVE_MUTANT("r1_form_where_removed"))
    return done(Code::kExists);
  // R1: the record is durable before the replica exists for anybody.
  GroupBlob blob;
  blob.config = genesis.config;
  Batch& batch = open_batch(0);
  batch.heads.push_back(encode_group_blob(blob));
  wal::Record& record = batch.add(nullptr, genesis.group, wal::RecordType::kGroup);
  record.head = batch.heads.back();
  batch.head_bytes += record.head.size();
  batch.callbacks.push_back(
      [this, genesis, removals = removals(genesis.group), done = std::move(done)](Code code) {
        if (code == Code::kOk && may_begin(genesis.group, removals)) {
          raft::GroupInit init;
          init.id = genesis.group;
          init.config = genesis.config;
          machine_.role_changed(*add_group(std::move(init)));
        }
        done(code == Code::kOk && !find(genesis.group) ? Code::kExists : code);
      });
}

Code Replica::propose_config(ReplicaGroup& group, const raft::Config& config,
                             const EntryRef& entry) {
  if (stopped_) return Code::kShuttingDown;
  Index index = 0;
  const Code code = group.raft().propose_config(config, &index);
  if (code != Code::kOk) return code;
  entry->group = group.id();
  entry->index = index;
  entry->term = group.raft().term();
  entry->type = raft::EntryType::kConfig;
  entry->head = raft::encode_config(config);
  put_entry(group, entry);
  return Code::kOk;
}

Code Replica::may_propose(const ReplicaGroup& group, uint64_t payload_bytes,
                          size_t head_bytes) const {
  if (stopped_) return Code::kShuttingDown;
  if (filled_.size() > 4 || !has_room(payload_bytes, head_bytes)) return Code::kBusy;
  if (much_unapplied()) return Code::kBusy;
  return group.raft().may_propose();
}

bool Replica::much_unapplied() const {
  return unapplied_bytes_ > wal_.capacity_bytes() / kUnappliedShare;
}

void Replica::propose(ReplicaGroup& group, const EntryRef& entry) {
  raft::EntryMeta meta;
  meta.type = raft::EntryType::kData;
  meta.bytes = entry->bytes();
  Index index = 0;
  const Code code = group.raft().propose({&meta, 1}, &index);
  assert(code == Code::kOk && !stopped_);  // may_propose() was asked
  entry->group = group.id();
  entry->index = index;
  entry->term = group.raft().term();
  entry->type = raft::EntryType::kData;
  put_entry(group, entry);
}

// R7: what waits for the WAL counts, too, or a slow device would let it fill the reserve.
bool Replica::has_room(uint64_t payload_bytes, size_t head_bytes) const {
  return wal_.has_room(payload_bytes, 64, head_bytes, kWalReserveBytes + waiting_bytes());
}

uint64_t Replica::room_bytes() const {
  const uint64_t free = wal_.free_bytes(), taken = kWalReserveBytes + waiting_bytes();
  return free > taken ? free - taken : 0;
}

uint64_t Replica::waiting_bytes() const {
  uint64_t waiting = accepted_bytes_;
  for (const auto& batch : filled_)
    waiting += batch->payload_bytes + batch->head_bytes + kSectorBytes;
  return waiting;
}

Entry* Replica::entry_at(ReplicaGroup& group, Index index) {
  if (index < group.recent_first_ || index >= group.recent_first_ + group.recent_.size())
    return nullptr;
  return group.recent_[index - group.recent_first_].get();
}

// Entries that raft made itself (no-op, configuration): their contents up to `last` are put where
// they are missing.
void Replica::fill_made(ReplicaGroup& group, Index last) {
  if (group.recent_.empty()) group.recent_first_ = group.applied_ + 1;
  for (Index index = group.recent_first_ + group.recent_.size(); index <= last; ++index) {
    EntryRef made = entries_.take();
    made->group = group.id();
    made->index = index;
    made->term = group.raft().term_at(index);
    made->type = group.raft().slot(index).type;
    if (made->type == raft::EntryType::kConfig)
      made->head = raft::encode_config(group.raft().config());
    group.recent_.push_back(made);
    cached_bytes_ += made->bytes();
    unapplied_bytes_ += logged_bytes(*made);
  }
}

// Invariant: the contents of all entries > applied are in `recent_`, without a gap.
void Replica::put_entry(ReplicaGroup& group, const EntryRef& entry) {
  drop_from(group, entry->index);
  fill_made(group, entry->index - 1);
  group.recent_.push_back(entry);
  cached_bytes_ += entry->bytes();
  unapplied_bytes_ += logged_bytes(*entry);
  accepted_bytes_ += logged_bytes(*entry);
}

// Forgets contents with index >= first; proposals among them are lost with the leadership that made
// them.
void Replica::drop_from(ReplicaGroup& group, Index first) {
  while (!group.recent_.empty() && group.recent_first_ + group.recent_.size() > first) {
    EntryRef& last = group.recent_.back();
    cached_bytes_ -= last->bytes();
    if (last->index > group.applied_) unapplied_bytes_ -= logged_bytes(*last);
    if (last->context) {
      machine_.dropped(group, *last);
      last->context = nullptr;
    }
    group.recent_.pop_back();
  }
}

void Replica::turn() {
  if (stopped_) return;
  const uint64_t now = loop_.now_ns();
  if (now >= host_.next_deadline_ns()) host_.tick(now);
  send_beats();
  // Applying may propose and a single-voter group commits in the same turn: a few rounds, the rest
  // next turn.
  for (int round = 0; round < 4; ++round) {
    while (raft::Group* ready = host_.next_ready()) {
      ReplicaGroup* group = find(ready->id());
      take_ready(*group);
    }
    accepted_bytes_ = 0;
    submit_batches();
    if (apply_queue_.empty()) break;
    std::vector<ReplicaGroup*> queue;
    queue.swap(apply_queue_);
    for (ReplicaGroup* group : queue) {
      group->apply_queued_ = false;
      apply_ready(*group);
    }
    if (apply_queue_.empty()) {
      queue.clear();
      apply_queue_.swap(queue);  // keeps the capacity
    }
  }
  send_beats();
  for (auto& [store, peer] : links_) flush_replies(*peer);
  if (!gone_.empty() && filled_.empty() && in_flight_.empty() && relocations_ == 0) gone_.clear();
  reset_timer();
}

void Replica::reset_timer() {
  const uint64_t deadline = host_.next_deadline_ns();
  if (deadline == timer_deadline_ && timer_.armed()) return;
  timer_deadline_ = deadline;
  if (deadline == UINT64_MAX) {
    loop_.disarm(&timer_);
  } else {
    loop_.arm(&timer_, deadline);
  }
}

void Replica::take_ready(ReplicaGroup& group) {
  const raft::Ready ready = group.raft().take_ready();
  if (ready.truncated && ready.append_first == 0) drop_from(group, ready.truncate_after + 1);
  if (ready.persist_id) persist(group, ready);
  for (const raft::Message& message : ready.send) send(group, message);
  if (ready.commit > group.commit_) {
    group.commit_ = ready.commit;
    if (!group.commit_dirty_) {
      group.commit_dirty_ = true;
      dirty_commits_.push_back(&group);
    }
  }
  if (group.commit_ > group.applied_ && !group.apply_queued_) {
    group.apply_queued_ = true;
    apply_queue_.push_back(&group);
  }
  if (ready.role_changed) {
    if (ready.role != raft::Role::kLeader && group.role_ == raft::Role::kLeader) {
      // What this replica proposed and did not see committed may or may not happen (R13 keeps a
      // retry in order).
      drop_proposals(group);
    }
    group.role_ = ready.role;
    machine_.role_changed(group);
  }
  if (ready.sync_offered) machine_.sync_offered(group, ready.sync_from, ready.sync_index);
}

// The last batch that still has room for `bytes` of payload.
Replica::Batch& Replica::open_batch(uint64_t bytes) {
  const uint64_t batch_bytes_max = wal_.append_bytes_max() / 2;
  if (!filled_.empty()) {
    Batch& last = *filled_.back();
    if (last.payload_bytes + last.head_bytes + bytes <= batch_bytes_max &&
        last.append.records.size() < wal::kAppendRecordsMax / 2) {
      return last;
    }
  }
  std::unique_ptr<Batch> batch;
  if (free_batches_.empty()) {
    batch = std::make_unique<Batch>();
    batch->replica = this;
    batch->append.owner = batch.get();
    batch->append.done = [](wal::Append* append) {
      Batch* done = static_cast<Batch*>(append->owner);
      done->replica->batch_durable(done);
    };
  } else {
    batch = std::move(free_batches_.back());
    free_batches_.pop_back();
  }
  filled_.push_back(std::move(batch));
  return *filled_.back();
}

void Replica::persist(ReplicaGroup& group, const raft::Ready& ready) {
  if (ready.hard_changed) {
    Batch& batch = open_batch(0);
    const auto* vote = reinterpret_cast<const std::byte*>(ready.hard.vote.bytes.data());
    batch.heads.emplace_back(vote, vote + sizeof(StoreId));
    wal::Record& record = batch.add(&group, group.id(), wal::RecordType::kHardState);
    record.term = ready.hard.term;
    record.head = batch.heads.back();
    batch.head_bytes += record.head.size();
  }
  if (ready.truncated && ready.append_first == 0) {
    Batch& batch = open_batch(0);
    batch.add(&group, group.id(), wal::RecordType::kTruncate).index = ready.truncate_after;
  }
  if (ready.append_first) {
    fill_made(group, ready.append_last);
    for (Index index = ready.append_first; index <= ready.append_last; ++index) {
      Entry* entry = entry_at(group, index);
      if (entry->payload.size() >= kBlockBytes) machine_.place_payload(group, *entry);
      const base::Buffer payload = entry->is_external() ? base::Buffer{} : entry->payload;
      Batch& batch = open_batch(payload.size());
      wal::Record& record = batch.add(&group, group.id(), wal::RecordType::kEntry);
      record.entry_type = static_cast<uint8_t>(entry->type);
      record.index = entry->index;
      record.term = entry->term;
      record.head = entry->head;
      record.sector_crcs = entry->sector_crcs;
      record.payload = payload;
      record.annotation = entry->annotation;
      batch.owners.back().entry = EntryRef(entry);
      batch.payload_bytes += payload.size();
      batch.head_bytes +=
          entry->head.size() + entry->annotation.size() + entry->sector_crcs.size() * 4 + 64;
    }
  }
  open_batch(0).persists.emplace_back(&group, ready.persist_id);
}

void Replica::add_commit_records(Batch& batch) {
  size_t taken = 0;
  for (; taken < dirty_commits_.size() && batch.append.records.size() < wal::kAppendRecordsMax;
       ++taken) {
    ReplicaGroup* group = dirty_commits_[taken];
    group->commit_dirty_ = false;
    if (group->commit_ <= group->logged_commit_) continue;
    batch.add(group, group->id(), wal::RecordType::kCommit).index = group->commit_;
    batch.commits.emplace_back(group, group->commit_);
    group->logged_commit_ = group->commit_;
    batch.head_bytes += 64;
  }
  dirty_commits_.erase(dirty_commits_.begin(),
                       dirty_commits_.begin() + static_cast<ptrdiff_t>(taken));
}

// What comes while an append is on its way goes with the next one, unless it is enough to be worth
// a flush of its own: small appends side by side only make each other's flushes wait.
void Replica::submit_batches() {
  while (!filled_.empty() && wal_.ready()) {
    Batch& batch = *filled_.front();
    if (!in_flight_.empty() && filled_.size() == 1 && batch.payload_bytes < kSecondAppendBytes)
      return;
    if (filled_.size() == 1 && !batch.append.records.empty()) add_commit_records(batch);
    if (!wal_.has_room(batch.payload_bytes, batch.append.records.size(), batch.head_bytes, 0))
      return;
    batch.submitted_ns = loop_.now_ns();
    wal_.append(&batch.append);
    ++appends_;
    for (size_t i = 0; i < batch.owners.size(); ++i) {
      const wal::Record& record = batch.append.records[i];
      Batch::Owner& owner = batch.owners[i];
      if (owner.local) owner.local->payload_position = record.payload_position;
      if (owner.group != nullptr && owner.group->gone()) continue;
      Index index = owner.copy_of;
      Term term = owner.copy_term;
      if (owner.entry) {
        owner.entry->payload_position = record.payload_position;
        owner.entry->placed = true;
        if (owner.entry->is_external() && !wal_.failed())
          machine_.write_payload(owner.entry, batch.append);
        index = owner.entry->index;
        term = owner.entry->term;
        ReplicaGroup* group = owner.group;
        if (group->commit_ > group->applied_ && !group->apply_queued_) {
          group->apply_queued_ = true;
          apply_queue_.push_back(group);
        }
      }
      if (owner.moved) {
        owner.moved->payload_position = record.payload_position;
        machine_.moved(*owner.group, *owner.moved, owner.old_position);
      }
      if (!index) continue;
      raft::Group& raft = owner.group->raft();
      if (index >= raft.first_index() && index <= raft.last_index() &&
          raft.term_at(index) == term) {
        raft.slot(index).place = record.place;
      }
    }
    in_flight_.push_back(std::move(filled_.front()));
    filled_.pop_front();
  }
}

// R2: called by the WAL in order, with everything before it durable.
void Replica::batch_durable(Batch* batch) {
  const Code code = batch->append.result;
  std::unique_ptr<Batch> mine = std::move(in_flight_.front());
  in_flight_.pop_front();
  if (code != Code::kOk) {
    for (auto& callback : mine->callbacks) callback(code);
    for (Batch::Owner& owner : mine->owners) {
      if (owner.local && owner.local->done) owner.local->done(owner.local, code);
    }
    machine_.failed(code);
    return;
  }
  const uint64_t now = loop_.now_ns();
  append_latency_.record_ns(now - mine->submitted_ns);
  for (auto& [group, id] : mine->persists) {
    if (!group->gone()) group->raft().on_durable(id, now);
  }
  for (auto& [group, index] : mine->commits)
    group->durable_commit_ = std::max(group->durable_commit_, index);
  for (Batch::Owner& owner : mine->owners) {
    if (owner.local && owner.local->done) owner.local->done(owner.local, code);
  }
  for (auto& callback : mine->callbacks) callback(code);
  mine->clear();
  free_batches_.push_back(std::move(mine));
}

void Replica::refuse_unwritten() {
  assert(stopped_);
  while (!filled_.empty()) {
    const std::unique_ptr<Batch> mine = std::move(filled_.front());
    filled_.pop_front();
    for (auto& callback : mine->callbacks) callback(Code::kShuttingDown);
    for (Batch::Owner& owner : mine->owners) {
      if (owner.local && owner.local->done) owner.local->done(owner.local, Code::kShuttingDown);
    }
  }
}

void Replica::drop_proposals() {
  assert(stopped_);
  for (auto& [id, group] : by_id_) drop_proposals(*group);
}

void Replica::drop_proposals(ReplicaGroup& group) {
  for (const EntryRef& entry : group.recent_) {
    if (!entry->context || entry->index <= group.applied_) continue;
    machine_.dropped(group, *entry);
    entry->context = nullptr;
  }
}

// R6: committed, placed, in order.
void Replica::apply_ready(ReplicaGroup& group) {
  if (group.raft().syncing()) return;  // R10: the log goes on behind what the leader gives
  std::vector<EntryRef>& ready = apply_scratch_;
  ready.clear();
  const Index end =
      CURVE_MUTANT("r6_apply_before_commit") ? group.raft().last_index() : group.commit_;
  for (Index index = group.applied_ + 1; index <= end; ++index) {
    Entry* entry = entry_at(group, index);
    if (!entry || !entry->placed) break;
    ready.emplace_back(entry);
  }
  if (ready.empty()) return;
  machine_.apply(group, ready);
  group.applied_ = ready.back()->index;
  for (EntryRef& entry : ready) {
    entry->context = nullptr;
    unapplied_bytes_ -= logged_bytes(*entry);
  }
  group.raft().on_applied(group.applied_);
  ready.clear();
  forget_old(group);
}

// What is applied is kept for followers that keep up; where there are none, for nobody. Of what
// everybody has (a follower does not know) only little is kept, for the next leader's followers:
// memory that is used again soon is still in the processor's caches.
void Replica::forget_old(ReplicaGroup& group) {
  const bool alone = group.raft().config().count <= 1;
  const Index everybody = group.is_leader() ? group.raft().everybody_has() : group.applied_;
  while (!group.recent_.empty() && group.recent_first_ <= group.applied_ &&
         (alone || group.recent_.size() > kRecentEntriesMax || cached_bytes_ > kCachedBytesMax ||
          (cached_bytes_ > kWarmBytesMax && group.recent_first_ <= everybody))) {
    cached_bytes_ -= group.recent_.front()->bytes();
    group.recent_.pop_front();
    ++group.recent_first_;
  }
}

void Replica::append_local(LocalRecord* local) {
  Batch& batch = open_batch(local->payload.size());
  wal::Record& record = batch.add(find(local->group), local->group, wal::RecordType::kLocal);
  record.entry_type = local->type;
  record.index = local->index;
  record.term = local->term;
  record.head = local->head;
  record.sector_crcs = local->sector_crcs;
  record.payload = local->payload;
  batch.owners.back().local = local;
  batch.payload_bytes += local->payload.size();
  batch.head_bytes += local->head.size() + local->sector_crcs.size() * 4 + 64;
}

const base::Buffer* Replica::pending_payload(uint64_t payload_position,
                                             uint32_t* offset_bytes) const {
  for (const auto& batch : in_flight_) {
    if (payload_position < batch->append.position ||
        payload_position >= batch->append.position + batch->append.bytes) {
      continue;
    }
    for (const wal::Record& record : batch->append.records) {
      if (record.payload_position && payload_position >= record.payload_position &&
          payload_position < record.payload_position + record.payload.size()) {
        *offset_bytes = static_cast<uint32_t>(payload_position - record.payload_position);
        return &record.payload;
      }
    }
  }
  return nullptr;
}

bool Replica::idle() const {
  const bool reading = std::any_of(catch_ups_.begin(), catch_ups_.end(),
                                   [](const auto& job) { return job->reading; });
  const bool linked = std::any_of(links_.begin(), links_.end(), [](const auto& item) {
    return item.second->connection || item.second->dialing;
  });
  return in_flight_.empty() && !reading && !linked;
}

uint64_t Replica::pending_records() const {
  uint64_t count = 0;
  for (const auto& batch : filled_) count += batch->append.records.size();
  return count;
}

}  // namespace curve::replica
