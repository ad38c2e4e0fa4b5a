// Chunkservers as nodes: the production StoreServer on a simulated loop, and a way to call it as
// its Python shell would (a message that runs on its loop, or is lost with the process). Thread:
// the world's.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "native/base/buffer.h"
#include "native/chunkstore/layout.h"
#include "native/copyset/store_server.h"
#include "native/sim/plan.h"
#include "native/sim/replica_checker.h"
#include "native/sim/verdict.h"
#include "native/sim/world.h"

namespace curve::sim {

class StoreNode final : public Process {
 public:
  ~StoreNode() override;
  copyset::StoreServer& server() { return *server_; }
  // Runs on the loop of this process, if it lives that long.
  void call(std::function<void(copyset::StoreServer&)> run);

 private:
  friend class StoreNodes;
  struct Call : io::Mail {
    StoreNode* node = nullptr;
    std::function<void(copyset::StoreServer&)> function;
  };
  explicit StoreNode(io::Loop& loop) : loop_(loop) {}
  io::Loop& loop_;
  base::BufferPool pool_{64u << 20, base::BufferPool::Resident::kOnUse};
  std::unique_ptr<copyset::StoreServer> server_;
  std::vector<std::unique_ptr<Call>> calls_;
};

class StoreNodes {
 public:
  StoreNodes(World& world, Verdict& verdict, std::vector<uint32_t> nodes,
             std::vector<std::vector<size_t>> copysets, const Plan& plan,
             std::vector<std::byte> secret);
  void start_all();
  // A process that had to end because its disk failed.
  void on_ended(std::function<void(Node&)> ended) { ended_ = std::move(ended); }
  // The node that leads one of the copysets, chosen by `random`; any node when nobody leads.
  uint32_t leader(uint64_t random);
  // Those that have a copyset with it that it leads; and a transfer of one of these.
  std::vector<uint32_t> followers(uint32_t leader);
  void transfer(uint32_t leader, uint64_t random);
  // Flips a bit of what is stored, of a data block, of a metadata page, or of what the WAL made
  // durable a while ago.
  void rot(Node& node, Random& random);
  // Both superblocks, or both roots.
  // Blocks of the copyset in which the store, which runs, has written sectors.
  std::set<std::pair<ChunkKey, uint32_t>> written_blocks(size_t number, size_t index);
  void wreck(Node& node, Random& random);
  Node* filled(uint64_t random);  // one with a replica that is being filled; null: none
  static StoreId store_id(size_t number);
  io::Address address(size_t number) const;
  size_t count() const { return nodes_.size(); }
  Node& node(size_t number) { return world_.node(nodes_[number]); }
  StoreNode* running(size_t number);  // null when down or paused
  CopysetId copyset_id(size_t index) const;
  const std::vector<std::vector<size_t>>& copysets() const { return copysets_; }
  // Who holds a copyset now; genesis names those of the constructor for ever.
  void set_members(size_t index, std::vector<size_t> members) {
    copysets_[index] = std::move(members);
  }
  // Looks at every replica (replica_checker.h), again and again until the run ends.
  void watch();
  ReplicaChecker& checker() { return checker_; }

 private:
  std::unique_ptr<Process> boot(size_t number, io::Loop& loop);
  void recovered(Node& at, copyset::StoreServer& server);
  void look_at(size_t number, StoreNode& store);
  void rot_log(Node& at, StoreNode& store, Random& random);
  bool rot_sector(Node& at, StoreNode& store, Random& random);
  uint64_t data_bytes(size_t number) const {
    return plan_.data_bytes + (number == 0 ? plan_.data_bytes_more : 0);
  }
  chunkstore::Geometry geometry(size_t number) const {
    return *chunkstore::plan_geometry(data_bytes(number), 0);
  }
  size_t number_of(uint32_t node) const;

  World& world_;
  Verdict& verdict_;
  std::vector<uint32_t> nodes_;
  const std::vector<std::vector<size_t>> genesis_;
  std::vector<std::vector<size_t>> copysets_;
  const Plan& plan_;
  std::vector<std::byte> secret_;
  // Of the copysets that the node leads now.
  std::vector<size_t> led_by(uint32_t node);
  ReplicaChecker checker_;
  std::set<uint32_t> wrecked_;  // nodes
  uint64_t looks_ = 0;
  std::function<void(Node&)> ended_;
};

}  // namespace curve::sim
