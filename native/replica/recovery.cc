// Start-up: from the checkpoint's word on each group and the WAL's records to running groups (R3,
// R6, R7).
#include <algorithm>

#include "native/base/bytes.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/raft/config.h"
#include "native/replica/internal.h"

namespace curve::replica {

namespace {
constexpr uint8_t kBlobVersion = 1;
}

std::vector<std::byte> encode_group_blob(const GroupBlob& blob) {
  std::vector<std::byte> out;
  base::Writer writer(out);
  writer.put(kBlobVersion);
  writer.put(static_cast<uint8_t>(blob.damaged ? 1 : 0));
  writer.put(static_cast<uint8_t>(blob.syncing ? 1 : 0));
  writer.put(static_cast<uint8_t>(blob.removed ? 1 : 0));
  writer.put(blob.applied);
  writer.put(blob.applied_term);
  writer.put(blob.hard.term);
  writer.put(blob.hard.vote);
  writer.put(blob.commit);
  writer.put(blob.config_index);
  const auto config = raft::encode_config(blob.config);
  writer.put(static_cast<uint32_t>(config.size()));
  writer.raw(config);
  return out;
}

Result<GroupBlob> decode_group_blob(std::span<const std::byte> bytes) {
  base::Reader reader(bytes);
  GroupBlob blob;
  if (reader.get<uint8_t>() != kBlobVersion) {
    return Error{Code::kVersion,
                 "the group record has an unknown version; use the software that wrote this store"};
  }
  blob.damaged = reader.get<uint8_t>() != 0;
  blob.syncing = reader.get<uint8_t>() != 0;
  blob.removed = reader.get<uint8_t>() != 0;
  blob.applied = reader.get<uint64_t>();
  blob.applied_term = reader.get<uint64_t>();
  blob.hard.term = reader.get<uint64_t>();
  blob.hard.vote = reader.store_id();
  blob.commit = reader.get<uint64_t>();
  blob.config_index = reader.get<uint64_t>();
  const auto config = reader.raw(reader.get<uint32_t>());
  if (!reader.done()) return Error{Code::kCorrupt, "the group record has a wrong length"};
  auto decoded = raft::decode_config(config);
  if (!decoded) return decoded.error();
  blob.config = *decoded;
  return blob;
}

struct Replica::Recovering {
  GroupBlob blob;
  std::unique_ptr<wal::GroupLog> log;
  void begin(const GroupBlob& from) {
    blob = from;
    log = std::make_unique<wal::GroupLog>(blob.applied, blob.applied_term);
    log->term = blob.hard.term;
    log->vote = blob.hard.vote;
    log->commit = blob.commit;
  }
};

Result<wal::RecoveryReport> Replica::recover(const std::map<CopysetId, GroupBlob>& blobs,
                                             uint64_t cut_position) {
  std::map<CopysetId, Recovering> found;
  for (const auto& [id, blob] : blobs) found[id].begin(blob);
  std::optional<Error> error;
  uint32_t gaps = 0;
  auto report = wal_.recover([&](const wal::RecoveredRecord& record) {
    if (record.gaps != gaps) {
      gaps = record.gaps;
      for (auto& [id, each] : found) {
        // A single voter's entries are replaced by nobody, and nobody else has them.
        if (raft::voters_in(each.blob.config) != 1) each.log->gap();
      }
    }
    const bool in_checkpoint = wal::Wal::place_position(record.place) < cut_position;
    auto it = found.find(record.group);
    switch (record.type) {
      case wal::RecordType::kGroup:
      case wal::RecordType::kRemoved: {
        // R1: what an earlier replica of this group logged here is none of the next one's.
        if (in_checkpoint && it != found.end()) {
          if (!CURVE_MUTANT("r1_earlier_life_counts")) it->second.begin(it->second.blob);
          return;
        }
        auto blob = decode_group_blob(record.head);
        if (!blob) {
          error = blob.error();
          return;
        }
        found[record.group].begin(*blob);
        return;
      }
      case wal::RecordType::kLocal:
        if (!in_checkpoint) machine_.recovered_local(record.group, record);
        return;
      default:
        if (it != found.end() && !it->second.blob.removed) it->second.log->add(record);
        return;
    }
  });
  if (!report) return report;
  if (error) return *error;
  for (auto& [id, group] : found) {
    if (group.blob.removed) {
      removed_[id] = group.blob;
    } else {
      recover_group(id, group, report->damaged);
    }
  }
  return report;
}

void Replica::recover_group(CopysetId id, Recovering& found, bool all_damaged) {
  wal::GroupLog::Assembled assembled = found.log->assemble();
  const bool torn = find_payloads(id, found.blob.applied, assembled);
  raft::GroupInit init;
  init.id = id;
  init.config = found.blob.config;
  init.config_index = found.blob.config_index;
  init.hard = {found.log->term, found.log->vote};
  init.applied = found.blob.applied;
  init.base_index = assembled.entries.empty() ? found.blob.applied : assembled.before;
  init.base_term = assembled.entries.empty() ? found.blob.applied_term : assembled.before_term;
  const Index last =
      assembled.entries.empty() ? found.blob.applied : assembled.entries.back().index;
  init.commit = std::max({found.blob.commit, found.log->commit, found.blob.applied});
  init.damaged = found.blob.damaged || all_damaged || assembled.hole;
  if (init.commit > last) {  // R3: it knew of commits that it no longer holds
    init.commit = last;
    init.damaged |= !torn;  // R4: which others have made durable, and this one had not
  }
  init.syncing = found.blob.syncing;
  for (const wal::LoggedEntry& entry : assembled.entries) {
    raft::LogSlot slot;
    slot.term = entry.term;
    slot.place = entry.place;
    slot.bytes = static_cast<uint32_t>(entry.head.size() + entry.payload_bytes + 64);
    slot.type = static_cast<raft::EntryType>(entry.entry_type);
    init.log.push_back(slot);
    if (entry.term > init.hard.term) init.hard = {entry.term, {}};
    if (slot.type == raft::EntryType::kConfig && entry.index > init.config_index) {
      auto config = raft::decode_config(entry.head);
      if (config) init.later_configs.push_back({entry.index, *config});
    }
  }
  if (init.damaged) {
    base::log(base::LogLevel::kError, "replica_damaged",
              {{"copyset", id},
               {"last_index", last},
               {"applied", found.blob.applied},
               {"applied_term", found.blob.applied_term},
               {"known_commit", std::max(found.blob.commit, found.log->commit)},
               {"hole", uint64_t{assembled.hole}},
               {"damaged_before", uint64_t{found.blob.damaged}},
               {"wal_damaged", uint64_t{all_damaged}},
               {"remedy", std::string("it is filled from its peers")}});
  }
  const Index applied = init.applied;
  const bool syncing = init.syncing;
  ReplicaGroup* group = add_group(std::move(init));
  if (assembled.replaced) void_log(*group);  // finish_sync had not come to it
  if (torn) {                                // in the first append, before anything is promised
    wal::Record& record = open_batch(0).add(group, id, wal::RecordType::kTruncate);
    record.index = last;
    record.entry_type = wal::kCutTorn;
  }
  std::erase_if(assembled.entries,
                [applied](const wal::LoggedEntry& entry) { return entry.index <= applied; });
  apply_recovered(*group, assembled.entries, syncing ? applied : group->commit_);
}

// R4: the blocks that entries behind the checkpoint name are the log's again. The log ends before
// an entry whose payload was torn (true), or is gone (a hole: sync).
bool Replica::find_payloads(CopysetId id, Index applied, wal::GroupLog::Assembled& assembled) {
  std::vector<wal::LoggedEntry>& entries = assembled.entries;
  for (auto it = entries.begin(); it != entries.end(); ++it) {
    if (it->index <= applied || !it->is_external()) continue;
    const FoundPayload payload = machine_.recover_payload(id, *it);
    if (payload == FoundPayload::kWhole) continue;
    base::log(base::LogLevel::kWarning, "external_payload",
              {{"copyset", id},
               {"index", it->index},
               {"term", it->term},
               {"found", std::string(payload == FoundPayload::kTorn ? "torn" : "lost")}});
    assembled.hole |= payload == FoundPayload::kLost;
    entries.erase(it, entries.end());
    return payload == FoundPayload::kTorn;
  }
  return false;
}

// Committed ones are applied at once, the rest waits in memory for its commit; payloads stay in the
// WAL.
void Replica::apply_recovered(ReplicaGroup& group, std::vector<wal::LoggedEntry>& logged,
                              Index through) {
  std::vector<EntryRef> batch;
  auto flush = [&] {
    if (batch.empty()) return;
    machine_.apply(group, batch);
    group.applied_ = batch.back()->index;
    group.raft().on_applied(group.applied_);
    batch.clear();
  };
  for (wal::LoggedEntry& from : logged) {
    EntryRef entry = entries_.take();
    entry->group = group.id();
    entry->index = from.index;
    entry->term = from.term;
    entry->type = static_cast<raft::EntryType>(from.entry_type);
    entry->head = std::move(from.head);
    entry->sector_crcs = std::move(from.sector_crcs);
    entry->payload_position = from.payload_position;
    entry->annotation = std::move(from.annotation);
    entry->placed = true;
    if (entry->index <= through) {
      batch.push_back(entry);
      if (batch.size() == 256) flush();
    } else {
      if (group.recent_.empty()) {
        flush();
        group.recent_first_ = entry->index;
      }
      group.recent_.push_back(entry);
      cached_bytes_ += entry->bytes();
      unapplied_bytes_ += logged_bytes(*entry);
    }
  }
  flush();
  if (group.recent_.empty()) group.recent_first_ = group.applied_ + 1;
}

}  // namespace curve::replica
