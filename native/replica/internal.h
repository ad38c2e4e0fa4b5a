// Private parts of Replica shared by its source files.
#pragma once

#include <array>
#include <deque>
#include <functional>

#include "native/replica/codec.h"
#include "native/replica/replica.h"

namespace curve::replica {

inline constexpr uint64_t kDialRetryMinNs = 20'000'000;
inline constexpr uint64_t kDialRetryMaxNs = 500'000'000;
inline constexpr uint64_t kCachedBytesMax =
    64u << 20;  // contents of applied entries kept for followers that keep up
inline constexpr uint64_t kWarmBytesMax = 2u << 20;  // of those, of entries that everybody has
inline constexpr uint64_t kSecondAppendBytes = 128u << 10;  // see submit_batches
inline constexpr size_t kCatchUpReadsMax = 64;              // of all followers that are behind
inline constexpr size_t kRecentEntriesMax = 256;            // per group, applied ones
inline constexpr uint64_t kWalReserveBytes =
    8u << 20;  // for copies, hard state, commits: never used by proposals

// R7: what is not applied cannot leave the WAL, and a follower must be able to take what every
// leader has in flight, so that each store proposes only while its own share is small.
inline constexpr uint64_t kUnappliedShare = 8;

// What was read back from the WAL; the payload leaves `read`.
inline void fill_entry(Entry& entry, wal::RecordReadOp& read) {
  entry.group = read.group;
  entry.index = read.index;
  entry.term = read.term;
  entry.type = static_cast<raft::EntryType>(read.entry_type);
  entry.head = read.head;
  entry.sector_crcs = read.sector_crcs;
  entry.payload = std::move(read.payload);
  entry.annotation = read.annotation;
}

// What an entry takes in the WAL, whether its payload is in memory or not.
inline uint64_t logged_bytes(const Entry& entry) {
  return entry.head.size() + entry.sector_crcs.size() * uint64_t{kSectorBytes} + 64;
}

// One WAL append being filled or in flight. Invariant: records[i] belongs to owners[i].
struct Replica::Batch {
  Replica* replica = nullptr;
  wal::Append append;
  struct Owner {
    ReplicaGroup* group = nullptr;
    EntryRef entry;                // kEntry
    LocalRecord* local = nullptr;  // kLocal
    Index copy_of = 0;             // kEntryCopy: index in the group
    Term copy_term = 0;
    EntryRef moved;  // kEntryCopy: its place changes when the copy is placed
    uint64_t old_position = 0;
  };
  std::vector<Owner> owners;
  std::vector<std::pair<ReplicaGroup*, uint64_t>> persists;  // raft's persist ids, in order
  std::vector<std::pair<ReplicaGroup*, Index>> commits;
  std::vector<std::function<void(Code)>> callbacks;
  std::deque<std::vector<std::byte>> heads;  // of records without an entry
  std::deque<std::vector<uint32_t>> crcs;
  uint64_t payload_bytes = 0, head_bytes = 0;
  uint64_t submitted_ns = 0;
  bool copies = false;  // may use the reserve

  void clear();
  wal::Record& add(ReplicaGroup* group, CopysetId id, wal::RecordType type);
};

// What this store has to do with one peer.
struct Replica::Link {
  Replica* replica = nullptr;
  StoreId store;
  io::Address address;
  wire::Connection* connection = nullptr;  // open and authenticated
  wire::Connection* dialing = nullptr;
  io::Timer retry;
  uint64_t backoff_ns = kDialRetryMinNs;
  Room room = kRoomUnheard;               // R8: as it said last; kept while it is away
  std::vector<PeerMessageBody> messages;  // leave in one frame at the end of the turn
};

// Entries that a slow follower needs and that are no longer in memory are read back from the WAL.
struct Replica::CatchUp {
  Replica* replica = nullptr;
  ReplicaGroup* group = nullptr;
  StoreId to;
  // Invariant: of one term, each begins where the one before ends (empty ones at the end of those
  // before them).
  std::deque<raft::Message> messages;
  Index next = 0;  // entry to send: of messages.front(), or behind it when that is through
  // Reads ahead, so that a follower does not wait for the disk once for each entry: index i is
  // read by reads[i % kReads]. The job lives until none is under way.
  static constexpr size_t kReads = 8;
  struct Read : wal::RecordReadOp {
    Index wanted = 0;
    bool busy = false;
    PayloadRead external;  // behind the record, where its payload is not in the WAL
  };
  std::array<Read, kReads> reads;
  uint32_t reading = 0;
};

}  // namespace curve::replica
