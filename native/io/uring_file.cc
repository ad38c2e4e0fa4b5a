// Files and block devices: opening, locking, asynchronous and start-up I/O.
// A File's handle_ is the descriptor (low 32 bits) and what was found out when it was opened, so
// that closing needs no loop. Thread: the loop's own; the *_sync functions and open() enter no
// ring.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "native/base/types.h"
#include "native/io/uring_backend.h"

namespace curve::io {
namespace {

constexpr int64_t kDirect = int64_t{1} << 32;
constexpr int64_t kBlockDevice = int64_t{1} << 33;
constexpr size_t kZeroBytes = 1u << 20;
constexpr uint64_t kRetriesMax = 16;

// Op::backend of a FileOp; [0] stays 0 (see run_ready).
enum Slot { kFd = 1, kExpected = 2, kRequest = 3, kRetries = 4, kLength = 5 };
enum class Request : uint64_t { kRead, kWrite, kSync, kDiscard };

int fd_of(int64_t handle) { return static_cast<int>(handle & 0xffffffff); }

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};
using AlignedMemory = std::unique_ptr<std::byte, FreeDeleter>;

AlignedMemory aligned_zeros(size_t bytes) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kSectorBytes, bytes));
  if (memory) std::memset(memory, 0, bytes);
  return AlignedMemory(memory);
}

Error open_error(const std::string& path, const char* what, int error) {
  Code code = Code::kIo;
  const char* remedy = "see the system log";
  switch (error) {
    case ENOENT:
      code = Code::kNotFound;
      remedy = "check the path, or create it first";
      break;
    case EACCES:
    case EPERM:
      code = Code::kReadOnly;
      remedy = "check owner and mode; the process needs read and write access";
      break;
    case EROFS:
      code = Code::kReadOnly;
      remedy = "the file system is mounted read-only";
      break;
    case ENOSPC:
    case EDQUOT:
      code = Code::kNoSpace;
      remedy = "free some space";
      break;
    case EMFILE:
    case ENFILE:
      remedy = "raise the limit of open files (ulimit -n)";
      break;
    case EBUSY:
      code = Code::kLocked;
      remedy = "it is mounted or in use by another process";
      break;
    case EISDIR:
      code = Code::kInvalid;
      remedy = "it is a directory";
      break;
    default:
      break;
  }
  return {code, path + ": " + what + ": " + std::strerror(error) + "; " + remedy};
}

// The directory entry of a new file must outlive a power cut too.
int sync_directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return error;
}

int open_or_create(const std::string& path, int flags, bool create, int* error) {
  int fd = ::open(path.c_str(), flags);
  *error = errno;
  if (fd >= 0 || !create || *error != ENOENT) return fd;
  fd = ::open(path.c_str(), flags | O_CREAT, 0600);
  *error = errno;
  if (fd < 0) return fd;
  *error = sync_directory_of(path);
  if (*error == 0) return fd;
  ::close(fd);
  return -1;
}

// Whether the file takes direct I/O at sector granularity: some file systems only refuse when it is
// used.
bool direct_works(int fd) {
  const AlignedMemory probe = aligned_zeros(kSectorBytes);
  return probe && (pread(fd, probe.get(), kSectorBytes, 0) >= 0 || errno != EINVAL);
}

// Of the open file description: also another File of this process conflicts, and a fork does not.
int lock(int fd, bool read_only) {
  struct flock whole {};
  whole.l_type = read_only ? F_RDLCK : F_WRLCK;
  whole.l_whence = SEEK_SET;
  return fcntl(fd, F_OFD_SETLK, &whole) == 0 ? 0 : errno;
}

}  // namespace

File::File(File&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), handle_(std::exchange(other.handle_, -1)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(loop_, other.loop_);
  std::swap(handle_, other.handle_);
  return *this;
}

File::~File() {
  if (handle_ >= 0) ::close(fd_of(handle_));
}

Result<File> File::open(Loop& loop, const std::string& path, const FileOptions& options) {
  int flags = (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  struct stat info {};
  const bool device = stat(path.c_str(), &info) == 0 && S_ISBLK(info.st_mode);
  if (device && options.lock && !options.read_only) flags |= O_EXCL;  // fails when it is mounted
  int error = 0;
  bool direct = options.direct;
  int fd = open_or_create(path, flags | (direct ? O_DIRECT : 0), options.create, &error);
  if (direct && (fd < 0 ? error == EINVAL : !direct_works(fd))) {
    direct = false;
    if (fd >= 0) ::close(fd);
    fd = open_or_create(path, flags, options.create, &error);
  }
  if (fd < 0) return open_error(path, "cannot open", error);
  File file;
  file.loop_ = &loop;
  file.handle_ = fd | (direct ? kDirect : 0) | (device ? kBlockDevice : 0);
  if (fstat(fd, &info) != 0) return open_error(path, "cannot look at", errno);
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    return Error{Code::kInvalid, path + ": is neither a file nor a block device"};
  }
  if (!options.lock) return file;
  error = lock(fd, options.read_only);
  if (error == 0) return file;
  if (error == EAGAIN || error == EACCES) {
    return Error{Code::kLocked,
                 path + ": is locked: another process uses it; stop that process first"};
  }
  return open_error(path, "cannot lock", error);
}

uint64_t File::size_bytes() const {
  uint64_t bytes = 0;
  if (handle_ & kBlockDevice) return ioctl(fd_of(handle_), BLKGETSIZE64, &bytes) == 0 ? bytes : 0;
  struct stat info {};
  return fstat(fd_of(handle_), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

bool File::direct() const { return handle_ & kDirect; }

// --- asynchronous ---

void LoopBackend::submit_file(FileOp* op) {
  io_uring_sqe* entry = request();
  const int fd = static_cast<int>(op->backend[kFd]);
  const auto count = static_cast<unsigned>(op->iov.size());
  const iovec* first = op->iov.data();
  switch (static_cast<Request>(op->backend[kRequest])) {
    case Request::kRead:
      if (count == 1) {  // saves the kernel a copy of the vector
        io_uring_prep_read(entry, fd, first->iov_base, static_cast<unsigned>(first->iov_len),
                           op->offset_bytes);
      } else {
        io_uring_prep_readv(entry, fd, first, count, op->offset_bytes);
      }
      break;
    case Request::kWrite:
      if (count == 1) {
        io_uring_prep_write(entry, fd, first->iov_base, static_cast<unsigned>(first->iov_len),
                            op->offset_bytes);
      } else {
        io_uring_prep_writev(entry, fd, first, count, op->offset_bytes);
      }
      if (op->durable) entry->rw_flags = RWF_DSYNC;
      break;
    case Request::kSync:
      io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
      break;
    case Request::kDiscard:
      io_uring_prep_fallocate(entry, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(op->offset_bytes),
                              static_cast<off_t>(op->backend[kLength]));
      break;
  }
  tag(entry, Completion::kFile, op);
}

void LoopBackend::file_completed(FileOp* op, int32_t result) {
  if ((result == -EAGAIN || result == -EINTR) && op->backend[kRetries]++ < kRetriesMax) {
    submit_file(op);
    return;
  }
  if (result >= 0 && static_cast<uint64_t>(result) != op->backend[kExpected]) result = -EIO;
  if (static_cast<Request>(op->backend[kRequest]) == Request::kDiscard &&
      (result == -EOPNOTSUPP || result == -ENOSYS)) {
    result = 0;  // best effort: the space stays allocated
  }
  finish(op, result);
}

namespace {

void start(Loop* loop, int64_t handle, FileOp* op, Request request) {
  LoopBackend* backend = loop->backend();
  if (backend->abandoned_) return;
  uint64_t bytes = 0;
  if (request <= Request::kWrite) {
    for (const iovec& part : op->iov) bytes += part.iov_len;
  }
  op->backend[0] = 0;
  op->backend[kFd] = static_cast<uint64_t>(fd_of(handle));
  op->backend[kExpected] = bytes;
  op->backend[kRequest] = static_cast<uint64_t>(request);
  op->backend[kRetries] = 0;
  if (bytes > INT32_MAX || op->iov.size() > IOV_MAX) return backend->finish(op, -EINVAL);
  backend->submit_file(op);
}

}  // namespace

void File::read(FileOp* op) { start(loop_, handle_, op, Request::kRead); }
void File::write(FileOp* op) { start(loop_, handle_, op, Request::kWrite); }
void File::sync(FileOp* op) { start(loop_, handle_, op, Request::kSync); }

void File::discard(FileOp* op, uint64_t offset_bytes, uint64_t bytes) {
  op->offset_bytes = offset_bytes;
  op->backend[kLength] = bytes;
  start(loop_, handle_, op, Request::kDiscard);
}

// --- start-up ---

int File::read_sync(uint64_t offset_bytes, std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t n =
        pread(fd_of(handle_), into.data(), into.size(), static_cast<off_t>(offset_bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) return -EIO;
    into = into.subspan(static_cast<size_t>(n));
    offset_bytes += static_cast<uint64_t>(n);
  }
  return 0;
}

int File::write_sync(uint64_t offset_bytes, std::span<const std::byte> from) {
  while (!from.empty()) {
    const ssize_t n =
        pwrite(fd_of(handle_), from.data(), from.size(), static_cast<off_t>(offset_bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) return -EIO;
    from = from.subspan(static_cast<size_t>(n));
    offset_bytes += static_cast<uint64_t>(n);
  }
  return 0;
}

int File::sync_sync() { return fsync(fd_of(handle_)) == 0 ? 0 : -errno; }

namespace {

int write_zeros(File& file, uint64_t from, uint64_t to) {
  const AlignedMemory zeros = aligned_zeros(kZeroBytes);
  if (!zeros) return -ENOMEM;
  while (from < to) {
    const size_t bytes = static_cast<size_t>(std::min<uint64_t>(kZeroBytes, to - from));
    const int result = file.write_sync(from, {zeros.get(), bytes});
    if (result != 0) return result;
    from += bytes;
  }
  return 0;
}

int truncate_to(int fd, uint64_t bytes) {
  return ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : -errno;
}

}  // namespace

int File::allocate_zeroed_sync(uint64_t bytes) {
  const int fd = fd_of(handle_);
  int result = 0;
  if (handle_ & kBlockDevice) {
    if (bytes > size_bytes()) return -ENOSPC;
    uint64_t range[2] = {0, bytes};
    if (ioctl(fd, BLKZEROOUT, range) != 0) result = write_zeros(*this, 0, bytes);
  } else {
    result = truncate_to(fd, bytes);
    // First in one piece, so that the extents are few; then written, so that none stays
    // "unwritten".
    if (result == 0 && fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0 && errno == ENOSPC) {
      return -ENOSPC;
    }
    if (result == 0) result = write_zeros(*this, 0, bytes);
  }
  return result == 0 ? sync_sync() : result;
}

int File::allocate_sync(uint64_t bytes) {
  const int fd = fd_of(handle_);
  const uint64_t now_bytes = size_bytes();
  if (handle_ & kBlockDevice) return bytes > now_bytes ? -ENOSPC : 0;
  int result = 0;
  if (fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0) {
    if (errno != EOPNOTSUPP) return -errno;
    result = write_zeros(*this, now_bytes, bytes);
  }
  if (result == 0 && now_bytes > bytes) result = truncate_to(fd, bytes);
  return result == 0 ? sync_sync() : result;
}

}  // namespace curve::io
