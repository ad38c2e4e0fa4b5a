// The NBD server byte by byte: what a well-behaved client never sends, limits, death in mid
// request, growth. The well-behaved clients are in nbd_tools_test.sh.
#include "native/export/nbd_server.h"

#include <gtest/gtest.h>

#include <random>

#include "native/export/nbd_protocol.h"
#include "native/export/ram_device.h"
#include "native/wire/test_loop.h"

namespace curve::exports {
namespace {

using Bytes = std::vector<std::byte>;
using nbd::BigReader;
using nbd::BigWriter;
constexpr uint64_t kDeviceBytes = 64u << 20;

class Client {
 public:
  Client(wire::TestLoop& loop, const io::Address& to) : loop_(loop), window_(1 << 20) {
    connect_.owner = receive_.owner = send_.owner = this;
    receive_.done = [](io::Op* op) { static_cast<Client*>(op->owner)->on_received(); };
    send_.done = [](io::Op* op) {
      auto* c = static_cast<Client*>(op->owner);
      c->sending_ = false;
      c->flush();
    };
    connect_.done = [](io::Op* op) {
      auto* c = static_cast<Client*>(op->owner);
      c->connecting_ = false;
      if (op->result != 0) return;
      c->stream_ = c->connect_.stream;
      c->receive();
      c->flush();
    };
    loop_->connect(&connect_, to);
  }
  ~Client() {
    EXPECT_TRUE(loop_.run_until([&] { return !connecting_; }));
    close();
    EXPECT_TRUE(loop_.run_until([&] { return !receiving_ && !sending_; }));
  }
  void close() {
    if (stream_) stream_->close();
    stream_ = nullptr;
  }
  void send(const Bytes& bytes) {
    queue_.insert(queue_.end(), bytes.begin(), bytes.end());
    flush();
  }
  Bytes receive_exactly(size_t count) {
    EXPECT_TRUE(loop_.run_until([&] { return in.size() >= count || ended; }));
    count = std::min(count, in.size());
    Bytes out(in.begin(), in.begin() + static_cast<ptrdiff_t>(count));
    in.erase(in.begin(), in.begin() + static_cast<ptrdiff_t>(count));
    return out;
  }
  // True when the server closes without more than `extra_max` further bytes.
  bool shut_out() {
    return loop_.run_until([&] { return ended; });
  }

  void greet(uint32_t flags = 3) {
    EXPECT_EQ(receive_exactly(18).size(), 18u);
    Bytes out;
    BigWriter(out).u32(flags);
    send(out);
  }
  void option(uint32_t option, const Bytes& data = {}) {
    Bytes out;
    BigWriter(out).u64(nbd::kOptionMagic).u32(option).u32(static_cast<uint32_t>(data.size()));
    out.insert(out.end(), data.begin(), data.end());
    send(out);
  }
  std::pair<uint32_t, Bytes> option_reply() {
    const Bytes head = receive_exactly(20);
    BigReader r(head);
    EXPECT_EQ(r.u64(), nbd::kOptionReplyMagic);
    r.u32();
    const uint32_t type = r.u32();
    return {type, receive_exactly(r.u32())};
  }
  uint64_t go(const std::string& name) {
    Bytes data;
    BigWriter(data).u32(static_cast<uint32_t>(name.size())).text(name).u16(0);
    option(nbd::kGo, data);
    uint64_t size = 0;
    for (;;) {
      auto [type, info] = option_reply();
      if (type == nbd::kAck) return size;
      EXPECT_EQ(type, nbd::kInfoReply);
      if (type != nbd::kInfoReply) return 0;
      BigReader r(info);
      if (r.u16() == nbd::kInfoExport) size = r.u64();
    }
  }
  void structured() {
    option(nbd::kStructuredReply);
    EXPECT_EQ(option_reply().first, nbd::kAck);
  }
  void allocation(const std::string& name) {
    Bytes data;
    BigWriter(data)
        .u32(static_cast<uint32_t>(name.size()))
        .text(name)
        .u32(1)
        .u32(15)
        .text("base:allocation");
    option(nbd::kSetMetaContext, data);
    EXPECT_EQ(option_reply().first, nbd::kMetaContextReply);
    EXPECT_EQ(option_reply().first, nbd::kAck);
  }
  void request(uint16_t command, uint64_t offset, uint32_t bytes, uint16_t flags = 0,
               const Bytes& data = {}) {
    Bytes out;
    BigWriter(out)
        .u32(nbd::kRequestMagic)
        .u16(flags)
        .u16(command)
        .u64(++cookie)
        .u64(offset)
        .u32(bytes);
    out.insert(out.end(), data.begin(), data.end());
    send(out);
  }
  uint32_t simple_reply() {
    const Bytes head = receive_exactly(16);
    BigReader r(head);
    EXPECT_EQ(r.u32(), nbd::kSimpleReplyMagic);
    return r.u32();
  }
  uint32_t run(uint16_t command, uint64_t offset, uint32_t bytes, uint16_t flags = 0,
               const Bytes& data = {}) {
    request(command, offset, bytes, flags, data);
    return simple_reply();
  }

  Bytes in;
  bool ended = false;
  uint64_t cookie = 0;

 private:
  void receive() {
    if (!stream_ || held) return;
    receiving_ = true;
    stream_->receive(&receive_, window_, false);
  }
  void on_received() {
    receiving_ = false;
    if (receive_.result <= 0) {
      ended = true;
      return;
    }
    in.insert(in.end(), window_.begin(), window_.begin() + receive_.result);
    receive();
  }
  void flush() {
    if (!stream_ || sending_ || queue_.empty()) return;
    out_.swap(queue_);
    queue_.clear();
    part_ = {out_.data(), out_.size()};
    sending_ = true;
    stream_->send(&send_, std::span(&part_, 1));
  }

  wire::TestLoop& loop_;
  io::ConnectOp connect_;
  io::Op receive_, send_;
  io::Stream* stream_ = nullptr;
  Bytes window_, queue_, out_;
  iovec part_{};
  bool connecting_ = true, receiving_ = false, sending_ = false;

 public:
  bool held = false;  // does not read
};

class NbdServerTest : public testing::Test {
 protected:
  base::BufferPool pool;
  wire::TestLoop loop;
  NbdOptions options;
  std::unique_ptr<RamDevice> device;
  std::unique_ptr<NbdServer> server;

  void SetUp() override { device = std::make_unique<RamDevice>(*loop, kDeviceBytes); }
  void start() {
    auto made = NbdServer::listen(*loop, pool, {"127.0.0.1:0"}, options);
    ASSERT_TRUE(made.ok()) << made.error().message;
    server = std::move(*made);
    ASSERT_EQ(server->add_export({"disk", "", device.get()}), Code::kOk);
    EXPECT_EQ(server->add_export({"disk", "", device.get()}), Code::kExists);
  }
  void TearDown() override {
    if (server) {
      bool closed = false;
      server->close([&] { closed = true; });
      EXPECT_TRUE(loop.run_until([&] { return closed; }));
      server.reset();
    }
    EXPECT_EQ(device->inflight, 0u);
    EXPECT_EQ(pool.used_bytes(), 0u);
  }
};

TEST_F(NbdServerTest, ErrorsAreThoseOfTheSpecification) {
  start();
  Client c(loop, server->address());
  c.greet();
  EXPECT_EQ(c.go("disk"), kDeviceBytes);
  const Bytes sector(512);
  EXPECT_EQ(c.run(nbd::kWrite, 0, 512, 0, sector), nbd::kOk);
  EXPECT_EQ(c.run(nbd::kWrite, kDeviceBytes, 512, 0, sector), nbd::kEnospc);
  EXPECT_EQ(c.run(nbd::kWrite, 100, 512, 0, sector), nbd::kEinval);
  EXPECT_EQ(c.run(nbd::kWrite, 0, 512, 0x8000, sector), nbd::kEinval);
  EXPECT_EQ(c.run(nbd::kRead, kDeviceBytes - 512, 1024), nbd::kEinval);
  EXPECT_EQ(c.run(nbd::kRead, UINT64_MAX - 511, 512), nbd::kEinval);
  EXPECT_EQ(c.run(nbd::kRead, 0, (32u << 20) + 512), nbd::kEinval);
  EXPECT_EQ(c.run(nbd::kTrim, kDeviceBytes, 512), nbd::kEinval);
  EXPECT_EQ(c.run(nbd::kTrim, 0, 65536), nbd::kOk);
  EXPECT_EQ(c.run(nbd::kWriteZeroes, 0, 65536, nbd::kNoHole), nbd::kOk);
  EXPECT_EQ(c.run(nbd::kWriteZeroes, 0, 65536, nbd::kFastZero), nbd::kOk);
  EXPECT_EQ(c.run(nbd::kWriteZeroes, 0, 65536, nbd::kFastZero | nbd::kNoHole), nbd::kEnotsup);
  EXPECT_EQ(c.run(nbd::kBlockStatus, 0, 65536), nbd::kEinval);  // nothing was negotiated
  EXPECT_EQ(c.run(nbd::kFlush, 0, 0), nbd::kOk);
  EXPECT_EQ(c.run(99, 0, 0), nbd::kEinval);
  for (auto [code, error] : {std::pair{Code::kNoSpace, nbd::kEnospc},
                             {Code::kFenced, nbd::kEshutdown},
                             {Code::kIo, nbd::kEio},
                             {Code::kReadOnly, nbd::kEperm},
                             {Code::kShuttingDown, nbd::kEshutdown}}) {
    device->fail = code;
    EXPECT_EQ(c.run(nbd::kWrite, 0, 512, nbd::kFua, sector), error);
  }
}

TEST_F(NbdServerTest, AReadOnlyExportIsNotChanged) {
  start();
  ASSERT_EQ(server->add_export({"fixed", "", device.get(), true}), Code::kOk);
  Client c(loop, server->address());
  c.greet();
  c.go("fixed");
  EXPECT_EQ(c.run(nbd::kWrite, 0, 512, 0, Bytes(512)), nbd::kEperm);
  EXPECT_EQ(c.run(nbd::kTrim, 0, 512), nbd::kEperm);
  EXPECT_EQ(c.run(nbd::kWriteZeroes, 0, 512), nbd::kEperm);
  EXPECT_EQ(device->submitted, 0u);
}

TEST_F(NbdServerTest, StructuredRepliesAndBlockStatus) {
  start();
  Client c(loop, server->address());
  c.greet();
  c.structured();
  c.allocation("disk");
  c.go("disk");
  EXPECT_EQ(c.run(nbd::kWrite, 8192, 8192, 0, Bytes(8192, std::byte{5})), nbd::kOk);
  c.request(nbd::kRead, 8192, 512);
  Bytes reply = c.receive_exactly(20 + 8 + 512);
  BigReader r(reply);
  EXPECT_EQ(r.u32(), nbd::kStructuredReplyMagic);
  EXPECT_EQ(r.u16(), nbd::kChunkDone);
  EXPECT_EQ(r.u16(), nbd::kChunkOffsetData);
  EXPECT_EQ(r.u64(), c.cookie);
  EXPECT_EQ(r.u32(), 520u);
  EXPECT_EQ(r.u64(), 8192u);
  EXPECT_EQ(reply.back(), std::byte{5});
  c.request(nbd::kRead, kDeviceBytes, 512);
  reply = c.receive_exactly(26);
  EXPECT_EQ(BigReader(std::span(reply).subspan(6)).u16(), nbd::kChunkError);
  struct Extent {
    uint32_t bytes, state;
    bool operator==(const Extent&) const = default;
  };
  const auto status = [&](uint64_t offset, uint32_t bytes, uint16_t flags) {
    c.request(nbd::kBlockStatus, offset, bytes, flags);
    Bytes head = c.receive_exactly(20);
    const uint32_t length = BigReader(std::span(head).subspan(16)).u32();
    const Bytes body = c.receive_exactly(length);
    BigReader b(body);
    EXPECT_EQ(b.u32(), 1u);
    std::vector<Extent> out;
    while (b.left()) {
      const uint32_t n = b.u32();
      out.push_back({n, b.u32()});
    }
    return out;
  };
  EXPECT_EQ(status(0, 65536, 0), (std::vector<Extent>{{8192, 3}, {8192, 0}, {49152, 3}}));
  EXPECT_EQ(status(0, 65536, nbd::kReqOne), (std::vector<Extent>{{8192, 3}}));
  EXPECT_EQ(status(7680, 1024, 0), (std::vector<Extent>{{512, 3}, {512, 0}}));
  EXPECT_EQ(status(12288, 512, 0), (std::vector<Extent>{{512, 0}}));
  EXPECT_EQ(status(16384, kDeviceBytes - 16384, nbd::kReqOne),
            (std::vector<Extent>{{kDeviceBytes - 16384, 3}}));
}

TEST_F(NbdServerTest, OptionsOutOfTheOrdinary) {
  start();
  Client c(loop, server->address());
  c.greet();
  c.option(5);  // STARTTLS
  EXPECT_EQ(c.option_reply().first, nbd::kErrorUnsupported);
  c.option(4711, Bytes(1000));
  EXPECT_EQ(c.option_reply().first, nbd::kErrorUnsupported);
  c.option(nbd::kStructuredReply, Bytes(1));
  EXPECT_EQ(c.option_reply().first, nbd::kErrorInvalid);
  c.option(nbd::kGo, Bytes(3));
  EXPECT_EQ(c.option_reply().first, nbd::kErrorInvalid);
  Bytes huge;
  BigWriter(huge).u32(0xffffffff).u16(0);
  c.option(nbd::kInfo, huge);
  EXPECT_EQ(c.option_reply().first, nbd::kErrorInvalid);
  Bytes absent;
  BigWriter(absent).u32(2).text("no").u16(0);
  c.option(nbd::kGo, absent);
  EXPECT_EQ(c.option_reply().first, nbd::kErrorUnknown);
  c.option(nbd::kSetMetaContext, absent);  // before structured replies
  EXPECT_EQ(c.option_reply().first, nbd::kErrorInvalid);
  c.option(nbd::kList);
  EXPECT_EQ(c.option_reply().first, nbd::kServer);
  EXPECT_EQ(c.option_reply().first, nbd::kAck);
  EXPECT_EQ(c.go(""), kDeviceBytes);  // the only one
  EXPECT_EQ(c.run(nbd::kFlush, 0, 0), nbd::kOk);
}

TEST_F(NbdServerTest, TheOldWayToChooseAnExport) {
  start();
  for (uint32_t flags : {1u, 3u}) {
    Client c(loop, server->address());
    c.greet(flags);
    Bytes name;
    BigWriter(name).text("disk");
    c.option(nbd::kExportName, name);
    const Bytes reply = c.receive_exactly(flags & 2 ? 10 : 134);
    EXPECT_EQ(BigReader(reply).u64(), kDeviceBytes);
    EXPECT_EQ(c.run(nbd::kWrite, 0, 512, 0, Bytes(512)), nbd::kOk);
  }
  Client c(loop, server->address());
  c.greet();
  c.option(nbd::kExportName, Bytes(2, std::byte{'x'}));
  EXPECT_TRUE(c.shut_out());
}

TEST_F(NbdServerTest, AbortAndDisconnectAreAnswered) {
  start();
  Client a(loop, server->address());
  a.greet();
  a.option(nbd::kAbort);
  EXPECT_EQ(a.option_reply().first, nbd::kAck);
  EXPECT_TRUE(a.shut_out());
  Client b(loop, server->address());
  b.greet();
  b.go("disk");
  device->hold = true;
  b.request(nbd::kWrite, 0, 512, 0, Bytes(512));
  b.request(nbd::kDisconnect, 0, 0);
  ASSERT_TRUE(loop.run_until([&] { return device->inflight == 1; }));
  loop.run_for(5'000'000);
  EXPECT_FALSE(b.ended);
  device->let_go();
  EXPECT_EQ(b.simple_reply(), nbd::kOk);
  EXPECT_TRUE(b.shut_out());
}

TEST_F(NbdServerTest, HostileBytesEndTheConnectionOnly) {
  options.negotiation_timeout_ns = 200'000'000;
  start();
  std::mt19937 random(17);
  Bytes good;  // a whole conversation
  BigWriter w(good);
  w.u32(3).u64(nbd::kOptionMagic).u32(nbd::kStructuredReply).u32(0);
  w.u64(nbd::kOptionMagic)
      .u32(nbd::kSetMetaContext)
      .u32(31)
      .u32(4)
      .text("disk")
      .u32(1)
      .u32(15)
      .text("base:allocation");
  w.u64(nbd::kOptionMagic).u32(nbd::kGo).u32(10).u32(4).text("disk").u16(0);
  for (uint16_t command :
       {nbd::kRead, nbd::kTrim, nbd::kBlockStatus, nbd::kWriteZeroes, nbd::kFlush}) {
    w.u32(nbd::kRequestMagic).u16(0).u16(command).u64(1).u64(4096).u32(8192);
  }
  for (int round = 0; round < 150; ++round) {
    Bytes bytes = good;
    for (size_t i = 1 + random() % 3; i > 0; --i)
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    if (round % 4 == 0) bytes.resize(random() % bytes.size());
    if (round % 10 == 0) {
      bytes.resize(500);
      for (auto& b : bytes) b = static_cast<std::byte>(random());
    }
    Client c(loop, server->address());
    c.send(bytes);
    loop.run_for(1'000'000);
  }
  Client c(loop, server->address());
  c.greet();
  EXPECT_EQ(c.go("disk"), kDeviceBytes);
  EXPECT_EQ(c.run(nbd::kRead, 0, 512), nbd::kOk);
}

TEST_F(NbdServerTest, TooLargeIsShutOut) {
  start();
  Client a(loop, server->address());
  a.greet();
  Bytes head;
  BigWriter(head).u64(nbd::kOptionMagic).u32(nbd::kGo).u32(0x7fffffff);
  a.send(head);
  EXPECT_TRUE(a.shut_out());
  Client b(loop, server->address());
  b.greet();
  b.go("disk");
  b.request(nbd::kWrite, 0, (32u << 20) + 512);
  EXPECT_TRUE(b.shut_out());
  Client c(loop, server->address());
  c.greet(0xff);
  EXPECT_TRUE(c.shut_out());
}

TEST_F(NbdServerTest, SilenceInTheNegotiationIsEnded) {
  options.negotiation_timeout_ns = 100'000'000;
  start();
  Client c(loop, server->address());
  EXPECT_TRUE(c.shut_out());
}

TEST_F(NbdServerTest, MemoryIsBoundedWhenRepliesAreNotRead) {
  options.inflight_bytes_max = 4 << 20;
  options.inflight_requests_max = 16;
  start();
  Client c(loop, server->address());
  c.greet();
  c.go("disk");
  device->hold = true;
  for (int i = 0; i < 200; ++i) c.request(nbd::kRead, 0, 1 << 20);
  ASSERT_TRUE(loop.run_until([&] { return device->inflight > 0; }));
  loop.run_for(20'000'000);
  EXPECT_LE(device->inflight_max, 5u);
  EXPECT_LT(pool.used_bytes(), 8u << 20);
  device->let_go();
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(c.simple_reply(), nbd::kOk);
    EXPECT_EQ(c.receive_exactly(1 << 20).size(), size_t{1} << 20);
  }
  for (int i = 0; i < 100; ++i) c.request(nbd::kFlush, 0, 0);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(c.simple_reply(), nbd::kOk);
  EXPECT_LE(device->inflight_max, 16u);
}

TEST_F(NbdServerTest, AClientThatDiesInMidRequestLeavesNothing) {
  start();
  for (int round = 0; round < 12; ++round) {
    auto c = std::make_unique<Client>(loop, server->address());
    c->greet();
    c->go("disk");
    device->hold = round % 2;
    c->request(nbd::kRead, 0, 8 << 20);
    c->request(nbd::kWrite, 0, 4 << 20, 0, Bytes((round % 4) * 700'000));  // not all of it
    loop.run_for(3'000'000);
    c.reset();
    loop.run_for(3'000'000);
    device->let_go();
  }
  EXPECT_TRUE(loop.run_until([&] { return server->stats().connections == 0; }));
  EXPECT_EQ(pool.used_bytes(), 0u);
}

TEST_F(NbdServerTest, GrowthIsSeenByNewConnectionsAndRequests) {
  start();
  Client a(loop, server->address());
  a.greet();
  a.go("disk");
  EXPECT_EQ(a.run(nbd::kTrim, kDeviceBytes, 4096), nbd::kEinval);
  device->grow(2 * kDeviceBytes);
  EXPECT_EQ(a.run(nbd::kTrim, kDeviceBytes, 4096), nbd::kOk);
  Client b(loop, server->address());
  b.greet();
  EXPECT_EQ(b.go("disk"), 2 * kDeviceBytes);
}

TEST_F(NbdServerTest, ARemovedExportLetsGoOfItsDevice) {
  start();
  RamDevice other(*loop, 1 << 20);
  ASSERT_EQ(server->add_export({"other", "", &other}), Code::kOk);
  Client a(loop, server->address()), b(loop, server->address());
  a.greet();
  a.go("disk");
  b.greet();
  b.go("other");
  other.hold = true;
  b.request(nbd::kFlush, 0, 0);
  ASSERT_TRUE(loop.run_until([&] { return other.inflight == 1; }));
  bool removed = false;
  server->remove_export("other", [&] { removed = true; });
  EXPECT_TRUE(b.shut_out());
  loop.run_for(5'000'000);
  EXPECT_FALSE(removed);
  other.let_go();
  EXPECT_TRUE(loop.run_until([&] { return removed; }));
  EXPECT_EQ(a.run(nbd::kFlush, 0, 0), nbd::kOk);
}

TEST_F(NbdServerTest, ConnectionsAreLimited) {
  options.connections_max = 2;
  start();
  Client a(loop, server->address()), b(loop, server->address());
  a.greet();
  b.greet();
  Client c(loop, server->address());
  EXPECT_TRUE(c.shut_out());
  EXPECT_EQ(a.go("disk"), kDeviceBytes);
}

}  // namespace
}  // namespace curve::exports
