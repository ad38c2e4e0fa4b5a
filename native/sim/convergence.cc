#include "native/sim/convergence.h"

#include <algorithm>
#include <map>
#include <set>

#include "native/sim/content_checker.h"
#include "native/sim/disk.h"

namespace curve::sim {

namespace {

constexpr uint64_t kLookNs = 20 * kMillisecond;
constexpr uint32_t kFullLooks = 4 * kSecond / kLookNs;
constexpr uint64_t kEntryBlocksMax = kIoBytesMax / kBlockBytes + 1;

}  // namespace

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
    world_.run_for(kLookNs);
  }
  return !verdict_.failed();
}

std::string Convergence::describe_copysets() {
  std::string out;
  for (size_t index = 0; index < stores_.copysets().size(); ++index) {
    for (size_t number = 0; number < stores_.count(); ++number) {
      StoreNode* store = stores_.running(number);
      replica::ReplicaGroup* group =
          store ? store->server().replica().find(stores_.copyset_id(index)) : nullptr;
      if (group)
        out += "\n  copyset " + std::to_string(index) + " store " + std::to_string(number) + ": " +
               describe(group->raft());
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
           std::to_string(store->server().replica().pending_records()) + " records wait, " +
           std::to_string(status.blocks_free) + " of " + std::to_string(status.blocks_total) +
           " blocks are free, " + std::to_string(status.blocks_reserved) + " of them set aside, " +
           std::to_string(status.blocks_pending_free) + " wait for a checkpoint";
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
  repair();
  if (verdict_.failed()) return;
  ContentChecker(verdict_, stores_, director_).check();
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
      const NodeState state = stores_.node(number).state;
      const bool lost = membership_ && (state == NodeState::kDown || state == NodeState::kRefused);
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

// R11: what is damaged on one store is found by scrub, if by nobody else, and is afterwards as the
// map says, which is as it is on its peers (ContentChecker).
void Convergence::repair() {
  if (verdict_.failed()) return;
  std::map<size_t, uint64_t> passes;  // by store; a pass that runs now may be past the damage
  for (size_t number = 0; number < stores_.count(); ++number) {
    StoreNode* store = stores_.running(number);
    // Also what a device refused to give, and no peer had in time: it has its checksum only (R4).
    if (!store || !stores_.node(number).disk->ever_harmed()) continue;
    passes[number] = store->server().status(false).scrub.passes + 2;
  }
  if (passes.empty()) return;
  const auto scrubbed = [&] {
    bool all = true;
    for (const auto& [number, wanted] : passes) {
      StoreNode* store = stores_.running(number);
      const copyset::ScrubStatus scrub = store->server().status(false).scrub;
      if (scrub.passes >= wanted) continue;
      all = false;
      if (!scrub.running || scrub.bytes_per_second < (1u << 30))
        store->call([](copyset::StoreServer& server) { server.scrub(1u << 30); });
    }
    return all;
  };
  wait("two passes of scrub", scrubbed, [] { return "some store has not ended them"; });
  ContentChecker checker(verdict_, stores_, director_);
  std::string left;
  wait(
      "repair of all damage (R11)", [&] { return (left = checker.damage()).empty(); },
      [&] { return left; });
  settle();
}

// Somebody has more of a copyset in its log than the store.
bool Convergence::lags(size_t number) {
  for (size_t index = 0; index < stores_.copysets().size(); ++index) {
    const auto last_of = [&](size_t member) {
      StoreNode* store = stores_.running(member);
      replica::ReplicaGroup* group =
          store ? store->server().replica().find(stores_.copyset_id(index)) : nullptr;
      return group ? group->raft().last_index() : 0;
    };
    const auto& members = stores_.copysets()[index];
    const Index last = last_of(number);
    if (last != 0 && std::any_of(members.begin(), members.end(),
                                 [&](size_t member) { return last_of(member) > last; }))
      return true;
  }
  return false;
}

uint64_t Convergence::blocks_free(size_t number) {
  const copyset::ServerStatus status = stores_.running(number)->server().status(false);
  return status.blocks_free + status.blocks_pending_free - status.blocks_reserved;
}

// What the other replicas of all that is on the store hold does not fit into it.
bool Convergence::needs_more_than_it_has(size_t number) {
  uint64_t needed = kEntryBlocksMax;
  for (size_t index = 0; index < stores_.copysets().size(); ++index) {
    const auto& members = stores_.copysets()[index];
    if (std::find(members.begin(), members.end(), number) == members.end()) continue;
    uint64_t most = 0;
    for (size_t member : members) {
      if (stores_.running(member))
        most = std::max<uint64_t>(most, stores_.written_blocks(member, index).size());
    }
    needed += most;
  }
  return needed > stores_.running(number)->server().status(false).blocks_total;
}

// R8 has a majority take what is written: a full minority may lag. Then an operator makes space, or
// the metaserver moves a copyset away; nothing else has to help.
void Convergence::make_space() {
  for (size_t number = 0; number < stores_.count(); ++number) {
    if (!stores_.running(number) || blocks_free(number) >= kEntryBlocksMax || !lags(number) ||
        !needs_more_than_it_has(number) || !director_.give_up_a_volume())
      continue;
    ++verdict_.counts["volumes_given_up"];
    return;
  }
}

void Convergence::settle() {
  std::string why;
  uint32_t looks = 0;
  const auto done = [&] {
    if (quiet(&why)) return true;
    if (++looks % kFullLooks == 0) make_space();
    return false;
  };
  if (!wait("convergence of all replicas", done, [&] { return why; })) return;
  // The second one frees what the first one let go.
  checkpoint_all();
  if (!verdict_.failed()) checkpoint_all();
  wait(
      "convergence of all replicas", [&] { return quiet(&why); }, [&] { return why; });
}

}  // namespace curve::sim
