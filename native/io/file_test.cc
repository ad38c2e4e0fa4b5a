// Real files: opening, locks, reads, writes, errors.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "native/io/test_loop.h"

namespace curve::io {
namespace {

struct FileTest : testing::Test {
  TestLoop loop;
  TemporaryDirectory directory;
  std::string path = directory.file("store");

  File open(FileOptions options = {.create = true}) {
    auto opened = File::open(*loop, path, options);
    if (!opened) {
      ADD_FAILURE() << opened.error().message;
      abort();
    }
    return std::move(*opened);
  }
  int32_t wait(Tracked<FileOp>& op) {
    loop.run_until([&] { return op.is_done(); });
    EXPECT_EQ(op.runs, 1);
    return op.result;
  }
  uint64_t allocated_bytes() {
    struct stat info {};
    stat(path.c_str(), &info);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }
};

TEST_F(FileTest, WhatIsWrittenIsRead) {
  for (bool durable : {false, true}) {
    File file = open();
    AlignedBytes out(16384, 1), in(16384);
    for (size_t i = 0; i < out.size; ++i) out.span()[i] = static_cast<std::byte>(i / 7 + durable);
    iovec one[] = {out.part(0, 4096)};
    iovec many[] = {out.part(4096, 8192), out.part(12288, 4096)};
    Tracked<FileOp> first, second;
    first.iov = one;
    first.offset_bytes = 8192;
    second.iov = many;
    second.offset_bytes = 12288;
    first.durable = second.durable = durable;
    file.write(&first);
    EXPECT_FALSE(first.is_done());  // never inside of the call
    file.write(&second);
    EXPECT_EQ(wait(first), 4096);
    EXPECT_EQ(wait(second), 12288);
    EXPECT_EQ(file.size_bytes(), 24576u);
    Tracked<FileOp> synced;
    file.sync(&synced);
    EXPECT_EQ(wait(synced), 0);
    iovec parts[] = {in.part(0, 4096), in.part(4096, 12288)};
    Tracked<FileOp> read;
    read.iov = parts;
    read.offset_bytes = 8192;
    file.read(&read);
    EXPECT_EQ(wait(read), 16384);
    EXPECT_EQ(std::memcmp(in.data.get(), out.data.get(), 16384), 0);
  }
}

TEST_F(FileTest, SynchronousTwinsAgree) {
  File file = open();
  AlignedBytes out(8192, 0x5a), in(8192);
  EXPECT_EQ(file.allocate_zeroed_sync(1 << 20), 0);
  EXPECT_EQ(file.size_bytes(), 1u << 20);
  EXPECT_GE(allocated_bytes(), 1u << 20);
  EXPECT_EQ(file.write_sync(4096, out.span()), 0);
  EXPECT_EQ(file.sync_sync(), 0);
  EXPECT_EQ(file.read_sync(4096, in.span()), 0);
  EXPECT_EQ(in.span()[8191], std::byte{0x5a});
  EXPECT_EQ(file.read_sync((1 << 20) - 4096, in.span()), -EIO);  // beyond the end
  EXPECT_EQ(file.allocate_sync(2 << 20), 0);
  EXPECT_EQ(file.size_bytes(), 2u << 20);
  EXPECT_GE(allocated_bytes(), 2u << 20);
  EXPECT_EQ(file.read_sync(1 << 20, in.span()), 0);
  EXPECT_EQ(in.span()[0], std::byte{0});
  EXPECT_EQ(file.allocate_zeroed_sync(64 << 10), 0);  // shorter, and zero again
  EXPECT_EQ(file.size_bytes(), 64u << 10);
  EXPECT_EQ(file.read_sync(4096, in.span()), 0);
  EXPECT_EQ(in.span()[0], std::byte{0});
}

TEST_F(FileTest, ShortTransfersAndBadRequestsAreErrors) {
  File file = open();
  AlignedBytes memory(8192);
  ASSERT_EQ(file.write_sync(0, memory.span().first(4096)), 0);
  iovec part[] = {memory.part(0, 8192)};
  Tracked<FileOp> read;
  read.iov = part;
  file.read(&read);
  EXPECT_EQ(wait(read), -EIO);
  std::vector<iovec> too_many(1025, memory.part(0, 4096));
  Tracked<FileOp> write;
  write.iov = too_many;
  file.write(&write);
  EXPECT_FALSE(write.is_done());
  EXPECT_EQ(wait(write), -EINVAL);
  if (file.direct()) {
    iovec odd[] = {{memory.data.get() + 1, 4096}};
    Tracked<FileOp> misaligned;
    misaligned.iov = odd;
    file.write(&misaligned);
    EXPECT_EQ(wait(misaligned), -EINVAL);
  }
}

// The limit of file size stands in for a full disk: an error of the kernel's passes through.
TEST_F(FileTest, TheSystemsErrorsPassThrough) {
  File file = open();
  rlimit before{}, small{65536, RLIM_INFINITY};
  getrlimit(RLIMIT_FSIZE, &before);
  small.rlim_max = before.rlim_max;
  auto* old = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  AlignedBytes memory(4096);
  iovec part[] = {memory.part(0, 4096)};
  Tracked<FileOp> write;
  write.iov = part;
  write.offset_bytes = 65536;
  file.write(&write);
  const int32_t result = wait(write);
  EXPECT_EQ(file.write_sync(65536, memory.span()), -EFBIG);
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, old);
  EXPECT_EQ(result, -EFBIG);
}

TEST_F(FileTest, DiscardGivesSpaceBackAndReadsZero) {
  File file = open();
  AlignedBytes memory(1 << 20, 7);
  ASSERT_EQ(file.write_sync(0, memory.span()), 0);
  ASSERT_EQ(file.sync_sync(), 0);
  const uint64_t before = allocated_bytes();
  Tracked<FileOp> discard;
  file.discard(&discard, 65536, 524288);
  EXPECT_EQ(wait(discard), 0);
  EXPECT_EQ(file.size_bytes(), 1u << 20);
  EXPECT_LE(allocated_bytes(), before - 524288);
  ASSERT_EQ(file.read_sync(0, memory.span()), 0);
  EXPECT_EQ(memory.span()[65535], std::byte{7});
  EXPECT_EQ(memory.span()[65536], std::byte{0});
  EXPECT_EQ(memory.span()[65536 + 524288], std::byte{7});
}

TEST_F(FileTest, LocksConflictAndEndWithTheFile) {
  {
    File first = open();
    auto second = File::open(*loop, path, {});
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code, Code::kLocked);
    EXPECT_NE(second.error().message.find(path), std::string::npos);
    EXPECT_TRUE(File::open(*loop, path, {.lock = false}).ok());
    EXPECT_EQ(File::open(*loop, path, {.read_only = true}).error().code, Code::kLocked);
  }
  File reader = open({.read_only = true});
  EXPECT_TRUE(File::open(*loop, path, {.read_only = true}).ok());
  EXPECT_EQ(File::open(*loop, path, {}).error().code, Code::kLocked);
  File moved = std::move(reader);
  EXPECT_FALSE(reader);
  EXPECT_TRUE(moved);
  moved = File();
  EXPECT_TRUE(File::open(*loop, path, {}).ok());
}

TEST_F(FileTest, OpeningExplainsItself) {
  EXPECT_EQ(File::open(*loop, path, {}).error().code, Code::kNotFound);
  EXPECT_EQ(File::open(*loop, directory.file("no/such"), {.create = true}).error().code,
            Code::kNotFound);
  EXPECT_EQ(File::open(*loop, directory.path, {}).error().code, Code::kInvalid);
  EXPECT_EQ(File::open(*loop, "/dev/null", {.lock = false}).error().code, Code::kInvalid);
}

TEST_F(FileTest, BufferedFilesTakeAnyAlignment) {
  path = directory.file("buffered");
  File file = open({.create = true, .direct = false});
  EXPECT_FALSE(file.direct());
  std::byte odd[3] = {std::byte{1}, std::byte{2}, std::byte{3}};
  EXPECT_EQ(file.write_sync(1, odd), 0);
  iovec part[] = {{odd, 3}};
  Tracked<FileOp> write;
  write.iov = part;
  write.offset_bytes = 4;
  write.durable = true;
  file.write(&write);
  EXPECT_EQ(wait(write), 3);
  EXPECT_EQ(file.size_bytes(), 7u);
}

TEST_F(FileTest, ManyOperationsMoreThanTheQueueHolds) {
  File file = open();
  ASSERT_EQ(file.allocate_sync(1 << 20), 0);
  AlignedBytes memory(4096, 9);
  iovec part[] = {memory.part(0, 4096)};
  std::vector<Tracked<FileOp>> ops(10000);
  loop.run_turns(1);  // from now on the queue can be submitted
  for (size_t i = 0; i < ops.size(); ++i) {
    ops[i].iov = part;
    ops[i].offset_bytes = i % 256 * 4096;
    file.write(&ops[i]);
  }
  loop.run_until([&] {
    for (auto& op : ops) {
      if (!op.is_done()) return false;
    }
    return true;
  });
  for (auto& op : ops) ASSERT_EQ(op.result, 4096);
}

// Needs the right to make a loop device.
TEST_F(FileTest, ABlockDevice) {
  { ASSERT_EQ(open().allocate_sync(16 << 20), 0); }
  const std::string command = "losetup -f --show " + path + " 2>/dev/null";
  FILE* losetup = popen(command.c_str(), "r");
  char name[64] = "";
  const bool made = fgets(name, sizeof name, losetup) != nullptr;
  pclose(losetup);
  if (!made) GTEST_SKIP() << "no right to make a loop device";
  path = std::string(name, strcspn(name, "\n"));
  {
    File file = open({});
    EXPECT_EQ(file.size_bytes(), 16u << 20);
    EXPECT_TRUE(file.direct());
    EXPECT_EQ(File::open(*loop, path, {}).error().code, Code::kLocked);
    AlignedBytes memory(1 << 20, 5);
    iovec part[] = {memory.part(0, 1 << 20)};
    Tracked<FileOp> write, discard;
    write.iov = part;
    write.offset_bytes = 1 << 20;
    write.durable = true;
    file.write(&write);
    EXPECT_EQ(wait(write), 1 << 20);
    ASSERT_EQ(file.read_sync(1 << 20, memory.span()), 0);
    EXPECT_EQ(memory.span()[4095], std::byte{5});
    file.discard(&discard, 1 << 20, 65536);
    EXPECT_EQ(wait(discard), 0);
    EXPECT_EQ(file.allocate_zeroed_sync(2 << 20), 0);
    ASSERT_EQ(file.read_sync(1 << 20, memory.span()), 0);
    EXPECT_EQ(memory.span()[1 << 19], std::byte{0});
    EXPECT_EQ(file.allocate_sync(16 << 20), 0);
    EXPECT_EQ(file.allocate_sync(17 << 20), -ENOSPC);
  }
  EXPECT_EQ(std::system(("losetup -d " + path).c_str()), 0);
}

TEST_F(FileTest, AbandonWaitsForTheKernel) {
  File file = open();
  ASSERT_EQ(file.allocate_zeroed_sync(16 << 20), 0);
  {
    AlignedBytes memory(16 << 20, 3);
    std::vector<iovec> parts(16);
    std::vector<Tracked<FileOp>> ops(16);
    for (size_t i = 0; i < ops.size(); ++i) {
      parts[i] = memory.part(i << 20, 1 << 20);
      ops[i].iov = {&parts[i], 1};
      ops[i].offset_bytes = i << 20;
      ops[i].durable = true;
      i % 2 ? file.read(&ops[i]) : file.write(&ops[i]);
    }
    loop.run_turns(1);
    loop->abandon();
    for (auto& op : ops) EXPECT_LE(op.runs, 1);
  }  // memory is gone: the sanitizer and the kernel must not care
  Tracked<FileOp> late;
  file.sync(&late);
  loop->run();
  EXPECT_FALSE(late.is_done());
}

}  // namespace
}  // namespace curve::io
