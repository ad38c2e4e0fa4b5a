// A metaserver's replica of group 0: raft, WAL and peers on a native thread; the state machine is
// elsewhere (Python) and gets what is committed as events. Snapshots are files made by the state
// machine; `snapshot` names the newest complete one.
//
// Invariants: Committed events come in index order, each once per run, except after
// InstallSnapshot. R1: an empty directory is formed only with `bootstrap`; its log
// is `wal.new` until the genesis is durable. R5/R7: the WAL is
// released only behind a durable snapshot. Thread: every method may be called from any one control
// thread at a time; none blocks but open(), snapshot_*() and stop().
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "native/base/status.h"
#include "native/base/types.h"
#include "native/io/io.h"

namespace curve::metanode {

inline constexpr size_t kCommandBytesMax = 1024 * 1024;

struct Member {
  StoreId id;
  std::string address;
};
struct Options {
  std::string directory;
  StoreId id;
  std::string listen;
  std::vector<Member> members;
  std::vector<std::byte> secret;
  bool bootstrap = false;
  uint64_t wal_bytes = 256u << 20;
  uint64_t snapshot_entries = 20'000;  // a snapshot is asked for after so many applied entries
};

enum class EventType : uint8_t {
  kCommitted,
  kProposalFailed,
  kLeaderChanged,
  kReadReady,
  kReadFailed,
  kInstallSnapshot,
  kSnapshotWanted,
  kStopped
};
struct Event {
  EventType type = EventType::kCommitted;
  Index index = 0;
  Term term = 0;
  uint64_t ticket = 0;
  bool flag =
      false;  // kProposalFailed: it may have happened ("lost"); kLeaderChanged: this node leads
  StoreId leader = {};    // kLeaderChanged
  std::string text = {};  // command, path or error sentence
};

struct Status {
  std::string role;
  Term term = 0;
  StoreId leader;
  Index commit = 0, applied = 0, first = 0, last = 0;
  uint64_t wal_bytes = 0;
  std::string listen;
  struct Lag {
    StoreId id;
    uint64_t entries;
  };
  std::vector<Lag> members;
};

class MetaNode {
 public:
  static Result<std::unique_ptr<MetaNode>> open(Options options);
  ~MetaNode();
  void start();
  void stop();
  int fd() const;
  std::vector<Event> poll(size_t max);
  // Ticket, or 0: the queue is full.
  uint64_t propose(std::string command);
  uint64_t read_index();
  // The leader begins to hand over to another member; kLeaderChanged says that it has. Else
  // nothing.
  void transfer(const StoreId& to);
  Outcome snapshot_begin(Index index, Term term);
  Outcome snapshot_write(std::span<const std::byte> data);
  Outcome snapshot_commit();
  Status status();

 private:
  struct State;
  std::shared_ptr<State> state_;
  explicit MetaNode(std::shared_ptr<State> state);
};

}  // namespace curve::metanode
