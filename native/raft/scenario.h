// A small language for scenarios of Host and Group: commands in, a readable trace out.
// testdata/README describes it. Time moves only by command; disks and connections do nothing by
// themselves unless told to (`run`). Not for production.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "native/raft/host.h"

namespace curve::raft::testing {

class Scenario {
 public:
  Scenario();
  ~Scenario();
  // Runs one command line; returns its trace (lines, each ended by '\n').
  std::string command(const std::string& line);

 private:
  struct Words {
    std::vector<std::string> plain;
    std::map<std::string, std::string> named;  // key=value; a bare flag is in `plain`
    bool has(const std::string& flag) const;
    std::string get(const std::string& key, const std::string& otherwise = "") const;
    uint64_t number(const std::string& key, uint64_t otherwise) const;
  };
  struct Stored {  // an entry: term, type, and its configuration
    Term term = 0;
    EntryType type = EntryType::kData;
    Config config;
  };
  struct Disk {
    HardState hard;
    Config config;
    Index config_index = 0;
    Index base = 0;
    Term base_term = 0;
    std::map<Index, Stored> log;
    Index commit = 0, applied = 0;
    bool damaged = false, syncing = false;
  };
  struct Persist {
    Ready ready;
    std::map<Index, Stored> entries;
  };
  struct Node {
    std::string name;
    StoreId id;
    Incarnation incarnation = 0;
    std::unique_ptr<Host> host;
    Disk disk;
    bool has_replica = false;
    std::map<Index, Stored> memory;
    std::deque<Persist> persists;
    bool isolated = false;
    bool holds_apply = false;
    bool holds_disk = false;
    StoreId sync_from;
  };
  struct Packet {
    std::string from, to;
    enum { kMessage, kBeat, kReply } kind = kMessage;
    Message message;
    std::vector<Stored> entries;
    Beat beat;
    BeatReply reply;
  };

  Node& node(const std::string& name);
  Node& node_of(const StoreId& id);
  std::string name_of(const StoreId& id) const;
  Group* group(Node& n) { return n.host ? n.host->find(1) : nullptr; }
  Config config_of(const std::string& voters, const std::string& learners,
                   const std::string& preferred);

  void stores(const Words& words);
  void replica(const Words& words);
  void start(Node& n, bool fresh);
  void connect(const std::string& a, const std::string& b, bool up, bool refused);
  void each_pair(const Words& words, bool up);
  void restart(const Words& words);
  void stop(Node& n, bool refused);
  void propose(const Words& words);
  void change(const Words& words);
  void finish_sync(const Words& words);
  void inject(const Words& words);
  void inject_beat(const Words& words);
  void inject_reply(const Words& words);
  void deliver(const Words& words);
  void drop(const Words& words);
  void advance(uint64_t ns, bool everything_works);
  void durable(Node& n, size_t count);
  void status();
  void show_log(Node& n);
  void show_progress(Node& n);

  void pump(Node& n);
  void pump_all();
  void settle();
  void take(Node& n, Group* g);
  void arrive(const Packet& packet);
  bool passes(const Packet& packet);
  void say(const std::string& text) { out_ << text << '\n'; }
  std::string describe(const Packet& packet) const;
  std::string describe(const Message& message) const;
  std::string role_line(Group* g) const;

  HostOptions options_;
  uint64_t now_ = 1'000'000'000;
  std::map<std::string, Node> nodes_;
  std::vector<Packet> network_;
  std::map<std::pair<std::string, std::string>, bool> up_;
  enum { kSilent, kRoles, kMessages, kEverything } detail_ = kRoles;
  std::ostringstream out_;
};

}  // namespace curve::raft::testing
