#include "native/sim/store_node.h"

#include <algorithm>

#include "native/base/placement.h"
#include "native/sim/disk.h"
#include "native/wal/format.h"

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
                       std::vector<std::vector<size_t>> copysets, const Plan& plan,
                       std::vector<std::byte> secret)
    : world_(world),
      verdict_(verdict),
      nodes_(std::move(nodes)),
      genesis_(std::move(copysets)),
      copysets_(genesis_),
      plan_(plan),
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
    if (at.disk->gave_errors() || wrecked_.count(at.id)) return nullptr;
    verdict_.fail("start", at.name + " does not start: " + error.message);
    return nullptr;
  };
  std::unique_ptr<StoreNode> store(new StoreNode(loop));
  const auto paths = copyset::StorePaths::in("/store");
  // Somebody formats what is a store already: that is refused (R1).
  const bool again = at.random.chance(0.1) && !wrecked_.count(at.id);
  const bool fresh = at.disk->paths().empty();
  if (fresh || again) {
    copyset::StoreFormat format;
    format.store = store_id(number);
    format.cluster = store_id(99);
    format.data_bytes = data_bytes(number);
    format.wal_bytes = plan_.wal_bytes;
    format.wal_segment_bytes = plan_.wal_segment_bytes;
    format.reserve_percent =
        plan_.reserve_percent + static_cast<uint32_t>(number) * plan_.reserve_percent_step;
    Outcome done = copyset::StoreServer::format(loop, paths, format);
    if (!done && fresh) return refuse(done.error());
  }
  auto server = copyset::StoreServer::open(loop, store->pool_, paths, secret_, plan_.server);
  if (!server) return refuse(server.error());
  store->server_ = std::move(*server);
  at.disk->set_lossy(paths.data, geometry(number).pages_offset);
  at.disk->set_log(paths.wal, wal_settled_bytes(plan_), geometry(number).blocks_offset);
  checker_.restarted(at.id);
  store->server_->on_failure([this, &at](Code code, const std::string& why) {
    if (at.disk->gave_errors()) return ended_(at);
    verdict_.fail("out of service", at.name + ": " + std::string(code_name(code)) + " " + why);
  });
  recovered(at, *store->server_);
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

// Right after a start: what recovery says and what it has made of log and map.
void StoreNodes::recovered(Node& at, copyset::StoreServer& server) {
  const copyset::ServerStatus status = server.status(false);
  verdict_.counts["torn_tails"] += status.wal_torn_tail;
  verdict_.counts["damaged_logs"] += status.wal_damaged;
  verdict_.counts["torn_payloads"] += status.counters.torn_payloads;
  verdict_.counts["pages_lost"] += status.pages_lost;
  if (status.pages_lost && !at.disk->ever_harmed())
    verdict_.fail("R5 recovery", at.name + " misses pages where there is no damage");
  if (status.wal_damaged && !at.disk->ever_harmed())
    verdict_.fail("R3 recovery", at.name + " finds damage where there is none");
  if (Outcome consistent = server.check(); !consistent)
    verdict_.fail("map", at.name + " after its restart: " + consistent.error().message);
  for (const auto& [id, group] : server.replica().groups()) {
    checker_.recovered(server.store_id(), group->raft());
    if (group->raft().damaged() && !at.disk->ever_harmed())
      verdict_.fail("R3 recovery", at.name + " finds damage of a copyset where there is none: " +
                                       describe(group->raft()));
  }
}

uint32_t StoreNodes::leader(uint64_t random) {
  for (size_t i = 0; i < copysets_.size(); ++i) {
    const size_t index = (random + i) % copysets_.size();
    for (size_t number : copysets_[index]) {
      StoreNode* store = running(number);
      const replica::ReplicaGroup* group =
          store ? store->server().replica().find(copyset_id(index)) : nullptr;
      if (group && group->is_leader()) return node(number).id;
    }
  }
  return nodes_[random % nodes_.size()];
}

std::vector<size_t> StoreNodes::led_by(uint32_t leader) {
  std::vector<size_t> out;
  for (size_t index = 0; index < copysets_.size(); ++index) {
    for (size_t number : copysets_[index]) {
      if (nodes_[number] != leader) continue;
      StoreNode* store = running(number);
      const replica::ReplicaGroup* group =
          store ? store->server().replica().find(copyset_id(index)) : nullptr;
      if (group && group->is_leader()) out.push_back(index);
    }
  }
  return out;
}

std::vector<uint32_t> StoreNodes::followers(uint32_t leader) {
  std::vector<uint32_t> out;
  const std::vector<size_t> led = led_by(leader);
  if (led.empty()) return out;
  for (size_t number : copysets_[led.front()]) {
    if (nodes_[number] != leader) out.push_back(nodes_[number]);
  }
  return out;
}

void StoreNodes::transfer(uint32_t leader, uint64_t random) {
  for (size_t index : led_by(leader)) {
    const std::vector<size_t>& members = copysets_[index];
    const StoreId to = store_id(members[random % members.size()]);
    running(number_of(leader))->call([id = copyset_id(index), to](copyset::StoreServer& server) {
      (void)server.transfer(id, to);
    });
  }
}

size_t StoreNodes::number_of(uint32_t node) const {
  return static_cast<size_t>(std::find(nodes_.begin(), nodes_.end(), node) - nodes_.begin());
}

Node* StoreNodes::filled(uint64_t random) {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const size_t number = (random + i) % nodes_.size();
    StoreNode* store = running(number);
    if (!store) continue;
    for (const auto& [id, group] : store->server().replica().groups()) {
      if (group->raft().syncing()) return &node(number);
    }
  }
  return nullptr;
}

void StoreNodes::rot(Node& at, Random& random) {
  StoreNode* store = running(number_of(at.id));
  const uint64_t dice = random.below(100);
  if (store && dice < 40) return rot_log(at, *store, random);
  if (store && dice < 75 && rot_sector(at, *store, random)) return;
  const auto layout = geometry(number_of(at.id));
  if (dice < 90)
    at.disk->flip_bit("/store/data", layout.pages_offset, layout.blocks_offset, nullptr);
  else
    at.disk->flip_bit("/store/data", layout.blocks_offset, layout.bytes, nullptr);
}

// Not the last appends: only later ones say that they were acknowledged (the watermark).
void StoreNodes::rot_log(Node& at, StoreNode& store, Random& random) {
  const copyset::ServerStatus status = store.server().status(false);
  const uint64_t from = status.wal_start_position, to = status.wal_head_position;
  const uint64_t settled = wal_settled_bytes(plan_);
  if (to <= from + settled) return;
  const uint64_t position = from + random.below(to - from - settled);
  const uint64_t offset = wal::kDataOffset + position % status.wal_capacity_bytes;
  at.disk->flip_bit("/store/wal", offset, offset + kSectorBytes, nullptr);
}

// What a block of a volume holds now. False: nothing is stored.
bool StoreNodes::rot_sector(Node& at, StoreNode& store, Random& random) {
  std::vector<uint64_t> stored;
  for (size_t index = 0; index < copysets_.size(); ++index) {
    store.server().visit_sectors(
        copyset_id(index), [&](const ChunkKey&, uint32_t, copyset::StoreServer::SectorView view) {
          if (view.data_offset_bytes) stored.push_back(view.data_offset_bytes);
        });
  }
  if (stored.empty()) return false;
  const uint64_t offset = stored[random.below(stored.size())];
  return at.disk->flip_bit("/store/data", offset, offset + kSectorBytes, nullptr);
}

std::set<std::pair<ChunkKey, uint32_t>> StoreNodes::written_blocks(size_t number, size_t index) {
  std::set<std::pair<ChunkKey, uint32_t>> blocks;
  running(number)->server().visit_sectors(
      copyset_id(index),
      [&](const ChunkKey& chunk, uint32_t sector, copyset::StoreServer::SectorView view) {
        if (view.written) blocks.emplace(chunk, sector / kSectorsPerBlock);
      });
  return blocks;
}

void StoreNodes::wreck(Node& at, Random& random) {
  wrecked_.insert(at.id);
  const auto layout = geometry(number_of(at.id));
  const bool superblocks = random.chance(0.5);
  for (uint32_t copy = 0; copy < 2; ++copy) {
    const uint64_t offset =
        superblocks ? chunkstore::kSuperblockOffsets[copy] : layout.root_offset(copy);
    const uint64_t bytes = superblocks ? chunkstore::kStructBytes : chunkstore::kRootHeaderBytes;
    for (uint64_t at_byte = 0; at_byte < bytes; at_byte += chunkstore::kStructBytes)
      at.disk->flip_bit("/store/data", offset + at_byte,
                        offset + at_byte + chunkstore::kStructBytes, nullptr);
  }
}

void StoreNodes::watch() {
  for (size_t number = 0; number < nodes_.size(); ++number) {
    if (StoreNode* store = running(number)) look_at(number, *store);
  }
  world_.after(3 * kMillisecond, [this] { watch(); });
}

void StoreNodes::look_at(size_t number, StoreNode& store) {
  Node& at = node(number);
  for (const auto& [id, group] : store.server().replica().groups())
    checker_.look(at.id, group->raft(), at.local(world_.now_ns()));
  if (++looks_ % 32 != 0) return;  // status() is not cheap
  const copyset::ServerStatus status = store.server().status(false);
  if (status.counters.corrupt_reads && !at.disk->ever_harmed())
    verdict_.fail("checksums", at.name + " reads damage where there is none");
  if (status.scrub.chunks_differ)  // what scrub would mend unseen
    verdict_.fail("replica equality", at.name + " found replicas that differ");
}

}  // namespace curve::sim
