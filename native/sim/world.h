// The simulated world: one event queue ordered by (time, sequence), nodes with a clock and a disk
// each, and a network. Everything that happens in a run follows from the seed.
//
// Invariants: no real time, no threads, no pointer is ever compared or hashed, nothing unordered is
// iterated. A node's code runs only inside its own turns or its boot. LoopBackends and connections
// outlive every event that names them. Thread: one; a World may be used from one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <string_view>
#include <vector>

#include "native/io/io.h"
#include "native/sim/random.h"

namespace curve::sim {

class Disk;
class Network;
class World;
struct Node;

inline constexpr uint64_t kMicrosecond = 1'000;
inline constexpr uint64_t kMillisecond = 1'000'000;
inline constexpr uint64_t kSecond = 1'000'000'000;

// Thrown out of File::*_sync when a crash was scheduled there (recovery dies half-way). Only the
// World catches it.
struct Crash {};

enum class CrashKind : uint8_t {
  kKill,  // SIGKILL: completed writes stay in the (virtual) kernel's hands, peers see a reset or an
          // end
  kPower,  // power cut: what is not on stable storage is lost, kept or torn; peers may see nothing
           // at all
};

struct DiskOptions {
  uint64_t read_ns_min = 40 * kMicrosecond, read_ns_max = 250 * kMicrosecond;
  uint64_t write_ns_min = 40 * kMicrosecond, write_ns_max = 400 * kMicrosecond;
  double slow_op_chance = 0.01;  // this operation takes up to 30 ms
  uint64_t bytes_per_second = 800'000'000;
  uint64_t capacity_bytes = UINT64_MAX;
  double discard_ignored_chance = 0.3;
};

struct NetworkOptions {
  uint64_t delay_ns_min = 20 * kMicrosecond, delay_ns_max = 300 * kMicrosecond;
  double slow_segment_chance = 0.003;  // a lost packet: up to 200 ms
  uint64_t bytes_per_second = 1'000'000'000;
  size_t window_bytes_min = 64u << 10, window_bytes_max = 4u << 20;
};

struct WorldOptions {
  DiskOptions disk;
  NetworkOptions network;
  uint64_t turn_ns_min = 2 * kMicrosecond, turn_ns_max = 30 * kMicrosecond;  // CPU time of a turn
  double slow_turn_chance = 0.001;  // up to 20 ms (scheduling)
  uint32_t drift_ppm_max = 4'000;   // of each node's clock, either way
};

// What runs on a node. Destroyed after its Loop was abandoned, in any state.
class Process {
 public:
  virtual ~Process() = default;
};
// Makes the process; recovery happens here. nullptr: it refuses to start. May be ended by a Crash.
using Boot = std::function<std::unique_ptr<Process>(io::Loop&)>;

enum class NodeState : uint8_t { kDown, kUp, kPaused, kRefused };

struct Node {
  uint32_t id = 0;
  std::string name;
  World* world = nullptr;
  NodeState state = NodeState::kDown;
  bool host_up = true;  // false after a power cut until the next start: nobody answers at all
  Boot boot;
  std::unique_ptr<io::Loop> loop;
  std::unique_ptr<Process> process;
  std::unique_ptr<Disk> disk;
  Random random{0};
  // local time = base_local + (world time - base_world) * rate_ppm / 1e6
  uint64_t clock_base_world = 0, clock_base_local = 0;
  int64_t clock_drift_ppm = 0;
  uint64_t wall_offset_ns = 0;
  uint64_t boots = 0, sync_crashes = 0;

  uint64_t local(uint64_t world_ns) const;
  uint64_t to_world(
      uint64_t local_ns) const;  // the first world time at which the clock shows at least local_ns
};

class World {
 public:
  explicit World(uint64_t seed, const WorldOptions& options = {});
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Nodes are named by position; the name is the host part of their addresses ("node3:7000").
  Node& add_node(const std::string& name);
  Node& node(uint32_t id) { return *nodes_[id]; }
  Node* find_node(std::string_view name);
  size_t node_count() const { return nodes_.size(); }

  uint64_t now_ns() const { return now_; }
  void at(uint64_t time_ns, std::function<void()> run);
  void after(uint64_t delay_ns, std::function<void()> run) { at(now_ + delay_ns, std::move(run)); }
  bool step();  // false: nothing left to happen
  void run_for(uint64_t duration_ns);
  // True once `done` holds (looked at after every event); false when `limit_ns` of virtual time
  // went by.
  bool run_until(const std::function<bool()>& done, uint64_t limit_ns);

  // Starts `boot` on the node (and remembers it for restart). A Crash in it leaves the node down.
  void start(Node& node, Boot boot);
  void restart(Node& node);
  void crash(Node& node, CrashKind kind);
  void pause(Node& node);  // SIGSTOP: kernel, disk and network go on
  void resume(Node& node);
  void jump_clock(Node& node,
                  uint64_t forward_ns);     // wall clock only; CLOCK_BOOTTIME keeps its rate
  void set_drift(Node& node, int64_t ppm);  // of CLOCK_BOOTTIME from now on
  std::unique_ptr<io::Loop> make_loop(Node& node);  // for start(); tests may use it directly

  // Destroys every process, while what they refer to outside the world is still there.
  void end();

  Network& network() { return *network_; }
  Random& random() { return random_; }
  const WorldOptions& options() const { return options_; }

  // The trace: one line per thing that happened, kept as a hash and, if wanted, written to `sink`.
  void trace(const Node* node, std::string_view event, uint64_t a = 0, uint64_t b = 0);
  uint64_t trace_hash() const { return trace_hash_; }
  void set_trace_sink(std::function<void(const std::string&)> sink) {
    trace_sink_ = std::move(sink);
  }
  // Sends base::log lines to `sink` with virtual time and node; reset by the destructor.
  void capture_log(std::function<void(const Node*, std::string_view line)> sink);
  uint64_t events() const { return events_; }
  const Node* running() const { return running_; }

  void run_turn(io::LoopBackend* backend);  // of the loop implementation

 private:
  struct Event {
    uint64_t time;
    uint64_t sequence;
    size_t slot;  // of what it runs
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.time != b.time ? a.time > b.time : a.sequence > b.sequence;
    }
  };
  void stop_process(Node& node);
  void wake_loops(Node& node);

  WorldOptions options_;
  Random random_;
  uint64_t now_ = 0, sequence_ = 0, events_ = 0;
  std::vector<Event> queue_;  // heap by Later
  std::vector<std::function<void()>> slots_;
  std::vector<size_t> free_slots_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::unique_ptr<Network> network_;
  std::vector<std::unique_ptr<io::LoopBackend>> backends_;
  const Node* running_ = nullptr;
  uint64_t trace_hash_ = 0xcbf29ce484222325ull;
  std::function<void(const std::string&)> trace_sink_;
  std::function<void(const Node*, std::string_view)> log_sink_;
};

}  // namespace curve::sim
