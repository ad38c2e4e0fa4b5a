// The write-ahead log of one store: one sequence of appends in one preallocated, zeroed file or
// device region, shared by all groups of the store. Everything handed over in one turn is one
// append (group commit): header block(s) that describe all records, then sector-aligned payloads,
// as one aligned durable write; a few in flight. Format: docs/formats/wal.md.
//
// Invariants:
//  - R2: `done` of appends is called in order; when it is called, the append and every one before
//  it is durable, including
//    payloads written elsewhere (external).
//  - R3: each append carries generation, sequence, a link to the one before and the watermark
//  "durable through"; after the
//    last one a small append publishes the final watermark (idle_publish_ns).
//  - R7: a segment is used again only after an anchor that starts behind it is durable and no read
//  pins it.
// Positions are logical byte offsets that only grow; the place in the file is derived from them.
// Thread: the loop's. format/open/recover may block (start-up only), the rest never does and
// allocates nothing in steady state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/buffer.h"
#include "native/base/list.h"
#include "native/base/status.h"
#include "native/base/types.h"
#include "native/io/io.h"

namespace curve::wal {

inline constexpr size_t kHeadBytesMax = 16 * 1024;
inline constexpr size_t kPayloadBytesMax = kIoBytesMax;
inline constexpr uint32_t kAppendBytesMax = 4u << 20;  // header and payloads of one append
inline constexpr size_t kAppendRecordsMax = 4095;      // records of one append
inline constexpr uint32_t kInflightAppendsMax = 64;    // bound of Options::inflight_appends_max

enum class RecordType : uint8_t {
  kEntry = 1,      // log entry: voids the group's entries >= index, then appends itself
  kEntryCopy = 2,  // moved to the head (R7): fills in where the log lacks it (same term rules),
                   // never voids anything
  kHardState = 3,  // term, and vote in head (16 bytes)
  kCommit = 4,     // index: committed through
  kTruncate = 5,   // entries > index are void (0: all; what sync filled in replaces them)
  kGroup =
      6,  // group formed or replaced: head is the owner's blob; voids the group's earlier records
  kLocal = 7,  // owner's own record (sync data, sync state, fences...): head and payload opaque, in
               // order with the rest
  kRemoved = 8,  // the group left this store; its earlier records are void
};

struct Record {
  CopysetId group = 0;
  RecordType type = RecordType::kEntry;
  uint8_t entry_type = 0;  // raft::EntryType for entries; the owner's for kLocal
  Index index = 0;
  Term term = 0;
  std::span<const std::byte> head;  // <= kHeadBytesMax, caller-owned until append() returns
  std::span<const uint32_t>
      sector_crcs;       // CRC32C per payload sector, caller-owned until append() returns
  base::Buffer payload;  // whole sectors; empty when none or external
  std::span<const std::byte>
      annotation;  // local to this store, never replicated: where an external payload is (R4)
  // Filled by append():
  uint64_t place = 0;             // finds the record again (read_record); opaque, never 0
  uint64_t payload_position = 0;  // logical position of the payload's first sector; 0 when none
};

// One group commit. Owner-allocated and reused; must stay in place until done.
struct Append : base::ListHook {
  std::vector<Record> records;
  uint32_t external_pending = 0;  // payload writes elsewhere still running; see Wal::external_done
  void (*done)(Append* append) = nullptr;  // R2 order
  void* owner = nullptr;
  Code result =
      Code::kOk;  // kIo: the store is out of service (a failed durable write is never retried)
  // of the WAL:
  uint64_t sequence = 0;
  uint64_t position = 0;
  uint64_t watermark = 0;  // that it carries
  uint32_t bytes = 0;
  uint32_t header_used = 0;  // bytes of `header` that are not zero
  bool written = false;
  io::FileOp op;
  base::Buffer header;
  std::vector<iovec> iov;
  class Wal* wal = nullptr;
};

// Reads payload sectors as they are; the caller checks CRCs. Within one segment, before
// head_position().
struct ReadOp
    : io::Op {  // result: bytes, -ENODATA (its segment is in use again), -EINVAL, or -errno
  uint64_t position = 0;      // payload position (sector-aligned)
  std::span<std::byte> into;  // sector multiple, 4 KiB-aligned
  // of the WAL:
  io::FileOp file_op;
  iovec iov{};
  uint64_t segment = 0;
  class Wal* wal = nullptr;
};

// R11: payload sectors of a durable append are written again with the content that their checksums
// name, in place. The log says nothing new: where the write is torn, what was damaged stays
// damaged.
struct RewriteOp : io::Op {  // result: 0, -ENODATA (its segment is in use again), -EAGAIN (not
                             // durable yet), -EINVAL, or -errno of the device (failed())
  uint64_t position = 0;     // sector-aligned
  std::span<const std::byte> from;  // sector multiple, 4 KiB-aligned
  // of the WAL:
  io::FileOp file_op;
  iovec iov{};
  class Wal* wal = nullptr;
};

// A whole record read back (lagging follower, recovery of metadata). Allocates; not the 4k path.
// Its append must be done.
struct RecordReadOp
    : io::Op {  // result: 0 or -errno (-EILSEQ: damage; -ENODATA: its segment is in use again)
  uint64_t place = 0;
  // Filled:
  RecordType type = RecordType::kEntry;
  uint8_t entry_type = 0;
  CopysetId group = 0;
  Index index = 0;
  Term term = 0;
  std::vector<std::byte> head, annotation;
  std::vector<uint32_t> sector_crcs;
  base::Buffer payload;  // checked against sector_crcs; empty when none or external
  // of the WAL:
  struct Private;
  std::shared_ptr<Private> internal;
};

struct Options {
  uint32_t inflight_appends_max = 2;
  uint64_t idle_publish_ns = 5'000'000;
};

struct FormatOptions {
  StoreId store;
  uint64_t bytes = 0;  // of the file, >= 64 MiB (with a segment size of its own: four segments are
                       // enough); 0: what a device has
  uint64_t segment_bytes =
      0;  // 0: chosen by size (bytes / 16, 8 MiB .. 64 MiB); else sectors, 64 KiB .. 1 GiB
};

// One record as recovery saw it, in log order.
struct RecoveredRecord {
  RecordType type;
  uint8_t entry_type;
  CopysetId group;
  Index index;
  Term term;
  std::span<const std::byte> head, annotation;  // valid during the call
  std::span<const uint32_t> sector_crcs;
  uint32_t payload_bytes;            // external ones too
  uint64_t place, payload_position;  // payload_position 0: external or none
  bool promised;      // at or below the last watermark: others may have been told. Otherwise its
                      // external payload must be verified.
  uint32_t gaps = 0;  // R3: how many pieces of the log before it were lost to damage
};

struct RecoveryReport {
  uint64_t generation = 0;  // the new one, already durable
  uint64_t appends = 0, records = 0;
  bool torn_tail = false;  // the final window, that nobody was told about, was cut
  uint64_t torn_position = 0;
  bool damaged = false;  // R3: damage at or below the watermark: every group without proof of
                         // completeness needs sync
  uint64_t damage_position =
      0;  // what lies at or behind it (place >= damage_position) is whole. Damage is reported again
          // by every recovery until its segment is released.
  std::string damage;  // which structure at which offset
  std::vector<std::byte> anchor_blob;
};

// What inspect() says of a log besides its records.
struct LogSummary {
  RecoveryReport report;  // as the next start would find it; `generation`: of the last writer
  uint64_t start_position = 0, end_position = 0;
  uint64_t segment_bytes = 0, capacity_bytes = 0;
};

class Wal {
 public:
  static Outcome format(io::Loop& loop, const std::string& path, const FormatOptions& options);
  // kExists if a log that was ever recovered is at `path`, kLocked if somebody has it open. One
  // that was only formatted is free: its store was never complete, or never served.
  static Outcome check_free(io::Loop& loop, const std::string& path);
  // Opens and checks anchors; kLocked, kCorrupt, kVersion with a sentence. recover() must follow.
  static Result<std::unique_ptr<Wal>> open(io::Loop& loop, base::BufferPool& pool,
                                           const std::string& path, const StoreId& store,
                                           const Options& options);
  ~Wal();
  // R3's table. Calls `visit` for every record from the anchor's start on, in order; raises the
  // generation durably. Once only. What the owner decides about records that are not promised (a
  // torn external payload: kTruncate) belongs in its first append; it promises nothing before that
  // one is done. Until then nothing is published, and another recovery says the same.
  Result<RecoveryReport> recover(const std::function<void(const RecoveredRecord&)>& visit);

  // The log of a stopped store, read by the same table; nothing is changed. kLocked while it runs.
  static Result<LogSummary> inspect(io::Loop& loop, base::BufferPool& pool, const std::string& path,
                                    const StoreId& store,
                                    const std::function<void(const RecoveredRecord&)>& visit);

  // Room for such an append now (in-flight slots are not room: see ready()). `reserve_bytes` is
  // kept free for others. payload_bytes: inline payloads. head_bytes: heads, annotations, and 4
  // bytes per sector of an external payload. Always true once failed(): such appends are answered
  // with kIo.
  bool has_room(uint64_t payload_bytes, size_t records, size_t head_bytes,
                uint64_t reserve_bytes) const;
  bool ready() const;  // an in-flight slot is free
  // Fills place and payload_position of each record, writes. Precondition: ready(), has_room(..,
  // 0).
  void append(Append* append);
  void external_done(Append* append,
                     int32_t result);  // one external payload of it is durable (result < 0: -errno)

  void read(ReadOp* op);  // pins its segment while it runs
  void read_record(RecordReadOp* op);
  void rewrite(RewriteOp* op);
  uint64_t file_offset(uint64_t position) const;  // where it lies in the file, for reports
  void pin(uint64_t position);  // a reader of its own will come back for this segment
  void unpin(uint64_t position);

  uint64_t head_position() const;   // next append goes here (or in the next segment)
  uint64_t start_position() const;  // of the anchor: everything before is gone
  uint64_t segment_bytes() const;
  uint64_t capacity_bytes() const;
  uint64_t used_bytes() const;
  uint64_t free_bytes() const;        // at least so much goes in, in appends of any size
  uint32_t append_bytes_max() const;  // kAppendBytesMax, or half a segment if that is less
  uint64_t segment_start(uint64_t position) const;
  static uint64_t place_position(uint64_t place);  // position of the append that holds the record
  // Makes an anchor durable that starts at the segment of `position` (never backwards) with the
  // owner's blob (<= 2048 bytes), then lets segments before it be used again. `op->result` 0 or
  // -errno. One at a time.
  void release_before(uint64_t position, std::span<const std::byte> blob, io::Op* op);
  bool failed() const;  // a durable write failed: out of service
  uint64_t generation() const;
  void stop();        // no idle publishing any more; appends in flight still complete
  bool busy() const;  // writes of its own (footer, watermark, anchor) or appends are in flight: it
                      // must not be destroyed yet, unless the loop was abandoned

  struct State;  // native/wal/state.h; nobody else's

 private:
  static Result<std::unique_ptr<Wal>> open_file(io::Loop& loop, base::BufferPool& pool,
                                                const std::string& path, const StoreId& store,
                                                const Options& options, bool read_only);
  std::unique_ptr<State> state_;
  explicit Wal(std::unique_ptr<State> state);
};

}  // namespace curve::wal
