#include "native/sim/hash_store.h"

#include <algorithm>
#include <cstring>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/sim/disk.h"
#include "native/wal/format.h"

namespace curve::sim {
namespace {

constexpr uint64_t kSlotBytes = 16384;
constexpr uint8_t kSyncBegun = 1, kSyncEnded = 2;

struct SyncRequest {
  CopysetId group;
};

}  // namespace

struct HashStore::SyncReply {
  CopysetId group;
  Index applied;
  Term term;
  uint64_t hash;
  Index config_index;
};

StoreId HashCluster::store_id(size_t number) {
  StoreId id;
  id.bytes[0] = static_cast<uint8_t>(0x10 + number);
  id.bytes[15] = static_cast<uint8_t>(mix64(number));
  return id;
}

io::Address HashCluster::address(size_t number) const {
  return {world.node(stores[number]).name + ":7000"};
}

HashStore::HashStore(HashCluster& cluster, size_t number, io::Loop& loop)
    : cluster_(cluster),
      number_(number),
      node_(cluster.world.node(cluster.stores[number])),
      loop_(loop) {
  identity_.role = wire::PeerRole::kStore;
  identity_.id = HashCluster::store_id(number);
  identity_.incarnation = cluster.world.node(cluster.stores[number]).boots;
  identity_.secret = cluster.secret;
  timer_.owner = slot_op_.owner = release_op_.owner = this;
  timer_.fire = [](io::Timer* timer) { static_cast<HashStore*>(timer->owner)->tick(); };
  slot_op_.done = [](io::Op* op) {
    auto* store = static_cast<HashStore*>(op->owner);
    auto done = std::move(store->slot_done_);
    if (op->result < 0) return store->out_of_service("the checkpoint cannot be written");
    done(Code::kOk);
  };
  release_op_.done = [](io::Op* op) {
    auto* store = static_cast<HashStore*>(op->owner);
    if (op->result < 0) return store->out_of_service("the WAL cannot be released");
    store->finish_checkpoint();
  };
}

HashStore::~HashStore() {
  for (wire::Connection* connection : accepted_) connection->destroy();
}

std::unique_ptr<HashStore> HashStore::boot(HashCluster& cluster, size_t number, io::Loop& loop) {
  std::unique_ptr<HashStore> store(new HashStore(cluster, number, loop));
  if (Outcome opened = store->open(); !opened) {
    if (store->node_.disk->gave_errors()) return nullptr;
    cluster.verdict.fail(
        "start", "store " + std::to_string(number) + " does not start: " + opened.error().message);
    return nullptr;
  }
  return store;
}

Outcome HashStore::open() {
  io::FileOptions options;
  options.create = true;
  auto file = io::File::open(loop_, "/checkpoint", options);
  if (!file) return file.error();
  checkpoint_ = std::move(*file);
  const bool fresh = checkpoint_.size_bytes() == 0;
  slot_ = pool_.take(kSlotBytes);
  if (fresh) {
    wal::FormatOptions format;
    format.store = identity_.id;
    format.bytes = cluster_.plan.wal_bytes;
    format.segment_bytes = cluster_.plan.wal_segment_bytes;
    if (Outcome done = wal::Wal::format(loop_, "/wal", format); !done) return done;
    if (checkpoint_.allocate_zeroed_sync(2 * kSlotBytes) != 0)
      return Error{Code::kIo, "no room for the checkpoint"};
  }
  std::map<CopysetId, replica::GroupBlob> blobs;
  if (Outcome loaded = load_checkpoint(blobs); !loaded) return loaded;
  auto wal = wal::Wal::open(loop_, pool_, "/wal", identity_.id, cluster_.plan.server.wal);
  if (!wal) return wal.error();
  wal_ = std::move(*wal);
  raft::HostOptions host = cluster_.plan.server.raft;
  host.fresh = fresh;
  replica_ = std::make_unique<replica::Replica>(loop_, pool_, *wal_, *this, identity_, host);
  auto report = replica_->recover(blobs, cut_position_);
  if (!report) return report.error();
  cluster_.verdict.counts["torn_tails"] += report->torn_tail;
  cluster_.verdict.counts["damaged_logs"] += report->damaged;
  if (report->damaged && !node_.disk->ever_harmed())
    return Error{Code::kCorrupt,
                 "recovery says damaged, but nothing was damaged: " + report->damage};
  for (CopysetId id : recovered_syncing_) {
    if (replica::ReplicaGroup* group = replica_->find(id)) group->raft().begin_sync(loop_.now_ns());
  }
  for (size_t peer = 0; peer < cluster_.stores.size(); ++peer) {
    if (peer != number_) replica_->set_peer(HashCluster::store_id(peer), cluster_.address(peer));
  }
  auto listening = loop_.listen(address(), this);
  if (!listening) return listening.error();
  replica_->start();
  for (size_t at = 0; at < cluster_.groups.size(); ++at) {
    if (!cluster_.has(at, number_)) continue;
    states_[cluster_.groups[at]];
    replica_->form_group({cluster_.groups[at], cluster_.configs[at]}, [](Code) {});
  }
  cluster_.checker.restarted(node_.id);
  for (const auto& [id, group] : replica_->groups())
    cluster_.checker.recovered(identity_.id, group->raft());
  loop_.arm(&timer_, loop_.now_ns() + kMillisecond);
  next_checkpoint_ns_ = loop_.now_ns() + loop_.random_u64() % (2 * kSecond);
  return {};
}

void HashStore::accepted(io::Stream* stream) {
  wire::ConnectionHandler handler;
  handler.owner = this;
  handler.opened = [](void* owner, wire::Connection* connection) {
    return static_cast<HashStore*>(owner)->replica_->peer_accepted(connection);
  };
  handler.frame = [](void* owner, wire::Connection* connection, wire::Frame& frame) {
    static_cast<HashStore*>(owner)->replica_->peer_frame(connection, frame);
  };
  handler.closed = [](void* owner, wire::Connection* connection, Code code, int error) {
    std::erase(static_cast<HashStore*>(owner)->accepted_, connection);
    static_cast<HashStore*>(owner)->replica_->peer_closed(connection, code, error);
  };
  accepted_.push_back(wire::Connection::accept(loop_, pool_, stream, identity_, handler));
}

// --- load, application ---

void HashStore::tick() {
  loop_.arm(&timer_, loop_.now_ns() + kMillisecond + loop_.random_u64() % (20 * kMillisecond));
  if (cluster_.load) propose_some();
  if (cluster_.load) transfer_some();
  for (const auto& [group, leader] : syncing_) request_sync(group, leader);
  if (!checkpointing_ && loop_.now_ns() >= next_checkpoint_ns_) begin_checkpoint();
}

bool HashCluster::left_to_another(CopysetId group, size_t number) {
  const auto at = left.find(group);
  if (at == left.end()) return false;
  if (world.now_ns() < at->second.until_ns) return at->second.number != number;
  left.erase(at);
  return false;
}

void HashStore::propose_some() {
  for (const auto& [id, group] : replica_->groups()) {
    if (!group->is_leader() || cluster_.left_to_another(id, number_) || loop_.random_u64() % 3 == 0)
      continue;
    const uint64_t count_max = cluster_.left.contains(id) ? 40 : 3;
    for (uint64_t count = loop_.random_u64() % (count_max + 1); count > 0; --count) {
      replica::EntryRef entry = replica_->take_entry();
      const uint64_t number = ++cluster_.proposed;
      base::Writer(entry->head).put(number);
      const uint64_t sectors =
          loop_.random_u64() % 4
              ? 0
              : loop_.random_u64() % (cluster_.plan.payload_bytes_max / kSectorBytes);
      if (sectors) {
        entry->payload = pool_.take(sectors * kSectorBytes);
        for (uint64_t sector = 0; sector < sectors; ++sector) {
          const auto bytes = entry->payload.span().subspan(sector * kSectorBytes, kSectorBytes);
          std::memset(bytes.data(), static_cast<int>(number + sector), kSectorBytes);
          entry->sector_crcs.push_back(base::crc32c(bytes));
        }
      }
      if (replica_->may_propose(*group, entry->payload.size(), entry->head.size()) != Code::kOk)
        continue;
      entry->context = &cluster_;
      replica_->propose(*group, entry);
    }
  }
}

// Leadership moves now and then, as often as the plan's director would move it.
void HashStore::transfer_some() {
  const DirectorPlan& plan = cluster_.plan.director;
  const uint64_t every = plan.interval_ns_max / (10 * kMillisecond) + 1;
  for (const auto& [id, group] : replica_->groups()) {
    if (!group->is_leader() || loop_.random_u64() % (every * 100) >= plan.transfer) continue;
    const size_t to = loop_.random_u64() % cluster_.stores.size();
    if (group->raft().transfer_to(HashCluster::store_id(to), loop_.now_ns()) == Code::kOk)
      ++cluster_.verdict.counts["transfers"];
  }
}

void HashStore::apply(replica::ReplicaGroup& group, std::span<const replica::EntryRef> entries) {
  State& state = states_[group.id()];
  for (const replica::EntryRef& entry : entries) {
    if (entry->index != state.applied + 1) {
      return cluster_.verdict.fail("R6 order", "store " + std::to_string(number_) + " copyset " +
                                                   std::to_string(group.id()) + " applies " +
                                                   std::to_string(entry->index) + " after " +
                                                   std::to_string(state.applied));
    }
    uint64_t hash =
        mix64(state.hash ^ entry->index) ^ mix64(entry->term ^ static_cast<uint64_t>(entry->type));
    if (entry->type == raft::EntryType::kData) {
      for (std::byte b : entry->head) hash = (hash ^ static_cast<uint8_t>(b)) * 0x100000001b3ull;
      for (uint32_t crc : entry->sector_crcs) hash = (hash ^ crc) * 0x100000001b3ull;
    }
    state = {entry->index, entry->term, hash};
    const auto [at, fresh] = cluster_.hashes.try_emplace({group.id(), entry->index}, hash);
    if (!fresh && at->second != hash) {
      return cluster_.verdict.fail("state machine equality",
                                   "store " + std::to_string(number_) + " copyset " +
                                       std::to_string(group.id()) + " differs at index " +
                                       std::to_string(entry->index));
    }
    if (entry->context) {
      ++cluster_.acknowledged;
      cluster_.checker.acknowledged(group.id(), entry->index);
    }
  }
}

void HashStore::dropped(replica::ReplicaGroup&, replica::Entry&) {
  ++cluster_.verdict.counts["dropped"];
}

void HashStore::failed(Code code) { out_of_service(std::string(code_name(code))); }

void HashStore::out_of_service(const std::string& why) {
  if (node_.disk->gave_errors()) return cluster_.ended(node_);
  cluster_.verdict.fail("out of service", "store " + std::to_string(number_) + ": " + why);
}

std::string HashStore::describe_log() const {
  return "WAL " + std::to_string(wal_->start_position() >> 10) + ".." +
         std::to_string(wal_->head_position() >> 10) + " of " +
         std::to_string(wal_->capacity_bytes() >> 10) + " KiB, " +
         std::to_string(replica_->pending_records()) + " records wait" +
         (checkpointing_ ? ", checkpoint runs" : "") + ", syncing " +
         std::to_string(syncing_.size());
}

void HashStore::rot(Random& random) {
  const uint64_t from = wal_->start_position(), to = wal_->head_position();
  const uint64_t settled = wal_settled_bytes(cluster_.plan);
  if (to <= from + settled) return;
  const uint64_t position = from + random.below(to - from - settled);
  const uint64_t offset = wal::kDataOffset + position % wal_->capacity_bytes();
  node_.disk->flip_bit("/wal", offset, offset + kSectorBytes, nullptr);
}

// --- checkpoints ---

void HashStore::begin_checkpoint() {
  checkpointing_ = true;
  replica_->flush_commits([this](Code code) {
    if (code != Code::kOk) return;
    write_checkpoint([this](Code written) {
      if (written != Code::kOk) return;
      ++cluster_.verdict.counts["checkpoints"];
      release(checkpoint_applied_);
    });
  });
}

// Slot: version, cut, count, then {group, state, blob length, blob}; CRC32C in front.
void HashStore::write_checkpoint(std::function<void(Code)> done) {
  std::vector<std::byte> body;
  base::Writer writer(body);
  cut_position_ = wal_->head_position();
  writer.put(++checkpoint_version_);
  writer.put(cut_position_);
  writer.put(static_cast<uint64_t>(replica_->groups().size()));
  checkpoint_applied_.clear();
  for (const auto& [id, group] : replica_->groups()) {
    const State& state = states_[id];
    checkpoint_applied_[id] = state.applied;  // what the slot says, however far it is when written
    replica::GroupBlob blob = replica_->blob(*group, state.applied);
    blob.applied_term = state.term;
    blob.syncing = syncing_.count(id) != 0 && id != finishing_;
    const auto bytes = replica::encode_group_blob(blob);
    writer.put(id);
    writer.put(state);
    writer.put(static_cast<uint64_t>(bytes.size()));
    writer.raw(bytes);
  }
  std::memset(slot_.data(), 0, kSlotBytes);
  const uint32_t crc = base::crc32c(body);
  const uint32_t bytes = static_cast<uint32_t>(body.size());
  std::memcpy(slot_.data(), &crc, 4);
  std::memcpy(slot_.data() + 4, &bytes, 4);
  std::memcpy(slot_.data() + 8, body.data(), body.size());
  slot_iov_ = {slot_.data(), kSlotBytes};
  slot_op_.offset_bytes = checkpoint_version_ % 2 * kSlotBytes;
  slot_op_.iov = {&slot_iov_, 1};
  slot_op_.durable = true;
  slot_done_ = std::move(done);
  checkpoint_.write(&slot_op_);
}

Outcome HashStore::load_checkpoint(std::map<CopysetId, replica::GroupBlob>& blobs) {
  for (uint64_t slot = 0; slot < 2; ++slot) {
    if (checkpoint_.read_sync(slot * kSlotBytes, slot_.span()) != 0)
      return Error{Code::kIo, "checkpoint unreadable"};
    uint32_t crc, bytes;
    std::memcpy(&crc, slot_.data(), 4);
    std::memcpy(&bytes, slot_.data() + 4, 4);
    if (bytes == 0 || bytes > kSlotBytes - 8) continue;
    const std::span<const std::byte> body = slot_.bytes().subspan(8, bytes);
    if (base::crc32c(body) != crc) continue;
    base::Reader reader(body);
    const auto version = reader.get<uint64_t>();
    if (version <= checkpoint_version_) continue;
    checkpoint_version_ = version;
    cut_position_ = reader.get<uint64_t>();
    blobs.clear();
    states_.clear();
    for (auto count = reader.get<uint64_t>(); count > 0; --count) {
      const auto id = reader.get<CopysetId>();
      states_[id] = reader.get<State>();
      auto blob = replica::decode_group_blob(reader.raw(reader.get<uint64_t>()));
      if (!blob) return blob.error();
      blobs[id] = *blob;
      if (blob->syncing) recovered_syncing_.insert(id);
    }
  }
  return {};
}

void HashStore::release(const std::map<CopysetId, Index>& applied) {
  // Keeps a few segments for followers that are behind; sometimes none, so that they need sync.
  const uint64_t keep = loop_.random_u64() % 3 * wal_->segment_bytes();
  const uint64_t cut = wal_->segment_start(cut_position_);
  const uint64_t position = std::max(wal_->start_position(), cut > keep ? cut - keep : 0);
  if (position == wal_->start_position()) return finish_checkpoint();
  replica_->relocate_before(position, applied, [this](Code code, uint64_t to) {
    if (code != Code::kOk) return failed(code);
    if (to <= wal_->start_position()) return finish_checkpoint();
    ++cluster_.verdict.counts["wal_releases"];
    wal_->release_before(to, {}, &release_op_);
  });
}

void HashStore::finish_checkpoint() {
  checkpointing_ = false;
  next_checkpoint_ns_ = loop_.now_ns() + 100 * kMillisecond + loop_.random_u64() % (2 * kSecond);
}

// --- sync (R10) ---

void HashStore::recovered_local(CopysetId group, const wal::RecoveredRecord& record) {
  if (record.entry_type == kSyncBegun) recovered_syncing_.insert(group);
  if (record.entry_type == kSyncEnded) recovered_syncing_.erase(group);
}

void HashStore::sync_offered(replica::ReplicaGroup& group, const StoreId& leader, Index) {
  const CopysetId id = group.id();
  if (syncing_.count(id)) {
    syncing_[id] = leader;
    return;
  }
  ++cluster_.verdict.counts["syncs"];
  cluster_.world.trace(cluster_.world.running(), "sync_offered", id, states_[id].applied);
  syncing_[id] = leader;
  auto* record = new replica::Replica::LocalRecord;
  record->group = id;
  record->type = kSyncBegun;
  record->owner = this;
  record->done = [](replica::Replica::LocalRecord* done, Code code) {
    std::unique_ptr<replica::Replica::LocalRecord> keep(done);
    auto* store = static_cast<HashStore*>(done->owner);
    if (code != Code::kOk) return;
    if (replica::ReplicaGroup* filled = store->replica_->find(done->group)) {
      store->cluster_.world.trace(store->cluster_.world.running(), "sync_begun", done->group);
      filled->raft().begin_sync(store->loop_.now_ns());
      store->request_sync(done->group, store->syncing_[done->group]);
    }
  };
  replica_->append_local(record);
}

void HashStore::request_sync(CopysetId group, const StoreId& leader) {
  replica::ReplicaGroup* filled = replica_->find(group);
  if (!filled || !filled->raft().syncing()) return;
  wire::Connection* connection = replica_->peer_connection(leader);
  if (!connection) return;
  const SyncRequest request{group};
  connection->send(wire::FrameType::kSyncRequest, 0, std::as_bytes(std::span(&request, 1)));
}

void HashStore::peer_frame(const StoreId&, wire::Connection* connection, wire::Frame& frame) {
  base::Reader reader(frame.body);
  if (frame.type == wire::FrameType::kSyncRequest) {
    const auto request = reader.get<SyncRequest>();
    replica::ReplicaGroup* group = replica_->find(request.group);
    // Without a lease, too: those that would confirm it may all have to be filled (decision 0009).
    if (!group || !group->is_leader()) return;
    const State& state = states_[request.group];
    const SyncReply reply{request.group, state.applied, state.term, state.hash,
                          group->raft().config_index()};
    const auto config = raft::encode_config(group->raft().config());
    connection->send(wire::FrameType::kSyncReply, 0, std::as_bytes(std::span(&reply, 1)), config);
  } else if (frame.type == wire::FrameType::kSyncReply) {
    const auto reply = reader.get<SyncReply>();
    on_sync_reply(reply, reader.raw(reader.left()));
  }
}

void HashStore::on_sync_reply(const SyncReply& reply, std::span<const std::byte> config_bytes) {
  replica::ReplicaGroup* group = replica_->find(reply.group);
  if (!group || !group->raft().syncing() || !syncing_.count(reply.group) || checkpointing_) return;
  if (reply.applied < states_[reply.group].applied) return;
  auto config = raft::decode_config(config_bytes);
  if (!config)
    return cluster_.verdict.fail("sync", "a leader sent a configuration that does not decode");
  finishing_ = reply.group;
  checkpointing_ = true;
  replica_->prepare_finish_sync(
      *group, reply.applied, reply.term, [this, reply, config = *config](Code code) {
        if (code != Code::kOk) return;
        states_[reply.group] = {reply.applied, reply.term, reply.hash};
        auto* record = new replica::Replica::LocalRecord;
        record->group = reply.group;
        record->type = kSyncEnded;
        record->done = [](replica::Replica::LocalRecord* done, Code) { delete done; };
        write_checkpoint([this, reply, config, record](Code written) {
          if (written != Code::kOk) {
            delete record;
            return;
          }
          replica_->finish_sync(*replica_->find(reply.group), reply.applied, reply.term, config,
                                reply.config_index);
          replica_->append_local(record);
          syncing_.erase(reply.group);
          finishing_ = 0;
          cluster_.world.trace(cluster_.world.running(), "sync_finished", reply.group,
                               reply.applied);
          finish_checkpoint();
        });
      });
}

}  // namespace curve::sim
