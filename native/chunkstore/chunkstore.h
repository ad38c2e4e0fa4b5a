// Blocks and metadata pages of one store: where the sectors of chunks live when they are not in the
// WAL. It knows neither raft nor the WAL. Format: docs/formats/store.md.
//
// A page holds the metadata of 52 consecutive blocks of one chunk of one copyset: physical block or
// none (thin), written-bit and CRC32C per sector, and the log index applied to it. Pages live in
// memory (the map) and are written once per checkpoint.
//
// Invariants:
//  - R5: the checkpoint root names the version of every page; on open an older slot with a good CRC
//  is damage. Order at a
//    checkpoint: data, pages, root. A freed block is used again only after the checkpoint that
//    freed it is durable and no read (pin) uses it. Reference counts and free space are computed
//    from the maps.
//  - R8: reserve() before acknowledging; what was reserved can always be allocated.
//  - While a checkpoint runs nothing is applied (checkpoint_running()).
// Thread: the loop's. format/open may block; the rest never does.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "native/base/buffer.h"
#include "native/base/status.h"
#include "native/base/types.h"
#include "native/io/io.h"

namespace curve::chunkstore {

inline constexpr uint32_t kBlocksPerPage = 52;
inline constexpr uint32_t kPagesPerChunk =
    (kBlocksPerChunk + kBlocksPerPage - 1) / kBlocksPerPage;  // 5

struct FormatOptions {
  StoreId store;
  StoreId cluster;               // UUID of the cluster
  uint64_t bytes = 0;            // of the data file or device
  uint32_t reserve_percent = 2;  // new allocations stop here (R8)
  uint64_t blob_bytes =
      0;  // most that the blobs of one checkpoint may take; 0: bytes / 128, 1 MiB .. 512 MiB
  bool zeroed = false;  // write zeros over all of it (slow), so that no first write changes
                        // file-system metadata later
};

// The state of one block as the map says. physical == 0: not mapped, everything reads as zeros.
struct BlockState {
  uint32_t physical = 0;
  uint16_t written = 0;  // bit per sector; an unwritten sector reads as zeros
  std::array<uint32_t, kSectorsPerBlock> crc{};
};

struct PageId {
  CopysetId copyset = 0;
  ChunkKey chunk;
  uint8_t page = 0;  // in the chunk, < kPagesPerChunk
  auto operator<=>(const PageId&) const = default;
};

// A read or a write must stay in place until `done` ran; `done` never runs inside the call. Reads
// may run during a checkpoint, and see a block as it was before or after each write that runs at
// the same time, sector by sector.
//
// Reads sectors [first, first + count) of one block from the device (never from any overlay),
// checked against their CRCs.
struct ReadOp : io::Op {  // result 0, -EILSEQ (a CRC does not match: `bad_sector`), or -errno
  CopysetId copyset = 0;
  ChunkKey chunk;
  uint16_t block = 0;  // in the chunk
  uint8_t first_sector = 0, sectors = 0;
  std::span<std::byte> into;  // sectors * kSectorBytes, 4 KiB-aligned
  uint32_t* crcs =
      nullptr;  // out: CRC per sector (zero sector's CRC for unwritten ones); may be null
  uint8_t bad_sector = 0;
  // of the store:
  io::FileOp file_op;
  iovec iov{};
  uint32_t physical = 0;
  BlockState seen;
  uint8_t attempts = 0;
  class ChunkStore* store = nullptr;
};

// Background apply: puts sectors of one block in their place. Allocates the block if needed (from
// the reservation), or a new one if the present one is shared, in which case the caller must give
// all written sectors (see needs_copy()). One write per block at a time, and no clear() or
// map_block() of a block while it is being written (R6). -ENOSPC: nothing was changed, the caller
// had not reserved. Any other error: the store is failed(). A chunk may be dropped while a write to
// it runs: the write then ends without effect.
struct WriteOp : io::Op {  // result 0 or -errno; the map changes when done
  CopysetId copyset = 0;
  ChunkKey chunk;
  uint16_t block = 0;
  uint16_t mask = 0;  // sectors to write; runs are written with one op each, holes inside may be
                      // filled by the caller
  std::span<const std::byte> from;  // kBlockBytes, 4 KiB-aligned: sector i at i * kSectorBytes
  std::array<uint32_t, kSectorsPerBlock> crc{};
  Index index = 0;  // applied through (kept per page as a maximum)
  // of the store:
  std::array<io::FileOp, 8> file_ops;
  std::array<iovec, 8> iov{};
  uint8_t running = 0;
  uint32_t physical = 0;
  bool fresh = false;  // into a new block, as if the present one were shared: reserved before
  uint32_t page = 0, page_life = 0;
  bool in_place = false;
  int32_t error = 0;
  class ChunkStore* store = nullptr;
};

// R11: gives sectors of one block back the content that the map promises. In place: the content has
// the checksum that the map and every checkpoint of it name, so there is no order to keep (R5). A
// sector whose checksum in the map is not the one given was changed meanwhile and is left alone.
// Durable when done. A write to the block that comes meanwhile waits for it.
struct RepairOp : io::Op {  // result: 0 (see `mask`), -EAGAIN (the block is being written: look at
                            // it again), or -errno of the device (failed())
  CopysetId copyset = 0;
  ChunkKey chunk;
  uint16_t block = 0;
  uint16_t mask = 0;                // in: sectors; out: those that were written
  std::span<const std::byte> from;  // kBlockBytes, 4 KiB-aligned: sector i at i * kSectorBytes
  std::array<uint32_t, kSectorsPerBlock> crc{};
  // of the store:
  std::array<io::FileOp, 8> file_ops;
  std::array<iovec, 8> iov{};
  uint8_t running = 0;
  uint32_t physical = 0;
  int32_t error = 0;
  class ChunkStore* store = nullptr;
};

struct CheckPageOp : io::Op {  // result: 0, -EILSEQ (damaged), -ENOENT (not written yet, or being
                               // written), or -errno
  PageId id;
  // of the store:
  io::FileOp file_op;
  iovec iov{};
  base::Buffer buffer;
  uint32_t number = 0, crc = 0;
  uint64_t version = 0, offset_bytes = 0;
  class ChunkStore* store = nullptr;
};

struct GroupBlob {  // owner's state of one copyset in the checkpoint root
  CopysetId copyset = 0;
  std::vector<std::byte> bytes;
};

struct Usage {
  uint64_t blocks_total = 0, blocks_free = 0, blocks_reserved = 0;  // free: usable now
  uint64_t pages_total = 0, pages_free = 0, pages_reserved = 0;
  uint64_t pages_empty = 0;                      // without a mapped block; see forget_empty_pages
  uint64_t blocks_mapped = 0, blocks_taken = 0;  // total = free + pending_free + mapped + taken
  uint64_t blob_bytes = 0,
           blob_bytes_max = 0;       // of the last checkpoint (heads of 16 bytes included); of any
  uint64_t memory_bytes = 0;         // of the map
  uint64_t blocks_pending_free = 0;  // wait for a checkpoint or a reader
  uint64_t read_errors = 0, crc_errors = 0;
};

class ChunkStore {
 public:
  // Where no complete store is (else kExists). The superblocks come last and make it one.
  static Outcome format(io::Loop& loop, const std::string& path, const FormatOptions& options);
  // kExists if a complete store is at `path`, kLocked if somebody has it open; nothing is changed.
  static Outcome check_free(io::Loop& loop, const std::string& path);
  // Whether a complete store is at `path`; not one whose formatting was cut off. Takes no lock.
  static Result<bool> exists(io::Loop& loop, const std::string& path);
  // Ends the store at `path`, if there is one: durably no superblock any more.
  static Outcome erase(io::Loop& loop, const std::string& path);
  // Reads superblock, root and every page; refuses damage with a sentence that says which structure
  // at which offset, what was expected and found, and what to do. A page that is damaged is lost
  // (pages_lost()): what it mapped reads as unwritten, so that no copyset of this store may be used
  // before it has been filled from its peers (R5, R10). kLocked when another process has it.
  // `read_only`: for inspection; changes nothing, and nothing but the map may be asked.
  static Result<std::unique_ptr<ChunkStore>> open(io::Loop& loop, base::BufferPool& pool,
                                                  const std::string& path, bool read_only = false);
  ~ChunkStore();

  const StoreId& store_id() const;
  const StoreId& cluster_id() const;
  bool direct_io() const;  // O_DIRECT; false where the file system refuses it
  // Raised durably by open() (R9). 1 at the first start after format.
  Incarnation incarnation() const;
  std::span<const GroupBlob> group_blobs() const;  // of the last checkpoint; empty at first
  uint64_t checkpoint_version() const;
  uint32_t pages_lost() const;  // named by the root, damaged at open()

  BlockState block_state(CopysetId copyset, const ChunkKey& chunk,
                         uint16_t block) const;  // of the map
  bool is_mapped(CopysetId copyset, const ChunkKey& chunk, uint16_t block) const;
  Index page_index(const PageId& id) const;  // applied through; 0 when there is no such page
  void read(ReadOp* op);
  bool needs_copy(CopysetId copyset, const ChunkKey& chunk,
                  uint16_t block) const;  // shared by reference
  void write(WriteOp* op);
  void repair(RepairOp* op);

  // Large writes (R4): takes a block out of the free space, to be mapped by map_block or given back
  // by drop_block. 0: no space. None of it was reserved before.
  uint32_t take_block(bool into_reserve = false);
  // Never mapped: free at once. No operation on it may be in flight, except those that pinned it.
  void drop_block(uint32_t physical);
  void write_block(io::FileOp* op,
                   uint32_t physical);  // op->iov: up to kBlockBytes; op->offset_bytes (in: within
                                        // the block) is adjusted; op->durable as set
  // The same for reading: of a block that is taken or pinned, unchecked.
  void read_block(io::FileOp* op, uint32_t physical);
  uint64_t block_offset_bytes(uint32_t physical) const;
  // Start-up; may block. 0 or -errno.
  int read_block_sync(uint32_t physical, std::span<std::byte> into);
  int sync_sync();
  // Replaces the whole block's mapping by `physical` (taken), all sectors written with these CRCs.
  // The old one is freed. False: there is no page for it, and the owner had none reserved.
  [[nodiscard]] bool map_block(CopysetId copyset, const ChunkKey& chunk, uint16_t block,
                               uint32_t physical, std::span<const uint32_t, kSectorsPerBlock> crcs,
                               Index index);
  // Recovery: the block `physical` is held by a retained log record (must be free): marks it taken.
  // False: in use (damage).
  bool retake_block(uint32_t physical);
  // R5: while a retained log record names the block (mapped, taken or freed meanwhile), or a read
  // of the owner's own uses it, it is pinned and is not used again. Counted (at most 16383). Pins
  // are in memory only: after a restart retake or pin again.
  // False: the block is free, or no block of this store: what named it is stale or damaged.
  [[nodiscard]] bool pin_block(uint32_t physical);
  void unpin_block(uint32_t physical);
  // The log no longer names a block that was taken and pinned for it: unpinned, and given back if
  // it was never mapped.
  void release_block(uint32_t physical);
  bool is_taken(uint32_t physical) const;  // by the owner, and in no map yet

  // Discard and zeroes: clears written bits of `mask`; a block with no written sector is unmapped.
  void clear(CopysetId copyset, const ChunkKey& chunk, uint16_t block, uint16_t mask, Index index);
  void drop_chunk(CopysetId copyset, const ChunkKey& chunk);
  void drop_volume(CopysetId copyset, VolumeId volume);
  void drop_copyset(CopysetId copyset);

  // R8. Whether a write to this block may need new space is decided here: mapped and not shared
  // needs none. `blocks_needed` new blocks and `pages_needed` pages are set aside until unreserve.
  // False: no space (kNoSpace).
  bool reserve(uint32_t blocks, uint32_t pages, bool into_reserve = false);
  void unreserve(uint32_t blocks, uint32_t pages);
  uint32_t blocks_available() const;  // so many more may be reserved, each with a page of its own
  uint32_t blocks_kept() const;       // the reserve, likewise
  uint64_t blocks_loose() const;  // free, neither set aside nor kept; whatever there is of pages
  bool has_page(const PageId& id) const;

  // Scrub: reads a page as the durable root names it. One that is damaged is written again by the
  // next checkpoint.
  void check_page(CheckPageOp* op);

  // Iteration in order (copyset, volume, chunk, page), for sync, scrub, block status. Stable
  // against changes between calls.
  std::optional<PageId> next_page(CopysetId copyset, const PageId& after)
      const;  // after {copyset, {}, 0} with page 255 of volume 0: first
  uint64_t mapped_blocks(CopysetId copyset, VolumeId volume) const;
  uint64_t mapped_blocks(CopysetId copyset) const;
  // Of one page: bit k is set when its block k is mapped.
  uint64_t mapped_in_page(const PageId& id) const;
  // A page whose last block was unmapped by clear() stays, because its index tells replay and sync
  // (R10) that something was unmapped. This forgets those of the copyset with index <= through;
  // what is behind `through` must be synced whole from then on. Those that `keep` names stay.
  // Returns how many.
  uint64_t forget_empty_pages(CopysetId copyset, Index through,
                              const std::function<bool(const PageId&)>& keep = nullptr);

  // Makes everything applied so far durable: data sync, dirty pages, root (with the blobs), each
  // made durable in order. op->result 0 or -errno (out of service then: failed()). What was freed
  // before it began is free when it is done. One at a time; it waits for writes that run. `blobs`
  // is moved in. -ENOSPC: the blobs are larger than usage().blob_bytes_max; nothing was written,
  // the store goes on, and a warning was logged since the half of it. The last checkpoint stays the
  // valid one until `done`.
  void checkpoint(io::Op* op, std::vector<GroupBlob> blobs);
  bool checkpoint_running() const;
  uint64_t dirty_pages() const;
  Usage usage() const;
  bool failed()
      const;  // a write or sync of the device failed (never retried): no checkpoint any more
  // Compares maps, reference counts and free space, block by block. Slow: tests and simulation.
  Outcome check() const;

  struct State;  // the inside: store_state.h

 private:
  std::unique_ptr<State> state_;
  explicit ChunkStore(std::unique_ptr<State> state);
};

}  // namespace curve::chunkstore
