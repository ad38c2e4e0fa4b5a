// The background step: moves what is committed from the WAL to its place in the chunk store, makes
// a checkpoint, lets the WAL go. A pass: freeze the overlay (the cut: applied indexes, fences,
// replay position) -> commits durable (R6) -> blocks, a window of the log after the other, in each
// in address order -> checkpoint (data, pages, root; R5) -> WAL anchor (R7). It begins when the
// store has become idle, when much has come, or at the latest after a while. Nothing waits for it
// but space. One loop thread; bounded work in flight; no allocation per block in steady state.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "native/copyset/log_window.h"
#include "native/copyset/server_state.h"

namespace curve::copyset {

class Background {
 public:
  explicit Background(StoreServer::State& server);
  ~Background();
  void start();
  void stop();  // starts no new pass; a running one goes on until idle() (or the loop is abandoned)
  bool idle() const { return !running_; }
  void applied();       // something was applied: a pass is due some time
  void pressed();       // room is wanted in the WAL or the store: a pass is due now
  bool admits() const;  // a write, as far as the pass that runs has come
  void run_now(std::function<void(Code)> done);
  uint64_t cut_position() const { return cut_position_; }
  // Of the log, since the cut of the last pass that ended well; 0 when no block waits for its
  // place.
  uint64_t undrained_bytes() const;

 private:
  struct Job;
  void on_timer();
  void arm();
  bool may_begin() const { return !running_ && !stopping_ && !failed_; }
  double log_bytes() const;
  double came() const;
  bool much_came(double share) const;
  void begin();
  void add_work(Copyset& copyset, const Overlay::FrozenBlock& block);
  void order_work();
  void after_commits(Code code);
  uint32_t blocks_at_a_time() const;
  void next_blocks();
  void next_window();
  bool start_job(Job* job, int32_t* result);
  void read_blocks(Job* job);
  void end_fresh(Job* job);
  void block_read_done(Job* job);
  void job_read_done(Job* job);
  void write_job(Job* job);
  void job_done(Job* job, int32_t result);
  void end_job(Job* job, int32_t result);
  void checkpoint();
  void checkpointed(int32_t result);
  void release_wal();
  void finish(Code code);

  // A block, or what of it stands in one window of the log.
  struct Work {
    Copyset* copyset;
    Overlay::FrozenBlock block;
    uint64_t window;  // of the log
    uint16_t data;    // sectors
    bool last;        // of the block
  };
  StoreServer::State& server_;
  std::vector<Work> work_, ordered_;
  std::vector<size_t> ends_;  // of windows, in work_
  size_t next_work_ = 0,
         window_end_ = 0;  // of work_: done so far; what is loaded, or needs nothing
  LogWindow window_;
  const uint64_t window_bytes_;
  std::vector<uint64_t> positions_;
  bool loading_ = false;
  std::vector<std::unique_ptr<Job>> jobs_;
  std::vector<Job*> free_jobs_;
  uint32_t jobs_running_ = 0;
  std::map<CopysetId, Index> cut_applied_;
  std::vector<chunkstore::GroupBlob> blobs_;
  uint64_t cut_position_ = 0, last_cut_head_ = 0, drained_head_ = 0;
  uint64_t cut_room_ = 0;  // in the WAL, for writes, at the last cut
  uint64_t last_cut_placed_ = 0;
  uint64_t dirty_since_ns_ = 0, applied_ns_ = 0, begun_ns_ = 0;
  bool running_ = false, dirty_ = false, stopping_ = false, failed_ = false;
  std::vector<std::function<void(Code)>> waiting_;    // for the pass that runs
  std::vector<std::function<void(Code)>> requested_;  // for the next one
  std::vector<Overlay::FrozenBlock> scratch_;
  io::Op checkpoint_op_, release_op_;
  io::Timer timer_;
};

}  // namespace curve::copyset
