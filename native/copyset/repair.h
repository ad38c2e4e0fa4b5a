// R11: sectors that this store can no longer read (checksum mismatch or device error, in a block or
// in the WAL) are looked at one by one, fetched from a peer, handed to whoever waits for them and
// written back in place.
//
// Invariants: a peer answers only at or above the index asked for, from content that it has checked
// itself, and never while it is being filled or damaged. What a peer sends is used only if it has
// the checksum that this replica's own map or overlay names for the sector at that moment: a sector
// that changed meanwhile is looked at again instead. Frames: docs/formats/wire.md, "Repair". One
// loop thread; damage is rare, so this allocates.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "native/copyset/server_state.h"

namespace curve::copyset {

struct RepairRequestBody {
  CopysetId copyset = 0;
  VolumeId volume = 0;
  Index index = 0;  // the answer must hold everything through this one
  uint32_t chunk = 0;
  uint16_t block = 0;
  uint16_t mask = 0;  // sectors of the block
};
static_assert(sizeof(RepairRequestBody) == 32);
// Then 16 CRCs; the payload is the block, with the sectors of `mask` in their places. Not OK: none.
struct RepairReplyBody {
  CopysetId copyset = 0;
  VolumeId volume = 0;
  Index index = 0;  // applied when it was read
  uint32_t chunk = 0;
  uint16_t block = 0;
  uint16_t mask = 0;
  uint16_t code = 0;  // curve::Code; kBusy: behind the index asked for
  uint16_t reserved[3] = {};
};
static_assert(sizeof(RepairReplyBody) == 40);

// Somebody who needs sectors of one block. Sector s goes to into + (s - first) * kSectorBytes, its
// CRC to crcs[s - first]. Both null: only the repair is wanted.
struct RepairWant {
  CopysetId copyset = 0;
  ChunkKey chunk;
  uint16_t block = 0;
  uint16_t mask = 0;
  std::byte* into = nullptr;
  uint32_t* crcs = nullptr;
  uint32_t first = 0;
  uint64_t patience_ns = 2'000'000'000;
  std::function<void(bool ok)> done = {};  // once; false: not all of it could be had in time
};

class Repair {
 public:
  explicit Repair(StoreServer::State& server);
  ~Repair();
  void want(RepairWant want);
  // A part of a read that failed: it goes on (end_piece) when its sectors are there.
  void piece(ReadPiece* piece);
  void stop();  // whoever waits is let go; what is being written ends
  bool idle() const { return jobs_.empty(); }

  void request(const StoreId& peer, wire::Connection* connection, wire::Frame& frame);
  void reply(const StoreId& peer, wire::Frame& frame);
  void examined(Request* request);  // a read of kRepairRequest is complete: a peer's or our own

  // R6: not what a deleted volume left. A pass may have written in place, or been cut off while it
  // did, what the deletion then took out of the overlay: no page has its checksums, and the next
  // pass drops it all.
  bool repairable(CopysetId copyset, VolumeId volume) const;

  // What a sector should hold now, by overlay and map.
  struct Expected {
    bool data = false;  // else it reads as zeros
    uint32_t crc = 0;
  };
  Expected expected(const Copyset& copyset, const ChunkKey& chunk, uint32_t sector) const;

 private:
  struct Job;
  void tick();
  bool go_on(Job& job);  // false: it is done
  void deliver(Job& job, Copyset& copyset);
  void expire(Job& job);
  void after(Job& job);
  void tell();
  bool examine(Job& job, Copyset& copyset);
  void found(Job& job, Request* request);
  void found_damage(Job& job, Copyset& copyset, uint32_t sector);
  void ask(Job& job, Copyset& copyset);
  void take(Job& job, Copyset& copyset, const RepairReplyBody& body,
            std::span<const std::byte> block);
  void write_back(Job& job, Copyset& copyset);
  void written(Job& job, uint16_t mask, int32_t result, const char* where);
  void give_up(Job& job, uint16_t mask, const char* why);
  bool read_block(Request* request, Copyset& copyset, const ChunkKey& chunk, uint16_t block,
                  uint16_t mask);
  void answer(Request* request);
  void arm();

  StoreServer::State& server_;
  std::map<uint64_t, std::unique_ptr<Job>> jobs_;
  std::vector<std::pair<RepairWant, bool>> ended_;  // to be told
  uint64_t next_job_ = 1;
  bool stopped_ = false;
  io::Timer timer_;
};

}  // namespace curve::copyset
