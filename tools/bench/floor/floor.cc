// Options, files, processes and the report of the floor. See floor.h.
//
//   curve_floor --dir DIR --op write|read|readers|writers [--depth 1] [--seconds 5]
//   [--block-size 4096] [--working-set-mib 1024] [--keep]
//
// One JSON object on standard output: system, op, block_bytes, depth, working_set_mib, seconds,
// operations, iops, mib_per_second, mean_us, p50_us, p90_us, p99_us, p999_us, max_us, cpu_us_per_io
// (of all its processes).
#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "tools/bench/floor/floor.h"

namespace curve::floor {
namespace {

constexpr int kStores = 3;
constexpr size_t kFillBytes = 4u << 20;

[[noreturn]] void usage(const std::string& why) {
  std::fprintf(
      stderr,
      "curve_floor: %s\nusage: curve_floor --dir DIR --op write|read|readers|writers [--depth N] "
      "[--seconds S] [--block-size BYTES] [--working-set-mib M] [--keep]\n",
      why.c_str());
  std::exit(2);
}

uint64_t number(const char* name, const char* text, uint64_t least, uint64_t most) {
  uint64_t value = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  if (error != std::errc() || stop != end || value < least || value > most) {
    usage(std::string("--") + name + " is a number from " + std::to_string(least) + " to " +
          std::to_string(most));
  }
  return value;
}

Options parse(int count, char** arguments) {
  static const option kOptions[] = {{"dir", required_argument, nullptr, 'd'},
                                    {"op", required_argument, nullptr, 'o'},
                                    {"depth", required_argument, nullptr, 'q'},
                                    {"seconds", required_argument, nullptr, 's'},
                                    {"block-size", required_argument, nullptr, 'b'},
                                    {"working-set-mib", required_argument, nullptr, 'w'},
                                    {"keep", no_argument, nullptr, 'k'},
                                    {nullptr, 0, nullptr, 0}};
  Options options;
  std::string op;
  for (int letter; (letter = getopt_long(count, arguments, "", kOptions, nullptr)) != -1;) {
    switch (letter) {
      case 'd':
        options.directory = optarg;
        break;
      case 'o':
        op = optarg;
        break;
      case 'q':
        options.depth = static_cast<uint32_t>(number("depth", optarg, 1, 4096));
        break;
      case 's':
        options.seconds = static_cast<uint32_t>(number("seconds", optarg, 1, 3600));
        break;
      case 'b':
        options.block_bytes = static_cast<uint32_t>(number("block-size", optarg, 4096, 1 << 20));
        break;
      case 'w':
        options.working_set_bytes = number("working-set-mib", optarg, 16, 1u << 20) << 20;
        break;
      case 'k':
        options.keep = true;
        break;
      default:
        usage("unknown option");
    }
  }
  if (options.directory.empty() || optind != count) usage("--dir is missing");
  const std::vector<std::string> names = {"write", "read", "readers", "writers"};
  const auto named = std::find(names.begin(), names.end(), op);
  if (named == names.end()) usage("--op is write, read, readers or writers");
  if (options.block_bytes % 4096 != 0) usage("--block-size is a multiple of 4096");
  options.op = static_cast<Op>(named - names.begin());
  return options;
}

std::string path_of(const Options& options, int store) {
  return options.directory + "/curve-floor-" + std::to_string(store);
}

// Written once, so that no append changes the file system's metadata.
void fill(const Options& options) {
  std::byte* memory = aligned_memory(kFillBytes);
  for (int store = 0; store < kStores; ++store) {
    const std::string path = path_of(options, store);
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    if (fd < 0) fail(path, errno);
    struct stat info {};
    if (fstat(fd, &info) != 0) fail(path, errno);
    for (uint64_t at = static_cast<uint64_t>(info.st_size) / kFillBytes * kFillBytes;
         at < options.working_set_bytes; at += kFillBytes) {
      if (pwrite(fd, memory, kFillBytes, static_cast<off_t>(at)) !=
          static_cast<ssize_t>(kFillBytes)) {
        fail("filling " + path, errno);
      }
    }
    if (fsync(fd) != 0) fail(path, errno);
    close(fd);
  }
  std::free(memory);
}

struct Link {
  int caller, served;
};

Link connected_pair() {
  const int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof name;
  auto* address = reinterpret_cast<sockaddr*>(&name);
  if (bind(listening, address, bytes) || listen(listening, 1)) fail("listen on loopback", errno);
  getsockname(listening, address, &bytes);
  Link link{};
  link.caller = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(link.caller, address, bytes) != 0) fail("connect on loopback", errno);
  link.served = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC);
  if (link.served < 0) fail("accept on loopback", errno);
  close(listening);
  return link;
}

// A process per store; each keeps only its own ends, so that it ends when its upstream does.
void start_stores(const Options& options, Link client, Link first, Link second) {
  const std::vector<int> all = {client.caller, client.served, first.caller,
                                first.served,  second.caller, second.served};
  const std::vector<std::vector<int>> own = {
      {client.served, first.caller, second.caller}, {first.served}, {second.served}};
  for (int store = 0; store < kStores; ++store) {
    const pid_t child = fork();
    if (child < 0) fail("fork", errno);
    if (child > 0) continue;
    const auto& mine = own[static_cast<size_t>(store)];
    for (int fd : all) {
      if (std::find(mine.begin(), mine.end(), fd) == mine.end()) close(fd);
    }
    run_store(options, path_of(options, store), mine[0], {mine.begin() + 1, mine.end()});
    std::_Exit(0);
  }
  for (int fd : all) {
    if (fd != client.caller) close(fd);
  }
}

double cpu_seconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// Client, leader and followers.
Measured replicated(const Options& options) {
  const Link client = connected_pair(), first = connected_pair(), second = connected_pair();
  start_stores(options, client, first, second);
  const Measured measured = run_client(options, client.caller);
  close(client.caller);
  return measured;
}

// A process per file; each leaves what it has measured in shared memory.
Measured disk_alone(const Options& options) {
  void* shared = mmap(nullptr, kStores * sizeof(Measured), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) fail("out of memory");
  auto* parts = static_cast<Measured*>(shared);
  for (int store = 0; store < kStores; ++store) {
    new (&parts[store]) Measured();
    const auto number = static_cast<uint32_t>(store);
    const uint32_t depth = options.depth / kStores + (number < options.depth % kStores ? 1 : 0);
    const pid_t child = fork();
    if (child < 0) fail("fork", errno);
    if (child > 0) continue;
    parts[store] = run_disk(options, path_of(options, store), depth, number + 1);
    std::_Exit(0);
  }
  for (int store = 0; store < kStores; ++store) {
    int status;
    if (wait(&status) < 0 || status != 0) fail("a process ended with an error");
  }
  Measured sum;
  for (int store = 0; store < kStores; ++store) {
    sum.latency.merge(parts[store].latency);
    sum.seconds = std::max(sum.seconds, parts[store].seconds);
  }
  return sum;
}

void report(const Options& options, const Measured& measured, double cpu_seconds) {
  const base::Histogram& latency = measured.latency;
  const auto operations = static_cast<double>(latency.count());
  const double per_second = operations / measured.seconds;
  const auto us = [&](double percent) {
    return static_cast<double>(latency.percentile_ns(percent)) / 1e3;
  };
  constexpr const char* kNames[] = {"write", "read", "readers", "writers"};
  std::printf(
      "{\"system\":\"curve_floor\",\"op\":\"%s\",\"block_bytes\":%u,\"depth\":%u,"
      "\"working_set_mib\":%llu,\"seconds\":%.3f,\"operations\":%.0f,\"iops\":%.1f,"
      "\"mib_per_second\":%.2f,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,"
      "\"p999_us\":%.1f,\"max_us\":%.1f,\"cpu_us_per_io\":%.2f}\n",
      kNames[static_cast<size_t>(options.op)], options.block_bytes, options.depth,
      static_cast<unsigned long long>(options.working_set_bytes >> 20), measured.seconds,
      operations, per_second, per_second * options.block_bytes / (1 << 20), latency.mean_ns() / 1e3,
      us(50), us(90), us(99), us(99.9), static_cast<double>(latency.max_ns()) / 1e3,
      cpu_seconds * 1e6 / operations);
}

int run(const Options& options) {
  fill(options);
  const double before = cpu_seconds(RUSAGE_SELF);
  const bool disk = options.op == Op::kReaders || options.op == Op::kWriters;
  const Measured measured = disk ? disk_alone(options) : replicated(options);
  bool failed = false;
  for (int status; wait(&status) > 0;) failed |= status != 0;
  if (failed) fail("a store ended with an error");
  const double cpu = cpu_seconds(RUSAGE_SELF) - before + cpu_seconds(RUSAGE_CHILDREN);
  if (!options.keep) {
    for (int store = 0; store < kStores; ++store) unlink(path_of(options, store).c_str());
  }
  report(options, measured, cpu);
  return 0;
}

}  // namespace
}  // namespace curve::floor

int main(int count, char** arguments) {
  return curve::floor::run(curve::floor::parse(count, arguments));
}
