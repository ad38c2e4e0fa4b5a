// The floor's pattern on the seam: a client, a leader and two followers, each a process with one
// loop. A write is a header and a block; the leader appends it to its own file and forwards it; two
// appends of three answer it. What arrives in one turn is one append and one send per connection.
// Compare its CPU per operation with curve_floor's.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "native/io/io_bench.h"

namespace curve::io {
namespace {

constexpr size_t kBlock = 4096;
constexpr size_t kConnectionBytes = 1u << 20;
constexpr size_t kGroupMax = 128;
constexpr size_t kGroups = 2;
constexpr uint32_t kWrite = 1, kRead = 2, kAcknowledge = 3, kData = 4;

struct Header {
  uint32_t kind, id;
  uint64_t offset;
  char room[48];
};
static_assert(sizeof(Header) == 64);

std::byte* memory_of(size_t bytes) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, bytes));
  std::memset(memory, 9, bytes);
  return memory;
}

// Frames over a stream: one receive into a large buffer and one send of everything queued, at most,
// at a time.
class Channel {
 public:
  using OnFrame = void (*)(void* owner, Channel* from, const Header& header,
                           const std::byte* block);
  Channel(Loop* loop, Stream* stream, void* owner, OnFrame on_frame)
      : loop_(loop), stream_(stream), owner_(owner), on_frame_(on_frame) {
    receiving_.owner = sending_.owner = this;
    receiving_.done = [](Op* op) { static_cast<Channel*>(op->owner)->received(); };
    sending_.done = [](Op* op) {
      auto* self = static_cast<Channel*>(op->owner);
      if (op->result < 0) self->loop_->stop();
      self->busy_ = false;
    };
    in_ = memory_of(kConnectionBytes);
    queued_ = memory_of(kConnectionBytes);
    leaving_ = memory_of(kConnectionBytes);
    receive();
  }
  void put(uint32_t kind, uint32_t id, uint64_t offset, const std::byte* block) {
    const size_t bytes = sizeof(Header) + (block ? kBlock : 0);
    if (queued_bytes_ + bytes > kConnectionBytes) bench_fail("the send buffer is full");
    Header header{};
    header.kind = kind;
    header.id = id;
    header.offset = offset;
    std::memcpy(queued_ + queued_bytes_, &header, sizeof header);
    if (block) std::memcpy(queued_ + queued_bytes_ + sizeof header, block, kBlock);
    queued_bytes_ += bytes;
  }
  void flush() {  // at the end of a turn
    if (busy_ || queued_bytes_ == 0) return;
    std::swap(queued_, leaving_);
    part_ = {leaving_, queued_bytes_};
    queued_bytes_ = 0;
    busy_ = true;
    stream_->send(&sending_, {&part_, 1});
  }

 private:
  void receive() {
    stream_->receive(&receiving_, {in_ + in_bytes_, kConnectionBytes - in_bytes_}, false);
  }
  void received() {
    if (receiving_.result <= 0) return loop_->stop();
    in_bytes_ += static_cast<size_t>(receiving_.result);
    size_t at = 0;
    while (in_bytes_ - at >= sizeof(Header)) {
      const auto& header = *reinterpret_cast<const Header*>(in_ + at);
      const bool has_block = header.kind == kWrite || header.kind == kData;
      const size_t bytes = sizeof header + (has_block ? kBlock : 0);
      if (in_bytes_ - at < bytes) break;
      on_frame_(owner_, this, header, in_ + at + sizeof header);
      at += bytes;
    }
    std::memmove(in_, in_ + at, in_bytes_ - at);
    in_bytes_ -= at;
    receive();
  }
  Loop* loop_;
  Stream* stream_;
  void* owner_;
  OnFrame on_frame_;
  Op receiving_, sending_;
  std::byte *in_, *queued_, *leaving_;
  size_t in_bytes_ = 0, queued_bytes_ = 0;
  iovec part_{};
  bool busy_ = false;
};

struct Store : Listener {
  struct Request : FileOp {
    Store* store;
    Channel* from;
    uint32_t id, index;
    int appends_missing;  // until it is answered
    int references;       // until the slot is free
    std::byte* block;
    iovec part;
  };
  struct Group : FileOp {
    Store* store;
    bool busy = false;
    std::vector<Request*> members;
    std::vector<iovec> parts;
  };

  Store(Loop* loop, File* file, uint64_t file_bytes)
      : loop(loop), file(file), file_bytes(file_bytes) {
    for (Group& group : groups) {
      group.store = this;
      group.done = [](Op* op) {
        static_cast<Group*>(op)->store->appended(static_cast<Group*>(op));
      };
    }
    hook.owner = this;
    hook.run = [](TurnHook* h) { static_cast<Store*>(h->owner)->end_turn(); };
    loop->add_turn_hook(&hook);
  }
  void accepted(Stream* stream) override { upstream = new_channel(stream); }
  Channel* new_channel(Stream* stream) {
    return new Channel(
        loop, stream, this,
        [](void* owner, Channel* from, const Header& header, const std::byte* block) {
          static_cast<Store*>(owner)->frame(from, header, block);
        });
  }
  Request* take() {
    if (free_requests.empty()) {
      Request& request = requests.emplace_back();
      request.store = this;
      request.index = static_cast<uint32_t>(requests.size() - 1);
      request.block = memory_of(kBlock);
      free_requests.push_back(&request);
    }
    Request* request = free_requests.back();
    free_requests.pop_back();
    return request;
  }
  void release(Request* request) {
    if (--request->references == 0) free_requests.push_back(request);
  }
  void one_append_more(Request* request) {
    if (--request->appends_missing == 0) request->from->put(kAcknowledge, request->id, 0, nullptr);
    release(request);
  }
  void frame(Channel* from, const Header& header, const std::byte* block) {
    if (header.kind == kAcknowledge) return one_append_more(&requests[header.id]);
    Request* request = take();
    request->from = from;
    request->id = header.id;
    if (header.kind == kRead) return read(request, header.offset);
    request->appends_missing = followers.empty() ? 1 : 2;
    request->references = 1 + static_cast<int>(followers.size());
    std::memcpy(request->block, block, kBlock);
    waiting.push_back(request);
    for (Channel* follower : followers) {
      follower->put(kWrite, request->index, header.offset, request->block);
    }
  }
  void read(Request* request, uint64_t offset) {
    request->references = 1;
    request->part = {request->block, kBlock};
    request->iov = {&request->part, 1};
    request->offset_bytes = offset % file_bytes;
    request->done = [](Op* op) {
      auto* self = static_cast<Request*>(op);
      if (op->result != static_cast<int32_t>(kBlock)) bench_fail("read failed");
      self->from->put(kData, self->id, 0, self->block);
      self->store->release(self);
    };
    file->read(request);
  }
  void append_waiting() {
    for (Group& group : groups) {
      if (waiting.empty()) return;
      if (group.busy) continue;
      const size_t count =
          std::min({waiting.size(), kGroupMax, static_cast<size_t>((file_bytes - tail) / kBlock)});
      group.members.assign(waiting.begin(), waiting.begin() + static_cast<long>(count));
      waiting.erase(waiting.begin(), waiting.begin() + static_cast<long>(count));
      group.parts.clear();
      for (Request* request : group.members) group.parts.push_back({request->block, kBlock});
      group.iov = group.parts;
      group.offset_bytes = tail;
      group.durable = true;
      group.busy = true;
      tail = (tail + count * kBlock) % file_bytes;
      file->write(&group);
    }
  }
  void appended(Group* group) {
    if (group->result < 0) bench_fail("append failed");
    group->busy = false;
    for (Request* request : group->members) one_append_more(request);
  }
  void end_turn() {
    append_waiting();
    if (upstream) upstream->flush();
    for (Channel* follower : followers) follower->flush();
  }

  Loop* loop;
  File* file;
  uint64_t file_bytes, tail = 0;
  Channel* upstream = nullptr;
  std::vector<Channel*> followers;
  std::deque<Request> requests;
  std::vector<Request*> free_requests, waiting;
  Group groups[kGroups];
  TurnHook hook;
};

Stream* connect_now(Loop* loop, const std::string& address) {
  for (int attempt = 0; attempt < 500; ++attempt) {
    ConnectOp op;
    op.owner = loop;
    op.done = [](Op* done) { static_cast<Loop*>(done->owner)->stop(); };
    loop->connect(&op, {address});
    loop->run();
    if (op.result == 0) return op.stream;
    usleep(10000);
  }
  bench_fail("cannot connect to " + address);
}

void run_store(const ReplicateOptions& options, int number,
               const std::vector<std::string>& addresses) {
  auto loop = bench_loop();
  const std::string path = options.directory + "/log" + std::to_string(number);
  auto file = File::open(*loop, path, {.lock = false});
  if (!file) bench_fail(file.error().message);
  Store store(loop.get(), &*file, options.file_bytes);
  auto bound = loop->listen({addresses[static_cast<size_t>(number)]}, &store);
  if (!bound) bench_fail(bound.error().message);
  for (size_t i = 1; number == 0 && i < addresses.size(); ++i) {
    store.followers.push_back(store.new_channel(connect_now(loop.get(), addresses[i])));
  }
  loop->run();
}

struct Client {
  Client(Loop* loop, const ReplicateOptions& options, const std::string& leader)
      : options(options), loop(loop), started(options.depth), block(memory_of(kBlock)) {
    channel = new Channel(loop, connect_now(loop, leader), this,
                          [](void* owner, Channel*, const Header& header, const std::byte*) {
                            static_cast<Client*>(owner)->answered(header.id);
                          });
    hook.owner = this;
    hook.run = [](TurnHook* h) { static_cast<Client*>(h->owner)->channel->flush(); };
    loop->add_turn_hook(&hook);
    end_ns = bench_now_ns() + options.seconds * 1'000'000'000;
    for (uint32_t i = 0; i < options.depth; ++i) issue(i);
  }
  void issue(uint32_t id) {
    started[id] = bench_now_ns();
    ++inflight;
    const uint64_t offset = loop->random_u64() % (options.file_bytes / kBlock) * kBlock;
    channel->put(options.read ? kRead : kWrite, id, offset, options.read ? nullptr : block);
  }
  void answered(uint32_t id) {
    const uint64_t now = bench_now_ns();
    latency.record(now - started[id]);
    --inflight;
    if (now < end_ns) issue(id);
    if (inflight == 0) loop->stop();
  }
  const ReplicateOptions& options;
  Loop* loop;
  std::vector<uint64_t> started;
  std::byte* block;
  Channel* channel;
  TurnHook hook;
  uint64_t end_ns = 0, inflight = 0;
  base::Histogram latency;
};

void fill(const ReplicateOptions& options) {
  auto loop = bench_loop();
  for (int i = 0; i < 3; ++i) {
    const std::string path = options.directory + "/log" + std::to_string(i);
    auto file = File::open(*loop, path, {.create = true});
    if (!file) bench_fail(file.error().message);
    if (file->size_bytes() >= options.file_bytes) continue;
    if (file->allocate_zeroed_sync(options.file_bytes) != 0) bench_fail("cannot fill " + path);
  }
}

}  // namespace

void bench_replicate(const ReplicateOptions& options) {
  fill(options);
  const double filled = cpu_seconds(RUSAGE_SELF);
  std::vector<std::string> addresses;
  for (int i = 0; i < 3; ++i) {
    addresses.push_back("127.0.0.1:" + std::to_string(20000 + getpid() % 20000 + i));
  }
  std::vector<pid_t> children;
  for (int i = 2; i >= 0; --i) {
    const pid_t child = fork();
    if (child == 0) {
      run_store(options, i, addresses);
      _exit(0);
    }
    children.push_back(child);
  }
  auto loop = bench_loop();
  Client client(loop.get(), options, addresses[0]);
  const uint64_t start = bench_now_ns();
  loop->run();
  const double seconds = static_cast<double>(bench_now_ns() - start) / 1e9;
  for (pid_t child : children) kill(child, SIGTERM);
  while (wait(nullptr) > 0) {
  }
  const double cpu = cpu_seconds(RUSAGE_SELF) - filled + cpu_seconds(RUSAGE_CHILDREN);
  bench_report(
      std::string(options.read ? "read" : "write") + " depth " + std::to_string(options.depth),
      client.latency, seconds, cpu);
}

}  // namespace curve::io
