// R8: the room of the others. A leader accepts a write that needs new blocks only while a majority
// of its voters takes it for certain: what is in the log of a leader and cannot be taken by a
// majority would wait for ever.
//
// The proof. A store that is not full (it has room besides its reserve) grants each store that may
// lead one of its copysets the same share of half its reserve, and a full one grants nothing. A
// leader has new blocks on their way (proposed and not acknowledged) to a store up to what that
// granted with its last answer. When the store becomes full, all that it has not yet received was
// sent by leaders that had not heard of it; none can send more than its share without an answer to
// some of that, which says that the store is full. So what still comes fits in half of the reserve.
// The other half is what replicas that are being filled usually find enough; they may take all of
// it (sync_target.cc).
//
// A request that waits, for this or for room in the log, has nothing set aside: what it had would
// keep the writes before it, which go first, from being let in.
//
// What the proof leaves out (leaders that change while the store fills up, replicas that are filled
// then, stores of so few blocks that a share is less than one write, which may go alone) may leave
// a leader with entries that no majority takes. Its followers are full, then, and have none of
// those entries: it resigns, one of them leads on without them, and answers that there is no space.
//
// Likewise for the room that fences take in a checkpoint. One thread.
#include <algorithm>
#include <bit>

#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/copyset/background.h"
#include "native/copyset/external.h"
#include "native/copyset/server_state.h"
#include "native/raft/config.h"
#include "native/raft/quorum.h"

namespace curve::copyset {

namespace {

// Of the room for blobs of a checkpoint: what lies beyond is for fences that are on their way and
// for stores that hold more copysets than the leader.
constexpr uint64_t kBlobShareMax = 3, kBlobShares = 4;
constexpr uint64_t kGroupBlobBytesMax = 512;  // everything of a copyset's blob but its fences

constexpr uint64_t kLookNs = 250'000'000;
constexpr uint32_t kStuckLooks = 2;
constexpr uint64_t kHeardWithinNs = 1'000'000'000;  // followers apply, and answer a beat
constexpr uint64_t kAbstainNs = 3'000'000'000;

}  // namespace

void NewBlocks::add(Index index, uint64_t blocks) {
  if (blocks == 0) return;
  if (!entries_.empty() && entries_.back().index == index) {
    entries_.back().blocks += blocks;
    return;
  }
  if (entries_.size() == kEntriesMax) {  // pairs become one, at the later index
    size_t to = 0;
    for (size_t from = 0; from + 1 < kEntriesMax; from += 2)
      entries_[to++] = {entries_[from + 1].index,
                        entries_[from].blocks + entries_[from + 1].blocks};
    entries_.resize(to);
  }
  entries_.push_back({index, blocks});
}

uint64_t NewBlocks::after(Index match) const {
  uint64_t blocks = 0;
  for (auto at = entries_.rbegin(); at != entries_.rend() && at->index > match; ++at)
    blocks += at->blocks;
  return blocks;
}

void NewBlocks::forget_through(Index match) {
  while (!entries_.empty() && entries_.front().index <= match) entries_.pop_front();
}

// What discards and deletions leave behind can be used once a checkpoint says so (R5). Until then
// the store is full, but a client is not told so: the blocks are free for all that it knows.
void StoreServer::State::note_giving_back() {
  gives_back = true;
  gave_back_ns = loop.now_ns();
}

bool StoreServer::State::blocks_coming() const {
  const chunkstore::Usage usage = store->usage();  // taken: what large writes have beside
  return gives_back || giving_back || usage.blocks_pending_free != 0 || usage.blocks_taken != 0;
}

// What this store grants to each of its leaders. It is full also with some blocks left, while an
// entry waits that needs more of them: its leader is to know.
replica::Room StoreServer::State::room() const {
  const bool full = store->blocks_available() < std::max(short_of_blocks, 1u);
  const uint32_t share = store->blocks_kept() / 2 / std::bit_ceil(leaders_elsewhere);
  return {full ? 0 : std::max(share, 1u), fences_fit(0), full && blocks_coming()};
}

// As it said last: a store that is away is waited for.
replica::Room StoreServer::State::room_of(const StoreId& member) const {
  return CURVE_MUTANT("r8_ask_leader_only") ? replica::Room{} : replica->peer_room(member);
}

// A new block of a leader is on its way to every voter.
void StoreServer::State::note_new_blocks(Copyset& copyset, Index index, uint64_t blocks) {
  if (blocks == 0) return;
  copyset.new_blocks.add(index, blocks);
  const raft::Config& config = copyset.group->raft().config();
  for (size_t i = 0; i < config.count; ++i) {
    if (config.members[i].store != identity.id) ahead[config.members[i].store].blocks += blocks;
  }
}

// New blocks that the store has not acknowledged; counted anew, at most once a turn, only if that
// may be more than `enough`.
uint64_t StoreServer::State::ahead_of(const StoreId& member, uint64_t enough) {
  Ahead& known = ahead[member];
  if (known.blocks <= enough || known.counted == turns) return known.blocks;
  known = {0, turns};
  for (auto& [id, copyset] : copysets) {
    if (copyset->new_blocks.empty()) continue;
    const raft::Group& raft = copyset->group->raft();
    Index everywhere = raft.last_index();
    for (size_t i = 0; i < raft.config().count; ++i) {
      const StoreId& other = raft.config().members[i].store;
      if (other == identity.id) continue;
      const Index match = raft.match_of(other);
      everywhere = std::min(everywhere, match);
      if (other == member) known.blocks += copyset->new_blocks.after(match);
    }
    copyset->new_blocks.forget_through(everywhere);
  }
  return known.blocks;
}

StoreServer::State::Space StoreServer::State::majority_room(const Copyset& copyset,
                                                            uint64_t blocks) {
  const raft::Config& config = copyset.group->raft().config();
  const bool just_gave_back = loop.now_ns() < gave_back_ns + kHeardWithinNs;
  size_t voters = 0, roomy = 0, busy = 0, coming = 0;
  for (size_t i = 0; i < config.count; ++i) {
    const raft::Member& member = config.members[i];
    if (member.role != raft::MemberRole::kVoter) continue;
    ++voters;
    if (member.store == identity.id) {
      ++roomy;
      continue;
    }
    const replica::Room room = room_of(member.store);
    const uint32_t granted = room.blocks;
    if (granted == 0) {
      coming +=
          (room.coming || just_gave_back) && replica->peer_connection(member.store) != nullptr;
      continue;
    }
    const uint64_t enough = granted > blocks ? granted - blocks : 0;
    const uint64_t on_their_way = ahead_of(member.store, enough);
    (on_their_way + blocks <= granted || on_their_way == 0 ? roomy : busy)++;
  }
  const size_t quorum = raft::quorum_of(voters);
  if (CURVE_MUTANT("r8_outrun_followers")) roomy += busy;
  if (roomy >= quorum) return Space::kOk;
  if (roomy + busy >= quorum) return Space::kWait;
  return roomy + busy + coming >= quorum ? Space::kComing : Space::kFull;
}

// From time to time: who may lead here, and whether a log that is led here waits for others that
// are full.
void StoreServer::State::look_at_room() {
  const uint64_t now = loop.now_ns();
  if (now < room_looked_ns + kLookNs) return;
  room_looked_ns = now;
  leaders_elsewhere = static_cast<uint32_t>(std::max<size_t>(replica->host().peers().size(), 1));
  // A store that is idle need not go through all its logs.
  if (std::exchange(some_stuck, false) || replica->has_unapplied()) look_for_stuck_logs(now);
  wants_space |= room().coming;
  if (std::exchange(wants_space, false)) {
    external->room_wanted();
    background->applied();
    background->pressed();
  }
}

void StoreServer::State::look_for_stuck_logs(uint64_t now) {
  for (auto& [id, copyset] : copysets) {
    if (!copyset->group) continue;
    raft::Group& raft = copyset->group->raft();
    const bool waits = raft.role() == raft::Role::kLeader && raft.commit() < raft.last_index() &&
                       raft.commit() == copyset->stuck_at && others_are_full(*copyset);
    copyset->stuck_at = raft.commit();
    copyset->stuck_for = waits ? copyset->stuck_for + 1 : 0;
    some_stuck |= waits;
    if (copyset->stuck_for < kStuckLooks || CURVE_MUTANT("r8_lead_on_when_full")) continue;
    base::log(base::LogLevel::kWarning, "resigned_for_lack_of_space",
              {{"copyset", id}, {"commit", raft.commit()}, {"last", raft.last_index()}});
    ++counters.resignations;
    raft.resign(kAbstainNs, now);
  }
}

// Those without the first entry that is not committed, connected and full, could go on by
// themselves.
bool StoreServer::State::others_are_full(const Copyset& copyset) const {
  const raft::Group& raft = copyset.group->raft();
  size_t voters = 0, full = 0;
  for (size_t i = 0; i < raft.config().count; ++i) {
    const raft::Member& member = raft.config().members[i];
    if (member.role != raft::MemberRole::kVoter) continue;
    ++voters;
    full += member.store != identity.id && replica->peer_connection(member.store) != nullptr &&
            room_of(member.store).blocks == 0 && raft.match_of(member.store) <= raft.commit();
  }
  return full >= raft::quorum_of(voters);
}

// ---- fences

uint64_t StoreServer::State::blob_bytes() const {
  return fence_bytes + (copysets.size() + 1) * kGroupBlobBytesMax;  // one is the store's own
}

uint64_t StoreServer::State::fence_bytes_max() const {
  return store->usage().blob_bytes_max / kBlobShares * kBlobShareMax;
}

// A checkpoint must always be able to hold them.
bool StoreServer::State::fences_fit(uint64_t more_bytes) const {
  return blob_bytes() + more_bytes <= fence_bytes_max();
}

bool StoreServer::State::fence_has_room(const Copyset& copyset, uint64_t more_bytes) const {
  if (!fences_fit(more_bytes)) return false;
  const raft::Config& config = copyset.group->raft().config();
  return std::none_of(config.members.begin(), config.members.begin() + config.count,
                      [&](const raft::Member& member) {
                        return member.store != identity.id &&
                               !replica->peer_room(member.store).fences;
                      });
}

}  // namespace curve::copyset
