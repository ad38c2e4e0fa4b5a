// Where the writes of one volume spend their time, stage by stage, on the store that leads. For a
// bounded time, because somebody asked; while nobody does, it costs a null pointer that is looked
// at once a turn and once an answer.
//
// Owns: the writes of the volume that are under way, and what came of the others. The times are
// those of the loop's turns in which something was seen. What the client knows (its own queue, the
// way there and back) it sends behind each answer that asks for it (FrameType::kTrace). Memory is
// bounded: writes beyond kAwaitedMax whose client's part has not come are counted without it.
// Thread: the loop's.
#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "native/base/histogram.h"
#include "native/copyset/store_server.h"

namespace curve::wire {
struct TraceBody;
}

namespace curve::copyset {

struct Request;

class Trace {
 public:
  Trace(io::Loop& loop, const StoreId& self, const TraceRequest& request,
        std::function<void(TraceReport)> done);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  bool wants(const Request& request) const;
  void proposed(Request* request);
  // Once a turn, when what arrived in it has been handed to raft.
  void look();
  // Every proposed() one: it is being answered (its client is told to send its part), or given up.
  void answered(const Request& request, const StoreId& client);
  void forget(Request* request);
  void client_part(const StoreId& client, uint64_t tag, const wire::TraceBody& body);
  // Its time is over, or it must end now: `done` runs, which ends this object.
  void finish();

 private:
  struct Key {
    StoreId client;
    uint64_t tag = 0;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const { return mix64(key.tag + key.client.bytes[0]); }
  };
  static constexpr size_t kAwaitedMax = 8192;
  void record(TraceStage stage, uint64_t from_ns, uint64_t to_ns);

  io::Loop& loop_;
  StoreId self_;
  TraceReport report_;
  io::Timer end_;
  std::vector<Request*> open_;
  // From frame to answer here; their clients' part is to come.
  std::unordered_map<Key, uint64_t, KeyHash> awaited_;
  std::function<void(TraceReport)> done_;
};

}  // namespace curve::copyset
