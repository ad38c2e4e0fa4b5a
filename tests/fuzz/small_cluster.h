// For fuzz targets: one production chunkserver on the simulated world and one client connection
// that may send anything. A new world per input, so that an input reproduces by itself. Thread:
// one.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "native/base/crc32c.h"
#include "native/base/placement.h"
#include "native/copyset/store_server.h"
#include "native/sim/disk.h"
#include "native/sim/world.h"
#include "native/wire/codec.h"
#include "native/wire/connection.h"

namespace curve::fuzz {

inline const CopysetId kCopyset = base::copyset_id(1, 0);
inline constexpr VolumeId kVolume = 7;
inline constexpr Epoch kEpoch = 3;

// The chunkserver. `refusal` of the world says why it did not start.
struct Store final : sim::Process {
  base::BufferPool pool;
  std::unique_ptr<copyset::StoreServer> server;
};

// A client that holds the secret, and no manners.
struct Client final : sim::Process {
  struct Call : io::Mail {
    std::function<void()> function;
  };
  explicit Client(io::Loop& on) : loop(on) {}
  // Runs on the client's loop, as everything that sends must.
  void call(std::function<void()> function) {
    auto& mail = calls.emplace_back(std::make_unique<Call>());
    mail->function = std::move(function);
    mail->run = [](io::Mail* ran) { std::exchange(static_cast<Call*>(ran)->function, nullptr)(); };
    loop.post(mail.get());
  }
  io::Loop& loop;
  base::BufferPool pool;
  std::vector<std::unique_ptr<Call>> calls;
  wire::Connection* connection = nullptr;
  bool open = false, closed = false;
  std::vector<wire::ReplyBody> replies;
  ~Client() override {
    calls.clear();
    if (connection) connection->destroy();
  }
};

class SmallCluster {
 public:
  SmallCluster()
      : world_(1), store_node_(world_.add_node("store")), client_node_(world_.add_node("client")) {
    secret_.assign(32, std::byte{7});
  }
  ~SmallCluster() { world_.end(); }

  sim::World& world() { return world_; }
  sim::Node& store_node() { return store_node_; }
  copyset::StoreServer& server() { return *static_cast<Store&>(*store_node_.process).server; }
  Client& client() { return static_cast<Client&>(*client_node_.process); }
  const std::string& refusal() const { return refusal_; }
  bool running() const { return store_node_.state == sim::NodeState::kUp; }

  // A new store that holds nothing.
  void start() {
    world_.start(store_node_, [this](io::Loop& loop) {
      copyset::StoreFormat format;
      format.store = id(1);
      format.cluster = id(9);
      format.data_bytes = 32u << 20;
      format.wal_bytes = 24u << 20;  // 8 MiB of it take no proposals
      format.wal_segment_bytes = 1u << 20;
      const Outcome done =
          copyset::StoreServer::format(loop, copyset::StorePaths::in("/store"), format);
      if (!done.ok()) std::abort();
      return boot(loop);
    });
    if (!running()) std::abort();
    store_node_.boot = [this](io::Loop& loop) { return boot(loop); };
  }
  // With one copyset that it leads alone, a volume, and its fence.
  void create() {
    start();
    replica::Genesis genesis;
    genesis.group = kCopyset;
    genesis.config.members[genesis.config.count++] = {id(1), raft::MemberRole::kVoter};
    bool formed = false, fenced = false;
    server().form(genesis, [&](Code) { formed = true; });
    if (!world_.run_until([&] { return formed && leads(); }, 5 * sim::kSecond)) std::abort();
    server().fence(kVolume, kEpoch, kEpoch, {}, {kCopyset},
                   [&](copyset::FenceResult) { fenced = true; });
    if (!world_.run_until([&] { return fenced; }, 5 * sim::kSecond)) std::abort();
  }
  bool leads() {
    for (const auto& status : server().status(true).copysets) {
      if (status.copyset == kCopyset)
        return status.role == raft::Role::kLeader && status.applied == status.last &&
               status.last > 0;
    }
    return false;
  }
  Term term() {
    for (const auto& status : server().status(true).copysets) {
      if (status.copyset == kCopyset) return status.term;
    }
    return 0;
  }

  void connect() {
    if (client_node_.state == sim::NodeState::kUp)
      world_.crash(client_node_, sim::CrashKind::kKill);
    world_.start(client_node_, [this](io::Loop& loop) {
      auto made = std::make_unique<Client>(loop);
      wire::ConnectionHandler handler;
      handler.owner = made.get();
      handler.opened = [](void* owner, wire::Connection*) {
        static_cast<Client*>(owner)->open = true;
        return true;
      };
      handler.frame = [](void* owner, wire::Connection*, wire::Frame& frame) {
        wire::ReplyBody reply;
        if (frame.body.size() < sizeof(reply)) return;
        std::memcpy(&reply, frame.body.data(), sizeof(reply));
        static_cast<Client*>(owner)->replies.push_back(reply);
      };
      handler.closed = [](void* owner, wire::Connection*, Code, int) {
        auto* client = static_cast<Client*>(owner);
        client->connection = nullptr;
        client->closed = true;
      };
      const wire::Identity self{wire::PeerRole::kClient, id(5), 0, secret_};
      made->connection =
          wire::Connection::dial(loop, made->pool, {"store:7000"}, self, id(1), 1, handler);
      return made;
    });
    if (!world_.run_until([&] { return client().open || client().closed; }, 5 * sim::kSecond))
      std::abort();
  }
  // False when the store has closed the connection.
  bool send(wire::FrameType type, uint64_t tag, std::span<const std::byte> body,
            std::span<const std::byte> payload) {
    Client* to = &client();
    if (!to->connection || to->closed) return false;
    base::Buffer buffer;
    if (!payload.empty()) {
      buffer = to->pool.take(payload.size());
      std::memcpy(buffer.data(), payload.data(), payload.size());
    }
    to->call([=, body = std::vector<std::byte>(body.begin(), body.end())] {
      if (to->connection)
        to->connection->send(type, tag, body, {}, buffer, 0, static_cast<uint32_t>(buffer.size()));
    });
    return true;
  }
  void write(uint32_t chunk, uint32_t offset_bytes, uint32_t bytes, int fill) {
    wire::RequestBody request;
    request.volume = kVolume;
    request.epoch = kEpoch;
    request.copyset = kCopyset;
    request.term = term();
    request.chunk = chunk;
    request.offset_bytes = offset_bytes;
    request.bytes = bytes;
    const std::vector<std::byte> payload(bytes, static_cast<std::byte>(fill));
    std::vector<std::byte> body(sizeof(request));
    std::memcpy(body.data(), &request, sizeof(request));
    for (uint32_t at = 0; at < bytes; at += kSectorBytes) {
      const uint32_t crc = base::crc32c(std::span(payload).subspan(at, kSectorBytes));
      const auto* raw = reinterpret_cast<const std::byte*>(&crc);
      body.insert(body.end(), raw, raw + sizeof(crc));
    }
    const size_t answered = client().replies.size();
    send(wire::FrameType::kWrite, answered + 1, body, payload);
    if (!world_.run_until([&] { return client().replies.size() > answered; }, 5 * sim::kSecond))
      std::abort();
  }

  static StoreId id(uint8_t number) {
    StoreId out;
    out.bytes.fill(number);
    return out;
  }

 private:
  std::unique_ptr<sim::Process> boot(io::Loop& loop) {
    auto store = std::make_unique<Store>();
    copyset::ServerOptions options;
    options.checkpoint_interval_ns = 200 * sim::kMillisecond;
    auto opened = copyset::StoreServer::open(loop, store->pool, copyset::StorePaths::in("/store"),
                                             secret_, options);
    if (!opened) {
      refusal_ = opened.error().message;
      if (refusal_.empty()) std::abort();  // a refusal says why
      return nullptr;
    }
    store->server = std::move(*opened);
    store->server->on_failure([](Code, const std::string&) {});
    if (!store->server->listen({"store:7000"})) std::abort();
    store->server->start();
    return store;
  }

  std::vector<std::byte> secret_;
  std::string refusal_;
  sim::World world_;
  sim::Node& store_node_;
  sim::Node& client_node_;
};

}  // namespace curve::fuzz
