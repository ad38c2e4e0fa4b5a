// A virtual disk per node: files by path that survive crashes. A write is visible when it
// completes; it is on stable storage when it was durable, or after a sync that began after its
// completion. At a power cut every write that is not yet stable (or still in flight) is, for
// itself, kept, lost, or torn at 512 bytes: a prefix, or any subset of its parts.
//
// Invariants: `extents` are what a read sees. A page with unstable writes has its stable content in
// `stable`, and the writes on top of it in `unstable`, oldest first; every other page is stable.
// Absent pages are zeros. Thread: the world's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "native/io/io.h"
#include "native/sim/world.h"

namespace curve::sim {

inline constexpr uint32_t kPageBytes = 4096;
inline constexpr uint32_t kPartBytes = 512;  // the unit of tearing

using Page = std::array<std::byte, kPageBytes>;

struct VirtualFile {
  // Pages that are neighbours, in one piece of memory.
  static constexpr uint64_t kPagesPerExtent = 16;
  static constexpr uint64_t kExtentBytes = kPagesPerExtent * kPageBytes;
  struct Extent {
    uint16_t present = 0;  // by page; the bytes of the others mean nothing
    std::array<std::byte, kExtentBytes> bytes;
  };
  struct Write {
    uint64_t sequence = 0;
    uint64_t offset = 0;
    uint64_t bytes = 0;
    bool must_keep = false;  // durable: above older unstable ones, never lost
    bool zeros = false;      // discard; `data` is empty
    std::vector<std::byte> data;
  };
  struct Stable {
    std::unique_ptr<Page> page;  // null: zeros
    uint32_t writes = 0;         // unstable ones that touch the page
  };
  std::string path;
  uint64_t size = 0, last_write = 0;  // its offset
  std::vector<std::unique_ptr<Extent>> extents;
  std::map<uint64_t, Stable> stable;
  std::deque<Write> unstable;
  io::LoopBackend* locked_by = nullptr;

  uint64_t page_count() const { return extents.size() * kPagesPerExtent; }
  std::byte* page(uint64_t index);       // null: absent
  std::byte* make_page(uint64_t index);  // zeros where it was absent
  void drop_page(uint64_t index);
  void resize(uint64_t bytes);
  void read(uint64_t offset, std::span<std::byte> into) const;
  void put(uint64_t offset, std::span<const std::byte> from);  // visible content only
  void put_zeros(uint64_t offset, uint64_t bytes);
  // A completed write: visible, and stable at once or after a sync.
  void write(uint64_t sequence, uint64_t offset, std::span<const std::byte> from, bool durable);
  void discard(uint64_t sequence, uint64_t offset, uint64_t bytes);
  void stabilize(uint64_t through_sequence);
  void lose_power(Random& random);
  bool touches_unstable(uint64_t offset, uint64_t bytes) const;

 private:
  void add_unstable(Write write);
  std::byte* page_for_write(uint64_t index, bool whole);  // whole: the caller writes all of it
};

// What may go wrong beside crashes. All off by default.
struct DiskFaults {
  double read_error_chance = 0;         // -EIO
  double write_error_chance = 0;        // -EIO; the content is then undefined (old, new, torn)
  double sync_error_chance = 0;         // -EIO; what was not stable is kept, lost or torn
  double lost_write_chance = 0;         // reported as written, never was
  double misdirected_write_chance = 0;  // lands elsewhere
};

class Disk {
 public:
  Disk(World& world, Node& node, const DiskOptions& options);
  ~Disk();

  VirtualFile* find(const std::string& path);
  std::vector<std::string> paths() const;
  void wipe();  // a new, empty disk

  DiskFaults faults;
  // For a time instead of `faults`.
  void fail_until(uint64_t world_ns, const DiskFaults& timed) {
    fail_until_ = world_ns, timed_faults_ = timed;
  }
  // Errors that were returned since the node's last start.
  bool gave_errors() const { return errors_ != errors_at_boot_; }
  void booting() { errors_at_boot_ = errors_; }
  // Writes that lie in `path` behind `offset_min` may be lost or land elsewhere behind it.
  void set_lossy(const std::string& path, uint64_t offset_min) {
    lossy_path_ = path, lossy_min_ = offset_min;
  }
  // R4: a durable write to the lossy path, behind `offset_min`, stands beside an append to `path`.
  // Like the last appends it does not rot before so many bytes of `path` were written behind it:
  // only later appends say that it was acknowledged.
  void set_log(const std::string& path, uint64_t settled_bytes, uint64_t offset_min) {
    log_path_ = path, log_settled_bytes_ = settled_bytes, unsettled_min_ = offset_min;
  }
  void lose_blocks_until(uint64_t world_ns, double lost_chance, double misdirected_chance) {
    lose_until_ = world_ns, lost_chance_ = lost_chance, misdirected_chance_ = misdirected_chance;
  }
  // The device does not give back what it wrote last in `path`, and so many bytes before it.
  void refuse_last_until(uint64_t world_ns, const std::string& path, uint64_t bytes);
  // Data at rest was changed, or a write was lost, since the run began.
  bool damaged() const { return damaged_; }
  // That, or an error was returned: what is found damaged may be.
  bool ever_harmed() const { return damaged_ || errors_ != 0; }
  void slow_until(uint64_t world_ns, uint64_t factor) {
    slow_until_ = world_ns, slow_factor_ = factor;
  }
  // The `steps`-th *_sync call from now on throws Crash, with its effect torn.
  void crash_in_sync_call(uint64_t steps) { sync_steps_left_ = steps; }
  void cancel_sync_crash() { sync_steps_left_ = 0; }
  // Flips one bit of stable content that is not zeros; false when there is none. `where` says what
  // was hit.
  bool flip_bit(const std::string& path, uint64_t offset_min, uint64_t offset_max,
                std::string* where);

  uint64_t syncs() const { return syncs_; }
  uint64_t torn_writes() const { return torn_writes_; }
  uint64_t writes() const { return writes_; }
  uint64_t used_bytes() const;

  // Of the implementation of io.h.
  void crash(io::LoopBackend* loop, CrashKind kind);
  void abandon(io::LoopBackend* loop);
  Result<int64_t> open(io::LoopBackend* loop, const std::string& path,
                       const io::FileOptions& options);
  void close(io::LoopBackend* loop, int64_t handle);
  enum class Kind : uint8_t { kRead, kWrite, kSync, kDiscard };
  void submit(io::LoopBackend* loop, int64_t handle, Kind kind, io::FileOp* op, uint64_t bytes);
  int read_sync(io::LoopBackend* loop, int64_t handle, uint64_t offset, std::span<std::byte> into);
  int write_sync(io::LoopBackend* loop, int64_t handle, uint64_t offset,
                 std::span<const std::byte> from);
  int sync_sync(io::LoopBackend* loop, int64_t handle);
  int allocate_sync(io::LoopBackend* loop, int64_t handle, uint64_t bytes);

 private:
  struct Inflight {
    io::LoopBackend* loop;
    int64_t handle;
    Kind kind;
    io::FileOp* op;
    uint64_t offset, bytes;
    uint64_t began;  // write sequence at submission: a sync covers what completed before
    // Of a write's buffers: they must not change while it is in flight.
    std::optional<uint32_t> checksum;
  };
  void finish(uint64_t id);
  int32_t apply(Inflight& item);
  uint64_t latency(Kind kind, uint64_t bytes);
  void tear_in_flight(Inflight& item);
  const DiskFaults& faults_now() const;
  bool fails(double chance);
  bool refuses_read(const VirtualFile& file, uint64_t offset, uint64_t bytes);
  // Where the write lands; nothing: nowhere.
  std::optional<uint64_t> landing(const VirtualFile& file, uint64_t offset, uint64_t bytes);
  void note_write(const VirtualFile& file, const Inflight& item);
  bool is_unsettled(const VirtualFile& file, uint64_t page) const;
  bool sync_step();  // true: crash now
  static std::vector<std::byte> gather(const io::FileOp* op, uint64_t bytes);

  World& world_;
  Node& node_;
  DiskOptions options_;
  Random random_;
  std::map<std::string, std::unique_ptr<VirtualFile>> files_;
  std::map<uint64_t, Inflight> inflight_;
  uint64_t next_id_ = 1, write_sequence_ = 1;
  uint64_t device_free_at_ = 0;
  uint64_t slow_until_ = 0, slow_factor_ = 1;
  uint64_t sync_steps_left_ = 0;
  uint64_t fail_until_ = 0, errors_ = 0, errors_at_boot_ = 0;
  DiskFaults timed_faults_;
  std::string lossy_path_;
  uint64_t lossy_min_ = 0, lose_until_ = 0;
  std::string log_path_;
  uint64_t log_settled_bytes_ = 0, log_written_bytes_ = 0, unsettled_min_ = 0;
  struct Unsettled {
    uint64_t offset, bytes, log_written_bytes;
  };
  std::deque<Unsettled> unsettled_;  // of the lossy path
  std::string refused_path_;
  uint64_t refused_from_ = 0, refused_to_ = 0, refuse_until_ = 0;
  double lost_chance_ = 0, misdirected_chance_ = 0;
  bool damaged_ = false;
  uint64_t syncs_ = 0, torn_writes_ = 0, writes_ = 0;
};

}  // namespace curve::sim
