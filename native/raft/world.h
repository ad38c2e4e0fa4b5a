// A small world for tests of Host: stores with disks that lose what was not durable, connections
// that delay, break and come back, clocks that drift within the bound, and checkers. One seed
// reproduces everything. Not for production. The owner that it plays follows the contract of
// group.h and host.h as native/replica does.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "native/raft/host.h"

namespace curve::raft::testing {

struct Content {
  Term term = 0;
  EntryType type = EntryType::kNoop;
  uint64_t value = 0;
  Config config;
  uint32_t bytes() const { return type == EntryType::kData && value % 4 == 0 ? 30'000 : 100; }
  Term committed_in = 0;  // checkers: term of the first replica that knew it as committed
};

// What one replica has durably. Entries are base + 1, ...
struct DiskReplica {
  HardState hard;
  Index base = 0;
  Term base_term = 0;
  Config base_config;
  Index base_config_index = 0;
  std::vector<Content> log;
  Index commit = 0;
  Index applied = 0;
  bool damaged = false;
  bool syncing = false;
  Index last() const { return base + log.size(); }
  Term term_at(Index index) const {
    return index == base                     ? base_term
           : index > base && index <= last() ? log[index - base - 1].term
                                             : 0;
  }
};

struct WorldOptions {
  uint64_t seed = 1;
  uint32_t stores = 3;
  uint32_t voters = 3;  // of each group; the other stores have unconfigured replicas
  uint32_t groups = 2;
  uint64_t chaos_ns = 3'000'000'000;  // faults and load
  uint64_t calm_ns = 8'000'000'000;   // no faults: everything must converge
  bool membership = false;
  bool damage = false;
  bool trim = true;
  uint64_t prefer_after_ns = 1'000'000'000;
  bool trace = false;  // to stderr
};

class World {
 public:
  explicit World(const WorldOptions& options);
  ~World();
  // The first broken promise, with its time; none when all held.
  std::optional<std::string> run();

  uint64_t committed() const;  // entries that some leader has answered
  uint64_t leases_seen() const { return leases_seen_; }
  uint64_t elections() const { return elections_; }
  uint64_t damages() const { return damages_; }
  uint64_t syncs() const { return syncs_; }

 private:
  struct Pending {  // a persist on its way to the disk
    CopysetId group = 0;
    uint64_t persist_id = 0;
    bool hard_changed = false;
    HardState hard;
    bool truncated = false;
    Index truncate_after = 0;
    Index first = 0;
    std::vector<Content> entries;
    Index commit = 0;
  };
  struct Replica {  // in memory
    std::map<Index, Content> contents;
    bool filling = false;
  };
  struct Node {
    StoreId id;
    bool alive = false;
    bool paused = false;
    Incarnation incarnation = 0;
    uint64_t clock_offset = 0;
    int64_t clock_ppm = 0;
    uint64_t tick_at = UINT64_MAX;
    uint64_t life = 0;  // events of an earlier life do nothing
    std::unique_ptr<Host> host;
    std::map<CopysetId, Replica> replicas;
    std::map<CopysetId, DiskReplica> disk;
    std::queue<Pending> pending;
    bool disk_busy = false;
    std::vector<std::function<void()>> deferred;  // while paused
  };
  struct Link {  // of an unordered pair
    bool up = false;
    bool cut = false;
    uint64_t epoch = 0;
    uint64_t last_delivery[2] = {0, 0};
    std::vector<std::function<void()>> held;
  };
  struct Event {
    uint64_t time, order;
    std::function<void()> action;
    bool operator>(const Event& other) const {
      return time != other.time ? time > other.time : order > other.order;
    }
  };

  uint64_t random();
  uint64_t below(uint64_t limit) { return random() % limit; }
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  bool chance(uint32_t per_mille) { return below(1000) < per_mille; }
  void at(uint64_t time, std::function<void()> action);
  void on_node(uint32_t node, uint64_t time, std::function<void()> action);

  uint64_t local(const Node& node) const;
  uint64_t real(const Node& node, uint64_t local_ns) const;
  Link& link(uint32_t a, uint32_t b) { return links_[a < b ? a * 16 + b : b * 16 + a]; }
  uint32_t index_of(const StoreId& store) const { return store.bytes[15] - 1u; }

  void start(uint32_t n);
  void crash(uint32_t n);
  void damage_disk(Node& node);
  void connect(uint32_t a, uint32_t b);
  void disconnect(uint32_t a, uint32_t b, bool refused);
  void heal(uint32_t a, uint32_t b);
  void transmit(uint32_t from, uint32_t to, std::function<void()> action, bool duplicate);

  void pump(uint32_t n);
  void take(uint32_t n, Group* group);
  void schedule_disk(uint32_t n);
  void finish_persist(Node& node);
  static void apply_persist(DiskReplica& disk, const Pending& pending);
  void send(uint32_t n, const Message& message);
  void deliver(uint32_t n, const Message& message, const std::vector<Content>& entries);
  static void apply(Group* group);
  void begin_sync(uint32_t n, CopysetId group, const StoreId& leader);
  void end_sync(uint32_t n, CopysetId group, const StoreId& leader);

  void client_step();
  void propose_somewhere();
  void change_membership(Group* group);
  void checkpoint_somewhere();
  void fault_step();
  void calm_down();

  void fail(const std::string& what);
  void trace(const char* format, ...) const __attribute__((format(printf, 2, 3)));
  void check_leader(uint32_t n, Group* group);
  void check_promise(uint32_t n, const Message& message);
  void check_leases();
  void check_logs();
  void check_converged();
  void record_commit(uint32_t n, Group* group, Index commit, bool leader);
  Config config_at(CopysetId group, Index index, Index* at) const;

  WorldOptions options_;
  HostOptions host_options_;
  uint64_t random_state_;
  uint64_t now_ = 1'000'000'000;
  uint64_t event_order_ = 0;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<Node> nodes_;
  std::map<uint32_t, Link> links_;
  bool chaos_ = true;
  uint64_t next_value_ = 1;
  std::optional<std::string> failure_;

  std::map<std::pair<CopysetId, Term>, uint32_t> leaders_;
  std::map<CopysetId, std::map<Index, Content>> committed_;  // by any replica
  std::map<CopysetId, Index> answered_;                      // by a leader
  std::map<CopysetId, Config> genesis_;
  uint64_t leases_seen_ = 0, elections_ = 0, damages_ = 0, syncs_ = 0;
};

}  // namespace curve::raft::testing
