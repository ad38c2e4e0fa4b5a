#include "native/metanode/snapshot_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"

namespace curve::metanode {

namespace {

constexpr uint32_t kMagic = 0x504E5343;  // "CSNP"
constexpr uint32_t kVersion = 1;
constexpr const char* kPartial = ".new";  // a state file that is being written

Error failure(const std::string& what, const std::string& path) {
  return {Code::kIo, "cannot " + what + " " + path + ": " + std::strerror(errno) +
                         "; check the disk and its free space"};
}

bool write_all(int fd, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t done = ::write(fd, data.data(), data.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    data = data.subspan(static_cast<size_t>(done));
  }
  return true;
}

Result<std::string> read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failure("open", path);
  std::string out;
  char piece[65536];
  for (;;) {
    const ssize_t got = ::read(fd, piece, sizeof piece);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      ::close(fd);
      return failure("read", path);
    }
    if (got == 0) break;
    out.append(piece, static_cast<size_t>(got));
  }
  ::close(fd);
  return out;
}

}  // namespace

bool sync_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool good = fd >= 0 && ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  return good;
}

SnapshotFiles::~SnapshotFiles() {
  if (fd_ >= 0) ::close(fd_);
}

// What could not be written gives its space back.
Error SnapshotFiles::give_up(const std::string& what) {
  Error error = failure(what, path_);
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  ::unlink((path_ + kPartial).c_str());
  return error;
}

Outcome SnapshotFiles::begin(Index at, Term term) {
  if (fd_ >= 0) ::close(fd_);
  index = at;
  term_ = term;
  bytes_ = 0;
  crc_ = 0;
  path_ = directory + "/state-" + std::to_string(at);
  fd_ = ::open((path_ + kPartial).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd_ < 0) return failure("create", path_);
  return {};
}

Outcome SnapshotFiles::write(std::span<const std::byte> data) {
  if (fd_ < 0) return Error{Code::kInvalid, "snapshot_write without snapshot_begin"};
  if (!write_all(fd_, data)) return give_up("write");
  bytes_ += data.size();
  crc_ = base::crc32c(data, crc_);
  return {};
}

Result<Snapshot> SnapshotFiles::finish() {
  if (::fsync(fd_) != 0) return give_up("make durable");
  ::close(fd_);
  fd_ = -1;
  if (::rename((path_ + kPartial).c_str(), path_.c_str()) != 0 || !sync_directory(directory))
    return give_up("name");
  Snapshot snapshot;
  snapshot.index = index;
  snapshot.term = term_;
  snapshot.bytes = bytes_;
  snapshot.crc = crc_;
  snapshot.path = path_;
  return snapshot;
}

Result<Snapshot> SnapshotFiles::commit(std::span<const std::byte> blob) {
  if (fd_ < 0) return Error{Code::kInvalid, "snapshot_commit without snapshot_begin"};
  auto snapshot = finish();
  if (!snapshot) return snapshot.error();
  snapshot->blob.assign(blob.begin(), blob.end());
  return publish(std::move(*snapshot));
}

Result<Snapshot> SnapshotFiles::stage(Index at, Term term, const std::string& state) const {
  SnapshotFiles own;
  own.directory = directory;
  if (auto begun = own.begin(at, term); !begun) return begun.error();
  if (auto written = own.write(std::as_bytes(std::span(state))); !written) return written.error();
  return own.finish();
}

Result<Snapshot> SnapshotFiles::publish(Snapshot snapshot) const {
  std::vector<std::byte> out;
  base::Writer writer(out);
  writer.put(kMagic);
  writer.put(kVersion);
  writer.put(snapshot.index);
  writer.put(snapshot.term);
  writer.put(snapshot.bytes);
  writer.put(snapshot.crc);
  writer.put(static_cast<uint32_t>(snapshot.blob.size()));
  writer.raw(snapshot.blob);
  writer.put(base::crc32c(out));
  const std::string path = directory + "/snapshot", temporary = path + ".new";
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return failure("create", temporary);
  const bool good = write_all(fd, out) && ::fsync(fd) == 0;
  ::close(fd);
  if (!good || ::rename(temporary.c_str(), path.c_str()) != 0 || !sync_directory(directory))
    return failure("replace", path);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("state-")) continue;
    const Index at = std::strtoull(name.c_str() + 6, nullptr, 10);
    if (at < snapshot.index) std::filesystem::remove(entry.path(), ignored);
  }
  return snapshot;
}

Result<Snapshot> SnapshotFiles::newest() const {
  const std::string path = directory + "/snapshot";
  if (!std::filesystem::exists(path)) return Snapshot{};
  auto bytes = read_file(path);
  if (!bytes) return bytes.error();
  const auto all = std::as_bytes(std::span(*bytes));
  base::Reader reader(all);
  const Error damaged{
      Code::kCorrupt,
      path + " is damaged; empty this metaserver's directory and let it join again"};
  if (all.size() < 8 || reader.get<uint32_t>() != kMagic) return damaged;
  if (const auto version = reader.get<uint32_t>(); version != kVersion) {
    return Error{Code::kVersion, path + " has version " + std::to_string(version) +
                                     ", this software knows " + std::to_string(kVersion) +
                                     "; use the software that wrote it"};
  }
  Snapshot snapshot;
  snapshot.index = reader.get<uint64_t>();
  snapshot.term = reader.get<uint64_t>();
  snapshot.bytes = reader.get<uint64_t>();
  snapshot.crc = reader.get<uint32_t>();
  const auto blob = reader.raw(reader.get<uint32_t>());
  const auto crc = reader.get<uint32_t>();
  if (!reader.done() || base::crc32c(all.first(all.size() - 4)) != crc) return damaged;
  snapshot.blob.assign(blob.begin(), blob.end());
  snapshot.path = directory + "/state-" + std::to_string(snapshot.index);
  if (auto state = load(snapshot); !state) return state.error();
  return snapshot;
}

Result<std::string> SnapshotFiles::load(const Snapshot& snapshot) const {
  auto state = read_file(snapshot.path);
  if (!state) return state.error();
  if (state->size() != snapshot.bytes ||
      base::crc32c(std::as_bytes(std::span(*state))) != snapshot.crc) {
    return Error{Code::kCorrupt, snapshot.path + ": its " + std::to_string(state->size()) +
                                     " bytes do not match the checksum in `snapshot`; empty this "
                                     "metaserver's directory and let it join again"};
  }
  return state;
}

}  // namespace curve::metanode
