#include "native/export/loop_device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>

#include "native/export/apart.h"

namespace curve::exports {
namespace {

constexpr std::string_view kIdentity = "curve:";
constexpr int kTriesMax = 100;
constexpr unsigned kLoopMajor = 7;
constexpr useconds_t kPauseUs = 10'000;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }

 private:
  int fd_;
};

std::string path_of(uint32_t number) { return "/dev/loop" + std::to_string(number); }

Error problem(const std::string& what, int error) {
  return Error{error == EBUSY ? Code::kBusy : Code::kIo, what + ": " + std::strerror(error)};
}

int open_loop(uint32_t number, int flags) {
  const std::string path = path_of(number);
  int fd = open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) {  // a container's /dev
    mknod(path.c_str(), S_IFBLK | 0660, makedev(kLoopMajor, number));
    fd = open(path.c_str(), flags | O_CLOEXEC);
  }
  return fd;
}

// --- in the child (apart.h) ---

struct Attempt {
  const char* what = "";
  uint32_t number = 0;
};

// The file of the new file system; -errno.
int open_file(int fuse_fd, const std::string& uuid, bool read_only, const char** what) {
  *what = "making a FUSE file system";
  const Descriptor context(fsopen("fuse", FSOPEN_CLOEXEC));
  if (context < 0) return -errno;
  const std::pair<const char*, std::string> settings[] = {
      {"source", loop_file_name(uuid)},
      {"fd", std::to_string(fuse_fd)},
      {"rootmode", "40000"},
      {"user_id", "0"},
      {"group_id", "0"},
  };
  for (const auto& [key, value] : settings) {
    if (fsconfig(context, FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0) return -errno;
  }
  if (fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return -errno;
  close(fuse_fd);  // ours alone: when the process dies the connection does too, and we wake up
  *what = "mounting a FUSE file system";
  const Descriptor root(
      fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  if (root < 0) return -errno;
  *what = "opening the volume's FUSE file";
  const int file = openat(root, loop_file_name(uuid).c_str(),
                          (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW);
  return file < 0 ? -errno : file;
}

int attach_apart(int fuse_fd, const std::string& uuid, bool read_only, Attempt* attempt) {
  const Descriptor file(open_file(fuse_fd, uuid, read_only, &attempt->what));
  if (file < 0) return file;
  attempt->what = "/dev/loop-control";
  const Descriptor control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (control < 0) return -errno;
  loop_config config{};
  config.fd = static_cast<uint32_t>(static_cast<int>(file));
  config.block_size = kLoopBlockBytes;
  config.info.lo_flags = LO_FLAGS_DIRECT_IO | (read_only ? LO_FLAGS_READ_ONLY : 0);
  const std::string name = loop_file_name(uuid);
  std::memcpy(config.info.lo_file_name, name.data(),
              std::min(name.size(), sizeof config.info.lo_file_name - 1));
  // A free one may be taken by somebody else before we have it.
  for (int i = 0; i < kTriesMax; ++i) {
    attempt->what = "finding a free loop device";
    const int number = ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) return -errno;
    attempt->number = static_cast<uint32_t>(number);
    attempt->what = "opening the loop device";
    const Descriptor device(open_loop(attempt->number, read_only ? O_RDONLY : O_RDWR));
    if (device < 0) return -errno;
    attempt->what = "setting up the loop device";
    if (ioctl(device, LOOP_CONFIGURE, &config) == 0) return 0;
    if (errno != EBUSY && errno != EAGAIN) return -errno;
  }
  return -EBUSY;
}

}  // namespace

Result<int> open_fuse() {
  const int fd = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return problem("/dev/fuse cannot be opened", errno);
  return fd;
}

Result<uint32_t> attach_loop(int fuse_fd, const std::string& uuid, bool read_only) {
  Attempt attempt;
  const int result =
      run_apart(fuse_fd, [&] { return attach_apart(fuse_fd, uuid, read_only, &attempt); });
  if (result < 0) return problem(attempt.what, -result);
  return attempt.number;
}

Outcome grow_loop(uint32_t number) {
  const int result = run_apart(-1, [&] {
    const Descriptor device(open_loop(number, O_RDONLY));
    if (device < 0) return -errno;
    return ioctl(device, LOOP_SET_CAPACITY) == 0 ? 0 : -errno;
  });
  if (result < 0) return problem(path_of(number) + " does not take its new size", -result);
  return {};
}

namespace {

// LOOP_CLR_FD of a device that somebody has open leaves it to go with the last who closes it. Who
// is told that it is in use keeps it.
void stay_attached(uint32_t number, const std::string& uuid) {
  run_apart(-1, [&] {
    const Descriptor device(open_loop(number, O_RDONLY));
    if (device < 0 || loop_identity(number) != uuid) return 0;
    loop_info64 info{};
    if (ioctl(device, LOOP_GET_STATUS64, &info) != 0) return -errno;
    info.lo_flags &= ~static_cast<uint32_t>(LO_FLAGS_AUTOCLEAR);
    return ioctl(device, LOOP_SET_STATUS64, &info) == 0 ? 0 : -errno;
  });
}

}  // namespace

Outcome detach_loop(uint32_t number, const std::string& uuid, bool force) {
  const int result = run_apart(-1, [&] {
    if (loop_identity(number) != uuid) return 0;
    // Exclusive: refused while it is mounted, or part of something else.
    const Descriptor device(open_loop(number, O_RDONLY | (force ? 0 : O_EXCL)));
    if (device < 0) return -errno;
    if (ioctl(device, LOOP_CLR_FD) != 0 && errno != ENXIO) return -errno;
    return 0;
  });
  if (result < 0) return problem(path_of(number) + " cannot be detached", -result);
  // It goes with the last one who has it open, which is mostly nobody; or udev, for a moment.
  for (int i = 0; i < kTriesMax; ++i) {
    if (loop_identity(number) != uuid) return {};
    if (force) break;
    usleep(kPauseUs);
  }
  if (force) return {};
  stay_attached(number, uuid);
  if (loop_identity(number) != uuid) return {};
  return problem(path_of(number) + " is held open", EBUSY);
}

std::string loop_file_name(const std::string& uuid) { return std::string(kIdentity) + uuid; }

std::string loop_identity(uint32_t number) {
  std::ifstream file("/sys/block/loop" + std::to_string(number) + "/loop/backing_file");
  std::string line;
  std::getline(file, line);
  const std::string mark = "/" + std::string(kIdentity);
  const size_t at = line.rfind(mark);
  return at == std::string::npos ? "" : line.substr(at + mark.size());
}

uint64_t loop_size_bytes(uint32_t number) {
  const Descriptor device(open(path_of(number).c_str(), O_RDONLY | O_CLOEXEC));
  uint64_t bytes = 0;
  if (device < 0 || ioctl(device, BLKGETSIZE64, &bytes) != 0) return 0;
  return bytes;
}

}  // namespace curve::exports
