#include "native/sim/store_node.h"

#include <algorithm>

#include "native/base/placement.h"
#include "native/sim/disk.h"

namespace curve::sim {

StoreNode::~StoreNode() = default;

void StoreNode::call(std::function<void(copyset::StoreServer&)> function) {
  auto call = std::make_unique<Call>();
  call->node = this;
  call->function = std::move(function);
  call->run = [](io::Mail* mail) {
    auto* mine = static_cast<Call*>(mail);
    StoreNode* node = mine->node;
    mine->function(*node->server_);
    std::erase_if(node->calls_,
                  [mine](const std::unique_ptr<Call>& each) { return each.get() == mine; });
  };
  loop_.post(call.get());
  calls_.push_back(std::move(call));
}

StoreNodes::StoreNodes(World& world, Verdict& verdict, std::vector<uint32_t> nodes,
                       std::vector<std::vector<size_t>> copysets, const StoreOptions& options,
                       std::vector<std::byte> secret)
    : world_(world),
      verdict_(verdict),
      nodes_(std::move(nodes)),
      genesis_(std::move(copysets)),
      copysets_(genesis_),
      options_(options),
      secret_(std::move(secret)),
      checker_(verdict) {}

StoreId StoreNodes::store_id(size_t number) {
  StoreId id;
  id.bytes[0] = static_cast<uint8_t>(0x10 + number);
  id.bytes[15] = static_cast<uint8_t>(mix64(number));
  return id;
}

io::Address StoreNodes::address(size_t number) const {
  return {world_.node(nodes_[number]).name + ":7000"};
}

CopysetId StoreNodes::copyset_id(size_t index) const {
  return base::copyset_id(1, static_cast<uint32_t>(index));
}

StoreNode* StoreNodes::running(size_t number) {
  Node& at = node(number);
  return at.state == NodeState::kUp ? static_cast<StoreNode*>(at.process.get()) : nullptr;
}

void StoreNodes::start_all() {
  for (size_t number = 0; number < nodes_.size(); ++number) {
    world_.start(node(number), [this, number](io::Loop& loop) { return boot(number, loop); });
  }
}

std::unique_ptr<Process> StoreNodes::boot(size_t number, io::Loop& loop) {
  Node& at = node(number);
  auto refuse = [&](const Error& error) {
    verdict_.fail("start", at.name + " does not start: " + error.message);
    return nullptr;
  };
  std::unique_ptr<StoreNode> store(new StoreNode(loop));
  const auto paths = copyset::StorePaths::in("/store");
  if (at.disk->paths().empty()) {
    copyset::StoreFormat format;
    format.store = store_id(number);
    format.cluster = store_id(99);
    format.data_bytes = options_.data_bytes;
    format.wal_bytes = options_.wal_bytes;
    format.reserve_percent =
        options_.reserve_percent + static_cast<uint32_t>(number) * options_.reserve_percent_step;
    format.wal_segment_bytes = options_.wal_segment_bytes;
    if (Outcome done = copyset::StoreServer::format(loop, paths, format); !done)
      return refuse(done.error());
  }
  auto server = copyset::StoreServer::open(loop, store->pool_, paths, secret_, options_.server);
  if (!server) return refuse(server.error());
  store->server_ = std::move(*server);
  checker_.restarted(at.id);
  store->server_->on_failure([this, name = at.name](Code code, const std::string& why) {
    verdict_.fail("out of service", name + ": " + std::string(code_name(code)) + " " + why);
  });
  const copyset::ServerStatus status = store->server_->status(false);
  verdict_.counts["torn_tails"] += status.wal_torn_tail;
  if (status.wal_damaged)
    verdict_.fail("R3 recovery", at.name + " finds damage where there is none");
  for (size_t peer = 0; peer < nodes_.size(); ++peer) {
    if (peer != number) store->server_->set_peer(store_id(peer), address(peer));
  }
  auto listening = store->server_->listen(address(number));
  if (!listening) return refuse(listening.error());
  store->server_->start();
  for (size_t index = 0; index < genesis_.size(); ++index) {
    const std::vector<size_t>& members = genesis_[index];
    if (std::find(members.begin(), members.end(), number) == members.end()) continue;
    replica::Genesis genesis;
    genesis.group = copyset_id(index);
    for (size_t member : members)
      genesis.config.members[genesis.config.count++] = {store_id(member), raft::MemberRole::kVoter};
    genesis.config.preferred = store_id(members[index % members.size()]);
    store->server_->form(genesis, [](Code) {});
  }
  return store;
}

void StoreNodes::watch() {
  for (size_t number = 0; number < nodes_.size(); ++number) {
    StoreNode* store = running(number);
    if (!store) continue;
    for (const auto& [id, group] : store->server().replica().groups()) {
      checker_.look(node(number).id, group->raft(), node(number).local(world_.now_ns()));
    }
  }
  world_.after(3 * kMillisecond, [this] { watch(); });
}

}  // namespace curve::sim
