// The leader's side of chunk sync (sync.h): what the copyset has, and its blocks as applied now.
// One loop thread.
#include <algorithm>
#include <bit>
#include <cstring>

#include "native/base/bytes.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/copyset/sync.h"
#include "native/wire/codec.h"

namespace curve::copyset {

namespace {

constexpr uint32_t kPagesPerReply = 1024;

}  // namespace

void SyncSource::request(const StoreId& peer, wire::Connection* connection, wire::Frame& frame) {
  base::Reader reader(frame.body);
  const auto body = reader.get<SyncRequestBody>();
  auto it = server_.copysets.find(body.copyset);
  if (!reader.done() || it == server_.copysets.end() || !it->second->group ||
      body.block >= kBlocksPerChunk) {
    SyncReplyBody reply;
    reply.kind = body.kind;
    reply.code = static_cast<uint16_t>(Code::kNoCopyset);
    reply.copyset = body.copyset;
    return connection->send(wire::FrameType::kSyncReply, frame.tag, wire::body_bytes(reply));
  }
  switch (static_cast<SyncKind>(body.kind)) {
    case SyncKind::kBegin:
      return begin(peer, connection, *it->second, body, frame.tag);
    case SyncKind::kPages:
      return pages(peer, connection, *it->second, body, frame.tag);
    case SyncKind::kBlock:
      return block(peer, *it->second, body, frame.tag);
  }
}

// What the copyset has, in order; how much of it the target will ask for. R10: for whoever holds
// everything through the S of the last list, a page is as it was at that S but for the blocks that
// moved to the store since, which `recent` names with those of the overlay (`follows`).
uint64_t SyncSource::list_pages(Copyset& copyset, Index unchanged_since, bool follows,
                                Filling& filling) {
  std::map<chunkstore::PageId, SyncPage> found;
  chunkstore::PageId at{copyset.id, {0, 0}, 255};
  while (auto next = server_.store->next_page(copyset.id, at)) {
    at = *next;
    // A deleted volume's pages are dropped by the next background step; whoever is filled at an
    // index behind the deletion would keep them.
    if (copyset.fences.deleted(at.chunk.volume)) continue;
    found[at] = {at.chunk.volume, at.chunk.chunk, at.page, server_.store->page_index(at),
                 server_.store->mapped_in_page(at)};
  }
  copyset.overlay.visit_blocks([&](const ChunkKey& chunk, uint32_t block) {
    if (copyset.fences.deleted(chunk.volume)) return;
    const uint8_t page = static_cast<uint8_t>(block / chunkstore::kBlocksPerPage);
    SyncPage& has = found[{copyset.id, chunk, page}];
    has.volume = chunk.volume;
    has.chunk = chunk.chunk;
    has.page = page;
    const uint64_t bit = uint64_t{1} << (block % chunkstore::kBlocksPerPage);
    has.blocks |= bit;
    if (copyset.overlay.changed_since(chunk, block, unchanged_since)) has.recent |= bit;
  });
  filling.pages.clear();
  uint64_t blocks = 0;
  for (auto& [id, page] : found) {
    if (follows && page.index > filling.start) {
      page.index = filling.start;
      const auto moved = filling.moved.find(id);
      if (moved != filling.moved.end()) page.recent |= moved->second;
    }
    filling.pages.push_back(page);
    const bool whole = page.index == 0 || page.index > unchanged_since;
    blocks += static_cast<uint64_t>(std::popcount(whole ? page.blocks | page.recent : page.recent));
  }
  return blocks * kBlockBytes;
}

// R10: a filling ends, whatever its copyset's clients do. During the pass `before` there changed
// about as much as was filled, so that the next one would be no shorter: from now on writes touch
// at most half of the blocks that can be filled in the same time.
void SyncSource::keep_ahead(Copyset& copyset, const Filling& before, uint64_t bytes) {
  const uint64_t now = server_.loop.now_ns();
  const uint64_t longest = server_.wal->capacity_bytes() / kLastPassShare;
  if (before.bytes <= longest) return;  // it was the last one of a filling: no measure of its pace
  if (bytes <= before.bytes / 4 * 3 || now <= before.begun_ns) return;
  if (CURVE_MUTANT("r10_writers_are_not_slowed")) return;
  const double seconds = static_cast<double>(now - before.begun_ns) / 1e9;
  const double filled = static_cast<double>(before.bytes) / kBlockBytes;
  copyset.pace.limit(static_cast<uint64_t>(filled / seconds / 2), now);
  base::log(base::LogLevel::kWarning, "writes_slowed_for_sync",
            {{"copyset", copyset.id},
             {"blocks_per_second", copyset.pace.blocks_per_second()},
             {"filled_bytes", before.bytes},
             {"changed_bytes", bytes}});
}

void SyncSource::begin(const StoreId& peer, wire::Connection* connection, Copyset& copyset,
                       const SyncRequestBody& body, uint64_t tag) {
  SyncReplyBody reply;
  reply.kind = static_cast<uint8_t>(SyncKind::kBegin);
  reply.copyset = copyset.id;
  raft::Group& raft = copyset.group->raft();
  const bool leads = copyset.group->is_leader() && (!CURVE_MUTANT("r10_fill_needs_lease") ||
                                                    raft.lease_valid(server_.loop.now_ns()));
  // R10: a replica is never filled with less than it has applied, nor with a configuration that
  // comes after S.
  const bool older = copyset.applied < body.commit && !CURVE_MUTANT("r10_fill_with_less");
  if (!leads || older || raft.committed_config_index() > copyset.applied) {
    reply.code = static_cast<uint16_t>(leads ? Code::kBusy : Code::kNotLeader);
    return connection->send(wire::FrameType::kSyncReply, tag, wire::body_bytes(reply));
  }
  reply.index = copyset.applied;
  reply.term = raft.term_at(copyset.applied);
  Filling& filling = fillings_[{copyset.id, peer}];
  std::vector<std::byte> rest;
  base::Writer writer(rest);
  const bool follows = filling.start != 0 && body.applied >= filling.start &&
                       !CURVE_MUTANT("r10_passes_do_not_shrink");
  const uint64_t bytes = list_pages(copyset, body.applied, follows, filling);
  if (follows) keep_ahead(copyset, filling, bytes);
  writer.put(bytes);
  filling.start = copyset.applied;
  filling.begun_ns = server_.loop.now_ns();
  filling.bytes = bytes;
  filling.moved.clear();
  const auto config = raft::encode_config(raft.committed_config());
  writer.put(raft.committed_config_index());
  writer.put(static_cast<uint32_t>(config.size()));
  writer.raw(config);
  if (!CURVE_MUTANT("r12_sync_without_fences"))
    copyset.fences.encode(writer);
  else
    writer.put(uint32_t{0});
  // Fences of very many volumes do not fit a frame's body; they travel as payload.
  base::Buffer payload =
      server_.pool.take((rest.size() + kSectorBytes - 1) / kSectorBytes * kSectorBytes);
  std::memset(payload.data(), 0, payload.size());
  std::memcpy(payload.data(), rest.data(), rest.size());
  reply.count = static_cast<uint32_t>(rest.size());
  connection->send(wire::FrameType::kSyncReply, tag, wire::body_bytes(reply), {}, payload, 0,
                   static_cast<uint32_t>(payload.size()));
}

void SyncSource::pages(const StoreId& peer, wire::Connection* connection, Copyset& copyset,
                       const SyncRequestBody& body, uint64_t tag) {
  std::vector<SyncPage>& list = fillings_[{copyset.id, peer}].pages;
  const uint32_t from = std::min<uint32_t>(body.cursor, static_cast<uint32_t>(list.size()));
  const uint32_t count =
      std::min<uint32_t>(kPagesPerReply, static_cast<uint32_t>(list.size()) - from);
  for (uint32_t i = from; i < from + count; ++i) {
    // What was in the overlay when the list was made may be in the store now; what came since is
    // behind S.
    SyncPage& page = list[i];
    const chunkstore::PageId id{
        copyset.id, {page.volume, page.chunk}, static_cast<uint8_t>(page.page)};
    page.blocks |= server_.store->mapped_in_page(id);
  }
  SyncReplyBody reply;
  reply.kind = static_cast<uint8_t>(SyncKind::kPages);
  reply.copyset = copyset.id;
  reply.count = count;
  connection->send(
      wire::FrameType::kSyncReply, tag, wire::body_bytes(reply),
      {reinterpret_cast<const std::byte*>(list.data() + from), count * sizeof(SyncPage)});
}

void SyncSource::block(const StoreId& peer, Copyset& copyset, const SyncRequestBody& body,
                       uint64_t tag) {
  Request* request = server_.take_request();
  request->type = wire::FrameType::kSyncRequest;
  request->tag = tag;
  request->copyset = &copyset;
  request->body = {};
  request->body.volume = body.volume;
  request->body.copyset = copyset.id;
  request->body.chunk = body.chunk;
  request->body.offset_bytes = body.block * kBlockBytes;
  request->body.bytes = kBlockBytes;
  request->peer = peer;
  request->buffer = server_.pool.take(kBlockBytes);
  request->crcs.resize(kSectorsPerBlock);
  request->pieces_left = 1;
  request->code = Code::kOk;
  request->written = 0;
  for (uint32_t i = 0; i < kSectorsPerBlock; ++i) {
    const uint32_t sector = body.block * kSectorsPerBlock + i;
    if (!copyset.fences.deleted(body.volume) &&
        server_.sector_written(copyset, {body.volume, body.chunk}, sector))
      request->written |= 1u << i;
  }
  server_.read_sectors(request, {body.volume, body.chunk}, body.block * kSectorsPerBlock,
                       kSectorsPerBlock, request->buffer.data());
  if (--request->pieces_left == 0) block_read(request);
}

void SyncSource::block_read(Request* request) {
  wire::Connection* connection = server_.replica->peer_connection(request->peer);
  if (connection && !server_.stopping) {
    SyncReplyBody reply;
    reply.kind = static_cast<uint8_t>(SyncKind::kBlock);
    reply.code = static_cast<uint16_t>(request->code);
    reply.copyset = request->body.copyset;
    reply.volume = request->body.volume;
    reply.chunk = request->body.chunk;
    reply.block = static_cast<uint16_t>(request->body.offset_bytes / kBlockBytes);
    reply.written = request->written;
    reply.index = request->copyset->applied;  // nothing in it is of a later one
    reply.count = kSectorsPerBlock;
    connection->send(wire::FrameType::kSyncReply, request->tag, wire::body_bytes(reply),
                     std::as_bytes(std::span(request->crcs)), request->buffer, 0, kBlockBytes);
  }
  server_.release(request);
}

void SyncSource::moving(Copyset& copyset, std::span<const Overlay::FrozenBlock> blocks) {
  auto at = fillings_.lower_bound({copyset.id, StoreId{}});
  if (at == fillings_.end() || at->first.first != copyset.id) return;
  const std::vector<raft::Progress> followers = copyset.group->raft().progress();
  while (at != fillings_.end() && at->first.first == copyset.id) {
    const bool goes_on = std::any_of(
        followers.begin(), followers.end(),
        [&](const raft::Progress& each) { return each.store == at->first.second && each.syncing; });
    if (!goes_on) {
      at = fillings_.erase(at);
      continue;
    }
    for (const Overlay::FrozenBlock& block : blocks) {
      if (CURVE_MUTANT("r10_passes_forget_changes")) break;
      if (!copyset.overlay.block(block.id).changed_since(at->second.start)) continue;
      const auto page = static_cast<uint8_t>(block.block / chunkstore::kBlocksPerPage);
      at->second.moved[{copyset.id, block.chunk, page}] |=
          uint64_t{1} << (block.block % chunkstore::kBlocksPerPage);
    }
    ++at;
  }
}

void SyncSource::peer_closed(const StoreId& peer) {
  std::erase_if(fillings_, [&](const auto& item) { return item.first.second == peer; });
}

void SyncSource::forget(CopysetId copyset) {
  std::erase_if(fillings_, [&](const auto& item) { return item.first.first == copyset; });
}

}  // namespace curve::copyset
