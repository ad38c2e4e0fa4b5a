// What a Wal holds, shared by the files of native/wal: appending (wal.cc), anchors and room
// (space.cc), reading (reads.cc) and recovery (recovery.cc). Not for others.
//
// Invariants: appends in `inflight` have rising sequences and positions; only its front may be done
// (R2). `anchor` is what is durable on disk. `done_sequence` is the watermark that the next append
// carries. Thread: the loop's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "native/wal/format.h"
#include "native/wal/wal.h"

namespace curve::wal {

struct FreeAligned {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};
using AlignedBytes = std::unique_ptr<std::byte[], FreeAligned>;
AlignedBytes take_aligned(size_t bytes);

// Headers of the appends of one segment, on their way into its footer.
struct FooterDraft {
  uint64_t segment = 0;  // number; 0: none
  bool usable = false;   // false: too large or with a hole; the segment stays without footer
  uint64_t first_sequence = 0, last_sequence = 0;
  size_t body_bytes = 0;
  AlignedBytes bytes;  // footer_bytes_max

  void begin(uint64_t segment_number);
};

struct Segment {
  uint64_t number = 0;  // logical; 0: never used
  uint64_t first_position = 0, first_sequence = 0;
  uint32_t first_link = 0;
  uint32_t pins = 0;
};

struct Wal::State {
  State(io::Loop& loop_in, base::BufferPool& pool_in) : loop(loop_in), pool(pool_in) {}

  io::Loop& loop;
  base::BufferPool& pool;
  Options options;
  std::string path;
  io::File file;
  Wal* wal = nullptr;

  Anchor anchor;
  std::vector<Segment> segments;  // by slot
  size_t footer_bytes_max = 0;    // body and trailer

  bool recovered = false, stopped = false;
  uint64_t head = 0, head_segment_end = 0;
  uint64_t next_sequence = 1;
  uint32_t last_link = 0;
  uint64_t done_sequence = 0;
  uint64_t published_sequence = 0;  // highest watermark in a durable append
  uint64_t told_sequence = 0;       // highest append of the owner that is done

  base::List<Append> inflight;
  uint32_t inflight_count = 0;
  bool completing = false;
  bool failed = false;
  uint32_t rewrites = 0;  // in flight
  uint64_t failed_sequence = UINT64_MAX;

  base::List<io::Op> deferred;  // to be answered in a later turn
  io::Op refusal;               // answers appends made after a failure
  io::Timer deferred_timer, idle_timer;
  uint64_t last_done_ns = 0;
  Append publish;
  bool publishing = false;

  FooterDraft draft, sealed;
  bool footer_writing = false;
  io::FileOp footer_op;
  iovec footer_iov{};

  Anchor next_anchor;
  AlignedBytes anchor_bytes;
  io::FileOp anchor_op;
  iovec anchor_iov{};
  int anchor_slot = 0;
  io::Op* releasing = nullptr;

  // wal.cc
  void set_up();
  void submit(Append* append);
  void refuse(Append* append);
  size_t encode(Append* append, size_t used);
  void written(Append* append);
  void complete();
  void fail(uint64_t sequence, int error, const char* what);
  void defer(io::Op* op, int32_t result);
  void run_deferred();
  void idle();
  void arm_idle();

  // space.cc
  uint64_t segment_bytes() const { return anchor.segment_bytes; }
  uint64_t segment_of(uint64_t position) const { return anchor.segment_of(position); }
  Segment& slot_of(uint64_t position) { return segments[segment_of(position) % segments.size()]; }
  uint32_t append_bytes_max() const;
  uint64_t footer_room(size_t more_used) const;
  bool fits_here(uint64_t total, size_t used) const;
  uint64_t free_bytes(bool here, uint64_t bytes) const;
  bool next_segment_free() const;
  void next_segment();
  void note_append(const Append& append, std::span<const std::byte> used);
  void collect_header(std::span<const std::byte> used, uint64_t position, uint64_t sequence);
  void write_footer_if_due();
  void release_before(uint64_t position, std::span<const std::byte> blob, io::Op* op);
  void write_anchor_slot();
  int write_anchor_sync(const Anchor& anchor);
  bool readable(uint64_t position, uint64_t bytes) const;
};

struct AppendSize {
  size_t records = 0, used_bytes = sizeof(AppendHeader);
  uint64_t payload_bytes = 0;
  void add(const Record& record) {
    ++records;
    used_bytes +=
        record_bytes(record.sector_crcs.size(), record.head.size(), record.annotation.size());
    payload_bytes += record.payload.size();
  }
  uint64_t total_bytes() const { return round_up(used_bytes, kSectorBytes) + payload_bytes; }
};

}  // namespace curve::wal
