// For tests: a store in a temporary file on the real io implementation.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include "native/chunkstore/store_test.h"
#include "native/io/test_loop.h"

namespace curve::chunkstore {

struct RealStore {
  io::TestLoop loop;
  io::TemporaryDirectory directory;
  std::string path = directory.file("data");
  TestStore store;

  RealStore() {
    store.loop = &*loop;
    store.path = path;
    store.run = [this](std::function<bool()> condition) { loop.run_until(std::move(condition)); };
  }
  ~RealStore() { store.close(); }
  static FormatOptions options() {
    FormatOptions options;
    options.store.bytes = {1, 2, 3};
    options.cluster.bytes = {4, 5, 6};
    options.bytes = 24 << 20;
    return options;
  }
  void format() {
    const Outcome outcome = ChunkStore::format(*loop, path, options());
    ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  }
  void truncate(uint64_t bytes) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(bytes)), 0);
    ::close(fd);
  }
  std::vector<std::byte> peek(uint64_t offset, size_t bytes) {
    std::vector<std::byte> out(bytes);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::pread(fd, out.data(), bytes, static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes));
    ::close(fd);
    return out;
  }
  void poke(uint64_t offset, std::span<const std::byte> bytes) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    EXPECT_EQ(::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes.size()));
    ::close(fd);
  }
  void flip(uint64_t offset, uint8_t bits) {
    auto byte = peek(offset, 1);
    byte[0] ^= std::byte{bits};
    poke(offset, byte);
  }
};

}  // namespace curve::chunkstore
