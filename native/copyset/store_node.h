// A StoreServer on a native thread of its own, for a process whose control is elsewhere (Python):
// calls go in by a queue, answers come back as events. Nothing of the I/O path comes here. Thread:
// any one control thread. open(), status() and stop() block (briefly), the rest never does.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "native/copyset/store_server.h"

namespace curve::copyset {

enum class StoreEventType : uint8_t {
  kFormDone,  // joining, too
  kFenceDone,
  kDeleteDone,
  kStopped,
  kMembersDone,
  kRemoveDone,    // `applied`: removed
  kTransferDone,  // `applied`: started
  kCheckDone,
  kTraceDone,
};
struct StoreEvent {
  StoreEventType type = StoreEventType::kStopped;
  uint64_t ticket = 0;
  std::vector<CopysetId> done = {};
  std::vector<CopysetId> not_leader = {};
  std::vector<CopysetId> no_space = {};
  std::string error = {};  // kMembersDone: why not now
  bool applied = false;
  StoreId leader = {};
  Index config_index = 0;
  raft::Config config = {};
  CheckReport report = {};  // kCheckDone
  TraceReport trace = {};   // kTraceDone
};

class StoreNode {
 public:
  static Outcome format(const StorePaths& paths, const StoreFormat& format);
  static Result<bool> exists(const StorePaths& paths);
  static Result<std::unique_ptr<StoreNode>> open(const StorePaths& paths, const std::string& listen,
                                                 std::span<const std::byte> secret,
                                                 const ServerOptions& options);
  ~StoreNode();
  void start();
  void stop();
  int fd() const;
  std::vector<StoreEvent> poll(size_t max);
  const std::string& address() const;  // bound
  StoreId store_id() const;
  StoreId cluster_id() const;
  Incarnation incarnation() const;
  bool direct_io() const;
  void set_peer(const StoreId& store, const std::string& address);
  uint64_t form(std::vector<replica::Genesis> copysets);
  uint64_t fence(VolumeId volume, Epoch floor, Epoch ceiling, std::vector<Epoch> revoked,
                 std::vector<CopysetId> copysets);
  uint64_t delete_volume(VolumeId volume, std::vector<CopysetId> copysets);
  uint64_t transfer(CopysetId copyset, const StoreId& to);
  uint64_t join(std::vector<CopysetId> copysets);
  uint64_t change_members(const MemberOrder& order);
  uint64_t remove_replica(CopysetId copyset, Index config_index, Term leader_term);
  void set_limits(const SyncLimits& limits);
  void checkpoint();  // soon
  ServerStatus status(bool with_copysets);
  uint64_t mapped_blocks(VolumeId volume);
  void scrub(uint64_t bytes_per_second);
  uint64_t check(const CheckRequest& request);
  uint64_t trace(const TraceRequest& request);

 private:
  struct State;
  std::unique_ptr<State> state_;
  explicit StoreNode(std::unique_ptr<State> state);
};

}  // namespace curve::copyset
