#include "native/sim/convergence.h"

#include <algorithm>
#include <set>

namespace curve::sim {

bool Convergence::wait(const std::string& what, const std::function<bool()>& done,
                       const std::function<std::string()>& state) {
  if (verdict_.failed()) return false;
  // Looking at everything after each event would cost more than the run.
  const uint64_t end = world_.now_ns() + limit_ns_;
  while (!done()) {
    if (verdict_.failed()) return false;
    if (world_.now_ns() >= end) {
      verdict_.fail("liveness", what + " did not happen within " +
                                    std::to_string(limit_ns_ / kSecond) +
                                    " s without faults: " + state() + describe_copysets());
      return false;
    }
    world_.run_for(20 * kMillisecond);
  }
  return !verdict_.failed();
}

std::string Convergence::describe_copysets() {
  std::string out;
  for (size_t index = 0; index < stores_.copysets().size(); ++index) {
    for (size_t number : stores_.copysets()[index]) {
      StoreNode* store = stores_.running(number);
      replica::ReplicaGroup* group =
          store ? store->server().replica().find(stores_.copyset_id(index)) : nullptr;
      out += "\n  copyset " + std::to_string(index) + " store " + std::to_string(number) + ": " +
             (group ? describe(group->raft()) : "not running");
    }
  }
  for (size_t number = 0; number < stores_.count(); ++number) {
    StoreNode* store = stores_.running(number);
    if (!store) continue;
    const copyset::ServerStatus status = store->server().status(false);
    out += "\n  store " + std::to_string(number) + ": WAL " +
           std::to_string(status.wal_used_bytes >> 10) + " of " +
           std::to_string(status.wal_capacity_bytes >> 10) + " KiB, " +
           std::to_string(status.counters.checkpoints) + " checkpoints, " +
           std::to_string(store->server().replica().pending_records()) + " records wait";
  }
  return out;
}

// Every copyset gets its three voters on stores that are alive, and no other replica stays.
void Convergence::mend() {
  if (!membership_) return;
  membership_->heal();
  std::string why;
  wait(
      "three full voters of every copyset", [&] { return membership_->healed(&why); },
      [&] { return why; });
}

void Convergence::run() {
  mend();
  drain();
  read_all();
  settle();
  if (verdict_.failed()) return;
  for (size_t index = 0; index < stores_.copysets().size(); ++index) compare_copyset(index);
  check_space();
  for (const auto& history : director_.histories()) {
    if (auto bad = history->checker.check()) {
      verdict_.fail("register", "volume " + std::to_string(history->volume) + ", " + *bad);
    }
  }
}

void Convergence::drain() {
  auto pending = [this] {
    for (Workload* load : director_.current()) {
      if (load->inflight()) return load->name() + ", " + load->oldest();
    }
    return std::string();
  };
  wait(
      "the end of attachments under way", [this] { return director_.idle(); },
      [] { return "fences not applied"; });
  for (Workload* load : director_.everybody()) load->stop_issuing();
  wait(
      "an answer to every request of valid clients", [&] { return pending().empty(); }, pending);
}

void Convergence::read_all() {
  if (verdict_.failed()) return;
  std::set<const VolumeHistory*> read;
  size_t wanted = 0, begun = 0, done = 0;
  for (const auto& history : director_.histories())
    wanted += !director_.is_deleted(history->volume);
  director_.attach_all_afresh([&](Workload& load) {
    ++begun;
    load.stop_issuing();
    load.read_everything([&] { ++done; });
  });
  wait(
      "a final read of everything", [&] { return done == wanted; },
      [&] {
        return std::to_string(begun) + " of " + std::to_string(wanted) + " attached, " +
               std::to_string(done) + " have read";
      });
}

// Every replica has applied the same entries, and nothing waits to be written to its place.
bool Convergence::quiet(std::string* why) {
  for (size_t index = 0; index < stores_.copysets().size(); ++index) {
    Index lowest = UINT64_MAX, highest = 0;
    for (size_t number : stores_.copysets()[index]) {
      StoreNode* store = stores_.running(number);
      replica::ReplicaGroup* group =
          store ? store->server().replica().find(stores_.copyset_id(index)) : nullptr;
      if (!group) {
        *why = "store " + std::to_string(number) + " does not run copyset " + std::to_string(index);
        return false;
      }
      lowest = std::min(lowest, group->raft().applied());
      highest = std::max({highest, group->raft().applied(), group->raft().last_index()});
      if (group->raft().damaged() || group->raft().syncing()) {
        *why = "store " + std::to_string(number) + " copyset " + std::to_string(index) +
               " is damaged or being filled";
        return false;
      }
    }
    if (lowest != highest) {
      *why = "copyset " + std::to_string(index) + " is applied through " + std::to_string(lowest) +
             " to " + std::to_string(highest);
      return false;
    }
  }
  return true;
}

void Convergence::checkpoint_all() {
  size_t left = 0;
  for (size_t number = 0; number < stores_.count(); ++number) {
    StoreNode* store = stores_.running(number);
    if (!store) {
      const bool lost = membership_ && stores_.node(number).state == NodeState::kDown;
      if (!lost) verdict_.fail("liveness", "store " + std::to_string(number) + " is not running");
      continue;
    }
    ++left;
    store->call([this, &left](copyset::StoreServer& server) {
      server.checkpoint_now([this, &left](Code code) {
        if (code != Code::kOk) verdict_.fail("checkpoint", std::string(code_name(code)));
        --left;
      });
    });
  }
  wait(
      "a checkpoint on every store", [&] { return left == 0; },
      [&] { return std::to_string(left) + " are missing"; });
}

void Convergence::settle() {
  std::string why;
  if (!wait(
          "convergence of all replicas", [&] { return quiet(&why); }, [&] { return why; }))
    return;
  // The second one frees what the first one let go.
  checkpoint_all();
  if (!verdict_.failed()) checkpoint_all();
  wait(
      "convergence of all replicas", [&] { return quiet(&why); }, [&] { return why; });
}

// What each replica holds of one sector, for messages.
std::string Convergence::sector_everywhere(size_t index, const ChunkKey& chunk, uint32_t sector) {
  std::string out;
  for (size_t number : stores_.copysets()[index]) {
    StoreNode* store = stores_.running(number);
    if (!store) continue;
    std::string value = "unwritten";
    store->server().visit_sectors(
        stores_.copyset_id(index),
        [&](const ChunkKey& key, uint32_t at, copyset::StoreServer::SectorView view) {
          if (key == chunk && at == sector && view.written)
            value = "CRC " + std::to_string(view.crc);
        });
    replica::ReplicaGroup* group = store->server().replica().find(stores_.copyset_id(index));
    out += "\n  store " + std::to_string(number) + ": " + value + "; " + describe(group->raft());
  }
  return out;
}

void Convergence::compare_copyset(size_t index) {
  using Sectors = std::map<std::pair<ChunkKey, uint32_t>, copyset::StoreServer::SectorView>;
  const CopysetId id = stores_.copyset_id(index);
  Sectors reference;
  size_t reference_store = 0;
  for (size_t number : stores_.copysets()[index]) {
    StoreNode* store = stores_.running(number);
    if (!store) return;
    Sectors mine;
    store->server().visit_sectors(
        id, [&](const ChunkKey& chunk, uint32_t sector, copyset::StoreServer::SectorView view) {
          if (view.written) mine[{chunk, sector}] = view;
        });
    if (number == stores_.copysets()[index].front()) {
      reference = std::move(mine);
      reference_store = number;
      continue;
    }
    auto a = reference.begin();
    auto b = mine.begin();
    while (a != reference.end() || b != mine.end()) {
      const bool same = a != reference.end() && b != mine.end() && a->first == b->first &&
                        a->second.crc == b->second.crc;
      if (!same) {
        const auto& at =
            b == mine.end() || (a != reference.end() && a->first < b->first) ? a->first : b->first;
        verdict_.fail("replica equality",
                      "copyset " + std::to_string(index) + " on stores " +
                          std::to_string(reference_store) + " and " + std::to_string(number) +
                          " differs at volume " + std::to_string(at.first.volume) + " chunk " +
                          std::to_string(at.first.chunk) + " sector " + std::to_string(at.second) +
                          sector_everywhere(index, at.first, at.second));
        return;
      }
      ++a;
      ++b;
    }
  }
  verdict_.counts["sectors_compared"] += reference.size();
}

void Convergence::check_space() {
  for (size_t number = 0; number < stores_.count(); ++number) {
    StoreNode* store = stores_.running(number);
    if (!store || verdict_.failed()) return;
    const copyset::ServerStatus status = store->server().status(false);
    std::set<std::pair<ChunkKey, uint32_t>> blocks;
    for (size_t index = 0; index < stores_.copysets().size(); ++index) {
      const auto& members = stores_.copysets()[index];
      if (std::find(members.begin(), members.end(), number) == members.end()) continue;
      store->server().visit_sectors(
          stores_.copyset_id(index),
          [&](const ChunkKey& chunk, uint32_t sector, copyset::StoreServer::SectorView view) {
            if (view.written) blocks.emplace(chunk, sector / kSectorsPerBlock);
            if (view.written && director_.is_deleted(chunk.volume)) {
              verdict_.fail("space", "store " + std::to_string(number) + " keeps a deleted volume");
            }
          });
    }
    const uint64_t used = status.blocks_total - status.blocks_free - status.blocks_pending_free;
    if (used != blocks.size() || status.blocks_reserved != 0) {
      verdict_.fail("space", "store " + std::to_string(number) + " has " + std::to_string(used) +
                                 " blocks in use and " + std::to_string(status.blocks_reserved) +
                                 " reserved, but " + std::to_string(blocks.size()) +
                                 " hold written sectors");
    }
    if (status.counters.corrupt_reads)
      verdict_.fail("checksums", "store " + std::to_string(number) + " read damaged sectors");
    verdict_.counts["store_syncs"] += status.counters.syncs_finished;
    verdict_.counts["merges"] += status.counters.merges;
    verdict_.counts["waited_for_log"] += status.counters.waited;
  }
}

}  // namespace curve::sim
