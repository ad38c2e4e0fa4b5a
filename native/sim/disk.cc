#include "native/sim/disk.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/sim/loop_backend.h"

namespace curve::sim {
namespace {

[[noreturn]] void misuse(const Node& node, const char* what, const std::string& path,
                         uint64_t offset, uint64_t bytes) {
  std::fprintf(stderr, "%s: %s: %s at offset %llu, %llu bytes\n", node.name.c_str(), what,
               path.c_str(), static_cast<unsigned long long>(offset),
               static_cast<unsigned long long>(bytes));
  std::abort();
}

uint64_t total(std::span<const iovec> iov) {
  uint64_t bytes = 0;
  for (const iovec& part : iov) bytes += part.iov_len;
  return bytes;
}

// Whether a buffer changes under its write is looked at for small writes, and for one large write
// in so many: it would cost a tenth of a run.
constexpr uint64_t kWritesPerBufferCheck = 4;
constexpr uint64_t kSmallWriteBytes = 16 * 1024;

uint32_t checksum(std::span<const iovec> iov) {
  uint32_t crc = 0;
  for (const iovec& part : iov)
    crc = base::crc32c({static_cast<const std::byte*>(part.iov_base), part.iov_len}, crc);
  return crc;
}

}  // namespace

Disk::Disk(World& world, Node& node, const DiskOptions& options)
    : world_(world), node_(node), options_(options), random_(node.random.split("disk")) {}

Disk::~Disk() = default;

VirtualFile* Disk::find(const std::string& path) {
  const auto at = files_.find(path);
  return at == files_.end() ? nullptr : at->second.get();
}

std::vector<std::string> Disk::paths() const {
  std::vector<std::string> out;
  for (const auto& [path, file] : files_) out.push_back(path);
  return out;
}

void Disk::wipe() {
  assert(inflight_.empty());
  files_.clear();
}

uint64_t Disk::used_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [path, file] : files_) bytes += file->size;
  return bytes;
}

bool Disk::flip_bit(const std::string& path, uint64_t offset_min, uint64_t offset_max,
                    std::string* where) {
  VirtualFile* file = find(path);
  if (!file) return false;
  const uint64_t first = offset_min / kPageBytes;
  const uint64_t last = std::min<uint64_t>(file->page_count(), offset_max / kPageBytes);
  if (first >= last) return false;
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const uint64_t page = random_.between(first, last - 1);
    if (!file->page(page) || file->stable.count(page) || is_unsettled(*file, page)) continue;
    const uint64_t bit = random_.below(kPageBytes * 8);
    file->page(page)[bit / 8] ^= std::byte{1} << (bit % 8);
    world_.trace(&node_, "bit_flip", page * kPageBytes + bit / 8);
    damaged_ = true;
    if (where) *where = path + " offset " + std::to_string(page * kPageBytes + bit / 8);
    return true;
  }
  return false;
}

void Disk::note_write(const VirtualFile& file, const Inflight& item) {
  if (file.path == log_path_) {
    log_written_bytes_ += item.bytes;
    while (!unsettled_.empty() &&
           log_written_bytes_ - unsettled_.front().log_written_bytes > log_settled_bytes_)
      unsettled_.pop_front();
  } else if (file.path == lossy_path_ && item.op->durable && item.offset >= unsettled_min_ &&
             log_settled_bytes_ != 0) {
    unsettled_.push_back({item.offset, item.bytes, log_written_bytes_});
  }
}

bool Disk::is_unsettled(const VirtualFile& file, uint64_t page) const {
  return file.path == lossy_path_ &&
         std::any_of(unsettled_.begin(), unsettled_.end(), [page](const Unsettled& write) {
           return write.offset / kPageBytes <= page &&
                  page * kPageBytes < write.offset + write.bytes;
         });
}

// --- open and close ---

Result<int64_t> Disk::open(io::LoopBackend* loop, const std::string& path,
                           const io::FileOptions& options) {
  VirtualFile* file = find(path);
  if (!file) {
    if (!options.create) return Error{Code::kNotFound, path + ": no such file"};
    auto made = std::make_unique<VirtualFile>();
    made->path = path;
    file = made.get();
    files_.emplace(path, std::move(made));
  }
  if (options.lock) {
    if (file->locked_by) return Error{Code::kLocked, path + " is in use by another process"};
    file->locked_by = loop;
  }
  io::LoopBackend::Handle handle;
  handle.file = file;
  handle.read_only = options.read_only;
  handle.direct = options.direct;
  handle.locked = options.lock;
  loop->handles.push_back(handle);
  return static_cast<int64_t>(loop->handles.size() - 1);
}

void Disk::close(io::LoopBackend* loop, int64_t handle) {
  auto& item = loop->handles[static_cast<size_t>(handle)];
  if (!item.file) return;
  if (item.inflight != 0)
    misuse(node_, "file closed with operations in flight", item.file->path, 0, item.inflight);
  if (item.locked) item.file->locked_by = nullptr;
  item.file = nullptr;
}

void Disk::abandon(io::LoopBackend* loop) {
  std::erase_if(inflight_, [loop](const auto& entry) { return entry.second.loop == loop; });
  for (auto& handle : loop->handles) {
    if (handle.file && handle.locked) handle.file->locked_by = nullptr;
    handle.file = nullptr;
  }
}

// --- asynchronous operations ---

const DiskFaults& Disk::faults_now() const {
  return world_.now_ns() < fail_until_ ? timed_faults_ : faults;
}

bool Disk::fails(double chance) {
  if (chance == 0 || !random_.chance(chance)) return false;
  ++errors_;
  return true;
}

void Disk::refuse_last_until(uint64_t world_ns, const std::string& path, uint64_t bytes) {
  const VirtualFile* file = find(path);
  refuse_until_ = file ? world_ns : 0;
  if (!file) return;
  refused_path_ = path;
  refused_from_ = file->last_write - std::min(file->last_write, bytes);
  refused_to_ = file->last_write + kPageBytes;
}

bool Disk::refuses_read(const VirtualFile& file, uint64_t offset, uint64_t bytes) {
  const bool there = world_.now_ns() < refuse_until_ && file.path == refused_path_ &&
                     offset < refused_to_ && offset + bytes > refused_from_;
  errors_ += there;
  return there || fails(faults_now().read_error_chance);
}

std::optional<uint64_t> Disk::landing(const VirtualFile& file, uint64_t offset, uint64_t bytes) {
  const bool timed = world_.now_ns() < lose_until_ && file.path == lossy_path_ &&
                     offset >= lossy_min_ && file.size > lossy_min_ + bytes;
  if (timed && random_.chance(lost_chance_)) {
    world_.trace(&node_, "write_lost", offset, bytes);
    damaged_ = true;
    return std::nullopt;
  }
  if (timed && random_.chance(misdirected_chance_)) {
    const uint64_t pages = (file.size - lossy_min_ - bytes) / kPageBytes;
    const uint64_t at = lossy_min_ / kPageBytes * kPageBytes + random_.below(pages) * kPageBytes;
    world_.trace(&node_, "write_misdirected", offset, at);
    damaged_ = true;
    return at;
  }
  if (faults.lost_write_chance != 0 && random_.chance(faults.lost_write_chance))
    return std::nullopt;
  if (faults.misdirected_write_chance != 0 && random_.chance(faults.misdirected_write_chance) &&
      file.size > bytes)
    return random_.below((file.size - bytes) / kPageBytes) * kPageBytes;
  return offset;
}

uint64_t Disk::latency(Kind kind, uint64_t bytes) {
  uint64_t ns = kind == Kind::kRead ? random_.between(options_.read_ns_min, options_.read_ns_max)
                                    : random_.between(options_.write_ns_min, options_.write_ns_max);
  if (random_.chance(options_.slow_op_chance)) ns += random_.below(30 * kMillisecond);
  if (world_.now_ns() < slow_until_) ns *= slow_factor_;
  const uint64_t transfer = bytes * kSecond / options_.bytes_per_second;
  device_free_at_ = std::max(device_free_at_, world_.now_ns()) + transfer;
  return device_free_at_ - world_.now_ns() + ns;
}

void Disk::submit(io::LoopBackend* loop, int64_t handle, Kind kind, io::FileOp* op,
                  uint64_t bytes) {
  auto& item = loop->handles[static_cast<size_t>(handle)];
  if (!item.file) misuse(node_, "operation on a closed file", "?", op->offset_bytes, 0);
  Inflight inflight{loop, handle, kind, op, op->offset_bytes, bytes, write_sequence_, {}};
  if (kind == Kind::kRead || kind == Kind::kWrite) {
    inflight.bytes = total(op->iov);
    if (item.direct) {
      bool aligned = op->offset_bytes % kPageBytes == 0;
      for (const iovec& part : op->iov) {
        aligned &= reinterpret_cast<uintptr_t>(part.iov_base) % kPageBytes == 0 &&
                   part.iov_len % kPageBytes == 0;
      }
      if (!aligned)
        misuse(node_, "direct I/O is not aligned", item.file->path, op->offset_bytes,
               inflight.bytes);
    }
    if (op->iov.size() > 1024)
      misuse(node_, "more than 1024 iovecs", item.file->path, op->offset_bytes, op->iov.size());
    const bool looked_at =
        inflight.bytes <= kSmallWriteBytes || next_id_ % kWritesPerBufferCheck == 0;
    if (kind == Kind::kWrite && looked_at) inflight.checksum = checksum(op->iov);
  }
  ++item.inflight;
  const uint64_t id = next_id_++;
  const uint64_t delay =
      latency(kind, kind == Kind::kSync || kind == Kind::kDiscard ? 0 : inflight.bytes);
  inflight_.emplace(id, inflight);
  world_.after(delay, [this, id] { finish(id); });
}

void Disk::finish(uint64_t id) {
  const auto at = inflight_.find(id);
  if (at == inflight_.end()) return;  // the loop was abandoned
  Inflight item = at->second;
  inflight_.erase(at);
  --item.loop->handles[static_cast<size_t>(item.handle)].inflight;
  const int32_t result = apply(item);
  world_.trace(&node_,
               item.kind == Kind::kRead    ? "disk_read"
               : item.kind == Kind::kWrite ? "disk_write"
               : item.kind == Kind::kSync  ? "disk_sync"
                                           : "disk_discard",
               item.offset, item.bytes);
  item.loop->complete(item.op, result);
}

std::vector<std::byte> Disk::gather(const io::FileOp* op, uint64_t bytes) {
  std::vector<std::byte> out;
  out.reserve(bytes);
  for (const iovec& part : op->iov) {
    const auto* from = static_cast<const std::byte*>(part.iov_base);
    out.insert(out.end(), from, from + part.iov_len);
  }
  return out;
}

int32_t Disk::apply(Inflight& item) {
  const auto& handle = item.loop->handles[static_cast<size_t>(item.handle)];
  VirtualFile& file = *handle.file;
  switch (item.kind) {
    case Kind::kRead: {
      if (item.offset + item.bytes > file.size) return -EIO;
      if (refuses_read(file, item.offset, item.bytes)) return -EIO;
      uint64_t at = item.offset;
      for (const iovec& part : item.op->iov) {
        file.read(at, {static_cast<std::byte*>(part.iov_base), part.iov_len});
        at += part.iov_len;
      }
      return static_cast<int32_t>(item.bytes);
    }
    case Kind::kWrite: {
      if (handle.read_only) return -EBADF;
      if (item.checksum && checksum(item.op->iov) != *item.checksum) {
        misuse(node_, "a buffer changed while its write was in flight", file.path, item.offset,
               item.bytes);
      }
      ++writes_;
      if (fails(faults_now().write_error_chance)) {
        tear_in_flight(item);
        return -EIO;
      }
      // What is durable at once is what others are told of first (R4): like the last appends of a
      // log, it is not lost unseen.
      const auto landed = item.op->durable && file.path == lossy_path_
                              ? item.offset
                              : landing(file, item.offset, item.bytes);
      if (!landed) return static_cast<int32_t>(item.bytes);
      uint64_t at = *landed;
      for (const iovec& part : item.op->iov) {
        file.write(write_sequence_++, at,
                   {static_cast<const std::byte*>(part.iov_base), part.iov_len}, item.op->durable);
        at += part.iov_len;
      }
      note_write(file, item);
      return static_cast<int32_t>(item.bytes);
    }
    case Kind::kSync:
      ++syncs_;
      if (fails(faults_now().sync_error_chance)) {
        file.lose_power(random_);
        return -EIO;
      }
      file.stabilize(item.began - 1);
      return 0;
    case Kind::kDiscard:
      if (!random_.chance(options_.discard_ignored_chance))
        file.discard(write_sequence_++, item.offset, item.bytes);
      return 0;
  }
  return -EINVAL;
}

// --- crash ---

// What is in flight at a crash may have happened, or not, or in part; a power cut decides again
// what stays of it.
void Disk::tear_in_flight(Inflight& item) {
  VirtualFile& file = *item.loop->handles[static_cast<size_t>(item.handle)].file;
  const std::vector<std::byte> data = gather(item.op, item.bytes);
  const uint64_t parts = (item.bytes + kPartBytes - 1) / kPartBytes;
  const uint64_t mood = random_.below(4);
  if (mood == 0 || parts == 0) return;
  const uint64_t cut = mood == 1 ? parts : random_.below(parts + 1);
  if (mood != 1) ++torn_writes_;
  for (uint64_t part = 0; part < parts; ++part) {
    if (mood == 3 ? random_.chance(0.5) : part >= cut) continue;
    const uint64_t at = part * kPartBytes, count = std::min<uint64_t>(kPartBytes, item.bytes - at);
    file.write(write_sequence_++, item.offset + at, std::span(data).subspan(at, count), false);
  }
}

void Disk::crash(io::LoopBackend* loop, CrashKind kind) {
  std::vector<uint64_t> order;
  for (const auto& [id, item] : inflight_) {
    if (item.loop == loop && item.kind == Kind::kWrite) order.push_back(id);
  }
  random_.shuffle(order);
  for (uint64_t id : order) tear_in_flight(inflight_.at(id));
  abandon(loop);
  if (kind == CrashKind::kPower) {
    for (auto& [path, file] : files_) file->lose_power(random_);
  }
}

// --- synchronous operations: no virtual time passes ---

bool Disk::sync_step() { return sync_steps_left_ != 0 && --sync_steps_left_ == 0; }

int Disk::read_sync(io::LoopBackend* loop, int64_t handle, uint64_t offset,
                    std::span<std::byte> into) {
  const auto& item = loop->handles[static_cast<size_t>(handle)];
  if (item.direct && (offset % kPageBytes || into.size() % kPageBytes ||
                      reinterpret_cast<uintptr_t>(into.data()) % kPageBytes)) {
    misuse(node_, "direct I/O is not aligned", item.file->path, offset, into.size());
  }
  if (sync_step()) throw Crash{};
  if (offset + into.size() > item.file->size) return -EIO;
  if (refuses_read(*item.file, offset, into.size())) return -EIO;
  item.file->read(offset, into);
  return 0;
}

int Disk::write_sync(io::LoopBackend* loop, int64_t handle, uint64_t offset,
                     std::span<const std::byte> from) {
  const auto& item = loop->handles[static_cast<size_t>(handle)];
  if (item.read_only) return -EBADF;
  if (item.direct && (offset % kPageBytes || from.size() % kPageBytes ||
                      reinterpret_cast<uintptr_t>(from.data()) % kPageBytes)) {
    misuse(node_, "direct I/O is not aligned", item.file->path, offset, from.size());
  }
  ++writes_;
  // A crash here comes before the sync: the power cut decides what stays of the write.
  const bool crash = sync_step();
  item.file->write(write_sequence_++, offset, from, false);
  if (crash) throw Crash{};
  return fails(faults_now().write_error_chance) ? -EIO : 0;
}

int Disk::sync_sync(io::LoopBackend* loop, int64_t handle) {
  const auto& item = loop->handles[static_cast<size_t>(handle)];
  if (sync_step()) throw Crash{};
  ++syncs_;
  if (fails(faults_now().sync_error_chance)) {
    item.file->lose_power(random_);
    return -EIO;
  }
  item.file->stabilize(write_sequence_ - 1);
  return 0;
}

int Disk::allocate_sync(io::LoopBackend* loop, int64_t handle, uint64_t bytes) {
  const auto& item = loop->handles[static_cast<size_t>(handle)];
  if (item.read_only) return -EBADF;
  if (sync_step()) throw Crash{};
  VirtualFile& file = *item.file;
  if (used_bytes() - file.size + bytes > options_.capacity_bytes) return -ENOSPC;
  file.stabilize(write_sequence_ - 1);
  const uint64_t before = file.size;
  file.resize(bytes);
  if (before < bytes) file.put_zeros(before, bytes - before);
  return 0;
}

}  // namespace curve::sim

namespace curve::io {

namespace {
sim::Disk& disk_of(Loop* loop) { return *loop->backend()->node->disk; }
}  // namespace

File::File(File&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), handle_(std::exchange(other.handle_, -1)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(loop_, other.loop_);
  std::swap(handle_, other.handle_);
  return *this;
}

File::~File() {
  if (loop_ && !loop_->abandoned()) disk_of(loop_).close(loop_->backend(), handle_);
}

Result<File> File::open(Loop& loop, const std::string& path, const FileOptions& options) {
  if (loop.abandoned()) return Error{Code::kCancelled, "the loop was abandoned"};
  auto handle = disk_of(&loop).open(loop.backend(), path, options);
  if (!handle) return handle.error();
  File file;
  file.loop_ = &loop;
  file.handle_ = *handle;
  return file;
}

uint64_t File::size_bytes() const {
  if (loop_->abandoned()) return 0;
  return loop_->backend()->handles[static_cast<size_t>(handle_)].file->size;
}

bool File::direct() const { return loop_->backend()->handles[static_cast<size_t>(handle_)].direct; }

void File::read(FileOp* op) {
  if (loop_->abandoned()) return;
  disk_of(loop_).submit(loop_->backend(), handle_, sim::Disk::Kind::kRead, op, 0);
}

void File::write(FileOp* op) {
  if (loop_->abandoned()) return;
  disk_of(loop_).submit(loop_->backend(), handle_, sim::Disk::Kind::kWrite, op, 0);
}

void File::sync(FileOp* op) {
  if (loop_->abandoned()) return;
  disk_of(loop_).submit(loop_->backend(), handle_, sim::Disk::Kind::kSync, op, 0);
}

void File::discard(FileOp* op, uint64_t offset_bytes, uint64_t bytes) {
  if (loop_->abandoned()) return;
  op->offset_bytes = offset_bytes;
  disk_of(loop_).submit(loop_->backend(), handle_, sim::Disk::Kind::kDiscard, op, bytes);
}

int File::read_sync(uint64_t offset_bytes, std::span<std::byte> into) {
  if (loop_->abandoned()) return -ECANCELED;
  return disk_of(loop_).read_sync(loop_->backend(), handle_, offset_bytes, into);
}

int File::write_sync(uint64_t offset_bytes, std::span<const std::byte> from) {
  if (loop_->abandoned()) return -ECANCELED;
  return disk_of(loop_).write_sync(loop_->backend(), handle_, offset_bytes, from);
}

int File::sync_sync() {
  if (loop_->abandoned()) return -ECANCELED;
  return disk_of(loop_).sync_sync(loop_->backend(), handle_);
}

int File::allocate_zeroed_sync(uint64_t bytes) {
  if (loop_->abandoned()) return -ECANCELED;
  // "every byte written as zero": what was there is gone.
  auto& item = loop_->backend()->handles[static_cast<size_t>(handle_)];
  const int result = disk_of(loop_).allocate_sync(loop_->backend(), handle_, bytes);
  if (result == 0) item.file->put_zeros(0, bytes);
  return result;
}

int File::allocate_sync(uint64_t bytes) {
  if (loop_->abandoned()) return -ECANCELED;
  return disk_of(loop_).allocate_sync(loop_->backend(), handle_, bytes);
}

}  // namespace curve::io
