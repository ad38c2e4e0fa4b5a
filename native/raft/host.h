// All groups of one store, and what they share: time, beats, leases, grants (R9). Sans-IO; the
// owner passes in the time (CLOCK_BOOTTIME, nanoseconds) with every input and calls tick() at
// next_deadline(). An idle group costs nothing: heartbeats travel per pair of stores, and election
// timers run only in groups whose leader's store has gone quiet (or disagrees).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "native/raft/group.h"
#include "native/raft/types.h"

namespace curve::raft {

struct HostOptions {
  // While nobody uses the groups twice as much, but three beats are in a lease.
  uint64_t beat_interval_ns = 50'000'000;
  uint64_t lease_ns = 300'000'000;
  uint64_t election_min_ns = 20'000'000;  // after the lease ran out: random in [min, max]
  uint64_t election_max_ns = 170'000'000;
  uint32_t drift_ppm = 10'000;             // bound on the difference of clock rates: 1 %
  uint32_t append_bytes_max = 1u << 20;    // of one message
  uint64_t inflight_bytes_max = 8u << 20;  // per follower and group
  uint32_t inflight_messages_max = 256;
  // a leader that is not preferred hands over when the preferred one is caught up so long; 0: never
  uint64_t prefer_after_ns = 3'000'000'000;
  // the store was never started before: no earlier promise to wait for
  bool fresh = false;
};

// One beat to send. Valid until the next call into the host.
struct OutgoingBeat {
  StoreId to;
  const Beat* beat;
};

class Host {
 public:
  Host(const StoreId& self, Incarnation incarnation, const HostOptions& options, uint64_t now_ns,
       uint64_t seed);
  ~Host();

  // The group must not exist yet. Its peers are taken from the configuration.
  Group* create(GroupInit init, uint64_t now_ns);
  void remove(CopysetId id);
  Group* find(CopysetId id);
  std::span<Group* const> groups() const;  // sorted by id

  // Everything due by time: elections, check-quorum, beats, transfers, pipelining timeouts.
  void tick(uint64_t now_ns);
  uint64_t next_deadline_ns() const;

  // Somebody uses the groups: so do those who read (entries count by themselves). Beats go more
  // often then for a while, since a late one would be felt. Cheap: once per I/O.
  void note_work(uint64_t now_ns);

  // Beats that are due (filled by tick or by a changed set of leads).
  bool take_beat(OutgoingBeat* out, uint64_t now_ns);
  // A beat arrived: what to answer. `from` was authenticated by the connection.
  BeatReply on_beat(const StoreId& from, const Beat& beat, uint64_t now_ns);
  void on_beat_reply(const StoreId& from, const BeatReply& reply, uint64_t now_ns);

  // The connection to a peer came up / went down. `refused`: the peer's kernel said that nobody
  // listens or reset it: may hasten an election, never shortens a promise (R9).
  void on_peer_up(const StoreId& peer, uint64_t now_ns);
  void on_peer_down(const StoreId& peer, bool refused, uint64_t now_ns);

  // Groups that have output, in a stable order; nullptr when none. The owner calls take_ready() on
  // each.
  Group* next_ready();
  // Stores that any group's configuration names, but self.
  std::vector<StoreId> peers() const;
  uint64_t elections_started() const;

 private:
  std::unique_ptr<HostCore> core_;
};

}  // namespace curve::raft
