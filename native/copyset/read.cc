// Reads: overlay first, then the chunk store; checksums verified; the lease checked when the answer
// is given (R9, R12).
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/copyset/external.h"
#include "native/copyset/repair.h"
#include "native/copyset/server_state.h"
#include "native/copyset/sync.h"

namespace curve::copyset {

uint64_t StoreServer::State::wal_position(uint32_t low) const {
  const uint64_t head = wal->head_position() / kSectorBytes;
  const uint32_t behind =
      static_cast<uint32_t>(head) - low;  // the WAL is far smaller than 2^32 sectors
  return (head - behind) * kSectorBytes;
}

void StoreServer::State::park(Request* request) {
  ++counters.parked;
  request->parked = true;
  Copyset& copyset = *request->copyset;
  if (copyset.parked.empty()) parked_copysets.push_back(&copyset);
  copyset.parked.push_back(request);
}

// Each turn: whoever waited for a lease that now holds, or that will not come, goes on.
void StoreServer::State::unpark() {
  for (size_t i = 0; i < parked_copysets.size();) {
    Copyset& copyset = *parked_copysets[i];
    const bool go = copyset.parked.empty() || !copyset.group || !copyset.group->is_leader() ||
                    stopping || out_of_service || copyset.group->raft().lease_valid(loop.now_ns());
    if (!go) {
      ++i;
      continue;
    }
    parked_copysets[i] = parked_copysets.back();
    parked_copysets.pop_back();
    std::vector<Request*> requests;
    requests.swap(copyset.parked);
    for (Request* request : requests) {
      request->parked = false;
      dispatch(request);
    }
  }
}

ReadPiece* StoreServer::State::take_piece() {
  if (free_pieces.empty()) {
    all_pieces.push_back(std::make_unique<ReadPiece>());
    ReadPiece* piece = all_pieces.back().get();
    auto done = [](io::Op* op) {
      ReadPiece* piece = static_cast<ReadPiece*>(op->owner);
      piece->request->server->piece_done(piece, op->result);
    };
    piece->store_op.owner = piece->wal_op.owner = piece->block_op.owner = piece;
    piece->store_op.done = piece->wal_op.done = piece->block_op.done = done;
    free_pieces.push_back(piece);
  }
  ReadPiece* piece = free_pieces.back();
  free_pieces.pop_back();
  return piece;
}

// R9: without the lease another leader may have acknowledged newer writes, and this one may not
// have applied what it has: what is read now would be old even if the lease held at the end.
bool StoreServer::State::may_look(const Copyset& copyset) const {
  return copyset.group->raft().lease_valid(loop.now_ns()) || CURVE_MUTANT("r9_lease_at_end_only");
}

void StoreServer::State::start_read(Request* request) {
  replica->host().note_work(loop.now_ns());
  if (!may_look(*request->copyset)) return park(request);
  const wire::RequestBody& body = request->body;
  if (request->type == wire::FrameType::kBlockStatus) return block_status(request);
  ++counters.reads;
  counters.read_bytes += body.bytes;
  const uint32_t sectors = body.bytes / kSectorBytes;
  request->buffer = pool.take(body.bytes);
  request->crcs.resize(sectors);
  request->pieces_left = 1;
  request->code = Code::kOk;
  read_sectors(request, {body.volume, body.chunk}, body.offset_bytes / kSectorBytes, sectors,
               request->buffer.data());
  if (--request->pieces_left == 0) finish_read(request);
}

// request->crcs[i] becomes the CRC of sector i of `into` (for merges and repairs: of the place in
// the buffer that `into` is).
void StoreServer::State::read_sectors(Request* request, const ChunkKey& chunk, uint32_t first,
                                      uint32_t sectors, std::byte* into) {
  Copyset& copyset = *request->copyset;
  const std::byte* crc_origin =
      request->merging ? request->merge_buffer.data() : request->buffer.data();
  const auto crc_base = static_cast<uint32_t>((into - crc_origin) / kSectorBytes);
  for (uint32_t i = 0; i < sectors;) {
    const OverlaySector found = CURVE_MUTANT("r6_store_before_overlay")
                                    ? OverlaySector{}
                                    : copyset.overlay.find(chunk, first + i);
    std::byte* at = into + i * size_t{kSectorBytes};
    uint32_t* crc = &request->crcs[crc_base + i];
    if (found.present && found.zero) {
      std::memset(at, 0, kSectorBytes);
      *crc = base::crc32c_zero_sector();
      ++i;
      continue;
    }
    if (!found.present) {  // a run in one block that the overlay does not have
      const uint32_t block_end = ((first + i) / kSectorsPerBlock + 1) * kSectorsPerBlock - first;
      uint32_t end = i + 1;
      while (end < std::min(sectors, block_end) &&
             !copyset.overlay.find(chunk, first + end).present)
        ++end;
      ReadPiece* piece = take_piece();
      piece->request = request;
      piece->first = crc_base + i;
      piece->sectors = end - i;
      piece->sector = first + i;
      piece->from = ReadPiece::From::kStore;
      chunkstore::ReadOp& op = piece->store_op;
      op.copyset = copyset.id;
      op.chunk = chunk;
      op.block = static_cast<uint16_t>((first + i) / kSectorsPerBlock);
      op.first_sector = static_cast<uint8_t>((first + i) % kSectorsPerBlock);
      op.sectors = static_cast<uint8_t>(end - i);
      op.into = piece->into = {at, (end - i) * size_t{kSectorBytes}};
      op.crcs = crc;
      ++request->pieces_left;
      store->read(&op);
      i = end;
      continue;
    }
    if (found.physical != 0) {
      i = read_external(request, chunk, first, i, sectors, at, crc);
      continue;
    }
    const uint64_t position = wal_position(found.wal_sector);
    uint32_t offset = 0;
    if (const base::Buffer* pending =
            replica->pending_payload(position, &offset)) {  // R6: not yet durable here
      std::memcpy(at, pending->data() + offset, kSectorBytes);
      *crc = found.crc;
      ++i;
      continue;
    }
    *crc = found.crc;
    uint32_t end = i + 1;
    while (end < sectors) {
      const OverlaySector next = copyset.overlay.find(chunk, first + end);
      if (!next.present || next.zero || next.physical != 0 ||
          next.wal_sector != found.wal_sector + (end - i))
        break;
      uint32_t ignored = 0;
      if (replica->pending_payload(wal_position(next.wal_sector), &ignored)) break;
      request->crcs[crc_base + end] = next.crc;
      ++end;
    }
    ReadPiece* piece = take_piece();
    piece->request = request;
    piece->first = crc_base + i;
    piece->sectors = end - i;
    piece->sector = first + i;
    piece->from = ReadPiece::From::kWal;
    piece->wal_op.position = position;
    piece->wal_op.into = piece->into = {at, (end - i) * size_t{kSectorBytes}};
    ++request->pieces_left;
    wal->read(&piece->wal_op);
    i = end;
  }
}

// Sectors from `i` on that stand in the same block; where they end is returned. `at` and `crc` are
// those of the first.
uint32_t StoreServer::State::read_external(Request* request, const ChunkKey& chunk, uint32_t first,
                                           uint32_t i, uint32_t sectors, std::byte* at,
                                           uint32_t* crc) {
  const Overlay& overlay = request->copyset->overlay;
  const uint32_t physical = overlay.find(chunk, first + i).physical;
  uint32_t end = i;
  for (; end < sectors; ++end) {
    const OverlaySector next = overlay.find(chunk, first + end);
    if (next.physical != physical) break;
    crc[end - i] = next.crc;
  }
  const uint32_t within = (first + i) % kSectorsPerBlock;
  const size_t bytes = (end - i) * size_t{kSectorBytes};
  if (const std::byte* content = external->pending(physical, within)) {  // R6: not yet durable here
    std::memcpy(at, content, bytes);
    return end;
  }
  ReadPiece* piece = take_piece();
  piece->request = request;
  piece->first = static_cast<uint32_t>(crc - request->crcs.data());
  piece->sectors = end - i;
  piece->sector = first + i;
  piece->from = ReadPiece::From::kBlock;
  piece->into = {at, bytes};
  piece->physical = physical;
  if (!store->pin_block(physical)) std::abort();  // R5: the log uses it
  piece->block_iov = {at, bytes};
  piece->block_op.iov = {&piece->block_iov, 1};
  piece->block_op.offset_bytes = within * uint64_t{kSectorBytes};
  ++request->pieces_left;
  store->read_block(&piece->block_op, physical);
  return end;
}

// What was the log's when it was read may have become the store's, and been changed there, while it
// was read: then it is not damage, and is read again.
bool StoreServer::State::external_moved(const ReadPiece& piece, uint32_t physical) const {
  const Request& request = *piece.request;
  for (uint32_t i = 0; i < piece.sectors; ++i) {
    const OverlaySector now =
        request.copyset->overlay.find({request.body.volume, request.body.chunk}, piece.sector + i);
    if (now.physical != physical || now.crc != request.crcs[piece.first + i]) return true;
  }
  return false;
}

void StoreServer::State::piece_done(ReadPiece* piece, int32_t result) {
  Request* request = piece->request;
  const uint32_t physical = std::exchange(piece->physical, 0);
  if (physical != 0) store->unpin_block(physical);
  if (result >= 0 && piece->from != ReadPiece::From::kStore) {
    for (uint32_t i = 0; i < piece->sectors; ++i) {
      const auto sector = piece->into.subspan(i * size_t{kSectorBytes}, kSectorBytes);
      if (base::crc32c(sector) == request->crcs[piece->first + i]) continue;
      if (CURVE_MUTANT("r11_serve_unverified"))
        request->crcs[piece->first + i] = base::crc32c(sector);
      else
        result = -EILSEQ;
    }
  }
  if (result == -EILSEQ && piece->from == ReadPiece::From::kBlock &&
      external_moved(*piece, physical)) {
    read_sectors(request, {request->body.volume, request->body.chunk}, piece->sector,
                 piece->sectors, piece->into.data());
    return end_piece(piece);
  }
  if (result < 0) {
    if (!request->copyset->fences.deleted(request->body.volume)) ++counters.corrupt_reads;
    // R11: nobody gets this; what is damaged comes from a peer and is repaired. (A repair looks at
    // its sectors one by one and says itself what it found.)
    if (request->type != wire::FrameType::kRepairRequest) return repair->piece(piece);
    request->bad |= static_cast<uint16_t>(1u << piece->first);
  }
  end_piece(piece);
}

void StoreServer::State::end_piece(ReadPiece* piece) {
  Request* request = piece->request;
  free_pieces.push_back(piece);
  if (--request->pieces_left) return;
  if (request->type == wire::FrameType::kRepairRequest) return repair->examined(request);
  if (request->type == wire::FrameType::kSyncRequest) return sync_source->block_read(request);
  request->merging ? merge_step(request) : finish_read(request);
}

void StoreServer::State::finish_read(Request* request) {
  if (!request->session) return answer(request, Code::kCancelled);
  if (request->code == Code::kNoCopyset || !request->copyset->group)
    return answer(request, Code::kNoCopyset);  // removed meanwhile
  raft::Group& raft = request->copyset->group->raft();
  if (request->code != Code::kOk) {
    // No peer could help now: another replica leads and answers (the client tries again until it
    // does).
    for (const raft::Member& member : raft.config().members) {
      if (member.store.is_none() || member.store == identity.id) continue;
      if (raft.transfer_to(member.store, loop.now_ns()) == Code::kOk) break;
    }
    return answer(request, Code::kBusy);
  }
  const Code leader = check_leader(request);
  if (leader != Code::kOk) return answer(request, leader);
  // R9: the lease must hold now, when the answer leaves; else it waits for the next beat and is
  // read again.
  if (!raft.lease_valid(loop.now_ns())) return park(request);
  // R12: a fence that was applied meanwhile silences the old attachment.
  const Code fenced = request->copyset->fences.check(request->body.volume, request->body.epoch);
  answer(request, fenced);
}

bool StoreServer::State::sector_written(Copyset& copyset, const ChunkKey& chunk,
                                        uint32_t sector) const {
  const OverlaySector found = copyset.overlay.find(chunk, sector);
  if (found.present) return !found.zero;
  const auto state =
      store->block_state(copyset.id, chunk, static_cast<uint16_t>(sector / kSectorsPerBlock));
  return state.physical && (state.written >> (sector % kSectorsPerBlock) & 1);
}

// One bit per sector: written. Answered from memory.
void StoreServer::State::block_status(Request* request) {
  const wire::RequestBody& body = request->body;
  const uint32_t first = body.offset_bytes / kSectorBytes, sectors = body.bytes / kSectorBytes;
  request->buffer = pool.take((sectors + 7) / 8);
  std::memset(request->buffer.data(), 0, request->buffer.size());
  for (uint32_t i = 0; i < sectors; ++i) {
    if (sector_written(*request->copyset, {body.volume, body.chunk}, first + i)) {
      request->buffer.data()[i / 8] |= static_cast<std::byte>(1u << (i % 8));
    }
  }
  answer(request, Code::kOk);
}

}  // namespace curve::copyset
