// The client of the floor: `depth` operations in flight at random offsets, each timed. See floor.h.
#include <random>

#include "tools/bench/floor/floor.h"

namespace curve::floor {
namespace {

class Client {
 public:
  Client(const Options& options, int leader_fd)
      : options_(options),
        leader_(&ring_, leader_fd, options.block_bytes, this,
                [](void* owner, Peer*, const Header& header, const std::byte*) {
                  static_cast<Client*>(owner)->answered(header.id);
                }),
        started_ns_(options.depth),
        block_(aligned_memory(options.block_bytes)) {}

  Measured run() {
    const uint64_t start_ns = now_ns();
    end_ns_ = start_ns + options_.seconds * uint64_t{1'000'000'000};
    for (uint32_t id = 0; id < options_.depth; ++id) issue(id, start_ns);
    leader_.flush();
    while (in_flight_ > 0) {
      ring_.turn();
      if (leader_.closed()) fail("the leader closed the connection");
      leader_.flush();
    }
    return {latency_, static_cast<double>(now_ns() - start_ns) / 1e9};
  }

 private:
  void issue(uint32_t id, uint64_t now) {
    const uint64_t blocks = options_.working_set_bytes / options_.block_bytes;
    started_ns_[id] = now;
    ++in_flight_;
    const bool read = options_.op == Op::kRead;
    leader_.put(read ? Kind::kRead : Kind::kWrite, id, random_() % blocks * options_.block_bytes,
                read ? nullptr : block_);
  }
  void answered(uint32_t id) {
    const uint64_t now = now_ns();
    latency_.record(now - started_ns_[id]);
    --in_flight_;
    if (now < end_ns_) issue(id, now);
  }

  const Options& options_;
  Ring ring_;
  Peer leader_;
  std::vector<uint64_t> started_ns_;
  std::byte* block_;
  std::mt19937_64 random_{1};
  uint64_t end_ns_ = 0, in_flight_ = 0;
  base::Histogram latency_;
};

}  // namespace

Measured run_client(const Options& options, int leader_fd) {
  return Client(options, leader_fd).run();
}

}  // namespace curve::floor
