// MetaNode: life cycle, proposals, what is committed on its way to Python, snapshots of its own.
// Threads: metanode.h.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/metanode/metanode_state.h"

namespace curve::metanode {

namespace {

constexpr uint32_t kInlineBytesMax = 8 * 1024;  // longer commands are the entry's payload
constexpr uint64_t kOutstandingMax = 4096;      // proposals not yet answered

struct Head {  // of an entry; then the command when it is not in the payload
  uint32_t command_bytes = 0;
  uint32_t flags = 0;
};

}  // namespace

Result<std::unique_ptr<MetaNode>> MetaNode::open(Options options) {
  auto state = std::make_shared<State>();
  state->options = std::move(options);
  if (auto opened = state->open(); !opened) return opened.error();
  return std::unique_ptr<MetaNode>(new MetaNode(std::move(state)));
}

Outcome MetaNode::State::open() {
  const std::string wal_path = options.directory + "/wal", new_path = wal_path + ".new";
  auto loop = io::make_loop();
  if (!loop) return loop.error();
  thread = std::make_unique<io::LoopThread>(std::move(*loop));
  const bool empty = !std::filesystem::exists(wal_path);
  if (empty && !options.bootstrap) {  // R1
    return Error{
        Code::kNotFound,
        "the metaserver's directory " + options.directory +
            " is empty; start it with bootstrap to form a new cluster, never to replace a member"};
  }
  if (empty) {
    wal::FormatOptions format;
    format.store = options.id;
    format.bytes = options.wal_bytes;
    if (auto made = wal::Wal::format(thread->loop(), new_path, format); !made) return made;
  }
  auto opened = wal::Wal::open(thread->loop(), pool, empty ? new_path : wal_path, options.id, {});
  if (!opened) return opened.error();
  wal = std::move(*opened);
  files.directory = options.directory;
  auto found = files.newest();
  if (!found) return found.error();
  newest = *found;

  identity.role = wire::PeerRole::kMetaserver;
  identity.id = options.id;
  identity.incarnation = wal->generation() + 1;  // what recover() makes durable (R9)
  identity.secret = options.secret;
  raft::HostOptions raft;
  raft.fresh = empty;
  replica = std::make_unique<replica::Replica>(thread->loop(), pool, *wal, *this, identity, raft);
  std::map<CopysetId, replica::GroupBlob> blobs;
  if (newest.index) {
    auto blob = replica::decode_group_blob(newest.blob);
    if (!blob) return blob.error();
    blobs[kGroup] = *blob;
    delivered = wanted_at = newest.index;
    push({.type = EventType::kInstallSnapshot,
          .index = newest.index,
          .term = newest.term,
          .text = newest.path});
  }
  auto report = replica->recover(blobs, UINT64_MAX);
  if (!report) return report.error();
  group = replica->find(kGroup);
  for (const Member& member : options.members) replica->set_peer(member.id, {member.address});
  auto listening = thread->loop().listen({options.listen}, this);
  if (!listening) return listening.error();
  bound = listening->text;
  return {};
}

MetaNode::MetaNode(std::shared_ptr<State> state) : state_(std::move(state)) {}

MetaNode::~MetaNode() { stop(); }

void MetaNode::start() {
  state_->thread->call([state = state_.get()] { state->start_on_loop(); });
  state_->thread->run();
}

void MetaNode::State::start_on_loop() {
  hook.owner = this;
  hook.run = [](io::TurnHook* each) { static_cast<State*>(each->owner)->turn(); };
  thread->loop().add_turn_hook(&hook);
  replica->start();
  if (group || !options.bootstrap) return;
  replica::Genesis genesis;  // R1: every member forms it from the same configured list
  genesis.group = kGroup;
  std::vector<Member> members = options.members;
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.id < b.id; });
  genesis.config.count = static_cast<uint8_t>(std::min(members.size(), kReplicasMax));
  for (size_t i = 0; i < genesis.config.count; ++i) genesis.config.members[i].store = members[i].id;
  genesis.config.preferred = members.front().id;
  replica->form_group(genesis, [this](Code code) {
    if (code == Code::kOk) formed();
  });
}

// R1: the log gets its name once the genesis is durable and before anything was voted or answered:
// cut off before, this metaserver was no member yet and may be bootstrapped again.
void MetaNode::State::formed() {
  const std::string path = options.directory + "/wal";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) std::filesystem::rename(path + ".new", path, error);
  if (error || !sync_directory(options.directory)) {
    push({.type = EventType::kStopped,
          .text = "the log " + path + ".new cannot be given its name (" + error.message() +
                  "); check the disk and the directory's owner"});
    return;
  }
  group = replica->find(kGroup);
}

void MetaNode::stop() {
  State& state = *state_;
  if (state.stopped) return;
  state.stopped = true;
  if (!state.thread->running()) return;
  state.thread->call_and_wait([&state] {
    state.stopping = true;
    state.thread->loop().close_listener(&state);
    std::vector<wire::Connection*> open;
    for (wire::Connection* connection : state.connections) open.push_back(connection);
    for (wire::Connection* connection : open) connection->close();
    state.replica->stop();
  });
  // What is in flight is on its way to the disk; a bounded wait for it, then the loop ends and
  // takes the rest with it.
  for (int i = 0; i < 400; ++i) {
    bool idle = false;
    state.thread->call_and_wait([&] {
      idle = state.replica->idle() && state.connections.empty() && !state.payload_reading;
    });
    if (idle) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  state.thread->stop_and_join();
  state.thread->loop().abandon();
  state.push({.type = EventType::kStopped});
}

int MetaNode::fd() const { return state_->events.fd(); }
std::vector<Event> MetaNode::poll(size_t max) { return state_->events.take(max); }

uint64_t MetaNode::propose(std::string command) {
  State& state = *state_;
  if (command.size() > kCommandBytesMax || state.outstanding.load() >= kOutstandingMax) return 0;
  ++state.outstanding;
  const uint64_t ticket = state.next_ticket++;
  state.thread->call([&state, ticket, command = std::move(command)]() mutable {
    state.propose(ticket, std::move(command));
  });
  return ticket;
}

void MetaNode::State::fail(uint64_t ticket, bool lost) {
  --outstanding;
  push({.type = EventType::kProposalFailed, .ticket = ticket, .flag = lost});
}

void MetaNode::State::propose(uint64_t ticket, std::string command) {
  if (!group || !group->is_leader()) return fail(ticket, false);
  replica::EntryRef entry = replica->take_entry();
  Head head;
  head.command_bytes = static_cast<uint32_t>(command.size());
  base::Writer writer(entry->head);
  writer.put(head);
  const auto bytes = std::as_bytes(std::span(command));
  if (bytes.size() <= kInlineBytesMax) {
    writer.raw(bytes);
  } else {
    const size_t sectors = (bytes.size() + kSectorBytes - 1) / kSectorBytes;
    entry->payload = pool.take(sectors * kSectorBytes);
    std::memset(entry->payload.data(), 0, entry->payload.size());
    std::memcpy(entry->payload.data(), bytes.data(), bytes.size());
    for (size_t i = 0; i < sectors; ++i) {
      entry->sector_crcs.push_back(
          base::crc32c(entry->payload.bytes().subspan(i * kSectorBytes, kSectorBytes)));
    }
  }
  if (replica->may_propose(*group, entry->payload.size(), entry->head.size()) != Code::kOk)
    return fail(ticket, false);
  entry->context = reinterpret_cast<void*>(ticket);
  replica->propose(*group, entry);
}

void MetaNode::State::apply(replica::ReplicaGroup&, std::span<const replica::EntryRef> entries) {
  for (const replica::EntryRef& entry : entries) {
    const uint64_t ticket = reinterpret_cast<uint64_t>(entry->context);
    entry->context = nullptr;
    uint32_t bytes = 0;
    if (entry->type == raft::EntryType::kData && entry->head.size() >= sizeof(Head)) {
      Head head;
      std::memcpy(&head, entry->head.data(), sizeof head);
      bytes = head.command_bytes;
    }
    undelivered.push_back({entry, ticket, bytes, entry->in_memory()});
  }
  deliver();
}

// Pushes what is loaded, in order; starts reading the payload of the first that is not (only after
// a restart).
void MetaNode::State::deliver() {
  while (!undelivered.empty() && !payload_reading) {
    Undelivered& first = undelivered.front();
    replica::Entry& entry = *first.entry;
    if (!first.loaded) {
      payload_reading = true;
      payload_buffer = pool.take(entry.sector_crcs.size() * kSectorBytes);
      payload_read.owner = this;
      payload_read.position = entry.payload_position;
      payload_read.into = payload_buffer.span();
      payload_read.done = [](io::Op* op) {
        State* self = static_cast<State*>(op->owner);
        self->payload_reading = false;
        if (self->stopping) return;
        Undelivered& waiting = self->undelivered.front();
        bool good = op->result >= 0;
        for (size_t i = 0; good && i < waiting.entry->sector_crcs.size(); ++i) {
          const auto sector = self->payload_buffer.bytes().subspan(i * kSectorBytes, kSectorBytes);
          good = base::crc32c(sector) == waiting.entry->sector_crcs[i];
        }
        if (!good) return self->failed(Code::kCorrupt);
        waiting.entry->payload = std::move(self->payload_buffer);
        waiting.loaded = true;
        self->deliver();
      };
      return wal->read(&payload_read);
    }
    delivered = entry.index;
    if (entry.type == raft::EntryType::kData) {
      const bool inlined = entry.sector_crcs.empty();
      const char* from = inlined ? reinterpret_cast<const char*>(entry.head.data()) + sizeof(Head)
                                 : reinterpret_cast<const char*>(entry.payload.data());
      const size_t room = inlined ? entry.head.size() - std::min(entry.head.size(), sizeof(Head))
                                  : entry.payload.size();
      if (first.ticket) --outstanding;
      push({.type = EventType::kCommitted,
            .index = entry.index,
            .term = entry.term,
            .ticket = first.ticket,
            .text = std::string(from, std::min<size_t>(first.bytes, room))});
    }
    undelivered.pop_front();
  }
  want_snapshot();
}

void MetaNode::State::want_snapshot() {
  const bool many = delivered >= wanted_at + options.snapshot_entries;
  // Not at every entry while the WAL stays full: only once a snapshot would free something.
  const bool full = wal->used_bytes() > wal->capacity_bytes() / 2 &&
                    delivered > std::max(wanted_at, newest.index) &&
                    wal->head_position() >= wanted_head + wal->capacity_bytes() / 8;
  if (!many && !full) return;
  wanted_at = delivered;
  wanted_head = wal->head_position();
  push({.type = EventType::kSnapshotWanted, .index = delivered});
}

void MetaNode::State::role_changed(replica::ReplicaGroup& changed) {
  group = &changed;
  push({.type = EventType::kLeaderChanged,
        .term = changed.raft().term(),
        .flag = changed.is_leader(),
        .leader = changed.raft().leader()});
}

uint64_t MetaNode::read_index() {
  State& state = *state_;
  if (state.outstanding.load() >= kOutstandingMax) return 0;
  const uint64_t ticket = state.next_ticket++;
  state.thread->call([&state, ticket] {
    state.reads.push_back({ticket, 0, 0, state.thread->loop().now_ns() + 1'000'000'000});
  });
  return ticket;
}

void MetaNode::transfer(const StoreId& to) {
  state_->thread->call([state = state_.get(), to] {
    if (state->group) (void)state->group->raft().transfer_to(to, state->thread->loop().now_ns());
  });
}

// R9: the read index is taken while the lease holds; the answer follows everything committed before
// it.
void MetaNode::State::turn() {
  const uint64_t now = thread->loop().now_ns();
  for (size_t i = 0; i < reads.size();) {
    Read& read = reads[i];
    const bool leads = group && group->is_leader();
    if (leads && !read.index && group->raft().lease_valid(now))
      read.index = group->raft().read_index();
    const bool ready = read.index && delivered >= read.index;
    if (!ready && leads && now < read.give_up_ns) {
      ++i;
      continue;
    }
    push({.type = ready ? EventType::kReadReady : EventType::kReadFailed, .ticket = read.ticket});
    reads.erase(reads.begin() + static_cast<ptrdiff_t>(i));
  }
  if (fetching && now > fetch_deadline_ns) fetching = false;  // offered again by the leader
}

// ---- snapshots

Outcome MetaNode::snapshot_begin(Index index, Term term) {
  return state_->files.begin(index, term);
}
Outcome MetaNode::snapshot_write(std::span<const std::byte> data) {
  return state_->files.write(data);
}

Outcome MetaNode::snapshot_commit() {
  State& state = *state_;
  std::vector<std::byte> blob;
  state.thread->call_and_wait([&] {
    if (!state.group || state.group->raft().term_at(state.files.index) == 0) return;
    replica::GroupBlob own = state.replica->blob(*state.group, state.files.index);
    own.commit = std::max(own.commit, state.files.index);
    blob = replica::encode_group_blob(own);
  });
  if (blob.empty())
    return Error{Code::kInvalid, "the log no longer has the entry that this snapshot stands for"};
  auto saved = state.files.commit(blob);
  if (!saved) return saved.error();
  state.thread->call([&state, snapshot = std::move(*saved)] { state.snapshot_saved(snapshot); });
  return {};
}

// Keeps a quarter of the WAL for members that lag; gives the rest back (R7). Less than the half at
// which a snapshot is asked for, so that one snapshot lasts for a while.
void MetaNode::State::snapshot_saved(Snapshot snapshot) {
  if (snapshot.index <= newest.index) return;
  newest = std::move(snapshot);
  serving_index = 0;
  serving.clear();
  const uint64_t head = wal->head_position(), keep = wal->capacity_bytes() / 4;
  const uint64_t to = wal->segment_start(head > keep ? head - keep : 0);
  if (head <= keep || to <= wal->start_position()) return;
  const std::map<CopysetId, Index> applied{{kGroup, newest.index}};
  replica->relocate_before(to, applied, [this](Code code, uint64_t to) {
    if (code != Code::kOk || stopping || to <= wal->start_position()) return;
    auto* op = new io::Op;
    op->owner = this;
    op->done = [](io::Op* each) { delete each; };
    wal->release_before(to, {}, op);
  });
}

// ---- connections

void MetaNode::State::accepted(io::Stream* stream) {
  if (stopping || connections.size() > 256) return stream->close();
  wire::ConnectionHandler handler;
  handler.owner = this;
  handler.opened = [](void* owner, wire::Connection* connection) {
    State* self = static_cast<State*>(owner);
    if (connection->peer_role() != wire::PeerRole::kMetaserver) {
      connection->refuse(Code::kInvalid, "this port is for metaservers only");
      return false;
    }
    return self->replica->peer_accepted(connection);
  };
  handler.frame = [](void* owner, wire::Connection* connection, wire::Frame& frame) {
    static_cast<State*>(owner)->replica->peer_frame(connection, frame);
  };
  handler.closed = [](void* owner, wire::Connection* connection, Code code, int error) {
    State* self = static_cast<State*>(owner);
    self->connections.erase(connection);
    if (connection->was_open()) self->replica->peer_closed(connection, code, error);
  };
  connections.insert(wire::Connection::accept(thread->loop(), pool, stream, identity, handler));
}

Status MetaNode::State::make_status() {
  Status out;
  out.wal_bytes = wal->used_bytes();
  out.listen = bound;
  if (!group) {
    out.role = "learner";
    return out;
  }
  raft::Group& raft = group->raft();
  constexpr const char* kRoles[] = {"follower", "candidate", "candidate", "leader"};
  out.role = kRoles[static_cast<size_t>(raft.role())];
  out.term = raft.term();
  out.leader = raft.leader();
  out.commit = raft.commit();
  out.applied = delivered;
  out.first = raft.first_index();
  out.last = raft.last_index();
  if (group->is_leader()) {
    for (const raft::Progress& progress : raft.progress()) {
      out.members.push_back(
          {progress.store, raft.last_index() - std::min(raft.last_index(), progress.match)});
    }
  }
  return out;
}

Status MetaNode::status() {
  Status out;
  State& state = *state_;
  if (state.thread->running() && !state.stopped) {
    state.thread->call_and_wait([&] { out = state.make_status(); });
  } else {
    out = state.make_status();
  }
  return out;
}

}  // namespace curve::metanode
