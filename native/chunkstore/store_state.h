// The inside of ChunkStore, shared by chunkstore.cc (map), block_io.cc, checkpoint.cc and
// open.cc. Not for other directories. Thread: the loop's.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "native/base/list.h"
#include "native/chunkstore/block_space.h"
#include "native/chunkstore/chunkstore.h"
#include "native/chunkstore/layout.h"
#include "native/chunkstore/page_map.h"

namespace curve::chunkstore {

// A checkpoint in progress. Phases in order; see checkpoint.cc.
struct Checkpoint {
  enum class Phase : uint8_t { kIdle, kDrain, kStream, kFlush, kRoot };
  static constexpr uint32_t kWritersMax = 32;
  static constexpr uint32_t kWriterBytes = 64 * 1024;  // 16 adjacent page slots
  struct Writer {
    io::FileOp op;
    iovec iov{};
    base::Buffer buffer;
    bool busy = false;
  };
  Phase phase = Phase::kIdle;
  io::Op* op = nullptr;
  std::vector<GroupBlob> blobs;
  std::vector<BlobHead> heads;
  uint64_t blob_bytes = 0;
  uint64_t body_bytes = 0, body_at = 0;
  uint32_t body_crc = 0;
  uint32_t pages = 0;  // names in the body
  uint32_t pass = 0;   // slot whose pages are being written; 2: pages are done
  uint64_t next_page = 0;
  size_t piece = 0;  // of the body: 0 names, then head and bytes of each blob
  size_t piece_at = 0;
  uint32_t running = 0;
  int32_t error = 0;
  std::array<Writer, kWritersMax> writers;
  io::FileOp file_op;  // sync, root header
  iovec iov{};
  base::Buffer header;
};

struct FoundRoot {
  RootHeader header{};
  bool valid = false;
  uint64_t copies[2] = {0, 0};  // version of each copy, 0: bad
  std::string expected, found;  // of the first copy, when it is bad
};

struct ChunkStore::State {
  State(io::Loop& loop_in, base::BufferPool& pool_in) : loop(loop_in), pool(pool_in) {}
  ~State();

  io::Loop& loop;
  base::BufferPool& pool;
  std::string path;
  ChunkStore* store = nullptr;
  io::File file;
  Superblock superblock{};
  int superblock_first = 0;  // the copy to write first: not the one that was read
  Geometry geometry;
  PageMap map;
  BlockSpace space;
  std::vector<PageName>
      names;      // of the durable root; while a checkpoint runs: of the one in the making
  BitTree dirty;  // page numbers
  uint64_t dirty_count = 0;
  uint64_t pages_reserved = 0, pages_kept = 0;
  uint64_t version = 0;    // of the durable root
  uint32_t root_slot = 0;  // where it is
  std::vector<GroupBlob> blobs;
  uint64_t blob_bytes = 0;
  bool blobs_large = false;  // and that was logged
  Checkpoint checkpoint;
  bool failed = false, read_only = false;
  uint32_t pages_lost = 0;
  uint64_t read_errors = 0, crc_errors = 0;
  uint32_t writes_running = 0;
  base::List<WriteOp> writes;          // in flight; looked through only after a CRC mismatch
  base::List<ReadOp> waiting_reads;    // for a write to their block to end
  base::List<RepairOp> repairs;        // in flight
  base::List<WriteOp> waiting_writes;  // for a repair of their block to end; count as running
  base::List<io::Op> ready;            // done without I/O; completed by the timer
  io::Timer ready_timer;

  // chunkstore.cc
  void complete_later(io::Op* op, int32_t result);
  static void on_ready(io::Timer* timer);
  void mark_dirty(uint32_t number);
  void start_read(ReadOp* op);
  static void on_read(io::Op* file_op);
  void finish_read(ReadOp* op, int32_t result);
  bool check_read(ReadOp* op);
  bool retry_read(ReadOp* op);
  uint32_t choose_block(const Page& page, uint16_t block);
  void start_write(WriteOp* op);
  static void on_write(io::Op* file_op);
  void finish_write(WriteOp* op);
  void restart_reads(uint32_t physical);
  uint32_t page_for(const PageId& id);
  void unmap(uint32_t number, uint32_t slot);
  void drop_page(uint32_t number);
  void drop_range(const PageId& from, const PageId& to);

  // repair.cc
  bool repairing(uint32_t physical);
  static void on_repair(io::Op* file_op);
  static void on_check_page(io::Op* file_op);
  void finish_repair(RepairOp* op);

  // checkpoint.cc
  void begin_checkpoint(io::Op* op, std::vector<GroupBlob> blobs_in);
  void start_stream();
  bool fill_page_writer(Checkpoint::Writer& writer);
  bool fill_body_writer(Checkpoint::Writer& writer);
  void serialize_page(uint32_t number, uint32_t slot, PageSlot& out);
  static void on_checkpoint_write(io::Op* file_op);
  static void on_checkpoint_step(io::Op* file_op);
  void flush();
  void write_root();
  void finish_checkpoint();

  // open.cc
  Outcome read_superblock();
  Outcome check_superblock(uint64_t offset);
  Outcome read_root();
  Outcome read_root_slot(uint32_t slot, FoundRoot& out);
  Outcome read_root_body(const RootHeader& header, uint64_t offset);
  Outcome heal_root(const FoundRoot& root, uint64_t offset);
  Outcome read_pages();
  Outcome read_pages_singly(uint32_t from, uint32_t to, uint32_t slot);
  void lose_page(uint32_t number, const Error& error);
  Outcome load_page(uint32_t number, const PageSlot& found);
  Outcome start_incarnation();
};

inline PageId page_id(CopysetId copyset, const ChunkKey& chunk, uint16_t block) {
  return {copyset, chunk, static_cast<uint8_t>(block / kBlocksPerPage)};
}

}  // namespace curve::chunkstore
