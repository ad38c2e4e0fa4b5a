// Private state of MetaNode, shared by its source files: metanode.cc (life cycle, proposals,
// delivery, snapshots of its own) and state_transfer.cc. See metanode.h for the rules. The loop's
// thread, but for what is atomic or a queue.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "native/io/loop_thread.h"
#include "native/metanode/metanode.h"
#include "native/metanode/snapshot_files.h"
#include "native/replica/replica.h"

namespace curve::metanode {

inline constexpr CopysetId kGroup = 0;

// kSnapshotChunk (request) and kSnapshotChunkReply, docs/formats/wire.md "Metaserver state
// transfer".
struct ChunkRequest {
  Index index = 0;  // 0: of your newest
  uint64_t offset = 0;
};
struct ChunkReply {
  Index index = 0;
  Term term = 0;
  uint64_t offset = 0, total = 0;
  uint32_t bytes = 0, blob_bytes = 0;  // payload: `bytes` of state; the body ends with the blob
};

struct MetaNode::State final : replica::StateMachine, io::Listener {
  Options options;
  std::unique_ptr<io::LoopThread> thread;
  base::BufferPool pool;
  std::unique_ptr<wal::Wal> wal;
  wire::Identity identity;
  std::unique_ptr<replica::Replica> replica;
  replica::ReplicaGroup* group = nullptr;
  io::EventQueue<Event> events;
  std::atomic<uint64_t> next_ticket{1}, outstanding{0};
  std::string bound;
  std::set<wire::Connection*> connections;  // all accepted ones
  io::TurnHook hook;
  SnapshotFiles files;
  Snapshot newest;           // durable
  Index delivered = 0;       // events pushed through here
  Index wanted_at = 0;       // a snapshot was asked for at this index
  uint64_t wanted_head = 0;  // and at this head of the WAL
  bool stopping = false, stopped = false;

  struct Undelivered {
    replica::EntryRef entry;
    uint64_t ticket;
    uint32_t bytes;
    bool loaded;
  };
  std::deque<Undelivered> undelivered;  // committed, in order; the first may wait for its payload
  wal::ReadOp payload_read;
  base::Buffer payload_buffer;
  bool payload_reading = false;

  struct Read {
    uint64_t ticket;
    Index index;  // 0: the lease is not there yet
    Term term;
    uint64_t give_up_ns;
  };
  std::vector<Read> reads;

  // Follower side of a state transfer.
  StoreId fetching_from;
  std::string fetched;
  bool fetching = false;
  uint64_t fetch_deadline_ns = 0, fetch_after_ns = 0;
  // Leader side.
  Index serving_index = 0;
  std::string serving;

  Outcome open();
  void start_on_loop();
  void formed();
  void turn();
  void push(Event event) { events.push(std::move(event)); }
  void deliver();
  void propose(uint64_t ticket, std::string command);
  void fail(uint64_t ticket, bool lost);
  void snapshot_saved(Snapshot snapshot);
  void want_snapshot();
  void ask_chunk(Index index, uint64_t offset);
  void serve_chunk(wire::Connection* connection, wire::Frame& frame);
  void take_chunk(wire::Frame& frame);
  void install(const ChunkReply& reply, std::span<const std::byte> blob);
  Status make_status();

  // io::Listener
  void accepted(io::Stream* stream) override;
  // replica::StateMachine
  void apply(replica::ReplicaGroup& applied, std::span<const replica::EntryRef> entries) override;
  bool admit(replica::ReplicaGroup&, Index, std::span<const std::byte>) override { return true; }
  void dropped(replica::ReplicaGroup&, replica::Entry& entry) override {
    fail(reinterpret_cast<uint64_t>(entry.context), true);
  }
  void role_changed(replica::ReplicaGroup& changed) override;
  void sync_offered(replica::ReplicaGroup&, const StoreId& leader, Index) override;
  void peer_frame(const StoreId& peer, wire::Connection* connection, wire::Frame& frame) override;
  void peer_closed(const StoreId& peer) override {
    if (peer == fetching_from) fetching = false;
  }
  void moved(replica::ReplicaGroup&, replica::Entry&, uint64_t) override {}
  void recovered_local(CopysetId, const wal::RecoveredRecord&) override {}
  void failed(Code code) override {
    push({.type = EventType::kStopped,
          .text = "a durable write to the log failed (" + std::string(code_name(code)) +
                  "); check the device, empty this metaserver's directory and let it join again"});
  }
};

}  // namespace curve::metanode
