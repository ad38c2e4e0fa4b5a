// Real sockets on loopback: echo under load, ends, closing with operations in flight, refused and
// cancelled connects.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <thread>

#include "native/io/address.h"
#include "native/io/test_loop.h"
#include "native/io/uring_backend.h"

namespace curve::io {
namespace {

struct Collector : Listener {
  void accepted(Stream* stream) override { streams.push_back(stream); }
  std::vector<Stream*> streams;
};

struct StreamTest : testing::Test {
  TestLoop loop;
  Collector collector;

  struct Pair {
    Stream* here;
    Stream* there;
  };
  Address listen(const std::string& text = "127.0.0.1:0", Listener* listener = nullptr) {
    auto bound = loop->listen({text}, listener ? listener : &collector);
    if (!bound) {
      ADD_FAILURE() << bound.error().message;
      abort();
    }
    return *bound;
  }
  Pair connected(const Address& address) {
    const size_t before = collector.streams.size();
    Tracked<ConnectOp> op;
    loop->connect(&op, address);
    EXPECT_FALSE(op.is_done());
    loop.run_until([&] { return op.is_done() && collector.streams.size() > before; });
    EXPECT_EQ(op.result, 0);
    return {op.stream, collector.streams.back()};
  }
  Pair connected() { return connected(listen()); }
  int32_t send(Stream* stream, std::string text) {
    Tracked<Op> op;
    iovec part{text.data(), text.size()};
    stream->send(&op, {&part, 1});
    loop.run_until([&] { return op.is_done(); });
    return op.result;
  }
  int32_t receive(Stream* stream, std::span<std::byte> into, bool all = false) {
    Tracked<Op> op;
    stream->receive(&op, into, all);
    loop.run_until([&] { return op.is_done(); });
    return op.result;
  }
};

TEST_F(StreamTest, TcpAndUnixCarryBytes) {
  TemporaryDirectory directory;
  for (const std::string& text :
       {std::string("127.0.0.1:0"), std::string("[::1]:0"), "unix:" + directory.file("s")}) {
    const Address address = listen(text);
    auto [here, there] = connected(address);
    EXPECT_EQ(here->peer(), address.text);
    EXPECT_FALSE(there->peer().empty());
    std::byte in[100];
    EXPECT_EQ(send(here, "hello"), 5);
    EXPECT_EQ(receive(there, in), 5);
    EXPECT_EQ(std::memcmp(in, "hello", 5), 0);
    here->close();
    EXPECT_EQ(receive(there, in), 0);
    there->close();
    loop->close_listener(&collector);
    loop.run_turns(2);
  }
  EXPECT_FALSE(std::filesystem::exists(directory.file("s")));
}

TEST_F(StreamTest, BothEndsSendAtOnceAndNoticeALostPeer) {
  auto [here, there] = connected();
  for (Stream* stream : {here, there}) {
    int value = 0;
    socklen_t bytes = sizeof value;
    getsockopt(stream->backend->fd, IPPROTO_TCP, TCP_NODELAY, &value, &bytes);
    EXPECT_EQ(value, 1);
    getsockopt(stream->backend->fd, SOL_SOCKET, SO_KEEPALIVE, &value, &bytes);
    EXPECT_EQ(value, 1);
    getsockopt(stream->backend->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &bytes);
    EXPECT_GT(value, 0);
    stream->close();
  }
}

TEST_F(StreamTest, ReceiveAllFillsOrTellsWhatCameBeforeTheEnd) {
  auto [here, there] = connected();
  std::vector<std::byte> in(10);
  Tracked<Op> all;
  there->receive(&all, in, true);
  send(here, "12345");
  loop.run_turns(3);
  EXPECT_FALSE(all.is_done());
  send(here, "67890abc");
  loop.run_until([&] { return all.is_done(); });
  EXPECT_EQ(all.result, 10);
  here->close();
  EXPECT_EQ(receive(there, in, true), 3);
  EXPECT_EQ(receive(there, in, true), 0);
  there->close();
}

TEST_F(StreamTest, LargeVectorsArriveWhole) {
  auto [here, there] = connected();
  constexpr size_t kParts = 1000, kPartBytes = 20000;
  std::vector<std::byte> out(kParts * kPartBytes), in(out.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(i * 31 >> 7);
  std::vector<iovec> parts(kParts);
  for (size_t i = 0; i < kParts; ++i) parts[i] = {out.data() + i * kPartBytes, kPartBytes};
  Tracked<Op> sent, received;
  here->send(&sent, parts);
  there->receive(&received, in, true);
  loop.run_until([&] { return sent.is_done() && received.is_done(); });
  EXPECT_EQ(sent.result, static_cast<int32_t>(out.size()));
  EXPECT_EQ(received.result, static_cast<int32_t>(in.size()));
  EXPECT_EQ(in, out);
  here->close();
  there->close();
}

// A server that sends back what it gets, until the end.
struct EchoServer : Listener {
  struct Peer {
    Tracked<Op> receive, send;
    std::vector<std::byte> buffer = std::vector<std::byte>(8192);
    iovec part{};
    Stream* stream = nullptr;
    int* open = nullptr;
  };
  void accepted(Stream* stream) override {
    Peer& peer = peers.emplace_back();
    peer.stream = stream;
    peer.open = &open;
    peer.receive.owner = peer.send.owner = &peer;
    peer.receive.done = [](Op* op) {
      auto* self = static_cast<Peer*>(op->owner);
      if (op->result <= 0) {
        self->stream->close();
        --*self->open;
        return;
      }
      self->part = {self->buffer.data(), static_cast<size_t>(op->result)};
      self->stream->send(&self->send, {&self->part, 1});
    };
    peer.send.done = [](Op* op) {
      auto* self = static_cast<Peer*>(op->owner);
      self->stream->receive(&self->receive, self->buffer, false);
    };
    ++open;
    stream->receive(&peer.receive, peer.buffer, false);
  }
  std::list<Peer> peers;
  int open = 0;
};

struct EchoClient {
  EchoClient(Loop* loop, const Address& address, int seed) : seed(seed) {
    connecting.owner = receive.owner = send.owner = this;
    connecting.done = [](Op* op) {
      auto* self = static_cast<EchoClient*>(op->owner);
      ASSERT_EQ(op->result, 0);
      self->stream = self->connecting.stream;
      self->next_round();
    };
    send.done = [](Op* op) { ASSERT_GT(op->result, 0); };
    receive.done = [](Op* op) { static_cast<EchoClient*>(op->owner)->received(); };
    loop->connect(&connecting, address);
  }
  void next_round() {
    const size_t bytes = 1 + static_cast<size_t>(seed * 7919 + rounds * 104729) % 30000;
    out.assign(bytes, static_cast<std::byte>(seed + rounds));
    in.assign(bytes, std::byte{0});
    parts[0] = {out.data(), bytes / 2};
    parts[1] = {out.data() + bytes / 2, bytes - bytes / 2};
    stream->receive(&receive, in, true);
    stream->send(&send, bytes > 1 ? std::span(parts) : std::span(parts).subspan(1));
  }
  void received() {
    ASSERT_EQ(receive.result, static_cast<int32_t>(in.size()));
    ASSERT_EQ(in, out);
    if (++rounds < 30) return next_round();
    stream->close();
    finished = true;
  }
  int seed, rounds = 0;
  bool finished = false;
  ConnectOp connecting;
  Op receive, send;
  Stream* stream = nullptr;
  std::vector<std::byte> out, in;
  iovec parts[2];
};

TEST_F(StreamTest, EchoOverManyStreams) {
  EchoServer server;
  const Address address = listen("127.0.0.1:0", &server);
  std::list<EchoClient> clients;
  for (int i = 0; i < 100; ++i) clients.emplace_back(&*loop, address, i);
  loop.run_until([&] {
    return server.open == 0 &&
           std::all_of(clients.begin(), clients.end(), [](auto& c) { return c.finished; });
  });
  EXPECT_EQ(server.peers.size(), 100u);
  loop->close_listener(&server);
  loop.run_turns(2);
}

TEST_F(StreamTest, ClosingEndsWhatIsInFlight) {
  auto [here, there] = connected();
  std::vector<std::byte> in(4096), out(64 << 20);
  Tracked<Op> received, sent;
  iovec part{out.data(), out.size()};
  here->receive(&received, in, false);
  here->send(&sent, {&part, 1});  // more than the sockets hold
  loop.run_turns(3);
  EXPECT_FALSE(sent.is_done());
  here->close();
  EXPECT_FALSE(sent.is_done());
  loop.run_until([&] { return sent.is_done() && received.is_done(); });
  EXPECT_EQ(sent.result, -ECANCELED);
  EXPECT_EQ(received.result, -ECANCELED);
  there->close();
  loop.run_turns(2);
  EXPECT_EQ(sent.runs + received.runs, 2);
}

// Both directions end in one turn; the first to run closes: the second must not look like a
// success.
TEST_F(StreamTest, ClosingFromADoneCancelsWhatHasNotRun) {
  auto [here, there] = connected();
  struct Closer {
    Op receive, send;
    Stream* stream;
    std::vector<int32_t> results;
  } closer;
  closer.stream = here;
  closer.receive.owner = closer.send.owner = &closer;
  closer.receive.done = closer.send.done = [](Op* op) {
    auto* self = static_cast<Closer*>(op->owner);
    self->results.push_back(op->result);
    if (self->results.size() == 1) self->stream->close();
  };
  ASSERT_EQ(send(there, "data"), 4);
  std::byte in[10];
  char out[] = "x";
  iovec part{out, 1};
  here->receive(&closer.receive, in, false);
  here->send(&closer.send, {&part, 1});
  loop.run_until([&] { return closer.results.size() == 2; });
  EXPECT_GT(closer.results[0], 0);
  EXPECT_EQ(closer.results[1], -ECANCELED);
  there->close();
}

TEST_F(StreamTest, AResetIsAnErrorAndSendingIntoItToo) {
  auto [here, there] = connected();
  EXPECT_EQ(send(here, "unread"), 6);
  there->close();  // with unread data: a reset
  std::byte in[10];
  EXPECT_LT(receive(here, in), 0);
  EXPECT_LT(send(here, "more"), 0);  // and no SIGPIPE
  here->close();
}

TEST_F(StreamTest, ConnectRefusedOrNonsense) {
  const Address address = listen();
  loop->close_listener(&collector);
  loop.run_turns(2);
  Tracked<ConnectOp> refused, nonsense, no_file;
  loop->connect(&refused, address);
  loop->connect(&nonsense, {"no address"});
  loop->connect(&no_file, {"unix:/nonexistent/socket"});
  EXPECT_FALSE(nonsense.is_done());
  loop.run_until([&] { return refused.is_done() && nonsense.is_done() && no_file.is_done(); });
  EXPECT_EQ(refused.result, -ECONNREFUSED);
  EXPECT_EQ(nonsense.result, -EINVAL);
  EXPECT_EQ(no_file.result, -ENOENT);
  EXPECT_EQ(refused.stream, nullptr);
  loop->cancel_connect(&refused);  // too late: nothing
}

// A listener with a full backlog lets a connect hang.
TEST_F(StreamTest, AHangingConnectIsCancelled) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof name;
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), bytes), 0);
  ASSERT_EQ(::listen(fd, 0), 0);
  getsockname(fd, reinterpret_cast<sockaddr*>(&name), &bytes);
  const Address address{"127.0.0.1:" + std::to_string(ntohs(name.sin_port))};
  std::vector<Tracked<ConnectOp>> ops(8);
  for (auto& op : ops) loop->connect(&op, address);
  loop.run_turns(3);
  for (auto& op : ops) loop->cancel_connect(&op);
  loop.run_until(
      [&] { return std::all_of(ops.begin(), ops.end(), [](auto& op) { return op.is_done(); }); });
  int cancelled = 0;
  for (auto& op : ops) {
    if (op.result == 0) op.stream->close();
    cancelled += op.result == -ECANCELED;
  }
  EXPECT_GT(cancelled, 0);
  ::close(fd);
}

// Out of descriptors: the connection waits in the backlog, and is accepted once there are some.
TEST_F(StreamTest, AcceptingGoesOnAfterRunningOutOfDescriptors) {
  const Address address = listen();  // the limit counts that the first run() finds
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const auto name = *parse_address(address.text);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{0, before.rlim_max};
  testing::internal::CaptureStderr();
  setrlimit(RLIMIT_NOFILE, &none);
  EXPECT_EQ(::connect(fd, name.get(), name.bytes), 0);
  loop.run_turns(3);
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("accept_failed"), std::string::npos);
  EXPECT_TRUE(collector.streams.empty());
  loop.run_until([&] { return !collector.streams.empty(); });
  collector.streams[0]->close();
  ::close(fd);
}

TEST_F(StreamTest, ListenExplainsItself) {
  TemporaryDirectory directory;
  const Address address = listen();
  auto taken = loop->listen(address, &collector);
  ASSERT_FALSE(taken.ok());
  EXPECT_EQ(taken.error().code, Code::kExists);
  EXPECT_EQ(loop->listen({"192.0.2.1:0"}, &collector).error().code, Code::kInvalid);
  EXPECT_EQ(loop->listen({"7000"}, &collector).error().code, Code::kInvalid);
  EXPECT_EQ(loop->listen({"unix:" + directory.file("no/s")}, &collector).error().code,
            Code::kNotFound);
}

TEST_F(StreamTest, AUnixSocketLeftBehindIsReplacedAndNothingElseIs) {
  TemporaryDirectory directory;
  const std::string path = directory.file("s");
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::strcpy(name.sun_path, path.c_str());
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
  ::close(fd);
  const Address address = listen("unix:" + path);
  auto [here, there] = connected(address);
  EXPECT_EQ(loop->listen({"unix:" + path}, &collector).error().code, Code::kExists);
  const std::string file = directory.file("precious");
  ::close(creat(file.c_str(), 0600));
  EXPECT_EQ(loop->listen({"unix:" + file}, &collector).error().code, Code::kExists);
  EXPECT_TRUE(std::filesystem::exists(file));
  here->close();
  there->close();
}

TEST_F(StreamTest, ConnectionsAcceptedAfterTheListenerClosedAreEnded) {
  const Address address = listen();
  Tracked<ConnectOp> op;
  loop->connect(&op, address);
  loop.run_turns(1);
  loop->close_listener(&collector);
  loop.run_until([&] { return op.is_done(); });
  if (op.result == 0) {
    std::byte in[1];
    EXPECT_LE(receive(op.stream, in), collector.streams.empty() ? 0 : 1);
    op.stream->close();
  }
  for (Stream* stream : collector.streams) stream->close();
  loop.run_turns(2);
}

TEST_F(StreamTest, WhatIsStartedBeforeRunOnAnotherThreadWorks) {
  auto other = std::move(*make_loop());
  EchoServer server;
  auto bound = other->listen({"127.0.0.1:0"}, &server);
  ASSERT_TRUE(bound.ok());
  std::thread runner([&] { other->run(); });
  EchoClient client(&*loop, *bound, 5);
  loop.run_until([&] { return client.finished; });
  other->stop();
  runner.join();
}

TEST_F(StreamTest, AbandonWithEverythingInFlight) {
  auto [here, there] = connected();
  {
    std::vector<std::byte> in(4096), out(64 << 20);
    Tracked<Op> received, sent;
    Tracked<ConnectOp> connecting;
    iovec part{out.data(), out.size()};
    there->receive(&received, in, false);
    here->send(&sent, {&part, 1});
    loop->connect(&connecting, {"127.0.0.1:1"});
    loop.run_turns(2);
    loop->abandon();
    EXPECT_FALSE(sent.is_done());
  }
  here->close();
  Tracked<Op> late;
  std::byte in[1];
  there->receive(&late, in, false);
  there->close();
  loop->run();
  EXPECT_FALSE(late.is_done());
}

}  // namespace
}  // namespace curve::io
