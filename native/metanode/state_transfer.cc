// State transfer between metaservers (R10): a member whose next entry the leader no longer keeps
// fetches the newest snapshot in pieces and installs it at one stroke. docs/formats/wire.md
// "Metaserver state transfer". The loop's thread.
#include <algorithm>
#include <cstring>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/metanode/metanode_state.h"

namespace curve::metanode {

namespace {

constexpr uint64_t kSnapshotPieceBytes = 512 * 1024;
constexpr uint64_t kFetchAgainNs = 5'000'000'000;  // after a state that the disk did not take

}  // namespace

void MetaNode::State::sync_offered(replica::ReplicaGroup&, const StoreId& leader, Index) {
  if (fetching && fetching_from == leader) return;
  if (thread->loop().now_ns() < fetch_after_ns) return;  // offered again
  fetching = true;
  fetching_from = leader;
  fetched.clear();
  base::log(base::LogLevel::kInfo, "state_transfer_started",
            {{"from", leader.text()}, {"applied", delivered}});
  ask_chunk(0, 0);
}

void MetaNode::State::ask_chunk(Index index, uint64_t offset) {
  fetch_deadline_ns = thread->loop().now_ns() + 2'000'000'000;
  wire::Connection* connection = replica->peer_connection(fetching_from);
  if (!connection) {
    fetching = false;
    return;
  }
  const ChunkRequest request{index, offset};
  connection->send(wire::FrameType::kSnapshotChunk, 0, std::as_bytes(std::span(&request, 1)));
}

void MetaNode::State::peer_frame(const StoreId& peer, wire::Connection* connection,
                                 wire::Frame& frame) {
  if (frame.type == wire::FrameType::kSnapshotChunk) return serve_chunk(connection, frame);
  if (frame.type == wire::FrameType::kSnapshotChunkReply) {
    if (fetching && peer == fetching_from) take_chunk(frame);
    return;
  }
  connection->close();
}

void MetaNode::State::serve_chunk(wire::Connection* connection, wire::Frame& frame) {
  base::Reader reader(frame.body);
  const auto request = reader.get<ChunkRequest>();
  if (!reader.done()) return connection->close();
  if (!newest.index) {  // nothing to give yet: one is made
    wanted_at = 0;
    if (delivered) push({.type = EventType::kSnapshotWanted, .index = delivered});
    return;
  }
  if (serving_index != newest.index) {
    auto loaded = files.load(newest);
    if (!loaded) {
      base::log(base::LogLevel::kError, "snapshot_unreadable",
                {{"reason", loaded.error().message}});
      return;
    }
    serving = std::move(*loaded);
    serving_index = newest.index;
  }
  ChunkReply reply;
  reply.index = newest.index;
  reply.term = newest.term;
  reply.total = serving.size();
  reply.offset =
      request.index == newest.index ? std::min<uint64_t>(request.offset, serving.size()) : 0;
  reply.bytes = static_cast<uint32_t>(std::min(kSnapshotPieceBytes, serving.size() - reply.offset));
  reply.blob_bytes = static_cast<uint32_t>(newest.blob.size());
  base::Buffer payload;
  if (reply.bytes) {
    payload = pool.take(reply.bytes);
    std::memcpy(payload.data(), serving.data() + reply.offset, reply.bytes);
  }
  connection->send(wire::FrameType::kSnapshotChunkReply, 0, std::as_bytes(std::span(&reply, 1)),
                   newest.blob, payload, 0, reply.bytes);
}

void MetaNode::State::take_chunk(wire::Frame& frame) {
  base::Reader reader(frame.body);
  const auto reply = reader.get<ChunkReply>();
  const auto blob = reader.raw(reply.blob_bytes);
  if (!reader.done() || frame.payload.size() != reply.bytes ||
      (reply.offset != 0 && reply.offset != fetched.size())) {
    fetching = false;
    return;
  }
  if (reply.offset == 0) fetched.clear();  // from the start: a newer snapshot than the one before
  if (reply.bytes) fetched.append(reinterpret_cast<const char*>(frame.payload.data()), reply.bytes);
  if (fetched.size() < reply.total) return ask_chunk(reply.index, fetched.size());
  install(reply, blob);
}

// R10: the state machine's state changes at one stroke; the file is durable before raft hears of
// it. A disk that has no room for it is no reason to stop: this member lags until there is.
void MetaNode::State::install(const ChunkReply& reply, std::span<const std::byte> bytes) {
  fetching = false;
  auto theirs = replica::decode_group_blob(bytes);
  if (!theirs || !group || reply.index <= delivered) return;
  auto staged = files.stage(reply.index, reply.term, fetched);
  fetched = {};
  if (!staged) {
    fetch_after_ns = thread->loop().now_ns() + kFetchAgainNs;
    base::log(base::LogLevel::kError, "state_transfer_failed",
              {{"reason", staged.error().message}});
    return;
  }
  replica->prepare_finish_sync(
      *group, reply.index, reply.term,
      [this, blob = *theirs, snapshot = std::move(*staged)](Code code) mutable {
        if (code != Code::kOk || stopping) return;
        raft::Group& raft = group->raft();
        blob.applied = snapshot.index;
        blob.applied_term = snapshot.term;
        blob.hard = raft.hard();  // votes are our own
        blob.commit = snapshot.index;
        blob.damaged = blob.syncing = false;
        snapshot.blob = replica::encode_group_blob(blob);
        auto saved = files.publish(std::move(snapshot));
        if (!saved) return failed(Code::kIo);
        raft.begin_sync(thread->loop().now_ns());
        replica->finish_sync(*group, saved->index, saved->term, blob.config, blob.config_index);
        undelivered.clear();
        delivered = wanted_at = saved->index;
        push({.type = EventType::kInstallSnapshot,
              .index = saved->index,
              .term = saved->term,
              .text = saved->path});
        base::log(base::LogLevel::kInfo, "state_transfer_finished", {{"index", saved->index}});
        snapshot_saved(std::move(*saved));
      });
}

}  // namespace curve::metanode
