// StoreServer: life cycle and control.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "native/base/bytes.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/copyset/background.h"
#include "native/copyset/external.h"
#include "native/copyset/repair.h"
#include "native/copyset/scrub.h"
#include "native/copyset/server_state.h"
#include "native/copyset/sync.h"
#include "native/copyset/trace.h"
#include "native/raft/config.h"

namespace curve::copyset {

namespace {

constexpr uint8_t kBlobVersion = 1;
constexpr CopysetId kStoreBlob = 0;  // pool 0 is reserved: this blob is the store's own

}  // namespace

Outcome StoreServer::format(io::Loop& loop, const StorePaths& paths, const StoreFormat& format) {
  // R1: an old store ends before anything of the new one is written. The log comes first then: a
  // store exists once it is complete.
  if (format.force) {
    if (auto erased = chunkstore::ChunkStore::erase(loop, paths.data); !erased) return erased;
  } else {
    if (auto free = chunkstore::ChunkStore::check_free(loop, paths.data); !free) return free;
    if (auto free = wal::Wal::check_free(loop, paths.wal); !free) return free;
  }
  wal::FormatOptions wal_options;
  wal_options.store = format.store;
  wal_options.bytes = format.wal_bytes;
  wal_options.segment_bytes = format.wal_segment_bytes;
  if (auto made = wal::Wal::format(loop, paths.wal, wal_options); !made) return made;
  chunkstore::FormatOptions options;
  options.store = format.store;
  options.cluster = format.cluster;
  options.bytes = format.data_bytes;
  options.reserve_percent = format.reserve_percent;
  options.zeroed = format.zeroed;
  return chunkstore::ChunkStore::format(loop, paths.data, options);
}

void StoreServer::prepare(base::BufferPool& pool) {
  pool.prepare(4u << 10, 1024);
  pool.prepare(64u << 10, 128);
  pool.prepare(256u << 10, 32);
  pool.prepare(kIoBytesMax, 44);
}

Result<bool> StoreServer::exists(io::Loop& loop, const StorePaths& paths) {
  return chunkstore::ChunkStore::exists(loop, paths.data);
}

Result<std::unique_ptr<StoreServer>> StoreServer::open(io::Loop& loop, base::BufferPool& pool,
                                                       const StorePaths& paths,
                                                       std::span<const std::byte> secret,
                                                       const ServerOptions& options) {
  auto store = chunkstore::ChunkStore::open(loop, pool, paths.data);
  if (!store) return store.error();
  auto wal = wal::Wal::open(loop, pool, paths.wal, (*store)->store_id(), options.wal);
  if (!wal) return wal.error();
  auto state = std::make_unique<State>(loop, pool, options);
  state->secret.assign(secret.begin(), secret.end());
  state->store = std::move(*store);
  state->wal = std::move(*wal);
  if (auto recovered = state->recover(); !recovered) return recovered.error();
  return std::unique_ptr<StoreServer>(new StoreServer(std::move(state)));
}

StoreServer::StoreServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
StoreServer::~StoreServer() = default;

StoreServer::State::State(io::Loop& the_loop, base::BufferPool& the_pool,
                          const ServerOptions& the_options)
    : loop(the_loop), pool(the_pool), options(the_options) {
  hook.owner = this;
  hook.run = [](io::TurnHook* turn_hook) { static_cast<State*>(turn_hook->owner)->turn(); };
  failure_timer.owner = this;
  failure_timer.fire = [](io::Timer* timer) { static_cast<State*>(timer->owner)->leave_service(); };
  pace_timer.fire = [](io::Timer*) {};  // the turn's hook lets those go on that wait
  stop_timer.owner = this;
  stop_timer.fire = [](io::Timer* timer) {
    auto* state = static_cast<State*>(timer->owner);
    auto done = std::exchange(state->stopped, nullptr);  // not before all have been told
    state->replica->refuse_unwritten();
    state->stopped = std::move(done);
    state->check_stopped();
  };
}

StoreServer::State::~State() {
  if (failure_timer.armed()) loop.disarm(&failure_timer);
  if (pace_timer.armed()) loop.disarm(&pace_timer);
  for (auto& [client, session] : sessions) delete session;
  if (!loop.abandoned()) return;
  for (wire::Connection* connection : connections) connection->destroy();
}

Copyset::Copyset(CopysetId copyset, OverlayPool& pool, uint64_t& fence_bytes)
    : id(copyset), overlay(pool), fences(&fence_bytes) {}
Copyset::~Copyset() = default;

Copyset& StoreServer::State::copyset_of(CopysetId id) {
  auto& slot = copysets[id];
  if (!slot) {
    slot = std::make_unique<Copyset>(id, overlay_pool, fence_bytes);
    if (auto fences = recovered_fences.find(id); fences != recovered_fences.end()) {
      base::Reader reader(fences->second);
      (void)slot->fences.merge(reader);
    }
  }
  return *slot;
}

// From the last checkpoint and the WAL behind it to running replicas.
Outcome StoreServer::State::recover() {
  identity.role = wire::PeerRole::kStore;
  identity.id = store->store_id();
  identity.incarnation = store->incarnation();
  identity.secret = secret;
  scrub = std::make_unique<Scrub>(*this);
  std::map<CopysetId, replica::GroupBlob> blobs;
  uint64_t cut = 0;
  for (const chunkstore::GroupBlob& blob : store->group_blobs()) {
    base::Reader reader(blob.bytes);
    if (reader.get<uint8_t>() != kBlobVersion) {
      return Error{Code::kVersion,
                   "checkpoint of store " + identity.id.text() + ": copyset " +
                       std::to_string(blob.copyset) +
                       " has a record of an unknown version; use the software that wrote it"};
    }
    if (blob.copyset == kStoreBlob) {
      cut = reader.get<uint64_t>();
      scrub->decode(reader);
      continue;
    }
    const auto own = reader.raw(reader.get<uint32_t>());
    auto group = replica::decode_group_blob(own);
    const auto fences = reader.raw(reader.left());
    Fences check;
    base::Reader fence_reader(fences);
    if (!group || !check.merge(fence_reader) || !fence_reader.done()) {
      return Error{Code::kCorrupt,
                   "checkpoint of store " + identity.id.text() + ": the record of copyset " +
                       std::to_string(blob.copyset) +
                       " is malformed; replace the store and let it be filled again"};
    }
    if (store->pages_lost()) {
      // R10: what the lost pages mapped comes from the peers. Log and votes are whole, so it may
      // vote; it does not stand, acknowledge or serve before it is filled. Nobody knows whose pages
      // they were: every copyset compares its pages with its leader's and fetches what is missing.
      group->syncing = true;
    }
    blobs[blob.copyset] = *group;
    if (group->removed) continue;
    checkpoint_applied[blob.copyset] = group->applied;
    recovered_fences[blob.copyset].assign(fences.begin(), fences.end());
    copyset_of(blob.copyset).applied = group->applied;
  }
  options.raft.fresh = identity.incarnation == 1;
  replica = std::make_unique<replica::Replica>(loop, pool, *wal, *this, identity, options.raft);
  sync_source = std::make_unique<SyncSource>(*this);
  repair = std::make_unique<Repair>(*this);
  external = std::make_unique<External>(*this);
  auto report = replica->recover(blobs, cut);
  if (!report) return report.error();
  if (int error = external->recovered(); error < 0) {
    return Error{Code::kIo, "store " + identity.id.text() +
                                ": cannot make its data durable: " + std::strerror(-error)};
  }
  if (report->anchor_blob.size() >= 8) {
    base::Reader reader(report->anchor_blob);
    const auto promised = reader.get<uint64_t>();
    if (store->checkpoint_version() < promised) {  // R5: the WAL was released for a newer root
      return Error{Code::kCorrupt, "checkpoint root of " + identity.id.text() + ": found version " +
                                       std::to_string(store->checkpoint_version()) +
                                       ", the WAL relies on version " + std::to_string(promised) +
                                       "; replace the store and let it be filled again"};
    }
  }
  recovery = std::move(*report);
  for (const auto& [id, group] : replica->groups()) {
    Copyset& copyset = copyset_of(id);
    copyset.group = group;
    reserve_recovered(copyset);
  }
  recovered_fences.clear();
  for (const auto& [id, grave] : replica->removed()) {
    checkpoint_applied.erase(id);
    Copyset& copyset = copyset_of(id);
    forget(copyset);
    if (!store->next_page(id, {id, {0, 0}, 255})) copyset.drop = Copyset::Drop::kNone;
  }
  background = std::make_unique<Background>(*this);
  base::log(base::LogLevel::kInfo, "store_recovered",
            {{"store", identity.id.text()},
             {"incarnation", identity.incarnation},
             {"wal_appends", recovery.appends},
             {"wal_records", recovery.records},
             {"torn_tail", uint64_t{recovery.torn_tail}},
             {"copysets", uint64_t{copysets.size()}}});
  if (store->pages_lost()) {
    base::log(base::LogLevel::kError, "store_pages_lost",
              {{"store", identity.id.text()},
               {"pages", uint64_t{store->pages_lost()}},
               {"remedy", std::string("its copysets are filled from their peers")}});
  }
  if (recovery.damaged) {
    base::log(base::LogLevel::kError, "wal_damaged",
              {{"store", identity.id.text()}, {"damage", recovery.damage}});
  }
  return {};
}

void StoreServer::State::recovered_local(CopysetId, const wal::RecoveredRecord&) {}

std::vector<std::byte> StoreServer::State::encode_blob(Copyset& copyset, Index applied) {
  replica::GroupBlob blob = replica->blob(*copyset.group, applied);
  blob.commit = std::max(blob.commit, applied);
  std::vector<std::byte> fences;
  base::Writer fence_writer(fences);
  if (CURVE_MUTANT("r12_checkpoint_without_fences"))
    fence_writer.put(uint32_t{0});
  else
    copyset.fences.encode(fence_writer);
  if (copyset.sync && copyset.sync->finishing()) copyset.sync->override_blob(blob, fences);
  const auto group = replica::encode_group_blob(blob);
  std::vector<std::byte> out;
  base::Writer writer(out);
  writer.put(kBlobVersion);
  writer.put(static_cast<uint32_t>(group.size()));
  writer.raw(group);
  writer.raw(fences);
  return out;
}

std::vector<chunkstore::GroupBlob> StoreServer::State::make_blobs(uint64_t cut) {
  std::vector<chunkstore::GroupBlob> blobs;
  chunkstore::GroupBlob& own = blobs.emplace_back();
  own.copyset = kStoreBlob;
  base::Writer writer(own.bytes);
  writer.put(kBlobVersion);
  writer.put(cut);
  scrub->encode(writer);
  for (const auto& [id, group] : replica->groups()) {
    Copyset& copyset = copyset_of(id);
    blobs.push_back({id, encode_blob(copyset, copyset.applied)});
  }
  for (const auto& [id, grave] : replica->removed()) {
    const auto bytes = replica::encode_group_blob(grave);
    chunkstore::GroupBlob& blob = blobs.emplace_back();
    blob.copyset = id;
    base::Writer grave_writer(blob.bytes);
    grave_writer.put(kBlobVersion);
    grave_writer.put(static_cast<uint32_t>(bytes.size()));
    grave_writer.raw(bytes);
    Fences().encode(grave_writer);
  }
  return blobs;
}

// ---- connections

Result<io::Address> StoreServer::listen(const io::Address& address) {
  auto bound = state_->loop.listen(address, state_.get());
  state_->listening = bound.ok();
  return bound;
}

void StoreServer::State::accepted(io::Stream* stream) {
  if (stopping || unauthenticated >= options.unauthenticated_max) return stream->close();
  wire::ConnectionHandler handler;
  handler.owner = this;
  handler.opened = [](void* owner, wire::Connection* c) {
    return static_cast<State*>(owner)->opened(c);
  };
  handler.frame = [](void* owner, wire::Connection* c, wire::Frame& f) {
    static_cast<State*>(owner)->frame(c, f);
  };
  handler.closed = [](void* owner, wire::Connection* c, Code code, int error) {
    static_cast<State*>(owner)->closed(c, code, error);
  };
  ++unauthenticated;
  connections.push_back(wire::Connection::accept(loop, pool, stream, identity, handler));
}

bool StoreServer::State::opened(wire::Connection* connection) {
  --unauthenticated;
  if (stopping || out_of_service) return false;
  switch (connection->peer_role()) {
    case wire::PeerRole::kStore:
      return replica->peer_accepted(connection);
    case wire::PeerRole::kClient:
      return open_session(connection);
    default:
      connection->refuse(Code::kInvalid, "a chunkserver talks to stores and volume clients only");
      return false;
  }
}

void StoreServer::State::frame(wire::Connection* connection, wire::Frame& frame) {
  if (connection->peer_role() == wire::PeerRole::kStore)
    return replica->peer_frame(connection, frame);
  Session* session = static_cast<Session*>(connection->user);
  if (!session) return;
  switch (frame.type) {
    case wire::FrameType::kRead:
    case wire::FrameType::kWrite:
    case wire::FrameType::kZero:
    case wire::FrameType::kBlockStatus:
    case wire::FrameType::kProbe:
      return request_frame(*session, frame);
    case wire::FrameType::kTrace:
      return trace_frame(*session, frame);
    default:
      connection->refuse(Code::kInvalid, "unknown request type");
  }
}

void StoreServer::State::closed(wire::Connection* connection, Code code, int error) {
  std::erase(connections, connection);
  if (!connection->was_open()) --unauthenticated;
  if (connection->peer_role() == wire::PeerRole::kStore) {
    if (connection->user) replica->peer_closed(connection, code, error);
  } else if (Session* session = static_cast<Session*>(connection->user)) {
    close_session(session);
  }
  if (stopping) check_stopped();
}

// ---- control

void StoreServer::start() {
  State& state = *state_;
  state.loop.add_turn_hook(&state.hook);
  state.replica->start();
  state.background->start();
  state.scrub->start();
}

void StoreServer::State::turn() {
  if (!out_of_service && (wal->failed() || store->failed())) failed(Code::kIo);
  ++turns;
  if (trace) trace->look();
  look_at_room();
  if (!parked_copysets.empty()) unpark();
  if (!waiting_copysets.empty()) wake_waiting();
}

// The process goes on, to say why; the store does nothing any more. Clients and peers find their
// connections closed and go elsewhere.
void StoreServer::State::leave_service() {
  if (stopping) return;
  if (trace) trace->finish();
  background->stop();
  repair->stop();
  scrub->stop();
  for (wire::Connection* connection : connections) connection->close();
  replica->stop();
}

void StoreServer::stop(std::function<void()> stopped) {
  State& state = *state_;
  state.stopping = true;
  state.stopped = std::move(stopped);
  if (state.listening) state.loop.close_listener(&state);
  state.listening = false;
  if (state.trace) state.trace->finish();
  state.unpark();
  state.wake_waiting();
  state.background->stop();
  state.repair->stop();
  state.scrub->stop();
  for (wire::Connection* connection : state.connections) connection->close();
  state.replica->stop();
  state.loop.arm(&state.stop_timer, state.loop.now_ns());
}

// Nothing of ours may be in flight any more when the owner destroys us.
void StoreServer::State::check_stopped() {
  if (!stopped) return;
  const bool busy = requests_with_io() || !background->idle() || !repair->idle() || wal->busy() ||
                    !scrub->idle() || !connections.empty() || !replica->idle();
  if (busy) {
    loop.arm(&stop_timer, loop.now_ns() + 5'000'000);
    return;
  }
  loop.disarm(&stop_timer);
  loop.remove_turn_hook(&hook);
  const auto done = std::exchange(stopped, nullptr);
  replica->drop_proposals();
  done();
}

bool StoreServer::State::requests_with_io() const {
  return std::any_of(all_requests.begin(), all_requests.end(),
                     [](const auto& request) { return request->pieces_left != 0; });
}

void StoreServer::on_failure(std::function<void(Code, std::string)> failed) {
  state_->failure = std::move(failed);
}
const StoreId& StoreServer::store_id() const { return state_->identity.id; }
const StoreId& StoreServer::cluster_id() const { return state_->store->cluster_id(); }
bool StoreServer::direct_io() const { return state_->store->direct_io(); }
Incarnation StoreServer::incarnation() const { return state_->identity.incarnation; }
replica::Replica& StoreServer::replica() { return *state_->replica; }
void StoreServer::set_peer(const StoreId& store, const io::Address& address) {
  state_->replica->set_peer(store, address);
}
void StoreServer::form(const replica::Genesis& genesis, std::function<void(Code)> done) {
  state_->replica->form_group(genesis, std::move(done));
}

namespace {

// One control command in many copysets at once.
struct ControlCall {
  FenceResult result;
  size_t left = 0;
  std::function<void(FenceResult)> done;
};
struct ControlProposal : Proposal {
  std::shared_ptr<ControlCall> call;
  CopysetId copyset = 0;
};

void control_finished(Proposal* proposal, Code code) {
  std::unique_ptr<ControlProposal> mine(static_cast<ControlProposal*>(proposal));
  FenceResult& result = mine->call->result;
  (code == Code::kOk        ? result.applied
   : code == Code::kNoSpace ? result.no_space
                            : result.not_leader)
      .push_back(mine->copyset);
  if (--mine->call->left == 0) mine->call->done(std::move(mine->call->result));
}

void propose_everywhere(StoreServer::State& state, const std::vector<CopysetId>& copysets,
                        std::span<const std::byte> head,
                        const std::function<bool(const Copyset&)>& has_room,
                        std::function<void(FenceResult)> done) {
  auto call = std::make_shared<ControlCall>();
  call->left = copysets.size() + 1;
  call->done = std::move(done);
  for (CopysetId id : copysets) {
    auto* proposal = new ControlProposal;
    proposal->finished = control_finished;
    proposal->call = call;
    proposal->copyset = id;
    auto it = state.copysets.find(id);
    if (it == state.copysets.end()) {
      proposal->finished(proposal, Code::kNoCopyset);
    } else if (it->second->group && it->second->group->is_leader() && !has_room(*it->second)) {
      proposal->finished(proposal, Code::kNoSpace);
    } else {
      state.propose_control(*it->second, head, proposal);
    }
  }
  if (--call->left == 0) call->done(std::move(call->result));
}

}  // namespace

void StoreServer::fence(VolumeId volume, Epoch floor, Epoch ceiling,
                        const std::vector<Epoch>& revoked, const std::vector<CopysetId>& copysets,
                        std::function<void(FenceResult)> done) {
  FenceCommand command;
  command.volume = volume;
  command.floor = floor;
  command.ceiling = ceiling;
  command.revoked = static_cast<uint32_t>(revoked.size());
  std::vector<std::byte> head;
  base::Writer writer(head);
  writer.put(command);
  for (Epoch epoch : revoked) writer.put(epoch);
  if (head.size() > wal::kHeadBytesMax) return done({{}, copysets, {}});
  // R8: before the log. One that adds nothing to a checkpoint always goes through.
  const auto has_room = [&](const Copyset& copyset) {
    const uint64_t more = copyset.fences.growth_bytes(volume, revoked);
    return more == 0 || state_->fence_has_room(copyset, more * copysets.size());
  };
  propose_everywhere(*state_, copysets, head, has_room, std::move(done));
}

void StoreServer::delete_volume(VolumeId volume, const std::vector<CopysetId>& copysets,
                                std::function<void(FenceResult)> done) {
  FenceCommand command;
  command.type = CommandType::kDeleteVolume;
  command.volume = volume;
  command.floor = command.ceiling = kEpochInfinity;
  propose_everywhere(
      *state_, copysets, std::as_bytes(std::span(&command, 1)), [](const Copyset&) { return true; },
      std::move(done));
}

Code StoreServer::transfer(CopysetId copyset, const StoreId& to) {
  replica::ReplicaGroup* group = state_->replica->find(copyset);
  return group ? group->raft().transfer_to(to, state_->loop.now_ns()) : Code::kNoCopyset;
}

void StoreServer::scrub(uint64_t bytes_per_second) { state_->scrub->begin(bytes_per_second); }

void StoreServer::check_volume(const CheckRequest& request, std::function<void(CheckReport)> done) {
  state_->scrub->check(request, std::move(done));
}

void StoreServer::checkpoint_now(std::function<void(Code)> done) {
  state_->background->run_now(std::move(done));
}

}  // namespace curve::copyset
