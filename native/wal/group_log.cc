#include "native/wal/group_log.h"

#include <algorithm>
#include <cstring>

#include "native/base/mutant.h"

namespace curve::wal {

GroupLog::GroupLog(Index base, Term base_term) : base_(base), base_term_(base_term) {}

void GroupLog::add(const RecoveredRecord& record) {
  switch (record.type) {
    case RecordType::kEntry:
      entries_.erase(entries_.lower_bound(record.index), entries_.end());
      put(record);
      return;
    case RecordType::kEntryCopy: {
      if (CURVE_MUTANT("r7_wal_copy_truncates"))
        entries_.erase(entries_.lower_bound(record.index), entries_.end());
      auto known = entries_.find(record.index);
      if (known == entries_.end()) {
        put(record);
      } else if (known->second.term == record.term) {
        // The same entry; the copy outlives the segment of the original.
        const bool promised = known->second.promised || record.promised;
        put(record);
        entries_[record.index].promised = promised;
      } else if (known->second.term < record.term) {
        put(record);  // the original went with damage; assemble() sees what no longer fits behind
                      // it
      }
      return;
    }
    case RecordType::kTruncate:
      entries_.erase(entries_.upper_bound(record.index), entries_.end());
      if (record.entry_type == kCutTorn) {
        commit = std::min(commit, record.index);
        commit_logged_ = std::min(commit_logged_, record.index);
      }
      return;
    case RecordType::kHardState:
      if (record.term < term) return;  // a term never falls
      if (record.term > term) vote = {};
      term = record.term;
      if (record.head.size() == sizeof(vote.bytes)) {
        StoreId given;
        std::memcpy(given.bytes.data(), record.head.data(), sizeof(given.bytes));
        if (!given.is_none()) vote = given;  // within a term a vote is never taken back
      }
      return;
    case RecordType::kCommit:
      commit = std::max(commit, record.index);
      commit_logged_ = std::max(commit_logged_, record.index);
      return;
    case RecordType::kGroup:
    case RecordType::kRemoved:
      entries_.clear();
      term = 0;
      vote = {};
      commit = commit_logged_ = 0;
      return;
    case RecordType::kLocal:
      return;
  }
}

void GroupLog::gap() {
  if (CURVE_MUTANT("r3_trust_before_gap")) return;
  entries_.erase(entries_.upper_bound(commit_logged_), entries_.end());
}

void GroupLog::put(const RecoveredRecord& record) {
  LoggedEntry& entry = entries_[record.index] = {};
  entry.index = record.index;
  entry.term = record.term;
  entry.entry_type = record.entry_type;
  entry.promised = record.promised;
  entry.place = record.place;
  entry.payload_position = record.payload_position;
  entry.payload_bytes = record.payload_bytes;
  if (record.index <= base_) return;  // only for lagging followers, who get it by read_record
  entry.head.assign(record.head.begin(), record.head.end());
  entry.annotation.assign(record.annotation.begin(), record.annotation.end());
  entry.sector_crcs.assign(record.sector_crcs.begin(), record.sector_crcs.end());
}

GroupLog::Assembled GroupLog::assemble() {
  Assembled out;
  out.before = base_;
  out.before_term = base_term_;
  const auto at_base = entries_.find(base_);
  const bool base_known = at_base != entries_.end();
  // Another entry where the checkpoint's is: what follows belongs to a log that was replaced. Never
  // a guess (R4).
  const bool replaced = base_known && at_base->second.term != base_term_;

  // Back from base, as far as indexes are contiguous and terms do not rise. The last one found only
  // says (index, term).
  if (base_known && !replaced && base_ > 0) {
    auto first = at_base;
    while (first != entries_.begin() && !first->second.is_external()) {
      auto before = std::prev(first);
      if (before->first + 1 != first->first || before->second.term > first->second.term) break;
      first = before;
    }
    out.before = first->first;
    out.before_term = first->second.term;
    for (auto it = std::next(first); it != std::next(at_base); ++it)
      out.entries.push_back(it->second);
  }

  Index next = base_ + 1;
  Term term_before = base_term_;
  for (auto it = entries_.upper_bound(base_); it != entries_.end(); ++it) {
    const LoggedEntry& entry = it->second;
    if (entry.term < base_term_) break;  // cannot follow base: void
    if (replaced || entry.index != next || entry.term < term_before) {
      out.hole = true;
      break;
    }
    out.entries.push_back(entry);
    term_before = entry.term;
    ++next;
  }
  out.replaced = replaced && !out.hole;
  return out;
}

}  // namespace curve::wal
