// For tests: three chunkservers (or four) and a client on one event loop over loopback, with real
// files and sockets.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "native/client/volume_client.h"
#include "native/copyset/store_server.h"

namespace curve::copyset {

inline constexpr uint32_t kPool = 1, kCopysets = 8;
inline constexpr int kServersMax = 4;
// Sanitizers on a machine that has other things to do: everything takes longer.
#ifdef CURVE_SANITIZED
inline constexpr uint64_t kSlower = 5;
#else
inline constexpr uint64_t kSlower = 1;
#endif
inline constexpr uint64_t kGiveUpNs = kSlower * 30'000'000'000;

inline std::vector<std::byte> pattern(size_t bytes, uint32_t seed) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i)
    out[i] = static_cast<std::byte>(mix64(seed * 1000003ull + i / 8) >> (i % 8 * 8));
  return out;
}

struct Spine : testing::Test {
  void SetUp() override {
    directory =
        std::filesystem::temp_directory_path() / ("curve-spine-" + std::to_string(getpid()));
    std::filesystem::remove_all(directory);
    auto made = make_loop();
    ASSERT_TRUE(made.ok()) << made.error().message;
    loop = std::move(*made);
    secret.assign(32, std::byte{7});
    timer.owner = this;
    options.raft.lease_ns *= kSlower;
    format();
    start_servers();
  }

  virtual Result<std::unique_ptr<io::Loop>> make_loop() { return io::make_loop(); }
  virtual io::Loop& loop_of(int) { return *loop; }  // of a server; the client's is `loop`

  void format() {
    for (int i = 0; i < kServersMax; ++i) {
      StoreFormat format;
      format.store.bytes.fill(static_cast<uint8_t>(i + 1));
      format.cluster.bytes.fill(9);
      format.data_bytes = data_bytes[i];
      format.wal_bytes = wal_bytes;
      format.reserve_percent = reserve_percent;
      const std::string path = directory / std::to_string(i);
      std::filesystem::create_directories(path);
      auto formatted = StoreServer::format(loop_of(i), StorePaths::in(path), format);
      ASSERT_TRUE(formatted.ok()) << formatted.error().message;
    }
  }

  void start_servers() {
    for (int i = 0; i < count; ++i) open_server(i);
    for (int i = 0; i < count; ++i) introduce(i);
  }

  void open_server(int i) {
    {
      auto opened = StoreServer::open(
          loop_of(i), pool, StorePaths::in(directory / std::to_string(i)), secret, options);
      ASSERT_TRUE(opened.ok()) << opened.error().message;
      servers[i] = std::move(*opened);
      // Where it was before, for who knows it there.
      const bool known = !addresses[i].text.empty();
      auto bound = servers[i]->listen(known ? addresses[i] : io::Address{"127.0.0.1:0"});
      ASSERT_TRUE(bound.ok()) << bound.error().message;
      addresses[i] = *bound;
    }
  }

  // Everybody learns of everybody's address; the server starts.
  void introduce(int i) {
    for (int k = 0; k < kServersMax; ++k) {
      if (!servers[k] || k == i) continue;
      servers[i]->set_peer(servers[k]->store_id(), addresses[k]);
      servers[k]->set_peer(servers[i]->store_id(), addresses[i]);
    }
    servers[i]->start();
  }

  void stop_server(int i) {
    bool stopped = false;
    run_until([&] { servers[i]->stop([&] { stopped = true; }); }, [&] { return stopped; });
    servers[i].reset();
  }

  void checkpoint(int i) {
    Code code = Code::kBusy;
    run_until([&] { servers[i]->checkpoint_now([&](Code result) { code = result; }); },
              [&] { return code != Code::kBusy; });
    EXPECT_EQ(code, Code::kOk);
  }
  void checkpoint_all() {
    for (int i = 0; i < kServersMax; ++i) {
      if (servers[i]) checkpoint(i);
    }
  }

  using Contents = std::map<std::tuple<CopysetId, ChunkKey, uint32_t>, uint32_t>;
  Contents contents(int i) {
    Contents out;
    for (uint32_t c = 0; c < kCopysets; ++c) {
      const CopysetId id = base::copyset_id(kPool, c);
      servers[i]->visit_sectors(
          id, [&](const ChunkKey& chunk, uint32_t sector, StoreServer::SectorView view) {
            out[{id, chunk, sector}] = view.crc;
          });
    }
    return out;
  }

  bool in_step() {
    std::map<CopysetId, Index> applied;
    for (auto& server : servers) {
      if (!server) continue;
      for (const CopysetStatus& status : server->status(true).copysets) {
        if (status.syncing || status.applied != status.last) return false;
        auto [it, fresh] = applied.emplace(status.copyset, status.applied);
        if (!fresh && it->second != status.applied) return false;
      }
    }
    return true;
  }

  void TearDown() override {
    if (client) close_client();
    stop_servers();
    loop.reset();
    std::filesystem::remove_all(directory);
  }

  void close_client() {
    run_until([&] { client->close([this] { client_closed = true; }); },
              [&] { return client_closed; });
    client.reset();
    client_closed = false;
  }

  // Offsets in a file of a store.
  std::vector<int64_t> places(int i, const std::string& file, std::span<const std::byte> sector) {
    const int fd = ::open((directory / std::to_string(i) / file).c_str(), O_RDONLY | O_CLOEXEC);
    std::vector<std::byte> part(4u << 20);
    std::vector<int64_t> found;
    for (off_t at = 0;;) {
      const ssize_t got = ::pread(fd, part.data(), part.size(), at);
      if (got <= 0) break;
      for (ssize_t k = 0; k + static_cast<ssize_t>(kSectorBytes) <= got; k += kSectorBytes)
        if (std::memcmp(part.data() + k, sector.data(), kSectorBytes) == 0) found.push_back(at + k);
      at += got;
    }
    ::close(fd);
    return found;
  }
  // A bit of that byte.
  void flip(int i, const std::string& file, int64_t offset) {
    const int fd = ::open((directory / std::to_string(i) / file).c_str(), O_RDWR | O_CLOEXEC);
    std::byte byte{};
    EXPECT_EQ(::pread(fd, &byte, 1, offset), 1);
    byte ^= std::byte{4};
    EXPECT_EQ(::pwrite(fd, &byte, 1, offset), 1);
    EXPECT_EQ(::fsync(fd), 0);
    ::close(fd);
  }

  // Every page of the map that the store has on its disk.
  void damage_pages(int i) {
    const int fd = ::open((directory / std::to_string(i) / "data").c_str(), O_RDWR | O_CLOEXEC);
    std::vector<std::byte> head(8u << 20);
    ASSERT_EQ(::pread(fd, head.data(), head.size(), 0), static_cast<ssize_t>(head.size()));
    int flipped = 0;
    for (size_t at = 0; at < head.size(); at += 4096) {
      if (std::memcmp(head.data() + at, "CPG1", 4) != 0) continue;
      head[at + 900] ^= std::byte{1};
      ASSERT_EQ(::pwrite(fd, head.data() + at + 900, 1, static_cast<off_t>(at + 900)), 1);
      ++flipped;
    }
    ::fsync(fd);
    ::close(fd);
    EXPECT_GT(flipped, 0);
  }

  // All servers and the client.
  void restart(VolumeId volume, Epoch epoch) {
    close_client();
    stop_servers();
    start_servers();
    open_client(volume, epoch);
  }

  void stop_servers() {
    int stopped = 0, running = 0;
    for (auto& server : servers) running += server != nullptr;
    run_until(
        [&] {
          for (auto& server : servers) {
            if (server) server->stop([&] { ++stopped; });
          }
        },
        [&] { return stopped == running; });
    for (auto& server : servers) server.reset();
  }

  // Runs `first` on the loop, then turns until `end` holds.
  void run_until(std::function<void()> first, std::function<bool()> end) {
    begin = std::move(first);
    ended = std::move(end);
    give_up_ns = 0;
    timer.fire = [](io::Timer* each) {
      Spine* self = static_cast<Spine*>(each->owner);
      if (self->begin) {
        self->give_up_ns = self->loop->now_ns() + kGiveUpNs;
        auto once = std::move(self->begin);
        self->begin = nullptr;
        once();
      }
      if (self->ended() || self->loop->now_ns() > self->give_up_ns) return self->loop->stop();
      self->loop->arm(each, self->loop->now_ns() + 1'000'000);
    };
    loop->arm(&timer, loop->now_ns());
    loop->run();
    EXPECT_TRUE(ended()) << "gave up waiting";
  }

  virtual int members_of(uint32_t) const { return replicas; }  // of a copyset: the first stores

  void form() {
    int formed = 0, wanted = 0;
    run_until(
        [&] {
          for (uint32_t c = 0; c < kCopysets; ++c) {
            const int members = members_of(c);
            replica::Genesis genesis;
            genesis.group = base::copyset_id(kPool, c);
            genesis.config.count = static_cast<uint8_t>(members);
            for (int i = 0; i < members; ++i)
              genesis.config.members[i].store = servers[i]->store_id();
            genesis.config.preferred = servers[static_cast<int>(c) % members]->store_id();
            for (int i = 0; i < members; ++i) {
              servers[i]->form(genesis, [&](Code code) { formed += code == Code::kOk; });
            }
            wanted += members;
          }
        },
        [&] { return formed == wanted && leaders() == kCopysets; });
  }

  uint32_t leaders() {
    uint32_t leading = 0;
    for (auto& server : servers) {
      if (!server) continue;
      for (const CopysetStatus& status : server->status(true).copysets)
        leading += status.role == raft::Role::kLeader;
    }
    return leading;
  }

  int leader_of(CopysetId id) {
    for (int i = 0; i < 3; ++i) {
      if (!servers[i]) continue;
      for (const CopysetStatus& status : servers[i]->status(true).copysets)
        if (status.copyset == id && status.role == raft::Role::kLeader) return i;
    }
    return -1;
  }
  ServerCounters counters(int i) { return servers[i]->status(false).counters; }

  void fence(VolumeId volume, Epoch epoch) {
    ask_everywhere([&](StoreServer& server, auto& copysets, auto done) {
      server.fence(volume, epoch, epoch, {}, copysets, std::move(done));
    });
  }
  void delete_volume(VolumeId volume) {
    ask_everywhere([&](StoreServer& server, auto& copysets, auto done) {
      server.delete_volume(volume, copysets, std::move(done));
    });
  }
  // Where somebody leads; asked again where nobody does just then.
  void ask_everywhere(const std::function<void(StoreServer&, const std::vector<CopysetId>&,
                                               std::function<void(FenceResult)>)>& ask) {
    std::set<CopysetId> left;
    for (uint32_t c = 0; c < kCopysets; ++c) left.insert(base::copyset_id(kPool, c));
    for (int round = 0; round < 100 && !left.empty(); ++round) {
      int answers = 0, asked = 0;
      const std::vector<CopysetId> wanted(left.begin(), left.end());
      run_until(
          [&] {
            for (auto& server : servers) {
              if (!server) continue;
              ++asked;
              ask(*server, wanted, [&](FenceResult result) {
                for (const CopysetId id : result.applied) left.erase(id);
                ++answers;
              });
            }
          },
          [&] { return answers == asked; });
      if (!left.empty()) run_until([] {}, [&] { return leaders() >= kCopysets; });
    }
    EXPECT_TRUE(left.empty());
  }

  void open_client(VolumeId volume, Epoch epoch) {
    client::VolumeMap map;
    map.version = 1;
    map.volume = map.placement_id = volume;
    map.size_bytes = 1ull << 30;
    map.epoch = epoch;
    map.pool = kPool;
    std::vector<uint16_t> everybody;
    for (int i = 0; i < count; ++i) {
      map.stores.push_back({servers[i]->store_id(), addresses[i]});
      everybody.push_back(static_cast<uint16_t>(i));
    }
    for (uint32_t c = 0; c < kCopysets; ++c)
      map.copysets.push_back({everybody, static_cast<uint8_t>(c % replicas)});
    client = client::VolumeClient::open(*loop, pool, map, secret);
  }

  Code io(client::IoType type, uint64_t offset, std::span<std::byte> bytes, uint64_t length = 0) {
    iovec iov{bytes.data(), bytes.size()};
    client::IoRequest request;
    request.type = type;
    request.offset_bytes = offset;
    request.bytes = length ? length : bytes.size();
    if (!bytes.empty()) request.iov = {&iov, 1};
    bool done = false;
    request.owner = &done;
    request.done = [](client::IoRequest* each) { *static_cast<bool*>(each->owner) = true; };
    run_until([&] { client->submit(&request); }, [&] { return done; });
    return request.code;
  }

  // Writes `count` pieces of 1 MiB, and 512 bytes into each of them (R14), all at once, and reads
  // them.
  void flood(size_t count) {
    struct Write : client::IoRequest {
      std::vector<std::byte> data;
      iovec part{};
    };
    std::vector<std::unique_ptr<Write>> writes;
    size_t left = 2 * count;
    auto add = [&](uint64_t offset, size_t bytes, uint32_t seed) {
      Write& write = *writes.emplace_back(std::make_unique<Write>());
      write.type = client::IoType::kWrite;
      write.data = pattern(bytes, seed);
      write.part = {write.data.data(), bytes};
      write.iov = {&write.part, 1};
      write.offset_bytes = offset;
      write.bytes = bytes;
      write.owner = &left;
      write.done = [](client::IoRequest* each) { --*static_cast<size_t*>(each->owner); };
    };
    for (uint32_t i = 0; i < count; ++i) add(i * (2ull << 20) + (1u << 20) + 512, 512, 1000 + i);
    for (uint32_t i = 0; i < count; ++i) add(i * (2ull << 20), 1u << 20, i);
    run_until(
        [&] {
          for (auto& write : writes) client->submit(write.get());
        },
        [&] { return left == 0; });
    if (left != 0) abort();  // they are still under way, and this is where they live
    for (auto& write : writes) {
      ASSERT_EQ(write->code, Code::kOk);
      std::vector<std::byte> got(write->bytes);
      ASSERT_EQ(io(client::IoType::kRead, write->offset_bytes, got), Code::kOk);
      EXPECT_TRUE(got == write->data) << "at " << write->offset_bytes;
    }
  }

  uint64_t sum(uint64_t ServerCounters::*counter) {
    uint64_t total = 0;
    for (auto& server : servers) total += server ? server->status(false).counters.*counter : 0;
    return total;
  }

  ServerOptions options;
  uint64_t data_bytes[kServersMax] = {256u << 20, 256u << 20, 256u << 20, 256u << 20};
  uint64_t wal_bytes = 64u << 20;
  uint32_t reserve_percent = 2;
  std::filesystem::path directory;
  base::BufferPool pool;
  std::unique_ptr<io::Loop> loop;
  std::vector<std::byte> secret;
  int count = 3;     // servers that start_servers() starts
  int replicas = 3;  // genesis names so many, the first
  std::unique_ptr<StoreServer> servers[kServersMax];
  io::Address addresses[kServersMax];
  std::unique_ptr<client::VolumeClient> client;
  bool client_closed = false;
  io::Timer timer;
  std::function<void()> begin;
  std::function<bool()> ended;
  uint64_t give_up_ns = 0;
};

}  // namespace curve::copyset
