// The state machine: what a committed entry does to a copyset. Every replica does the same, in
// index order (R6).
#include <algorithm>

#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/copyset/background.h"
#include "native/copyset/external.h"
#include "native/copyset/scrub.h"
#include "native/copyset/server_state.h"
#include "native/copyset/sync.h"

namespace curve::copyset {

void StoreServer::State::apply(replica::ReplicaGroup& group,
                               std::span<const replica::EntryRef> entries) {
  Copyset& copyset = copyset_of(group.id());
  copyset.group = &group;
  for (const replica::EntryRef& entry : entries) {
    const Code code =
        entry->type == raft::EntryType::kData ? apply_one(copyset, *entry) : Code::kOk;
    copyset.applied = entry->index;
    if (Proposal* proposal = static_cast<Proposal*>(entry->context)) {
      entry->context = nullptr;
      proposal->finished(proposal, code);
    }
  }
  if (background) background->applied();
}

Code StoreServer::State::apply_one(Copyset& copyset, const replica::Entry& entry) {
  const auto type = command_type(entry.head);
  if (!type) return Code::kInvalid;
  if (*type == CommandType::kWrite || *type == CommandType::kZero) {
    const auto range = decode_range(entry.head);
    if (!range || (*type == CommandType::kWrite && entry.sector_crcs.size() != range->sectors))
      return Code::kInvalid;
    // R12: checked again here, so that nothing ordered behind the fence changes the volume.
    const Code fenced = range->restores
                            ? copyset.fences.deleted(range->volume) ? Code::kFenced : Code::kOk
                            : copyset.fences.check(range->volume, range->epoch);
    if (fenced != Code::kOk && !CURVE_MUTANT("r12_fence_at_acceptance_only")) return fenced;
    const ChunkKey chunk{range->volume, range->chunk};
    if (*type == CommandType::kWrite && entry.is_external()) {
      external->apply(copyset, entry, *range);
    } else if (*type == CommandType::kWrite) {
      copyset.overlay.write(chunk, range->first_sector, entry.sector_crcs, entry.payload_position,
                            entry.index);
    } else {
      copyset.overlay.zero(chunk, range->first_sector, range->sectors, entry.index);
      note_giving_back();
    }
    return Code::kOk;
  }
  if (*type == CommandType::kDigest) {
    const auto digest = decode_command<DigestCommand>(entry.head);
    if (!digest) return Code::kInvalid;
    scrub->applied(copyset, *digest, entry.index);
    return Code::kOk;
  }
  const auto fence = decode_command<FenceCommand>(entry.head);
  if (!fence || entry.head.size() != sizeof(FenceCommand) + fence->revoked * sizeof(Epoch))
    return Code::kInvalid;
  if (*type == CommandType::kFence) {
    std::vector<Epoch> revoked(fence->revoked);
    if (!revoked.empty())
      std::memcpy(revoked.data(), entry.head.data() + sizeof(FenceCommand),
                  revoked.size() * sizeof(Epoch));
    copyset.fences.raise(fence->volume, fence->floor, fence->ceiling, revoked);
    return Code::kOk;
  }
  copyset.fences.raise(fence->volume, kEpochInfinity, kEpochInfinity, {});
  copyset.overlay.drop_volume(fence->volume);
  copyset.dropped_volumes.push_back(fence->volume);
  note_giving_back();
  return Code::kOk;
}

// R8: a follower sets space aside before it takes the entry, so that applying can never run out.
bool StoreServer::State::admit(replica::ReplicaGroup& group, Index index,
                               std::span<const std::byte> head) {
  const auto range = decode_range(head);
  if (!range) return true;  // no range, or applied as kInvalid everywhere
  Copyset& copyset = copyset_of(group.id());
  switch (*command_type(head)) {
    case CommandType::kZero:
      note_zero(copyset, *range, index);
      return true;
    case CommandType::kWrite:
      if (CURVE_MUTANT("r8_admit_without_space")) return true;
      sync_budget.foreground_ns = loop.now_ns();
      if (copyset.sync && copyset.sync->log_has_no_space()) return true;  // raft refuses it (R10)
      return reserve(copyset, {range->volume, range->chunk}, range->first_sector, range->sectors,
                     nullptr) == Space::kOk;
    default:
      return true;
  }
}

void StoreServer::State::place_payload(replica::ReplicaGroup& group, replica::Entry& entry) {
  external->place(group.id(), entry);
}
void StoreServer::State::write_payload(const replica::EntryRef& entry, wal::Append& append) {
  external->write(entry, append);
}
void StoreServer::State::read_payload(replica::PayloadRead* op) { external->read(op); }
replica::FoundPayload StoreServer::State::recover_payload(CopysetId group,
                                                          const wal::LoggedEntry& entry) {
  return external->recover(group, entry);
}

void StoreServer::State::dropped(replica::ReplicaGroup&, replica::Entry& entry) {
  Proposal* proposal = static_cast<Proposal*>(entry.context);
  entry.context = nullptr;
  proposal->finished(proposal, Code::kDropped);
}

void StoreServer::State::role_changed(replica::ReplicaGroup& group) {
  Copyset& copyset = copyset_of(group.id());
  copyset.group = &group;
  short_of_blocks = 0;  // whoever leads now may not have it
  // R8: what an earlier leader's entries take is known by what is set aside here.
  copyset.new_blocks.clear();
  copyset.stuck_for = 0;
  if (group.is_leader()) {
    note_new_blocks(copyset, group.raft().last_index(), copyset.reserved_blocks.size());
    scrub->leads(copyset);
  }
  // R10: found half filled at start-up: filling begins again with whoever leads.
  const StoreId leader = group.raft().leader();
  if (group.raft().syncing() && !leader.is_none() && leader != identity.id)
    sync_offered(group, leader, 0);
  if (!copyset.parked.empty()) {
    // Whoever waits for a lease that will not come is told where to go, by the next turn's
    // unpark().
    if (std::find(parked_copysets.begin(), parked_copysets.end(), &copyset) ==
        parked_copysets.end()) {
      parked_copysets.push_back(&copyset);
    }
  }
}

void StoreServer::State::moved(replica::ReplicaGroup& group, replica::Entry& entry, uint64_t) {
  const auto range = decode_range(entry.head);
  if (!range || command_type(entry.head) != CommandType::kWrite || entry.is_external()) return;
  copyset_of(group.id())
      .overlay.moved({range->volume, range->chunk}, range->first_sector, range->sectors,
                     entry.payload_position, entry.index);
}

// A write or sync of the device failed: nothing is acknowledged any more (R2), nothing is tried
// again, and the others learn of it at once by their connections.
void StoreServer::State::failed(Code code) {
  if (out_of_service) return;
  out_of_service = true;
  failed_because =
      "the store is out of service: its device failed a write; check the device, then replace the "
      "store (it is not retried)";
  base::log(base::LogLevel::kError, "store_failed",
            {{"store", identity.id.text()}, {"reason", failed_because}});
  loop.arm(&failure_timer, loop.now_ns());  // before this turn's hooks; nothing is sent until then
  if (failure) failure(code, failed_because);
}

}  // namespace curve::copyset
