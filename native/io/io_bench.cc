// What the seam costs, beside the plainest code that does the same: turns of an empty loop, a
// ping-pong over loopback, durable 4 KiB writes, and the floor's replicated write
// (io_bench_replicate.cc). One JSON object per line. Not a test.
//
//   io_bench turns SECONDS
//   io_bench echo loop|blocking SECONDS
//   io_bench disk DIR loop|blocking SECONDS
//   io_bench replicate DIR write|read DEPTH SECONDS [GIB]
#include "native/io/io_bench.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

namespace curve::io {

[[noreturn]] void bench_fail(const std::string& why) {
  std::fprintf(stderr, "io_bench: %s\n", why.c_str());
  std::exit(1);
}

std::unique_ptr<Loop> bench_loop() {
  auto loop = make_loop();
  if (!loop) bench_fail(loop.error().message);
  return std::move(*loop);
}

double cpu_seconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

uint64_t bench_now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

void bench_report(const std::string& what, const base::Histogram& latency, double seconds,
                  double cpu) {
  const auto count = static_cast<double>(latency.count());
  std::printf(
      "{\"bench\":\"%s\",\"iops\":%.0f,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
      "\"p999_us\":%.1f,\"cpu_us_per_io\":%.2f}\n",
      what.c_str(), count / seconds, latency.mean_ns() / 1e3, latency.percentile_ns(50) / 1e3,
      latency.percentile_ns(99) / 1e3, latency.percentile_ns(99.9) / 1e3, cpu * 1e6 / count);
}

namespace {

// --- turns ---

void bench_turns(uint64_t seconds) {
  auto loop = bench_loop();
  struct Tick : Timer {
    Loop* loop;
    uint64_t turns = 0, end_ns = 0;
  } tick;
  tick.loop = loop.get();
  tick.fire = [](Timer* timer) {
    auto* self = static_cast<Tick*>(timer);
    ++self->turns;
    if (self->loop->now_ns() < self->end_ns) return self->loop->arm(self, 0);
    self->loop->stop();
  };
  tick.end_ns = loop->now_ns() + seconds * 1'000'000'000;
  loop->arm(&tick, 0);
  loop->run();
  std::printf("{\"bench\":\"turns\",\"turns_per_second\":%.0f,\"ns_per_turn\":%.0f}\n",
              static_cast<double>(tick.turns) / static_cast<double>(seconds),
              static_cast<double>(seconds) * 1e9 / static_cast<double>(tick.turns));
}

// --- echo ---

constexpr size_t kMessageBytes = 64;

// Either end of the ping-pong: what is received whole is sent back.
struct Player : Listener {
  Player(Loop* loop, uint64_t end_ns) : loop(loop), end_ns(end_ns) {
    connecting.owner = receive.owner = send.owner = this;
    connecting.done = [](Op* op) {
      auto* self = static_cast<Player*>(op->owner);
      if (op->result != 0) bench_fail("cannot connect");
      self->stream = self->connecting.stream;
      self->serve();
    };
    receive.done = [](Op* op) { static_cast<Player*>(op->owner)->received(); };
    send.done = [](Op*) {};
  }
  void accepted(Stream* new_stream) override {
    stream = new_stream;
    stream->receive(&receive, buffer, true);
  }
  void serve() {
    sent_ns = bench_now_ns();
    part = {buffer, kMessageBytes};
    stream->send(&send, {&part, 1});
    stream->receive(&receive, buffer, true);
  }
  void received() {
    if (receive.result <= 0) return loop->stop();
    if (sent_ns) {
      const uint64_t now = bench_now_ns();
      latency.record(now - sent_ns);
      if (now > end_ns) return loop->stop();
      return serve();
    }
    part = {buffer, kMessageBytes};
    stream->send(&send, {&part, 1});
    stream->receive(&receive, buffer, true);
  }
  Loop* loop;
  uint64_t end_ns, sent_ns = 0;
  ConnectOp connecting;
  Op receive, send;
  Stream* stream = nullptr;
  std::byte buffer[kMessageBytes];
  iovec part{};
  base::Histogram latency;
};

void play_blocking(int fd, bool serve, uint64_t end_ns, base::Histogram* latency) {
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  char buffer[kMessageBytes] = {};
  while (!serve || bench_now_ns() < end_ns) {
    const uint64_t start = bench_now_ns();
    if (serve && send(fd, buffer, sizeof buffer, MSG_NOSIGNAL) <= 0) break;
    if (recv(fd, buffer, sizeof buffer, MSG_WAITALL) <= 0) break;
    if (serve) latency->record(bench_now_ns() - start);
    if (!serve && send(fd, buffer, sizeof buffer, MSG_NOSIGNAL) <= 0) break;
  }
  close(fd);
}

void echo_blocking(uint64_t end_ns, base::Histogram* latency) {
  const int listening = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof name;
  auto* address = reinterpret_cast<sockaddr*>(&name);
  if (bind(listening, address, bytes) || listen(listening, 1)) bench_fail("cannot listen");
  getsockname(listening, address, &bytes);
  if (fork() == 0) {
    play_blocking(accept(listening, nullptr, nullptr), false, 0, nullptr);
    _exit(0);
  }
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, address, bytes)) bench_fail("cannot connect");
  play_blocking(fd, true, end_ns, latency);
}

void echo_loop(uint64_t end_ns, base::Histogram* latency) {
  int tell[2];
  if (pipe(tell) != 0) bench_fail("pipe");
  if (fork() == 0) {
    auto loop = bench_loop();
    Player player(loop.get(), 0);
    auto bound = loop->listen({"127.0.0.1:0"}, &player);
    if (!bound) bench_fail(bound.error().message);
    char text[64] = {};
    bound->text.copy(text, sizeof text - 1);
    if (write(tell[1], text, sizeof text) < 0) bench_fail("pipe");
    loop->run();
    _exit(0);
  }
  char text[64] = {};
  if (read(tell[0], text, sizeof text) <= 0) bench_fail("pipe");
  auto loop = bench_loop();
  Player player(loop.get(), end_ns);
  loop->connect(&player.connecting, {text});
  loop->run();
  player.stream->close();
  *latency = player.latency;
}

void bench_echo(const std::string& how, uint64_t seconds) {
  base::Histogram latency;
  const double before = cpu_seconds(RUSAGE_SELF);
  const uint64_t end_ns = bench_now_ns() + seconds * 1'000'000'000;
  how == "loop" ? echo_loop(end_ns, &latency) : echo_blocking(end_ns, &latency);
  while (wait(nullptr) > 0) {
  }
  const double cpu = cpu_seconds(RUSAGE_SELF) - before + cpu_seconds(RUSAGE_CHILDREN);
  bench_report("echo " + how, latency, static_cast<double>(seconds), cpu);
}

// --- disk ---

constexpr uint64_t kDiskBytes = 256u << 20;

struct Writer : FileOp {
  Loop* loop;
  File* file;
  uint64_t end_ns, start_ns;
  base::Histogram latency;
  void go() {
    start_ns = bench_now_ns();
    offset_bytes = (offset_bytes + 4096) % kDiskBytes;
    file->write(this);
  }
};

void disk_loop(Loop* loop, File* file, iovec part, uint64_t end_ns, base::Histogram* latency) {
  Writer writer;
  writer.loop = loop;
  writer.file = file;
  writer.end_ns = end_ns;
  writer.iov = {&part, 1};
  writer.durable = true;
  writer.done = [](Op* op) {
    auto* self = static_cast<Writer*>(op);
    if (self->result != 4096) bench_fail("write failed");
    const uint64_t now = bench_now_ns();
    self->latency.record(now - self->start_ns);
    now < self->end_ns ? self->go() : self->loop->stop();
  };
  writer.go();
  loop->run();
  *latency = writer.latency;
}

void disk_blocking(const std::string& path, iovec part, uint64_t end_ns, base::Histogram* latency) {
  const int fd = open(path.c_str(), O_RDWR | O_DIRECT);
  if (fd < 0) bench_fail(path);
  uint64_t offset = 0;
  for (uint64_t now = bench_now_ns(); now < end_ns;) {
    const uint64_t start = now;
    offset = (offset + 4096) % kDiskBytes;
    if (pwritev2(fd, &part, 1, static_cast<off_t>(offset), RWF_DSYNC) != 4096) {
      bench_fail("write failed");
    }
    now = bench_now_ns();
    latency->record(now - start);
  }
  close(fd);
}

void bench_disk(const std::string& directory, const std::string& how, uint64_t seconds) {
  auto loop = bench_loop();
  const std::string path = directory + "/io_bench_disk";
  auto file = File::open(*loop, path, {.create = true, .lock = false});
  if (!file) bench_fail(file.error().message);
  if (file->size_bytes() != kDiskBytes && file->allocate_zeroed_sync(kDiskBytes) != 0) {
    bench_fail("cannot fill " + path);
  }
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, 4096));
  std::memset(memory, 7, 4096);
  base::Histogram latency;
  const double before = cpu_seconds(RUSAGE_SELF);
  const uint64_t end_ns = bench_now_ns() + seconds * 1'000'000'000;
  const iovec part{memory, 4096};
  how == "loop" ? disk_loop(loop.get(), &*file, part, end_ns, &latency)
                : disk_blocking(path, part, end_ns, &latency);
  bench_report("disk " + how, latency, static_cast<double>(seconds),
               cpu_seconds(RUSAGE_SELF) - before);
  std::free(memory);
}

}  // namespace
}  // namespace curve::io

int main(int count, char** arguments) {
  using namespace curve::io;
  const std::vector<std::string> a(arguments + 1, arguments + count);
  const std::string what = a.empty() ? "" : a[0];
  if (what == "turns" && a.size() == 2) {
    bench_turns(std::stoull(a[1]));
  } else if (what == "echo" && a.size() == 3) {
    bench_echo(a[1], std::stoull(a[2]));
  } else if (what == "disk" && a.size() == 4) {
    bench_disk(a[1], a[2], std::stoull(a[3]));
  } else if (what == "replicate" && (a.size() == 5 || a.size() == 6)) {
    bench_replicate({.directory = a[1],
                     .read = a[2] == "read",
                     .depth = static_cast<uint32_t>(std::stoul(a[3])),
                     .seconds = std::stoull(a[4]),
                     .file_bytes = (a.size() == 6 ? std::stoull(a[5]) : 1) << 30});
  } else {
    std::fprintf(stderr, "usage: see the head of native/io/io_bench.cc\n");
    return 2;
  }
  return 0;
}
