// What a replica drives: the chunks of a copyset, or a metaserver's state. Called per batch, on the
// loop thread.
#pragma once

#include <span>

#include "native/replica/entry.h"
#include "native/wal/group_log.h"
#include "native/wire/connection.h"

namespace curve::replica {

class ReplicaGroup;

// R8: what a leader may have on its way to a store. Told to its leaders with each answer.
inline constexpr uint32_t kRoomBlocksMax = 16383;  // so many, or more
struct Room {
  uint32_t blocks = kRoomBlocksMax;  // new ones that the store has not acknowledged; 0: it is full
  bool fences = true;                // of volumes that it has no fence of
  bool coming = false;               // it is full, and a checkpoint under way will give blocks back
};
inline constexpr Room kRoomUnheard = {.blocks = 1};  // of a store that has not said anything yet

// Reads an external payload back, and checks it.
struct PayloadRead : io::Op {  // result: 0 or -errno (-EILSEQ: damage, or no longer the log's)
  std::span<const std::byte> annotation;
  std::span<const uint32_t> sector_crcs;
  base::Buffer payload;  // filled
};

// What a start-up has made of a record whose payload is external.
enum class FoundPayload : uint8_t {
  kWhole,
  kTorn,  // R4: it was in flight, and nobody was told: the group's log ends before it
  kLost,  // R4: where it was is something else: the group needs sync
};

class StateMachine {
 public:
  // R4. An entry with a payload of whole blocks is about to be logged here: the machine may fill
  // `entry.annotation`, and the payload does not go into the WAL. The entry's blocks are the
  // machine's business from then on, also when the entry is truncated.
  virtual void place_payload(ReplicaGroup&, Entry&) {}
  // R2: the append that holds it is on its way: writes the payload durably; every write counts in
  // `append.external_pending` until Wal::external_done().
  virtual void write_payload(const EntryRef&, wal::Append&) {}
  virtual void read_payload(PayloadRead*) {}  // `done` never inside the call
  virtual FoundPayload recover_payload(CopysetId, const wal::LoggedEntry&) {
    return FoundPayload::kLost;
  }
  // R6: committed entries in index order, each placed in the WAL (perhaps not yet durable here).
  // kNoop and kConfig come, too.
  virtual void apply(ReplicaGroup& group, std::span<const EntryRef> entries) = 0;
  // R8, on a follower before it takes (and later acknowledges) an entry: space for it is set aside.
  // False: it is not taken.
  virtual bool admit(ReplicaGroup& group, Index index, std::span<const std::byte> head) = 0;
  virtual Room room() const { return {}; }
  // A proposal of this replica is lost with its leadership; `context` must be answered (kDropped)
  // and forgotten.
  virtual void dropped(ReplicaGroup& group, Entry& entry) = 0;
  // Role, term or leader changed.
  virtual void role_changed(ReplicaGroup& group) = 0;
  // R10: the leader no longer keeps what this replica needs (it holds `index` applied).
  virtual void sync_offered(ReplicaGroup& group, const StoreId& leader, Index index) = 0;
  // A frame between stores that is not raft's: sync, snapshots.
  virtual void peer_frame(const StoreId& peer, wire::Connection* connection,
                          wire::Frame& frame) = 0;
  virtual void peer_closed(const StoreId& peer) = 0;
  // R7: an entry that is not in the checkpoint yet was copied to the head of the WAL;
  // `entry.payload_position` is the new place.
  virtual void moved(ReplicaGroup& group, Entry& entry, uint64_t old_payload_position) = 0;
  // Start-up: a kLocal record of the owner, in WAL order, before the group's entries are applied.
  virtual void recovered_local(CopysetId group, const wal::RecoveredRecord& record) = 0;
  // The WAL failed: out of service (never retried).
  virtual void failed(Code code) = 0;
  virtual ~StateMachine() = default;
};

}  // namespace curve::replica
