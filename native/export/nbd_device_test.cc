// What the kernel's nbd would do with its end of the socketpair: requests at once, reads, writes,
// discards, the end of the connection while requests are in the device, a device that is lost.
#include "native/export/nbd_device.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "native/export/ram_device.h"
#include "native/io/adopt.h"
#include "native/wire/test_loop.h"

namespace curve::exports {
namespace {

using Bytes = std::vector<std::byte>;
constexpr uint64_t kDeviceBytes = 8u << 20;

class NbdDeviceTest : public ::testing::Test {
 protected:
  NbdDeviceTest() : ram_(*loop_, kDeviceBytes) {}
  void TearDown() override {
    if (fd_ >= 0) ::close(fd_);
    if (!device_) return;
    bool closed = false;
    device_->close([&] { closed = true; });
    EXPECT_TRUE(loop_.run_until([&] { return closed; }));
    device_.reset();
  }
  void serve(client::BlockDevice* device, bool read_only = false) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    fd_ = pair[0];
    device_ = std::make_unique<NbdDevice>(*loop_, pool_, io::adopt_stream(*loop_, pair[1], "test"),
                                          device, read_only);
  }
  void ask(uint16_t command, uint64_t cookie, uint64_t offset, uint32_t bytes,
           const Bytes& data = {}) {
    Bytes out;
    nbd::BigWriter(out)
        .u32(nbd::kRequestMagic)
        .u16(0)
        .u16(command)
        .u64(cookie)
        .u64(offset)
        .u32(bytes);
    out.insert(out.end(), data.begin(), data.end());
    for (size_t at = 0; at < out.size();) {
      const ssize_t sent = ::send(fd_, out.data() + at, out.size() - at, MSG_NOSIGNAL);
      if (sent > 0)
        at += static_cast<size_t>(sent);
      else
        loop_->turn(1'000'000);
    }
  }
  Bytes take(size_t count) {
    Bytes out;
    EXPECT_TRUE(loop_.run_until([&] {
      std::array<std::byte, 4096> part;
      const ssize_t got = recv(fd_, part.data(), std::min(part.size(), count - out.size()), 0);
      if (got > 0) out.insert(out.end(), part.begin(), part.begin() + got);
      return out.size() == count;
    }));
    return out;
  }
  // The error of the next reply, which is to `cookie`.
  uint32_t answer(uint64_t cookie) {
    const Bytes head = take(16);
    nbd::BigReader r(head);
    EXPECT_EQ(r.u32(), nbd::kSimpleReplyMagic);
    const uint32_t error = r.u32();
    EXPECT_EQ(r.u64(), cookie);
    return error;
  }

  wire::TestLoop loop_;
  base::BufferPool pool_;
  RamDevice ram_;
  int fd_ = -1;
  std::unique_ptr<NbdDevice> device_;
};

TEST_F(NbdDeviceTest, RequestsWithoutNegotiation) {
  serve(&ram_);
  const Bytes data(256 * 1024, std::byte{7});
  ask(nbd::kWrite, 1, 4096, static_cast<uint32_t>(data.size()), data);
  EXPECT_EQ(answer(1), nbd::kOk);
  ask(nbd::kFlush, 2, 0, 0);
  EXPECT_EQ(answer(2), nbd::kOk);
  ask(nbd::kTrim, 3, 4096, 65536);
  EXPECT_EQ(answer(3), nbd::kOk);
  ask(nbd::kWriteZeroes, 4, 4096 + 65536, 4096);
  EXPECT_EQ(answer(4), nbd::kOk);
  ask(nbd::kRead, 5, 4096 + 65536, 8192);
  EXPECT_EQ(answer(5), nbd::kOk);
  const Bytes read = take(8192);
  EXPECT_EQ(read[0], std::byte{0});
  EXPECT_EQ(read[4096], std::byte{7});
  ask(nbd::kRead, 6, kDeviceBytes, 4096);
  EXPECT_EQ(answer(6), nbd::kEinval);
  EXPECT_EQ(device_->stats().requests, 6u);
  EXPECT_EQ(device_->stats().errors, 1u);
  EXPECT_EQ(device_->stats().written_bytes, data.size());
  EXPECT_FALSE(device_->ended());
}

TEST_F(NbdDeviceTest, GrowthNeedsNothing) {
  serve(&ram_);
  ram_.grow(2 * kDeviceBytes);
  ask(nbd::kRead, 1, kDeviceBytes, 4096);
  EXPECT_EQ(answer(1), nbd::kOk);
  EXPECT_EQ(take(4096), Bytes(4096));
}

TEST_F(NbdDeviceTest, ReadOnly) {
  serve(&ram_, true);
  EXPECT_TRUE(transmission_flags(true) & nbd::kReadOnly);
  ask(nbd::kWrite, 1, 0, 4096, Bytes(4096, std::byte{1}));
  EXPECT_EQ(answer(1), nbd::kEperm);
  EXPECT_EQ(ram_.submitted, 0u);
}

// R13: nobody is told of the end while a request of this connection is in the device.
TEST_F(NbdDeviceTest, AnEndWaitsForWhatIsInTheDevice) {
  serve(&ram_);
  ram_.hold = true;
  ask(nbd::kWrite, 1, 0, 4096, Bytes(4096, std::byte{1}));
  ASSERT_TRUE(loop_.run_until([&] { return ram_.inflight == 1; }));
  EXPECT_EQ(device_->stats().inflight, 1u);
  ::close(std::exchange(fd_, -1));
  for (int i = 0; i < 50; ++i) loop_->turn(1'000'000);
  EXPECT_FALSE(device_->ended());
  ram_.let_go();
  EXPECT_TRUE(loop_.run_until([&] { return device_->ended(); }));
}

TEST_F(NbdDeviceTest, APoliteEndToo) {
  serve(&ram_);
  ask(nbd::kDisconnect, 0, 0, 0);
  EXPECT_TRUE(loop_.run_until([&] { return device_->ended(); }));
}

TEST_F(NbdDeviceTest, ClosedWhileRequestsAreInTheDevice) {
  serve(&ram_);
  ram_.hold = true;
  ask(nbd::kRead, 1, 0, 4096);
  ASSERT_TRUE(loop_.run_until([&] { return ram_.inflight == 1; }));
  bool closed = false;
  device_->close([&] { closed = true; });
  for (int i = 0; i < 50; ++i) loop_->turn(1'000'000);
  EXPECT_FALSE(closed);
  ram_.let_go();
  EXPECT_TRUE(loop_.run_until([&] { return closed; }));
  device_.reset();
}

TEST_F(NbdDeviceTest, WhatIsLostAnswersWithErrors) {
  serve(nullptr);
  ask(nbd::kRead, 1, 0, 4096);
  EXPECT_EQ(answer(1), nbd::kEshutdown);
  ask(nbd::kWrite, 2, 0, 4096, Bytes(4096));
  EXPECT_EQ(answer(2), nbd::kEshutdown);
  ask(nbd::kFlush, 3, 0, 0);
  EXPECT_EQ(answer(3), nbd::kEshutdown);
  ask(nbd::kTrim, 4, 0, 4096);
  EXPECT_EQ(answer(4), nbd::kEshutdown);
}

}  // namespace
}  // namespace curve::exports
