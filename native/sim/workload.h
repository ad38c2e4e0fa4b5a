// A client of one volume: reads, writes, discards and write-zeroes on a small hot part of it,
// several at a time, through the production VolumeClient; every answer goes to the volume's
// RegisterChecker. Runs as a process on a client node.
//
// R12: after fenced(t) every answer counts as given at t at the latest, and a request that began
// later may only fail. Invariant: I/O fails only with kFenced / kNoVolume once a fence was begun,
// kNoSpace, or kShuttingDown; all else is a failure of the run. Thread: the world's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "native/base/buffer.h"
#include "native/client/volume_client.h"
#include "native/sim/register_checker.h"
#include "native/sim/verdict.h"
#include "native/sim/world.h"

namespace curve::sim {

struct Window {  // a hot range, in units of 512 bytes
  uint64_t first = 0, count = 0;
};

// What all attachments of one volume share.
struct VolumeHistory {
  VolumeId volume = 0;
  RegisterChecker checker;
  std::vector<Window> windows;
  std::map<Epoch, std::vector<uint64_t>>
      orphans;  // writes of dead clients that were never answered
};

struct WorkloadOptions {
  uint32_t depth = 4;
  uint64_t think_ns_max = 10 * kMillisecond;
  uint32_t halves_percent =
      0;                // R14: so many percent are 512-byte writes on odd or even parts only
  uint32_t parity = 0;  // which parts those are
  uint32_t large_percent = 10;   // so many percent are of up to a megabyte
  uint32_t zeroes_percent = 12;  // discards and write-zeroes
  client::ClientOptions client;
};

class Workload final : public Process {
 public:
  Workload(World& world, Verdict& verdict, io::Loop& loop, VolumeHistory& history,
           client::VolumeMap map, std::span<const std::byte> secret, const WorkloadOptions& options,
           std::string name);
  ~Workload() override;

  // The director has begun to fence this attachment: failures are expected from now on.
  void expect_fence() { fence_expected_ = true; }
  // The fence is applied everywhere at `now`: R12 from here on.
  void fenced(uint64_t now_ns);
  void stop_issuing() { issuing_ = false; }
  // Reads every touched unit once, and calls back; no other request may be in flight.
  void read_everything(std::function<void()> done);
  // From outside: the new map comes in as its process would get it.
  void take_map(client::VolumeMap map);
  size_t inflight() const { return inflight_; }
  bool was_fenced() const { return refused_; }
  const std::string& name() const { return name_; }
  std::string oldest() const;  // the request that waits longest, for messages

 private:
  struct Request;
  void tick();
  void arm_tick();
  void issue();
  void prepare(Request& request);
  void submit(Request& request);
  void finished(Request& request);
  void finished_write(Request& request);
  void finished_read(Request& request);
  Window pick_range(uint64_t alignment_units);
  void next_sweep();
  Request* free_request();

  World& world_;
  Verdict& verdict_;
  io::Loop& loop_;
  VolumeHistory& history_;
  WorkloadOptions options_;
  std::string name_;
  Epoch epoch_;
  Random random_;
  base::BufferPool pool_{64u << 20, base::BufferPool::Resident::kOnUse};
  std::vector<std::unique_ptr<Request>> requests_;
  std::unique_ptr<client::VolumeClient> client_;
  io::Timer timer_;
  size_t inflight_ = 0;
  bool waiting_ = false;  // the next tick comes when a request has ended
  bool issuing_ = true, fence_expected_ = false, refused_ = false;
  std::vector<uint64_t> refused_writes_;  // fenced before their attachment's fence was complete
  uint64_t fence_ns_ = kForever;
  struct MapMail : io::Mail {
    Workload* owner = nullptr;
    bool posted = false;
    client::VolumeMap map;
  } map_mail_;
  std::vector<Window> sweep_;
  std::function<void()> swept_;
};

}  // namespace curve::sim
