// libFuzzer target: the NBD server of an export, byte by byte, in pieces that the input chooses.
// The first byte says whether the client negotiates properly first, so that commands are reached.
// The server must answer or close, and be able to end.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "native/base/log.h"
#include "native/export/nbd_protocol.h"
#include "native/export/nbd_server.h"
#include "native/export/ram_device.h"
#include "native/sim/world.h"

namespace {

using namespace curve;

struct Server final : sim::Process {
  base::BufferPool pool{1 << 20};
  std::unique_ptr<exports::RamDevice> device;
  std::unique_ptr<exports::NbdServer> server;
};

// Sends what it is given, in pieces; throws away what comes back.
struct Peer final : sim::Process {
  explicit Peer(io::Loop& on) : loop(on) {}
  io::Loop& loop;
  io::ConnectOp connect;
  io::Op receive, send;
  io::Stream* stream = nullptr;
  std::vector<std::byte> in = std::vector<std::byte>(64 << 10), out;
  iovec iov{};
  size_t sent = 0, piece = 1;
  bool ended = false, sending = false;

  void start() {
    connect.owner = receive.owner = send.owner = this;
    connect.done = [](io::Op* op) {
      auto* peer = static_cast<Peer*>(op->owner);
      if (op->result != 0) {
        peer->ended = true;
        return;
      }
      peer->stream = peer->connect.stream;
      peer->stream->receive(&peer->receive, peer->in, false);
      peer->next();
    };
    receive.done = [](io::Op* op) {
      auto* peer = static_cast<Peer*>(op->owner);
      if (op->result <= 0) {
        peer->ended = true;
      } else if (peer->stream) {
        peer->stream->receive(&peer->receive, peer->in, false);
      }
    };
    send.done = [](io::Op* op) {
      auto* peer = static_cast<Peer*>(op->owner);
      peer->sending = false;
      if (op->result < 0) {
        peer->ended = true;
      } else {
        peer->next();
      }
    };
    loop.connect(&connect, {"server:10809"});
  }
  void next() {
    if (ended || sent == out.size()) return;
    const size_t count = std::min(piece, out.size() - sent);
    iov = {out.data() + sent, count};
    sent += count;
    sending = true;
    stream->send(&send, {&iov, 1});
  }
};

// Flags, then the option GO for the only export (and, if wanted, structured replies before it).
void negotiate(std::vector<std::byte>& out, bool structured, uint32_t flags) {
  using exports::nbd::BigWriter;
  BigWriter(out).u32(flags);
  if (structured)
    BigWriter(out).u64(exports::nbd::kOptionMagic).u32(exports::nbd::kStructuredReply).u32(0);
  BigWriter(out)
      .u64(exports::nbd::kOptionMagic)
      .u32(exports::nbd::kGo)
      .u32(4 + 1 + 2)
      .u32(1)
      .text("v")
      .u16(0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  base::set_log_level(base::LogLevel::kError);
  sim::World world(1);
  sim::Node& server_node = world.add_node("server");
  sim::Node& peer_node = world.add_node("peer");
  world.start(server_node, [](io::Loop& loop) {
    auto made = std::make_unique<Server>();
    made->device = std::make_unique<exports::RamDevice>(loop, 1 << 20);
    auto listening = exports::NbdServer::listen(loop, made->pool, {"server:10809"});
    if (!listening) std::abort();
    made->server = std::move(*listening);
    if (made->server->add_export({.name = "v", .description = "", .device = made->device.get()}) !=
        Code::kOk)
      std::abort();
    return made;
  });
  Peer* peer = nullptr;
  world.start(peer_node, [&](io::Loop& loop) {
    auto made = std::make_unique<Peer>(loop);
    peer = made.get();
    if (data[0] & 1) negotiate(peer->out, data[0] & 2, 1 | (data[0] & 4 ? 2 : 0));
    // Commands: the input gives short ones, the magic is put before them, so that mutations stay
    // commands.
    const bool framed = data[0] & 8;
    for (size_t at = 2; at < size;) {
      const size_t count = framed ? std::min<size_t>(24, size - at) : size - at;
      if (framed) exports::nbd::BigWriter(peer->out).u32(exports::nbd::kRequestMagic);
      for (size_t i = 0; i < count; ++i) peer->out.push_back(static_cast<std::byte>(data[at + i]));
      at += count;
    }
    peer->piece = 1 + data[1] * 7;
    peer->start();
    return made;
  });
  auto& server = static_cast<Server&>(*server_node.process);
  (void)world.run_until([&] { return peer->ended || peer->sent == peer->out.size(); },
                        20 * sim::kSecond);
  world.run_for(50 * sim::kMillisecond);
  if (data[0] & 16) {  // the client dies
    world.crash(peer_node, sim::CrashKind::kKill);
    world.run_for(50 * sim::kMillisecond);
  }
  bool closed = false;
  server.server->close([&] { closed = true; });
  if (!world.run_until([&] { return closed; }, 60 * sim::kSecond)) std::abort();
  if (server.device->inflight != 0) std::abort();
  world.end();
  return 0;
}
