// What a store tells a peer that asks for sectors which are damaged there (R11), and how sectors
// are looked at. See repair.h.
#include <bit>
#include <cstring>

#include "native/base/mutant.h"
#include "native/copyset/repair.h"
#include "native/copyset/sync.h"
#include "native/wire/codec.h"

namespace curve::copyset {

// A peer asks.
void Repair::request(const StoreId& peer, wire::Connection* connection, wire::Frame& frame) {
  base::Reader reader(frame.body);
  const auto body = reader.get<RepairRequestBody>();
  RepairReplyBody reply;
  reply.copyset = body.copyset;
  reply.volume = body.volume;
  reply.chunk = body.chunk;
  reply.block = body.block;
  auto it = server_.copysets.find(body.copyset);
  Code code = Code::kOk;
  if (!reader.done() || body.block >= kBlocksPerChunk || body.mask == 0) {
    code = Code::kInvalid;
  } else if (stopped_ || server_.out_of_service) {
    code = Code::kShuttingDown;
  } else if (it == server_.copysets.end() || !it->second->group || it->second->sync ||
             it->second->group->raft().syncing() || it->second->group->raft().damaged()) {
    code = Code::kNoCopyset;
  } else if (it->second->fences.deleted(body.volume)) {
    code = Code::kNoVolume;
  } else if (it->second->applied < body.index && !CURVE_MUTANT("r11_repair_from_laggard")) {
    code = Code::kBusy;  // R11: what it has may be older than what the other had acknowledged
  }
  if (code != Code::kOk) {
    reply.code = static_cast<uint16_t>(code);
    return connection->send(wire::FrameType::kRepairReply, frame.tag, wire::body_bytes(reply));
  }
  Request* request = server_.take_request();
  request->peer = peer;
  request->tag = frame.tag;
  if (read_block(request, *it->second, {body.volume, body.chunk}, body.block, body.mask))
    answer(request);
}

// What was read for a peer goes to it, without what is damaged here, too.
void Repair::answer(Request* request) {
  wire::Connection* connection = server_.replica->peer_connection(request->peer);
  if (connection && !server_.stopping) {
    RepairReplyBody reply;
    reply.copyset = request->body.copyset;
    reply.volume = request->body.volume;
    reply.chunk = request->body.chunk;
    reply.block = static_cast<uint16_t>(request->body.offset_bytes / kBlockBytes);
    reply.index = request->index;
    reply.mask = request->written & ~request->bad;
    reply.code = static_cast<uint16_t>(reply.mask ? Code::kOk : Code::kCorrupt);
    if (reply.mask) {
      ++server_.counters.repairs_answered;
      connection->send(wire::FrameType::kRepairReply, request->tag, wire::body_bytes(reply),
                       std::as_bytes(std::span(request->crcs)), request->buffer, 0, kBlockBytes);
    } else {
      connection->send(wire::FrameType::kRepairReply, request->tag, wire::body_bytes(reply));
    }
  }
  // Damage of our own, found while helping: repaired, too.
  if (request->bad)
    want({.copyset = request->body.copyset,
          .chunk = {request->body.volume, request->body.chunk},
          .block = static_cast<uint16_t>(request->body.offset_bytes / kBlockBytes),
          .mask = request->bad});
  server_.release(request);
}

// Reads the sectors of `mask` one by one, each checked for itself. True: it is complete already,
// and examined() will not be called.
bool Repair::read_block(Request* request, Copyset& copyset, const ChunkKey& chunk, uint16_t block,
                        uint16_t mask) {
  request->type = wire::FrameType::kRepairRequest;
  request->copyset = &copyset;
  request->body = {};
  request->body.volume = chunk.volume;
  request->body.copyset = copyset.id;
  request->body.chunk = chunk.chunk;
  request->body.offset_bytes = block * kBlockBytes;
  request->body.bytes = kBlockBytes;
  request->buffer = server_.pool.take(kBlockBytes);
  std::memset(request->buffer.data(), 0, kBlockBytes);
  request->crcs.assign(kSectorsPerBlock, 0);
  request->written = mask;
  request->bad = 0;
  request->index = copyset.applied;
  request->pieces_left = 1;
  request->code = Code::kOk;
  for (uint32_t left = mask; left; left &= left - 1) {
    const auto s = static_cast<uint32_t>(std::countr_zero(left));
    server_.read_sectors(request, chunk, block * kSectorsPerBlock + s, 1,
                         request->buffer.data() + s * static_cast<size_t>(kSectorBytes));
  }
  return --request->pieces_left == 0;
}

}  // namespace curve::copyset
