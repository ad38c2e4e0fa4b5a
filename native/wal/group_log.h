// Puts a group's log together from recovered records: what a kEntry voids, what a copy may fill in,
// what is missing (R3, R7). Used by native/replica at start-up and by its tests as a naive twin.
// Any thread; allocates.
#pragma once

#include <map>
#include <vector>

#include "native/wal/wal.h"

namespace curve::wal {

struct LoggedEntry {
  Index index = 0;
  Term term = 0;
  uint8_t entry_type = 0;
  bool promised = false;
  uint64_t place = 0, payload_position = 0;
  uint32_t payload_bytes = 0;
  std::vector<std::byte> head, annotation;
  std::vector<uint32_t> sector_crcs;
  // R4: its payload is not in the WAL; the annotation says where.
  bool is_external() const { return payload_bytes != 0 && payload_position == 0; }
};

// `entry_type` of a kTruncate that a recovery wrote: the payload of the entry behind its index was
// torn (R4). Commit indexes beyond it, which nobody was promised, are void, too.
inline constexpr uint8_t kCutTorn = 1;

class GroupLog {
 public:
  // From the checkpoint: entries <= base are in the state machine's checkpoint (base_term belongs
  // to base). A replica that was filled by sync has written kGroup or kTruncate into its log
  // before: an entry at base of another term, with others behind it, is a hole.
  GroupLog(Index base, Term base_term);
  // Records of this group in log order. kGroup and kRemoved forget everything; kLocal is not looked
  // at.
  void add(const RecoveredRecord& record);
  // R3: a piece of the log is lost here. An entry before it may have been replaced by what is lost,
  // unless a record before it says that it was committed.
  void gap();
  Term term = 0;
  StoreId vote;
  Index commit = 0;
  // R5: what blocks hold belongs to the log only until the checkpoint: an external entry <= base,
  // and what is before it, is not retained.
  // Entries <= base come without head, annotation and CRCs: a log holds millions of them.
  // Contiguous entries from the first retained one that connects with base (may be <= base: kept
  // for lagging followers) on. `hole`: an entry > base is missing though later ones exist: the
  // group needs sync (R4), entries end before the hole.
  struct Assembled {
    std::vector<LoggedEntry> entries;
    Index before = 0;  // index and term of the entry before entries.front()
    Term before_term = 0;
    bool hole = false;
    // The log on disk is one that sync had replaced, by a power cut not yet voided there: void it
    // before anything is appended.
    bool replaced = false;
  };
  Assembled assemble();

 private:
  void put(const RecoveredRecord& record);

  Index base_;
  Term base_term_;
  Index commit_logged_ = 0;  // by a record that was added
  std::map<Index, LoggedEntry> entries_;
};

}  // namespace curve::wal
