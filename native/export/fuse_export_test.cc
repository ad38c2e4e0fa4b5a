// The FUSE export message by message, over a pair of sockets instead of /dev/fuse: what the kernel
// negotiates, what it never sends, limits. With the kernel itself: loop_device_test.cc.
#include "native/export/fuse_export.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <random>

#include "native/export/ram_device.h"
#include "native/io/test_loop.h"

namespace curve::exports {
namespace {

using Bytes = std::vector<std::byte>;
constexpr uint64_t kDeviceBytes = 8u << 20;

struct Answer {
  int error = 0;
  Bytes body;
};

class FuseExportTest : public ::testing::Test {
 protected:
  void SetUp() override { start(false); }
  void start(bool read_only) {
    int fds[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    // Room for the largest messages.
    for (int fd : fds) {
      const int room = 4 << 20;
      setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    }
    kernel_ = fds[0];
    export_ =
        std::make_unique<FuseExport>(*loop_, pool_, fds[1], "curve:x", &device_, read_only, false);
  }
  void stop() {
    bool closed = false;
    export_->close([&] { closed = true; });
    loop_.run_until([&] { return closed; });
    export_.reset();
    close(kernel_);
  }
  void TearDown() override {
    device_.let_go();
    stop();
    EXPECT_EQ(pool_.used_bytes(), 0u);
  }

  void send_raw(const Bytes& bytes) {
    ASSERT_EQ(::send(kernel_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  template <class T>
  static void append(Bytes* to, const T& value) {
    const auto* from = reinterpret_cast<const std::byte*>(&value);
    to->insert(to->end(), from, from + sizeof value);
  }
  static Bytes message(uint32_t opcode, uint64_t unique, uint64_t node, const Bytes& body) {
    fuse_in_header head{};
    head.len = static_cast<uint32_t>(sizeof head + body.size());
    head.opcode = opcode;
    head.unique = unique;
    head.nodeid = node;
    Bytes out;
    append(&out, head);
    out.insert(out.end(), body.begin(), body.end());
    return out;
  }
  void collect() {
    static Bytes buffer(2 << 20);
    for (ssize_t got; (got = recv(kernel_, buffer.data(), buffer.size(), 0)) > 0;) {
      fuse_out_header head;
      ASSERT_GE(static_cast<size_t>(got), sizeof head);
      std::memcpy(&head, buffer.data(), sizeof head);
      ASSERT_EQ(head.len, static_cast<size_t>(got));
      answers_[head.unique] = {head.error,
                               Bytes(buffer.begin() + sizeof head, buffer.begin() + got)};
    }
  }
  Answer ask(uint32_t opcode, uint64_t node, const Bytes& body) {
    const uint64_t unique = next_++;
    send_raw(message(opcode, unique, node, body));
    loop_.run_until([&] { return collect(), answers_.contains(unique); });
    return answers_[unique];
  }
  template <class T>
  Answer ask(uint32_t opcode, uint64_t node, const T& body) {
    Bytes bytes;
    append(&bytes, body);
    return ask(opcode, node, bytes);
  }
  Answer init(uint32_t major, uint32_t minor, uint64_t flags) {
    fuse_init_in in{};
    in.major = major;
    in.minor = minor;
    in.flags = static_cast<uint32_t>(flags);
    in.flags2 = static_cast<uint32_t>(flags >> 32);
    return ask(FUSE_INIT, 0, in);
  }
  Answer write(uint64_t offset, const Bytes& data, uint32_t said) {
    fuse_write_in in{};
    in.offset = offset;
    in.size = said;
    Bytes body;
    append(&body, in);
    body.insert(body.end(), data.begin(), data.end());
    return ask(FUSE_WRITE, fuse::kVolumeNode, body);
  }
  Answer read(uint64_t offset, uint32_t bytes) {
    fuse_read_in in{};
    in.offset = offset;
    in.size = bytes;
    return ask(FUSE_READ, fuse::kVolumeNode, in);
  }

  io::TestLoop loop_;
  base::BufferPool pool_;
  RamDevice device_{*loop_, kDeviceBytes};
  std::unique_ptr<FuseExport> export_;
  int kernel_ = -1;
  uint64_t next_ = 2;
  std::map<uint64_t, Answer> answers_;
};

template <class T>
T as(const Answer& answer) {
  T out{};
  EXPECT_EQ(answer.error, 0);
  EXPECT_GE(answer.body.size(), sizeof out);
  std::memcpy(&out, answer.body.data(), std::min(sizeof out, answer.body.size()));
  return out;
}

TEST_F(FuseExportTest, Negotiates) {
  EXPECT_FALSE(export_->negotiated());
  const auto newer = as<fuse_init_out>(init(8, 1, 0));
  EXPECT_EQ(newer.major, 7u);
  EXPECT_FALSE(export_->negotiated());
  const auto out = as<fuse_init_out>(init(7, 45, ~0ull));
  EXPECT_EQ(out.max_write, fuse::kWriteBytesMax);
  EXPECT_TRUE(out.flags & FUSE_ASYNC_DIO);
  EXPECT_FALSE(out.flags & FUSE_WRITEBACK_CACHE);
  EXPECT_TRUE(export_->negotiated());
  EXPECT_TRUE(export_->can_resend());
}

TEST_F(FuseExportTest, AKernelThatIsTooOldIsRefused) {
  EXPECT_EQ(init(7, 31, 0).error, -EPROTO);
  EXPECT_FALSE(export_->negotiated());
}

TEST_F(FuseExportTest, AnOlderKernelHasNoResend) {
  EXPECT_EQ(init(7, 37, FUSE_INIT_EXT).error, 0);
  EXPECT_FALSE(export_->can_resend());
}

TEST_F(FuseExportTest, HasOneFile) {
  Bytes name(8);
  std::memcpy(name.data(), "curve:x", 8);
  EXPECT_EQ(as<fuse_entry_out>(ask(FUSE_LOOKUP, 1, name)).attr.size, kDeviceBytes);
  name[6] = std::byte{'y'};
  EXPECT_EQ(ask(FUSE_LOOKUP, 1, name).error, -ENOENT);
  EXPECT_EQ(ask(FUSE_LOOKUP, 1, Bytes(4000, std::byte{'a'})).error, -ENOENT);
  EXPECT_EQ(ask(FUSE_LOOKUP, 1, Bytes()).error, -ENOENT);
  EXPECT_EQ(as<fuse_statfs_out>(ask(FUSE_STATFS, 1, Bytes())).st.bsize, 65536u);
  fuse_open_in in{};
  in.flags = O_RDWR;
  EXPECT_TRUE(as<fuse_open_out>(ask(FUSE_OPEN, 2, in)).open_flags & FOPEN_DIRECT_IO);
  EXPECT_EQ(ask(FUSE_OPEN, 2, Bytes()).error, -EINVAL);
  EXPECT_EQ(ask(FUSE_FLUSH, 2, Bytes()).error, 0);
  EXPECT_EQ(ask(FUSE_FSYNC, 2, Bytes()).error, 0);
  EXPECT_EQ(ask(FUSE_MKDIR, 1, Bytes()).error, -ENOSYS);
  EXPECT_EQ(ask(9999, 1, Bytes()).error, -ENOSYS);
}

TEST_F(FuseExportTest, ReadsAndWrites) {
  std::mt19937 random(1);
  for (uint32_t bytes : {512u, 4096u, 128u << 10, (128u << 10) + 512, 1u << 20}) {
    Bytes data(bytes);
    for (auto& b : data) b = static_cast<std::byte>(random());
    EXPECT_EQ(as<fuse_write_out>(write(4096, data, bytes)).size, bytes);
    EXPECT_EQ(read(4096, bytes).body, data);
  }
  EXPECT_EQ(read(kDeviceBytes - 512, 4096).body.size(), 512u);  // up to the end
  EXPECT_EQ(read(kDeviceBytes + 4096, 4096).body.size(), 0u);
  EXPECT_EQ(read(UINT64_MAX - 511, 4096).body.size(), 0u);
  EXPECT_EQ(read(0, UINT32_MAX).error, -EINVAL);
  EXPECT_EQ(write(kDeviceBytes - 512, Bytes(1024), 1024).error, -ENOSPC);
  EXPECT_EQ(write(UINT64_MAX - 511, Bytes(512), 512).error, -ENOSPC);
  EXPECT_EQ(write(0, Bytes(512), 1024).error, -EINVAL);
  EXPECT_EQ(write(0, Bytes(), 0).error, 0);
}

TEST_F(FuseExportTest, DiscardsAndZeroes) {
  write(0, Bytes(1 << 20, std::byte{1}), 1 << 20);
  fuse_fallocate_in in{};
  in.length = 65536;
  in.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  EXPECT_EQ(ask(FUSE_FALLOCATE, 2, in).error, 0);
  EXPECT_FALSE(device_.written(0));
  in.offset = 65536;
  in.mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  EXPECT_EQ(ask(FUSE_FALLOCATE, 2, in).error, 0);
  EXPECT_TRUE(device_.written(16));
  EXPECT_EQ(read(65536, 4096).body, Bytes(4096));
  in.mode = 0;
  EXPECT_EQ(ask(FUSE_FALLOCATE, 2, in).error, -EOPNOTSUPP);
  in.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  in.offset = UINT64_MAX - 100;
  EXPECT_EQ(ask(FUSE_FALLOCATE, 2, in).error, -EINVAL);
}

// What was not written stays so: it reads as zeros and costs nothing; all else stays allocated.
TEST_F(FuseExportTest, ZeroingLeavesAloneWhatIsNotWritten) {
  std::mt19937 random(7);
  const auto below = [&](uint64_t n) { return random() % n; };
  for (int round = 0; round < 60; ++round) {
    for (int i = 0; i < 3; ++i) {
      const uint32_t bytes = 512 * static_cast<uint32_t>(1 + below(100));
      write(below(kDeviceBytes / 512 - 100) * 512, Bytes(bytes, std::byte{9}), bytes);
    }
    std::vector<bool> written;
    for (uint64_t s = 0; s < kDeviceBytes / kSectorBytes; ++s)
      written.push_back(device_.written(s));
    Bytes wanted = device_.data();
    fuse_fallocate_in in{};
    in.mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    in.offset = below(kDeviceBytes / 512) * 512;
    in.length = (1 + below((kDeviceBytes - in.offset) / 512)) * 512;
    std::fill_n(wanted.begin() + static_cast<ptrdiff_t>(in.offset), in.length, std::byte{0});
    ASSERT_EQ(ask(FUSE_FALLOCATE, 2, in).error, 0);
    ASSERT_EQ(device_.data(), wanted) << in.offset << " " << in.length;
    for (uint64_t s = 0; s < written.size(); ++s) ASSERT_EQ(device_.written(s), written[s]) << s;
  }
  const uint64_t before = device_.submitted;
  fuse_fallocate_in in{};
  in.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  in.length = kDeviceBytes;
  EXPECT_EQ(ask(FUSE_FALLOCATE, 2, in).error, 0);
  in.mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  EXPECT_EQ(ask(FUSE_FALLOCATE, 2, in).error, 0);
  EXPECT_EQ(device_.submitted, before + 2);  // the discard, and a look
  device_.fail = Code::kFenced;
  EXPECT_EQ(ask(FUSE_FALLOCATE, 2, in).error, -EIO);
}

TEST_F(FuseExportTest, ReadOnly) {
  stop();
  start(true);
  EXPECT_EQ(write(0, Bytes(512), 512).error, -EROFS);
  fuse_open_in in{};
  in.flags = O_RDWR;
  EXPECT_EQ(ask(FUSE_OPEN, 2, in).error, -EROFS);
}

TEST_F(FuseExportTest, WhatTheDeviceRefusesIsSaid) {
  for (auto [code, error] : {std::pair{Code::kFenced, -EIO}, {Code::kNoSpace, -ENOSPC}}) {
    device_.fail = code;
    EXPECT_EQ(write(0, Bytes(512), 512).error, error);
    EXPECT_EQ(read(0, 512).error, error);
  }
}

TEST_F(FuseExportTest, TakesNoMoreThanItHasRoomFor) {
  device_.hold = true;
  for (int i = 0; i < 100; ++i) {
    fuse_read_in in{};
    in.size = fuse::kWriteBytesMax;
    Bytes body;
    append(&body, in);
    send_raw(message(FUSE_READ, next_++, fuse::kVolumeNode, body));
  }
  loop_.run_until([&] { return device_.inflight >= 64; });
  loop_.run_turns(20);
  EXPECT_EQ(device_.inflight, 64u);
  device_.let_go();
  loop_.run_until([&] { return collect(), answers_.size() == 100; });
}

TEST_F(FuseExportTest, WhatIsPreparedIsEnough) {
  FuseExport::prepare(pool_);
  device_.hold = true;
  for (int i = 0; i < 300; ++i) {
    fuse_write_in in{};
    const uint32_t bytes = i % 3 == 0 ? 4096 : i % 3 == 1 ? 20480 : 4096 * 200;
    in.size = bytes;
    Bytes body;
    append(&body, in);
    body.resize(body.size() + bytes);
    send_raw(message(FUSE_WRITE, next_++, fuse::kVolumeNode, body));
    loop_.run_turns(2);
    if (device_.inflight + 1 < static_cast<uint64_t>(i)) break;  // it takes no more
  }
  EXPECT_GT(device_.inflight, 60u);
  EXPECT_LE(pool_.used_bytes(), FuseExport::kInflightBytesMax + 2 * fuse::kWriteBytesMax);
  device_.let_go();
  loop_.run_until([&] { return collect(), answers_.size() == next_ - 2; });
}

TEST_F(FuseExportTest, SurvivesNonsense) {
  std::mt19937 random(7);
  for (int i = 0; i < 3000; ++i) {
    Bytes body(random() % 200);
    for (auto& b : body) b = static_cast<std::byte>(random() % 4 ? 0 : random());
    Bytes bytes = message(random() % 60, 1'000'000 + i, random() % 3, body);
    if (random() % 10 == 0) bytes[random() % 4] ^= std::byte{1};  // its length
    if (random() % 10 == 0) bytes.resize(1 + random() % bytes.size());
    send_raw(bytes);
    if (i % 50 == 0) loop_.run_turns(3), collect();
  }
  EXPECT_EQ(as<fuse_write_out>(write(0, Bytes(512), 512)).size, 512u);
}

TEST_F(FuseExportTest, AnEndOfTheKernelsSideEndsIt) {
  shutdown(kernel_, SHUT_RDWR);
  loop_.run_until([&] { return export_->ended(); });
}

}  // namespace
}  // namespace curve::exports
