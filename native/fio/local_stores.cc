// Three chunkserver cores as processes without any control plane, for the test of the fio engine
// and for measuring the data path alone: local_stores DIR [DATA_GIB [VOLUME_GIB [WAL_MIB]]]. Forms
// 64 copysets, admits volume 1 at epoch 1, writes DIR/secret and DIR/map, prints "ready" and the
// pids, and runs until its standard input ends. Test code only.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/base/hmac.h"
#include "native/base/placement.h"
#include "native/copyset/store_server.h"

namespace {

using namespace curve;
constexpr uint32_t kStores = 3, kPool = 1, kCopysets = 64;
constexpr VolumeId kVolume = 1;

struct Child {
  pid_t pid = 0;
  int up[2], down[2];  // pipes
  std::string address;
};

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "local_stores: %s\n", what.c_str());
  _exit(1);
}

StoreId store_id(uint32_t number) {
  StoreId id;
  id.bytes.fill(static_cast<uint8_t>(number + 1));
  return id;
}

std::string read_line(int fd) {
  std::string line;
  char byte;
  while (read(fd, &byte, 1) == 1 && byte != '\n') line.push_back(byte);
  return line;
}

void write_line(int fd, const std::string& line) {
  const std::string text = line + "\n";
  if (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) die("pipe");
}

// Fences the volume in where this store leads, again and again until it has been everywhere.
struct Admission {
  io::Loop* loop;
  copyset::StoreServer* server;
  std::vector<CopysetId> pending;
  io::Timer timer;
  void begin() {
    for (uint32_t c = 0; c < kCopysets; ++c) pending.push_back(base::copyset_id(kPool, c));
    timer.owner = this;
    timer.fire = [](io::Timer* t) { static_cast<Admission*>(t->owner)->step(); };
    loop->arm(&timer, loop->now_ns() + 500'000'000);
  }
  void step() {
    server->fence(kVolume, 1, 1, {}, pending, [this](copyset::FenceResult result) {
      pending = std::move(result.not_leader);
      if (!pending.empty()) loop->arm(&timer, loop->now_ns() + 300'000'000);
    });
  }
};

[[noreturn]] void run_store(uint32_t number, const std::string& directory, uint64_t data_bytes,
                            uint64_t wal_bytes, const std::vector<std::byte>& secret, Child& self) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto loop = io::make_loop();
  if (!loop) die(loop.error().message);
  static base::BufferPool pool;
  copyset::StoreServer::prepare(pool);
  const std::string path = directory + "/" + std::to_string(number);
  const auto paths = copyset::StorePaths::in(path);
  if (!std::filesystem::exists(paths.wal)) {
    std::filesystem::create_directories(path);
    copyset::StoreFormat format;
    format.store = store_id(number);
    format.cluster.bytes.fill(9);
    format.data_bytes = data_bytes;
    format.wal_bytes = wal_bytes;
    if (auto made = copyset::StoreServer::format(**loop, paths, format); !made)
      die(made.error().message);
  }
  auto server = copyset::StoreServer::open(**loop, pool, paths, secret, {});
  if (!server) die(server.error().message);
  auto bound = (*server)->listen({"127.0.0.1:0"});
  if (!bound) die(bound.error().message);
  write_line(self.up[1], bound->text);
  for (uint32_t i = 0; i < kStores; ++i)
    (*server)->set_peer(store_id(i), {read_line(self.down[0])});
  (*server)->start();
  for (uint32_t c = 0; c < kCopysets; ++c) {
    replica::Genesis genesis;
    genesis.group = base::copyset_id(kPool, c);
    genesis.config.count = kStores;
    for (uint32_t i = 0; i < kStores; ++i) genesis.config.members[i].store = store_id(i);
    genesis.config.preferred = store_id(c % kStores);
    (*server)->form(genesis, [](Code) {});
  }
  Admission admission{loop->get(), server->get(), {}, {}};
  admission.begin();
  (*loop)->run();
  _exit(0);
}

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

std::vector<std::byte> encode_map(const std::vector<Child>& children, uint64_t volume_bytes) {
  std::vector<std::byte> out;
  base::Writer w(out);
  w.raw(std::as_bytes(std::span("CVMP", 4)));
  w.put<uint16_t>(1);
  w.put<uint16_t>(0);
  w.put<uint32_t>(76 + kStores * 36 + kCopysets * 16 + 4);
  w.put<uint64_t>(1);  // version
  w.put<uint64_t>(kVolume);
  w.put<uint64_t>(kVolume);  // placement
  w.put<uint64_t>(volume_bytes);
  w.put<uint64_t>(1);  // epoch
  w.put<uint32_t>(kChunkBytes);
  w.put<uint32_t>(1);
  w.put<uint32_t>(kCopysets);
  w.put<uint32_t>(kStores);
  w.put<uint64_t>(kPool);
  for (uint32_t i = 0; i < kStores; ++i) {
    const std::string& address = children[i].address;
    w.put(store_id(i));
    w.put<uint16_t>(static_cast<uint16_t>(std::stoul(address.substr(address.rfind(':') + 1))));
    w.put<uint8_t>(4);
    w.put<uint8_t>(0);
    const uint8_t loopback[16] = {127, 0, 0, 1};
    w.put(loopback);
  }
  for (uint32_t c = 0; c < kCopysets; ++c) {
    w.put<uint8_t>(kStores);
    w.put<uint8_t>(c % kStores);
    for (uint16_t i = 0; i < kReplicasMax; ++i) w.put<uint16_t>(i < kStores ? i : 0xffff);
  }
  w.put(base::crc32c(out));
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) die("usage: local_stores DIR [DATA_GIB [VOLUME_GIB [WAL_MIB]]]");
  const std::string directory = argv[1];
  const uint64_t data_bytes = (argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 4) << 30;
  const uint64_t wal_bytes = argc > 4 ? std::strtoull(argv[4], nullptr, 10) << 20 : data_bytes / 8;
  const uint64_t volume_bytes = (argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 2) << 30;
  std::filesystem::create_directories(directory);
  std::vector<std::byte> secret(32, std::byte{0x5a});
  std::string text;
  for (std::byte b : secret) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", static_cast<unsigned>(b));
    text += digits;
  }
  write_file(directory + "/secret", std::as_bytes(std::span(text)));
  std::vector<Child> children(kStores);
  for (uint32_t i = 0; i < kStores; ++i) {
    Child& child = children[i];
    if (pipe(child.up) != 0 || pipe(child.down) != 0) die("pipe");
    child.pid = fork();
    if (child.pid == 0) run_store(i, directory, data_bytes, wal_bytes, secret, child);
    close(child.up[1]);
    close(child.down[0]);
  }
  for (Child& child : children) {
    child.address = read_line(child.up[0]);
    if (child.address.empty()) die("a store did not start");
  }
  for (Child& child : children) {
    for (const Child& peer : children) write_line(child.down[1], peer.address);
  }
  write_file(directory + "/map", encode_map(children, volume_bytes));
  std::printf("ready %d %d %d\n", children[0].pid, children[1].pid, children[2].pid);
  std::fflush(stdout);
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  for (const Child& child : children) kill(child.pid, SIGKILL);
  for (const Child& child : children) waitpid(child.pid, nullptr, 0);
  return 0;
}
