#include "native/copyset/background.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/copyset/external.h"
#include "native/copyset/repair.h"
#include "native/copyset/sync.h"

namespace curve::copyset {

namespace {

// Of what the WAL can hold: a pass begins when kPassShare came since the last cut, so that nobody
// who writes for a moment waits behind it; right behind another pass, which had to begin because
// much came, it begins earlier, so that the next one goes as evenly. It is to end when kPassRoom
// came since its cut. The log is let go at its end only: what is left beside both, more than a
// quarter, is for a pass that is late, which slows those who write (admits()). kKeepShare stays for
// followers that lag. Large writes are in their place: a pass costs little, and what they overwrote
// comes back by it.
constexpr double kPassShare = 3.0 / 8, kNextPassShare = 1.0 / 4, kPassRoom = 5.0 / 16;
constexpr uint64_t kPlacedShare = 4, kKeepShare = 4;
constexpr uint64_t kWindows = 16;    // of the log, if they are not too large for memory
constexpr double kLatest = 1.0 / 8;  // of a pass: with all blocks at a time from there on
// Of the room at the cut: writes get the first part at once, and the last when all blocks are
// placed, for the checkpoint takes a while, too. A pass that ends as planned keeps nobody waiting.
constexpr double kAtOnce = 1.0 / 4, kForCheckpoint = 1.0 / 10;
constexpr uint64_t kWritingNs = 20'000'000;  // after a write was applied

}  // namespace

// One block on its way from the WAL to its place.
struct Background::Job {
  Background* owner = nullptr;
  Work work{};
  base::Buffer buffer;  // one block
  struct Run {
    Job* job;
    wal::ReadOp op;
  };
  std::array<Run, kSectorsPerBlock> runs;
  base::Buffer block;  // one block: what stands in the store already (R4)
  io::FileOp block_op;
  iovec block_iov{};
  uint32_t physical = 0;
  uint16_t wanted = 0;  // of it
  uint16_t copied = 0;  // sectors of the map's block, which is the log's, too, that move with them
  bool from_map = false;
  uint32_t reads_left = 0;
  uint16_t unread = 0;  // sectors that the device would not give
  uint16_t bad = 0;     // R11: and those whose checksum does not fit, until a peer has sent them
  std::array<uint32_t, kSectorsPerBlock> repaired{};  // checksums of what came from a peer
  chunkstore::WriteOp write;
};

Background::Background(StoreServer::State& server)
    : server_(server),
      window_(*server.wal, server.pool),
      window_bytes_(std::min(LogWindow::kBytesMax, server.wal->capacity_bytes() / kWindows)) {
  timer_.owner = this;
  timer_.fire = [](io::Timer* timer) { static_cast<Background*>(timer->owner)->on_timer(); };
  checkpoint_op_.owner = release_op_.owner = this;
  checkpoint_op_.done = [](io::Op* op) {
    static_cast<Background*>(op->owner)->checkpointed(op->result);
  };
  release_op_.done = [](io::Op* op) {
    static_cast<Background*>(op->owner)->finish(op->result < 0 ? Code::kIo : Code::kOk);
  };
  drained_head_ = server_.wal->start_position();
  last_cut_head_ = CURVE_MUTANT("liveness_log_of_before_is_not_counted")
                       ? server_.wal->head_position()
                       : drained_head_;
}

Background::~Background() = default;

void Background::start() {
  begun_ns_ = server_.loop.now_ns();
  applied();  // what recovery replayed
}

void Background::stop() {
  stopping_ = true;
  server_.loop.disarm(&timer_);
}

// What the WAL can hold: what is in it and what still goes in.
double Background::log_bytes() const {
  return static_cast<double>(server_.wal->used_bytes() + server_.replica->room_bytes());
}

double Background::came() const {
  return static_cast<double>(server_.wal->head_position() - last_cut_head_);
}

bool Background::much_came(double share) const {
  const uint64_t placed = server_.external->placed_bytes() - last_cut_placed_;
  return came() > share * log_bytes() || placed > server_.wal->capacity_bytes() / kPlacedShare;
}

void Background::applied() {
  applied_ns_ = server_.loop.now_ns();
  if (!std::exchange(dirty_, true)) {
    dirty_since_ns_ = applied_ns_;
    if (!running_) arm();
  }
  // R7: what is not applied stays in the log, and would only be moved to its head. (After a restart
  // that is nearly all.)
  if (may_begin() && much_came(kPassShare) && !server_.replica->much_unapplied()) begin();
}

void Background::pressed() {
  if (may_begin()) begin();
}

uint64_t Background::undrained_bytes() const {
  return server_.overlay_pool.used() ? server_.wal->head_position() - drained_head_ : 0;
}

void Background::run_now(std::function<void(Code)> done) {
  if (failed_ || stopping_) return done(Code::kShuttingDown);
  requested_.push_back(std::move(done));
  if (!running_) begin();
}

// What was written lately may be written again, and costs those who write now: it waits until they
// pause. What votes and commits leave in the log has no hurry at all.
void Background::arm() {
  if (stopping_ || failed_) return;
  const ServerOptions& options = server_.options;
  const uint64_t due = dirty_ ? std::min(applied_ns_ + options.checkpoint_idle_ns,
                                         dirty_since_ns_ + options.checkpoint_interval_ns)
                              : server_.loop.now_ns() + options.checkpoint_interval_ns;
  server_.loop.arm(&timer_, due);
}

void Background::on_timer() {
  const uint64_t now = server_.loop.now_ns();
  const ServerOptions& options = server_.options;
  const bool idle = now >= applied_ns_ + options.checkpoint_idle_ns;
  const bool old = now >= dirty_since_ns_ + options.checkpoint_interval_ns;
  const bool grown = server_.wal->head_position() != last_cut_head_ &&
                     now >= begun_ns_ + options.checkpoint_interval_ns;
  if (may_begin() && (dirty_ ? idle || old : grown)) begin();
  if (!running_) arm();
}

// The cut: everything applied now goes into this checkpoint, nothing later.
void Background::begin() {
  running_ = true;
  dirty_ = false;
  begun_ns_ = server_.loop.now_ns();
  waiting_.swap(requested_);
  last_cut_head_ = server_.wal->head_position();
  cut_room_ = server_.replica->room_bytes();
  last_cut_placed_ = server_.external->placed_bytes();
  server_.external->pass_begins();
  cut_applied_.clear();
  server_.giving_back |= std::exchange(server_.gives_back, false);
  work_.clear();
  next_work_ = window_end_ = 0;
  for (const auto& [id, group] : server_.replica->groups()) {
    Copyset& copyset = server_.copyset_of(id);
    cut_applied_[id] = copyset.applied;
    copyset.overlay.freeze();
    scratch_.clear();
    copyset.overlay.frozen_blocks(scratch_);
    for (const Overlay::FrozenBlock& block : scratch_) add_work(copyset, block);
    server_.sync_source->moving(copyset, scratch_);
    for (VolumeId volume : copyset.dropped_volumes) server_.store->drop_volume(id, volume);
    copyset.dropped_volumes.clear();
  }
  for (auto& [id, copyset] : server_.copysets) {
    if (copyset->drop == Copyset::Drop::kWanted) server_.drop_contents(*copyset);
  }
  // Local records placed but not yet durable are not applied: they must be replayed.
  cut_position_ = server_.replica->durable_position();
  blobs_ = server_.make_blobs(cut_position_);
  order_work();
  server_.replica->flush_commits([this](Code code) { after_commits(code); });
}

// Window by window, so that the log is read in large pieces. A block whose sectors stand in several
// windows is placed in as many parts, the last of them in the last one; but not where blocks of the
// log are in it or in its place (R4), for then it moves.
void Background::add_work(Copyset& copyset, const Overlay::FrozenBlock& frozen) {
  const OverlayBlock& block = copyset.overlay.block(frozen.id);
  const auto window_of = [&](uint16_t sectors) {
    return server_.wal_position(block.wal_sector[std::countr_zero(sectors)]) / window_bytes_;
  };
  const uint16_t logged = block.logged();
  const uint64_t first_window = server_.wal->start_position() / window_bytes_;
  Work work{&copyset, frozen, logged ? window_of(logged) : first_window, block.data(), true};
  const auto part_in = [&](uint64_t window) {
    uint16_t part = 0;
    for (uint16_t left = logged; left; left &= left - 1)
      if (window_of(left) == window) part |= left & -left;
    return part;
  };
  if (std::popcount(logged) < 2 || part_in(work.window) == logged || logged != block.data() ||
      server_.external->holds(
          server_.store->block_state(copyset.id, frozen.chunk, frozen.block).physical)) {
    work_.push_back(work);
    return;
  }
  const size_t first = work_.size();
  work.last = false;
  for (uint16_t left = logged; left; left &= ~work.data) {
    work.window = window_of(left);
    work.data = part_in(work.window);
    work_.push_back(work);
    if (CURVE_MUTANT("r6_part_of_a_block_is_all")) break;
  }
  std::max_element(work_.begin() + static_cast<ptrdiff_t>(first), work_.end(),
                   [](const Work& a, const Work& b) { return a.window < b.window; })
      ->last = true;
}

// By window only: whoever writes waits for the end of this turn. The rest: next_window().
void Background::order_work() {
  const uint64_t first = server_.wal->start_position() / window_bytes_;
  ends_.assign(server_.wal->head_position() / window_bytes_ - first + 2, 0);
  for (const Work& work : work_) ++ends_[work.window - first + 1];
  std::partial_sum(ends_.begin(), ends_.end(), ends_.begin());
  ordered_.resize(work_.size());
  for (const Work& work : work_) ordered_[ends_[work.window - first]++] = work;
  work_.swap(ordered_);
}

// R6: from here on every commit index that this pass relies on is durable here.
void Background::after_commits(Code code) {
  if (code != Code::kOk) return finish(code);
  server_.external->commits_durable();
  next_blocks();
}

// Those who write wait behind what this step has at the device, so that while they do it goes on
// evenly and no faster than it must: a pass is to end when what came since its cut fills kPassRoom
// of the log. The later it is, the more blocks at a time. All at once where somebody waits for it
// (for room, or for blocks that it gives back), and where nobody writes.
uint32_t Background::blocks_at_a_time() const {
  const uint32_t most = server_.options.background_blocks_max;
  const bool writing = server_.loop.now_ns() < applied_ns_ + kWritingNs;
  const bool waited_for = !waiting_.empty() || !requested_.empty() ||
                          !server_.waiting_copysets.empty() || server_.room().coming;
  if (!writing || waited_for || work_.empty()) return most;
  const double due = came() / (kPassRoom * log_bytes());
  const double done = static_cast<double>(next_work_) / static_cast<double>(work_.size());
  const double late = std::clamp((due - done) / kLatest, 0.0, 1.0);
  return 1 + static_cast<uint32_t>(late * (most - 1));
}

// The log is let go at the end of a pass. Whoever writes faster than that comes is slowed as it
// fills, to the pace of the pass, and not stopped for the rest of it once it is full.
bool Background::admits() const {
  if (!running_ || next_work_ == work_.size() || CURVE_MUTANT("liveness_full_log_stops_writers"))
    return true;
  const double done = static_cast<double>(next_work_) / static_cast<double>(work_.size());
  const double share = kAtOnce + (1 - kAtOnce - kForCheckpoint) * done;
  return came() + static_cast<double>(server_.replica->waiting_bytes()) <
         share * static_cast<double>(cut_room_);
}

void Background::next_blocks() {
  const uint32_t most = blocks_at_a_time();
  while (next_work_ < window_end_ && jobs_running_ < most && !failed_) {
    if (free_jobs_.empty()) {
      jobs_.push_back(std::make_unique<Job>());
      Job* job = jobs_.back().get();
      job->owner = this;
      for (Job::Run& run : job->runs) {
        run.job = job;
        run.op.owner = &run;
        run.op.done = [](io::Op* op) {
          auto* run = static_cast<Job::Run*>(op->owner);
          Job* job = run->job;
          const size_t first = (run->op.into.data() - job->buffer.data()) / kSectorBytes;
          const size_t count = run->op.into.size() / kSectorBytes;
          if (op->result < 0) job->unread |= ((1u << count) - 1) << first;
          job->owner->job_read_done(job);
        };
      }
      job->block_op.owner = job;
      job->block_op.done = [](io::Op* op) {
        Job* job = static_cast<Job*>(op->owner);
        job->owner->block_read_done(job);
      };
      job->write.owner = job;
      job->write.done = [](io::Op* op) {
        Job* job = static_cast<Job*>(op->owner);
        job->owner->job_done(job, op->result);
      };
      free_jobs_.push_back(job);
    }
    Job* job = free_jobs_.back();
    free_jobs_.pop_back();
    job->work = work_[next_work_++];
    ++jobs_running_;
    if (int32_t result = 0; !start_job(job, &result)) end_job(job, result);
  }
  if (jobs_running_ == 0 && !loading_) next_window();
}

void Background::next_window() {
  window_.drop();
  if (failed_) return finish(Code::kIo);
  if (window_end_ == work_.size()) return checkpoint();
  positions_.clear();
  const uint64_t window = work_[window_end_].window;
  const auto begin = work_.begin() + static_cast<ptrdiff_t>(window_end_);
  const auto end =
      std::find_if(begin, work_.end(), [&](const Work& work) { return work.window != window; });
  std::stable_sort(begin, end,
                   [](const Work& a, const Work& b) { return a.block.chunk < b.block.chunk; });
  window_end_ = static_cast<size_t>(end - work_.begin());
  for (auto work = begin; work != end; ++work) {
    const OverlayBlock& block = work->copyset->overlay.block(work->block.id);
    for (uint16_t logged = block.logged() & work->data; logged; logged &= logged - 1) {
      const uint64_t position = server_.wal_position(block.wal_sector[std::countr_zero(logged)]);
      if (position / window_bytes_ == window) positions_.push_back(position);
    }
  }
  loading_ = window_.load(positions_, [this] {
    loading_ = false;
    next_blocks();
  });
  if (!loading_) next_blocks();
}

// False: nothing to wait for.
bool Background::start_job(Job* job, int32_t* result) {
  const Work& work = job->work;
  const OverlayBlock& block = work.copyset->overlay.block(work.block.id);
  ++server_.counters.background_blocks;
  const uint16_t data = block.logged() & work.data;
  if (!(block.data() & work.data)) return false;
  if (block.external == 0xffff && block.data() == 0xffff) {  // R4: it is in its place already
    const bool mapped =
        server_.store->map_block(work.copyset->id, work.block.chunk, work.block.block,
                                 block.physical, block.crc, cut_applied_[work.copyset->id]);
    if (!mapped) *result = -ENOSPC;
    return false;
  }
  if (!job->buffer) job->buffer = server_.pool.take(kBlockBytes);
  job->unread = 0;
  job->reads_left = 1;
  uint32_t runs = 0;
  for (uint32_t sector = 0; sector < kSectorsPerBlock;) {
    if (!(data >> sector & 1)) {
      ++sector;
      continue;
    }
    uint32_t end = sector + 1;
    while (end < kSectorsPerBlock && (data >> end & 1) &&
           block.wal_sector[end] == block.wal_sector[end - 1] + 1)
      ++end;
    const uint64_t position = server_.wal_position(block.wal_sector[sector]);
    std::byte* into = job->buffer.data() + sector * kSectorBytes;
    const std::span<std::byte> part(into, (end - sector) * size_t{kSectorBytes});
    sector = end;
    if (window_.copy(position, part)) continue;
    wal::ReadOp& op = job->runs[runs++].op;
    op.position = position;
    op.into = part;
    ++job->reads_left;
    server_.wal->read(&op);
  }
  read_blocks(job);
  job_read_done(job);  // completions come later, never from inside read()
  return true;
}

// What stands in blocks of the log (R4) and is to be written elsewhere: of one that was written to
// in part since; and what the map has of this block, if that is the log's, too, and may not be
// changed.
void Background::read_blocks(Job* job) {
  const Work& work = job->work;
  const OverlayBlock& block = work.copyset->overlay.block(work.block.id);
  chunkstore::ChunkStore& store = *server_.store;
  job->copied = 0;
  job->write.fresh = false;
  const auto state = store.block_state(work.copyset->id, work.block.chunk, work.block.block);
  if (state.physical != 0 && server_.external->holds(state.physical)) {
    job->write.fresh = store.reserve(1, 0);  // R8: or else followers that lag are filled
    if (!job->write.fresh) (void)server_.external->let_go(state.physical);
    if (job->write.fresh) job->copied = static_cast<uint16_t>(state.written & ~block.data());
  }
  // A block that was placed whole leaves nothing of the map's to be read.
  const auto external = static_cast<uint16_t>(block.data() & block.external);
  job->from_map = external == 0;
  job->wanted = job->from_map ? static_cast<uint16_t>(job->copied & ~block.present) : external;
  job->physical = job->from_map ? state.physical : block.physical;
  for (uint16_t left = job->copied; left; left &= left - 1) {
    const auto sector = static_cast<uint32_t>(std::countr_zero(left));
    const bool zero = block.present >> sector & 1;  // and cleared when the rest is in its place
    job->write.crc[sector] = zero ? base::crc32c_zero_sector() : state.crc[sector];
    if (zero) std::memset(job->buffer.data() + sector * size_t{kSectorBytes}, 0, kSectorBytes);
  }
  if (job->wanted == 0) return;
  if (!job->block) job->block = server_.pool.take(kBlockBytes);
  if (!store.pin_block(job->physical)) std::abort();  // R5: the log uses it
  job->block_iov = {job->block.data(), kBlockBytes};
  job->block_op.iov = {&job->block_iov, 1};
  job->block_op.offset_bytes = 0;
  ++job->reads_left;
  store.read_block(&job->block_op, job->physical);
}

void Background::block_read_done(Job* job) {
  server_.store->unpin_block(job->physical);
  const bool failed = job->block_op.result < 0;
  bool bad_copy = failed;
  for (uint16_t left = job->wanted; left; left &= left - 1) {
    const auto sector = static_cast<uint32_t>(std::countr_zero(left));
    const size_t at = sector * size_t{kSectorBytes};
    std::memcpy(job->buffer.data() + at, job->block.data() + at, kSectorBytes);
    bad_copy |=
        base::crc32c(job->block.bytes().subspan(at, kSectorBytes)) != job->write.crc[sector];
  }
  if (!job->from_map) {
    if (failed) job->unread |= job->wanted;
  } else if (bad_copy) {  // damage is copied nowhere (R11 mends it in its place)
    job->copied = 0;
    end_fresh(job);
    (void)server_.external->let_go(job->physical);
  }
  job_read_done(job);
}

void Background::end_fresh(Job* job) {
  if (std::exchange(job->write.fresh, false)) server_.store->unreserve(1, 0);
}

// R11: what is damaged in the WAL comes from a peer, if one has it soon.
void Background::job_read_done(Job* job) {
  if (--job->reads_left) return;
  const Work& work = job->work;
  const OverlayBlock& block = work.copyset->overlay.block(work.block.id);
  const uint16_t data = block.data() & work.data;
  job->bad = job->unread;
  for (uint32_t sector = 0; sector < kSectorsPerBlock; ++sector) {
    if (!((data & ~job->unread) >> sector & 1)) continue;
    const auto bytes = job->buffer.bytes().subspan(sector * kSectorBytes, kSectorBytes);
    if (base::crc32c(bytes) != block.crc[sector]) job->bad |= 1u << sector;
  }
  if (job->bad == 0) return write_job(job);
  ++server_.counters.corrupt_reads;
  job->repaired = {};
  server_.repair->want({.copyset = work.copyset->id,
                        .chunk = work.block.chunk,
                        .block = work.block.block,
                        .mask = job->bad,
                        .into = job->buffer.data(),
                        .crcs = job->repaired.data(),
                        .done = [this, job](bool) { write_job(job); }});
}

void Background::write_job(Job* job) {
  const Work& work = job->work;
  const OverlayBlock& block = work.copyset->overlay.block(work.block.id);
  const uint16_t data = block.data() & work.data;
  for (uint32_t sector = 0; sector < kSectorsPerBlock; ++sector) {
    if (!(data >> sector & 1)) continue;
    job->write.crc[sector] = block.crc[sector];
    if (!(job->bad >> sector & 1) || job->repaired[sector] == block.crc[sector]) continue;
    if (CURVE_MUTANT("r4_guess_damaged_payload")) {
      const auto bytes = job->buffer.bytes().subspan(sector * kSectorBytes, kSectorBytes);
      job->write.crc[sector] = base::crc32c(bytes);
    }
    // R4: never a guess. The sector keeps its checksum, so whoever reads it sees the damage, and
    // has it repaired. (Or it was written again meanwhile: then the overlay hides this one.)
    base::log(base::LogLevel::kError, "wal_payload_damaged",
              {{"copyset", work.copyset->id},
               {"volume", work.block.chunk.volume},
               {"chunk", uint64_t{work.block.chunk.chunk}},
               {"block", uint64_t{work.block.block}},
               {"sector", uint64_t{sector}},
               {"position", server_.wal_position(block.wal_sector[sector])}});
  }
  job->write.copyset = work.copyset->id;
  job->write.chunk = work.block.chunk;
  job->write.block = work.block.block;
  job->write.mask = data | job->copied;
  job->write.from = job->buffer.bytes();
  job->write.index = cut_applied_[work.copyset->id];
  server_.store->write(&job->write);
}

void Background::job_done(Job* job, int32_t result) {
  end_fresh(job);
  end_job(job, result);
  next_blocks();
}

void Background::end_job(Job* job, int32_t result) {
  const Work& work = job->work;
  const OverlayBlock& overlay = work.copyset->overlay.block(work.block.id);
  if (result < 0) {
    failed_ = true;
    base::log(base::LogLevel::kError, "background_write_failed", {{"result", int64_t{result}}});
  } else if (const uint16_t zero = overlay.present & overlay.zero; zero && work.last) {
    // Data first, then what is cleared: a block that keeps data is never unmapped meanwhile (R8).
    server_.store->clear(work.copyset->id, work.block.chunk, work.block.block, zero,
                         cut_applied_[work.copyset->id]);
  }
  // Also behind a first part: the block has its place then, and is not to be counted twice (R8).
  server_.settle_block(*work.copyset, work.block.chunk, work.block.block);
  free_jobs_.push_back(job);
  --jobs_running_;
}

void Background::checkpoint() { server_.store->checkpoint(&checkpoint_op_, std::move(blobs_)); }

void Background::checkpointed(int32_t result) {
  // Fences that do not fit are refused before the log (space.cc); should it come to this all the
  // same, the last checkpoint stays the valid one, the log is kept, and the store goes on.
  const bool no_room = result == -ENOSPC;
  if (result < 0 && !no_room) return finish(Code::kIo);
  for (auto& [id, copyset] : server_.copysets) {
    copyset->overlay.drop_frozen();
    if (copyset->group) server_.sweep_reservations(*copyset);
  }
  if (no_room) {
    applied();  // the next pass tries again, once this has rested
    base::log(base::LogLevel::kError, "checkpoint_has_no_room_for_fences",
              {{"blob_bytes", server_.blob_bytes()},
               {"blob_bytes_max", server_.store->usage().blob_bytes_max}});
    return finish(Code::kNoSpace);
  }
  ++server_.counters.checkpoints;
  drained_head_ = last_cut_head_;
  // Pages that discards have emptied go back to the pool; sync lists what exists, so it needs no
  // trace of them.
  for (const auto& [id, applied] : cut_applied_) {
    const auto relied_on = server_.pages_relied_on(server_.copyset_of(id));  // R8
    server_.store->forget_empty_pages(id, applied, [&](const chunkstore::PageId& page) {
      return relied_on.contains({page.chunk, page.page});
    });
  }
  server_.checkpoint_applied = cut_applied_;
  for (auto& [id, copyset] : server_.copysets) {
    if (!copyset->group) server_.checkpoint_applied.erase(id);  // removed while this pass ran
    if (copyset->drop == Copyset::Drop::kRunning) copyset->drop = Copyset::Drop::kNone;
  }
  release_wal();
}

// A share of the WAL is kept for followers that lag; what lies before goes, as far as the
// checkpoint has it. R7: unapplied entries in it move to the head first.
void Background::release_wal() {
  const uint64_t head = server_.wal->head_position(),
                 keep = static_cast<uint64_t>(log_bytes()) / kKeepShare;
  const uint64_t wanted =
      server_.wal->segment_start(std::min(head > keep ? head - keep : 0, cut_position_));
  if (head <= keep || wanted <= server_.wal->start_position()) return finish(Code::kOk);
  server_.replica->relocate_before(wanted, server_.checkpoint_applied,
                                   [this](Code code, uint64_t to) {
                                     if (code != Code::kOk || to <= server_.wal->start_position())
                                       return finish(code);
                                     std::vector<std::byte> blob;
                                     base::Writer writer(blob);
                                     writer.put(server_.store->checkpoint_version());
                                     server_.wal->release_before(to, blob, &release_op_);
                                   });
}

void Background::finish(Code code) {
  running_ = server_.giving_back = false;
  std::vector<std::function<void(Code)>> done;
  done.swap(waiting_);
  for (auto& callback : done) callback(code);
  if (code == Code::kIo || code == Code::kCorrupt) {
    failed_ = true;
    return server_.failed(code);
  }
  if (stopping_) return server_.check_stopped();
  if (!requested_.empty() || much_came(kNextPassShare)) return begin();
  arm();
}

}  // namespace curve::copyset
