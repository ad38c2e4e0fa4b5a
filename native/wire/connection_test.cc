// Two ends of a connection on one loop, and raw streams that misbehave. Linked with both
// implementations of the io seam.
#include "native/wire/connection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "native/wire/codec.h"
#include "native/wire/handshake.h"
#include "native/wire/test_loop.h"

namespace curve::wire {
namespace {

using Bytes = std::vector<std::byte>;

StoreId id_of(uint8_t n) {
  StoreId id;
  id.bytes.fill(n);
  return id;
}
Bytes text(std::string_view s) {
  const auto b = std::as_bytes(std::span(s));
  return Bytes(b.begin(), b.end());
}

struct End {  // one side; owns what its handler saw
  Connection* connection = nullptr;
  bool admit = true;
  bool close_on_frame = false, pause_on_frame = false;
  int opened = 0, closed = 0;
  Code code = Code::kOk;
  std::vector<uint64_t> tags;
  std::vector<Bytes> bodies, payloads;
  uintptr_t misaligned = 0;

  ConnectionHandler handler() {
    ConnectionHandler h;
    h.owner = this;
    h.opened = [](void* owner, Connection* c) {
      auto* e = static_cast<End*>(owner);
      EXPECT_EQ(e->closed, 0);
      e->connection = c;
      ++e->opened;
      if (!e->admit) c->refuse(Code::kBusy, "No room.");
      return e->admit;
    };
    h.frame = [](void* owner, Connection* c, Frame& frame) {
      auto* e = static_cast<End*>(owner);
      EXPECT_EQ(e->closed, 0);
      EXPECT_EQ(e->opened, 1);
      e->tags.push_back(frame.tag);
      e->bodies.emplace_back(frame.body.begin(), frame.body.end());
      e->payloads.emplace_back(frame.payload.bytes().begin(), frame.payload.bytes().end());
      if (frame.payload) e->misaligned |= reinterpret_cast<uintptr_t>(frame.payload.data()) & 4095;
      if (e->close_on_frame) c->close();
      if (e->pause_on_frame) c->pause();
    };
    h.closed = [](void* owner, Connection*, Code code, int) {
      auto* e = static_cast<End*>(owner);
      e->connection = nullptr;
      e->code = code;
      ++e->closed;
    };
    return h;
  }
};

struct RawStream {  // speaks bytes; collects what comes
  io::Stream* stream = nullptr;
  io::ConnectOp connect;
  io::Op receive, send;
  Bytes out, in;
  std::vector<std::byte> window = std::vector<std::byte>(4096);
  iovec part{};
  bool ended = false, sending = false;

  void dial(io::Loop& loop, const io::Address& to, Bytes bytes) {
    out = std::move(bytes);
    connect.owner = receive.owner = send.owner = this;
    send.done = [](io::Op* op) { static_cast<RawStream*>(op->owner)->sending = false; };
    receive.done = [](io::Op* op) {
      auto* r = static_cast<RawStream*>(op->owner);
      if (op->result <= 0) {
        r->ended = true;
        return;
      }
      r->in.insert(r->in.end(), r->window.begin(), r->window.begin() + op->result);
      r->stream->receive(&r->receive, r->window, false);
    };
    connect.done = [](io::Op* op) {
      auto* r = static_cast<RawStream*>(op->owner);
      ASSERT_EQ(op->result, 0);
      r->stream = r->connect.stream;
      r->stream->receive(&r->receive, r->window, false);
      r->write(r->out);
    };
    loop.connect(&connect, to);
  }
  void write(Bytes bytes) {
    if (bytes.empty()) return;
    out = std::move(bytes);
    part = {out.data(), out.size()};
    sending = true;
    stream->send(&send, std::span(&part, 1));
  }
};

class ConnectionTest : public testing::Test, public io::Listener {
 protected:
  base::BufferPool pool;
  TestLoop loop;
  Bytes secret = text("the secret of this cluster......");
  Bytes other_secret = text("another secret..................");
  io::Address address;
  Identity server_identity{PeerRole::kStore, id_of(2), 77, secret};
  Identity client_identity{PeerRole::kClient, id_of(1), 0, secret};
  std::vector<std::unique_ptr<End>> servers;
  End client;
  bool admit = true;

  void SetUp() override {
    auto bound = loop->listen({"127.0.0.1:0"}, this);
    ASSERT_TRUE(bound.ok()) << bound.error().message;
    address = *bound;
  }
  void TearDown() override {
    if (loop->abandoned()) return;
    loop->close_listener(this);
    if (client.connection) client.connection->close();
    for (auto& s : servers)
      if (s->connection) s->connection->close();
    EXPECT_TRUE(loop.run_until([&] {
      return std::all_of(servers.begin(), servers.end(), [](auto& s) { return s->closed; });
    }));
    loop.run_for(1'000'000);
    EXPECT_EQ(pool.used_bytes(), 0u);
  }
  void accepted(io::Stream* stream) override {
    servers.push_back(std::make_unique<End>());
    servers.back()->admit = admit;
    Connection::accept(*loop, pool, stream, server_identity, servers.back()->handler());
  }
  void dial(const StoreId& wanted = id_of(2)) {
    Connection::dial(*loop, pool, address, client_identity, wanted, 5, client.handler());
  }
  End& server() { return *servers.at(0); }
  void connect() {
    dial();
    ASSERT_TRUE(
        loop.run_until([&] { return client.opened && !servers.empty() && server().opened; }));
  }
  Bytes frame(FrameType type, std::span<const std::byte> body) {
    FrameHeader header;
    header.type = type;
    header.body_bytes = static_cast<uint32_t>(body.size());
    header.crc = frame_crc(header, body);
    Bytes out(sizeof(header) + body.size());
    std::memcpy(out.data(), &header, sizeof(header));
    std::memcpy(out.data() + sizeof(header), body.data(), body.size());
    return out;
  }
  HelloBody hello() {
    HelloBody body;
    body.role = 1;
    body.identity = id_of(9);
    body.wanted = id_of(2);
    return body;
  }
  // A raw stream that sends `bytes` must be shut out without any handler having run.
  void expect_shut_out(Bytes bytes) {
    RawStream raw;
    servers.clear();
    raw.dial(*loop, address, std::move(bytes));
    ASSERT_TRUE(loop.run_until([&] { return raw.ended && !servers.empty() && server().closed; }));
    EXPECT_EQ(server().opened, 0);
    raw.stream->close();
    loop.run_for(1'000'000);
  }
};

TEST_F(ConnectionTest, OpensAndSaysWhoIsThere) {
  connect();
  EXPECT_TRUE(client.connection->is_open());
  EXPECT_EQ(client.connection->peer_id(), id_of(2));
  EXPECT_EQ(client.connection->peer_role(), PeerRole::kStore);
  EXPECT_EQ(client.connection->peer_incarnation(), 77u);
  EXPECT_EQ(server().connection->peer_id(), id_of(1));
  EXPECT_EQ(server().connection->peer_role(), PeerRole::kClient);
  EXPECT_EQ(server().connection->peer_counter(), 5u);
  EXPECT_FALSE(server().connection->peer_text().empty());
}

TEST_F(ConnectionTest, CarriesFramesBothWaysInOrder) {
  connect();
  std::mt19937 random(7);
  std::vector<Bytes> payloads;
  for (uint64_t tag = 0; tag < 200; ++tag) {
    const size_t sizes[] = {0, 512, 4096, 30'000, 40'000};
    const size_t size = tag % 23 == 0 ? 1'048'576 : sizes[random() % 5];
    base::Buffer buffer;
    if (size) {
      buffer = pool.take(size);
      for (auto& b : buffer.span()) b = static_cast<std::byte>(random());
      payloads.emplace_back(buffer.bytes().begin(), buffer.bytes().end());
    } else {
      payloads.emplace_back();
    }
    const Bytes body = text("body " + std::to_string(tag));
    client.connection->send(FrameType::kWrite, tag, body, body, buffer, 0,
                            static_cast<uint32_t>(size));
    server().connection->send(FrameType::kReply, 1000 + tag, body, {}, buffer, 0,
                              static_cast<uint32_t>(size));
  }
  EXPECT_GT(client.connection->queued_bytes(), 0u);
  ASSERT_TRUE(
      loop.run_until([&] { return server().tags.size() == 200 && client.tags.size() == 200; }));
  ASSERT_TRUE(loop.run_until([&] { return client.connection->queued_bytes() == 0; }));
  for (uint64_t tag = 0; tag < 200; ++tag) {
    EXPECT_EQ(server().tags[tag], tag);
    EXPECT_EQ(client.tags[tag], 1000 + tag);
    EXPECT_TRUE(server().payloads[tag] == payloads[tag]);
    EXPECT_TRUE(client.payloads[tag] == payloads[tag]);
    EXPECT_EQ(server().bodies[tag],
              text("body " + std::to_string(tag) + "body " + std::to_string(tag)));
  }
  EXPECT_EQ(server().misaligned, 0u);
}

TEST_F(ConnectionTest, NothingIsHandedOutAfterClose) {  // R13
  connect();
  server().close_on_frame = true;
  for (uint64_t tag = 0; tag < 50; ++tag) client.connection->send(FrameType::kWrite, tag, {});
  ASSERT_TRUE(loop.run_until([&] { return client.closed && server().closed; }));
  EXPECT_EQ(server().tags.size(), 1u);
  EXPECT_EQ(server().code, Code::kCancelled);
  EXPECT_EQ(client.code, Code::kDisconnected);
}

TEST_F(ConnectionTest, PauseHoldsFramesBackAndResumeHandsThemOut) {
  connect();
  server().pause_on_frame = true;
  auto payload = pool.take(100'000);
  for (uint64_t tag = 0; tag < 40; ++tag)
    client.connection->send(FrameType::kWrite, tag, {}, {}, payload, 0, tag % 2 ? 100'000 : 4096);
  for (size_t n = 1; n <= 40; ++n) {
    ASSERT_TRUE(loop.run_until([&] { return server().tags.size() == n; }));
    loop.run_for(2'000'000);
    EXPECT_EQ(server().tags.size(), n);
    server().connection->resume();
    EXPECT_EQ(server().tags.size(), n);  // never from inside the call
  }
}

TEST_F(ConnectionTest, AWrongSecretIsRefusedOnBothSides) {
  client_identity.secret = other_secret;
  dial();
  ASSERT_TRUE(loop.run_until([&] { return client.closed; }));
  EXPECT_EQ(client.code, Code::kUnauthenticated);
  EXPECT_EQ(client.opened, 0);
  ASSERT_TRUE(loop.run_until([&] { return server().closed; }));
  EXPECT_EQ(server().opened, 0);
}

TEST_F(ConnectionTest, AnotherStoreAtTheAddressIsNotTakenForTheWantedOne) {
  dial(id_of(3));
  ASSERT_TRUE(loop.run_until([&] { return client.closed && server().closed; }));
  EXPECT_EQ(client.opened + server().opened, 0);
  EXPECT_EQ(client.code, Code::kInvalid);
}

TEST_F(ConnectionTest, AHandlerMayRefuse) {
  admit = false;
  dial();
  ASSERT_TRUE(loop.run_until([&] { return client.closed && server().closed; }));
  EXPECT_EQ(client.opened, 0);
  EXPECT_EQ(client.code, Code::kBusy);
  EXPECT_EQ(server().code, Code::kCancelled);
}

TEST_F(ConnectionTest, NobodyListens) {
  loop->close_listener(this);
  dial();
  ASSERT_TRUE(loop.run_until([&] { return client.closed; }));
  EXPECT_EQ(client.opened, 0);
  EXPECT_NE(client.code, Code::kOk);
  ASSERT_TRUE(loop->listen({"127.0.0.1:0"}, this).ok());
}

TEST_F(ConnectionTest, CloseWhileConnecting) {
  Connection* connection =
      Connection::dial(*loop, pool, address, client_identity, id_of(2), 1, client.handler());
  connection->close();
  ASSERT_TRUE(loop.run_until([&] { return client.closed; }));
  EXPECT_EQ(client.code, Code::kCancelled);
  EXPECT_EQ(client.opened, 0);
}

TEST_F(ConnectionTest, ASilentPeerIsClosed) {
  expect_shut_out({});
  EXPECT_EQ(server().code, Code::kTimeout);
}

TEST_F(ConnectionTest, AnotherVersionIsToldWhy) {
  Bytes bytes = frame(FrameType::kHello, body_bytes(hello()));
  bytes[2] = std::byte{9};
  RawStream raw;
  raw.dial(*loop, address, bytes);
  ASSERT_TRUE(loop.run_until([&] { return raw.ended && server().closed; }));
  EXPECT_EQ(server().code, Code::kVersion);
  ASSERT_GT(raw.in.size(), sizeof(FrameHeader) + sizeof(RefusedBody) + 20);
  EXPECT_EQ(load_header(raw.in.data()).type, FrameType::kRefused);
  RefusedBody body;
  ASSERT_TRUE(load_body(std::span<const std::byte>(raw.in).subspan(sizeof(FrameHeader)), body));
  EXPECT_EQ(body.code, static_cast<uint16_t>(Code::kVersion));
  raw.stream->close();
  loop.run_for(1'000'000);
}

TEST_F(ConnectionTest, HostileBytesOpenNothing) {
  expect_shut_out(text("GET / HTTP/1.1\r\nHost: example\r\n\r\n"));
  FrameHeader huge;
  huge.type = FrameType::kHello;
  huge.body_bytes = huge.payload_bytes = 0xffffffff;
  expect_shut_out(Bytes(body_bytes(huge).begin(), body_bytes(huge).end()));
  expect_shut_out(
      frame(FrameType::kWrite, body_bytes(RequestBody{})));            // a request before the proof
  expect_shut_out(frame(FrameType::kProof, body_bytes(ProofBody{})));  // a proof of nothing
  expect_shut_out(frame(FrameType::kWelcome, body_bytes(WelcomeBody{})));
  HelloBody own = hello();
  own.identity = id_of(2);
  expect_shut_out(frame(FrameType::kHello, body_bytes(own)));
  HelloBody unknown = hello();
  unknown.role = 9;
  expect_shut_out(frame(FrameType::kHello, body_bytes(unknown)));
  Bytes guessed = frame(FrameType::kHello, body_bytes(hello()));
  const Bytes proof = frame(FrameType::kProof, body_bytes(ProofBody{}));
  guessed.insert(guessed.end(), proof.begin(), proof.end());
  expect_shut_out(guessed);
  EXPECT_EQ(server().code, Code::kUnauthenticated);
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    Bytes bytes = guessed;
    bytes[random() % bytes.size()] ^= static_cast<std::byte>(1 + random() % 255);
    expect_shut_out(bytes);
  }
}

TEST_F(ConnectionTest, AReplayedHandshakeAndAReflectedChallengeAreRefused) {
  // A recorded handshake: hello and proof of a dialer that did hold the secret.
  HelloBody recorded = hello();
  ChallengeBody old_challenge;
  old_challenge.identity = id_of(2);
  ProofBody old_proof;
  prove_dialer(secret, recorded, old_challenge, old_proof);
  Bytes replay = frame(FrameType::kHello, body_bytes(recorded));
  const Bytes proof = frame(FrameType::kProof, body_bytes(old_proof));
  replay.insert(replay.end(), proof.begin(), proof.end());
  expect_shut_out(replay);
  EXPECT_EQ(server().code, Code::kUnauthenticated);

  servers.clear();
  RawStream raw;
  raw.dial(*loop, address, frame(FrameType::kHello, body_bytes(hello())));
  const size_t whole = sizeof(FrameHeader) + sizeof(ChallengeBody);
  ASSERT_TRUE(loop.run_until([&] { return raw.in.size() == whole && !raw.sending; }));
  ChallengeBody challenge;
  ASSERT_TRUE(
      load_body(std::span<const std::byte>(raw.in).subspan(sizeof(FrameHeader)), challenge));
  ProofBody reflected;
  std::memcpy(reflected.mac, challenge.mac, sizeof(reflected.mac));
  raw.write(frame(FrameType::kProof, body_bytes(reflected)));
  ASSERT_TRUE(loop.run_until([&] { return raw.ended && server().closed; }));
  EXPECT_EQ(server().opened, 0);
  EXPECT_EQ(server().code, Code::kUnauthenticated);
  raw.stream->close();
  loop.run_for(1'000'000);
}

TEST_F(ConnectionTest, DestroyedAfterTheLoopWasAbandoned) {
  connect();
  auto payload = pool.take(1 << 20);
  for (int i = 0; i < 8; ++i)
    client.connection->send(FrameType::kWrite, 1, {}, {}, payload, 0, 1 << 20);
  loop.run_for(100'000);
  loop->abandon();
  client.connection->destroy();
  server().connection->destroy();
  client.connection = nullptr;
  servers.clear();
  payload = {};
  EXPECT_EQ(pool.used_bytes(), 0u);
}

}  // namespace
}  // namespace curve::wire
