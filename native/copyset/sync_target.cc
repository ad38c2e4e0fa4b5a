// The side of chunk sync that is filled (sync.h), and where the server hands frames between stores
// over. R10: durable before the first change; R8: takes no block that was promised to a write. One
// loop thread.
#include <algorithm>
#include <bit>
#include <cstring>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/copyset/background.h"
#include "native/copyset/external.h"
#include "native/copyset/repair.h"
#include "native/copyset/scrub.h"
#include "native/copyset/sync.h"
#include "native/wire/codec.h"

namespace curve::copyset {

namespace {

constexpr uint64_t kPollNs = 20'000'000;
constexpr uint64_t kRetryNs = 200'000'000;
constexpr uint64_t kSayAgainNs = 10'000'000'000;
constexpr uint64_t kTargetWindows = 4;  // all copysets together, in windows of one
constexpr uint32_t kPassesMax = 32;     // of a leader that does not keep to that

}  // namespace

struct SyncTarget::Write {
  SyncTarget* target = nullptr;
  StoreServer::State* server = nullptr;
  std::weak_ptr<bool> alive;
  base::Buffer payload;
  chunkstore::WriteOp op;
  uint16_t clear = 0;
  uint32_t blocks = 0, pages = 0;  // R8: set aside while it runs
};

SyncTarget::SyncTarget(StoreServer::State& server, Copyset& copyset, const StoreId& leader)
    : server_(server), copyset_(copyset), leader_(leader) {
  // R10: an answer to what an earlier life of this store asked, which is older than S, is not one
  // to this attempt.
  if (!CURVE_MUTANT("r10_answers_to_an_earlier_life")) attempt_ = server.loop.random_u64();
  timer_.owner = this;
  timer_.fire = [](io::Timer* timer) {
    SyncTarget* target = static_cast<SyncTarget*>(timer->owner);
    target->server_.loop.arm(&target->timer_, target->server_.loop.now_ns() + kPollNs);
    target->pump();
  };
}

SyncTarget::~SyncTarget() {
  server_.loop.disarm(&timer_);
  server_.sync_budget.give_back(uint64_t{requested_ - writes_} * kBlockBytes);
}

// A damaged replica may lack what it says it has applied (R3), but for what was filled in.
Index SyncTarget::unchanged_since() const {
  return std::max(passed_, copyset_.group->raft().damaged() ? 0 : copyset_.applied);
}

bool SyncTarget::log_has_no_space() const {
  return (phase_ == Phase::kBeginning || phase_ == Phase::kListing) &&
         !CURVE_MUTANT("r8_fill_beside_the_log");
}

// R10: the state is durable before the first change.
void SyncTarget::start() {
  ++server_.counters.syncs_started;
  base::log(base::LogLevel::kInfo, "sync_started",
            {{"copyset", copyset_.id}, {"from", leader_.text()}, {"applied", copyset_.applied}});
  copyset_.group->raft().begin_sync(server_.loop.now_ns());
  server_.background->run_now([this, alive = std::weak_ptr<bool>(alive_)](Code code) {
    if (alive.expired() || code != Code::kOk) return;
    server_.external->let_go_of(copyset_.id);  // R4: blocks are changed in place from here on
    phase_ = Phase::kBeginning;
    server_.sweep_reservations(copyset_);
    restart(leader_);
  });
  server_.loop.arm(&timer_, server_.loop.now_ns() + kPollNs);
}

void SyncTarget::restart(const StoreId& leader) {
  leader_ = leader;
  lost();
  pump();
}

// Replies to what was asked before are ignored from now on; a new attempt begins once own writes
// have ended.
void SyncTarget::lost() {
  if (phase_ == Phase::kMarking || phase_ == Phase::kFinishing || phase_ == Phase::kDone) return;
  ++attempt_;
  phase_ = Phase::kBeginning;
  begin_sent_ = false;
  passed_ = 0;
  passes_ = 0;
  wanted_.clear();
  ready_.clear();
  pages_left_.clear();
  server_.sync_budget.give_back(uint64_t{requested_ - writes_} * kBlockBytes);
  requested_ = writes_;
  begin_list();
}

void SyncTarget::begin_list() {
  pass_blocks_ = 0;
  listed_ = 0;
  listing_ = all_listed_ = false;
  last_page_ = {copyset_.id, {0, 0}, 255};
}

void SyncTarget::send(SyncKind kind, uint64_t tag, const ChunkKey& chunk, uint32_t block) {
  wire::Connection* connection = server_.replica->peer_connection(leader_);
  if (!connection) return;
  SyncRequestBody body;
  body.kind = static_cast<uint8_t>(kind);
  body.cursor = listed_;
  body.copyset = copyset_.id;
  body.volume = chunk.volume;
  body.chunk = chunk.chunk;
  body.block = block;
  if (kind == SyncKind::kBegin) {
    body.applied = unchanged_since();
    body.commit = copyset_.group->raft().commit();
  }
  connection->send(wire::FrameType::kSyncRequest, tag, wire::body_bytes(body));
}

void SyncTarget::reply(wire::Frame& frame) {
  if (frame.tag != attempt_ || phase_ == Phase::kMarking || phase_ >= Phase::kFinishing) return;
  base::Reader reader(frame.body);
  const auto body = reader.get<SyncReplyBody>();
  const auto rest = reader.raw(reader.left());
  if (!reader.ok()) return;
  if (body.code != 0) {  // it does not lead (now), or has damage of its own
    lost();
    begin_after_ns_ = server_.loop.now_ns() + kRetryNs;
    return;
  }
  switch (static_cast<SyncKind>(body.kind)) {
    case SyncKind::kBegin:
      if (body.count <= frame.payload.size())
        on_begin(body, frame.payload.bytes().first(body.count));
      break;
    case SyncKind::kPages:
      on_pages(body, rest);
      break;
    case SyncKind::kBlock:
      on_block(body, rest, std::move(frame.payload));
      break;
  }
}

void SyncTarget::on_begin(const SyncReplyBody& reply, std::span<const std::byte> rest) {
  if (phase_ != Phase::kBeginning) return;
  base::Reader reader(rest);
  const auto bytes_total = reader.get<uint64_t>();
  config_index_ = reader.get<uint64_t>();
  auto config = raft::decode_config(reader.raw(reader.get<uint32_t>()));
  const auto fences = reader.raw(reader.left());
  Fences check;
  base::Reader fence_reader(fences);
  if (!reader.ok() || !config || !check.merge(fence_reader) || !fence_reader.done()) return;
  if (reply.index < copyset_.group->raft().commit() &&
      !CURVE_MUTANT("r10_fill_with_less")) {  // it knows more than when it asked
    lost();
    begin_after_ns_ = server_.loop.now_ns() + kRetryNs;
    return;
  }
  if (passed_ == 0) bytes_done_ = 0;
  bytes_total_ = bytes_done_ + bytes_total;
  index_ = reply.index;
  term_ = reply.term;
  config_ = *config;
  fences_.assign(fences.begin(), fences.end());
  phase_ = Phase::kListing;
  pump();
}

void SyncTarget::on_pages(const SyncReplyBody& reply, std::span<const std::byte> rest) {
  if (phase_ != Phase::kListing || rest.size() != reply.count * sizeof(SyncPage)) return;
  listing_ = false;
  for (uint32_t i = 0; i < reply.count; ++i) {
    SyncPage page;
    std::memcpy(&page, rest.data() + i * sizeof(SyncPage), sizeof page);
    if (page.page >= chunkstore::kPagesPerChunk) return;
    plan_page(page);
  }
  listed_ += reply.count;
  if (reply.count == 0) {
    all_listed_ = true;
    clear_up_to({copyset_.id, {UINT64_MAX, UINT32_MAX}, 255});
  }
  pump();
}

void SyncTarget::want(const chunkstore::PageId& page, uint64_t blocks) {
  if (blocks == 0) return;
  const auto count = static_cast<uint32_t>(std::popcount(blocks));
  pages_left_[page] += count;
  pass_blocks_ += count;
  for (; blocks != 0; blocks &= blocks - 1) {
    const uint32_t k = static_cast<uint32_t>(std::countr_zero(blocks));
    wanted_.push_back(
        {page.chunk, static_cast<uint16_t>(page.page * chunkstore::kBlocksPerPage + k)});
  }
}

// The leader's answers clear them.
void SyncTarget::clear_up_to(const chunkstore::PageId& end) {
  while (auto page = server_.store->next_page(copyset_.id, last_page_)) {
    if (!(*page < end)) break;
    want(*page, server_.store->mapped_in_page(*page));
    last_page_ = *page;
  }
}

// Only what changed where that is known: what both have and the leader has not changed since this
// replica applied it, or since an earlier attempt completed the page, stays.
void SyncTarget::plan_page(const SyncPage& page) {
  const chunkstore::PageId id{
      copyset_.id, {page.volume, page.chunk}, static_cast<uint8_t>(page.page)};
  clear_up_to(id);
  last_page_ = id;
  const Index here = std::max(unchanged_since(), server_.store->page_index(id));
  // Index 0 here: none, or one that an earlier attempt did not complete; it may have been lost
  // (R5), so that what this replica has applied says nothing of it. Index 0 there: the leader has
  // unmapped the whole page since, and lists it for what is in its overlay only.
  const bool whole = passed_ != 0 || !copyset_.group->raft().damaged();
  const bool known = server_.store->page_index(id) != 0 && whole &&
                     (page.index != 0 || CURVE_MUTANT("r10_absent_page_is_unchanged"));
  constexpr uint64_t kAll = (uint64_t{1} << chunkstore::kBlocksPerPage) - 1;
  constexpr uint32_t kInLastPage =
      kBlocksPerChunk - (chunkstore::kPagesPerChunk - 1) * chunkstore::kBlocksPerPage;
  const uint64_t possible =
      page.page + 1 == chunkstore::kPagesPerChunk ? (uint64_t{1} << kInLastPage) - 1 : kAll;
  const bool unchanged = known && page.index <= here;
  const uint64_t wanted =
      unchanged ? page.recent : page.blocks | page.recent | server_.store->mapped_in_page(id);
  want(id, wanted & possible);
}

void SyncTarget::pump() {
  const uint64_t now = server_.loop.now_ns();
  if (phase_ == Phase::kBeginning && !begin_sent_ && writes_ == 0 && now >= begin_after_ns_ &&
      server_.replica->peer_connection(leader_)) {
    begin_sent_ = true;
    send(SyncKind::kBegin, attempt_, {}, 0);
  }
  if (phase_ != Phase::kListing) return;
  write_next();
  const uint64_t bytes_max = server_.options.sync_bytes_inflight_max;
  while (!wanted_.empty() && requested_ < bytes_max / kBlockBytes &&
         server_.sync_budget.take(kBlockBytes, now, kTargetWindows * bytes_max)) {
    const Want want = wanted_.front();
    wanted_.pop_front();
    ++requested_;
    send(SyncKind::kBlock, attempt_, want.chunk, want.block);
  }
  if (wanted_.empty() && !all_listed_ && !listing_) {
    listing_ = true;
    send(SyncKind::kPages, attempt_, {}, 0);
  }
  if (all_listed_ && wanted_.empty() && requested_ == 0 && complete_.empty()) end_pass();
}

// The replica is as its leader was at S, or later. Another pass only if this one was long; they get
// shorter, since the leader slows those who write faster than half of it (SyncSource::keep_ahead).
void SyncTarget::end_pass() {
  const uint64_t longest = server_.wal->capacity_bytes() / kLastPassShare / kBlockBytes;
  if (pass_blocks_ <= longest || ++passes_ == kPassesMax) return finish();
  passed_ = index_;
  ++attempt_;
  phase_ = Phase::kBeginning;
  begin_sent_ = false;
  begin_list();
  pump();
}

void SyncTarget::on_block(const SyncReplyBody& reply, std::span<const std::byte> rest,
                          base::Buffer payload) {
  if (phase_ != Phase::kListing || rest.size() != kSectorsPerBlock * 4 ||
      payload.size() != kBlockBytes || reply.block >= kBlocksPerChunk) {
    return;
  }
  auto write = std::make_unique<Write>();
  write->target = this;
  write->server = &server_;
  write->alive = alive_;
  write->op.owner = write.get();
  write->op.copyset = copyset_.id;
  write->op.chunk = {reply.volume, reply.chunk};
  write->op.block = reply.block;
  write->op.mask = reply.written;
  std::memcpy(write->op.crc.data(), rest.data(), rest.size());
  for (uint32_t i = 0; i < kSectorsPerBlock; ++i) {
    const auto sector = payload.bytes().subspan(i * kSectorBytes, kSectorBytes);
    if ((reply.written >> i & 1) && base::crc32c(sector) != write->op.crc[i]) {
      base::log(base::LogLevel::kError, "sync_block_damaged",
                {{"copyset", copyset_.id}, {"from", leader_.text()}});
      return restart(leader_);
    }
  }
  holds_ = std::max(holds_, reply.index);
  // Not before the page is complete.
  write->op.index = CURVE_MUTANT("r10_page_complete_early") ? index_ : 0;
  write->clear = static_cast<uint16_t>(~reply.written);
  write->payload = std::move(payload);
  write->op.from = write->payload.bytes();
  server_.counters.sync_bytes += kBlockBytes;
  ready_.push_back(std::move(write));
  pump();
}

// The block is as the leader has it. The last one of a page makes the page count as complete at S,
// also after a restart.
void SyncTarget::block_done(const ChunkKey& chunk, uint16_t block) {
  --requested_;
  bytes_done_ += kBlockBytes;
  server_.sync_budget.give_back(kBlockBytes);
  const chunkstore::PageId page{copyset_.id, chunk,
                                static_cast<uint8_t>(block / chunkstore::kBlocksPerPage)};
  const auto left = pages_left_.find(page);
  if (left == pages_left_.end() || --left->second != 0) return;
  pages_left_.erase(left);
  complete_.emplace_back(page, index_);
}

// Changes the chunk store directly; not while a checkpoint runs (R5).
void SyncTarget::write_next() {
  if (server_.store->checkpoint_running()) return;
  mark_complete();  // of an attempt before, while nothing of this one is on its way to these pages
  for (size_t left = ready_.size(); left > 0; --left) {
    std::unique_ptr<Write> write = std::move(ready_.front());
    ready_.pop_front();
    if (!reserve(*write)) {  // tried again with the next pump(); what gives blocks back goes on
      ready_.push_back(std::move(write));
      continue;
    }
    server_.store->clear(copyset_.id, write->op.chunk, write->op.block, write->clear, 0);
    if (write->op.mask == 0) {
      block_done(write->op.chunk, write->op.block);
      continue;
    }
    ++writes_;
    write->op.done = [](io::Op* op) {
      Write* raw_write = static_cast<Write*>(op->owner);
      std::shared_ptr<void> keep = std::move(raw_write->server->sync_writes[raw_write]);
      raw_write->server->sync_writes.erase(raw_write);
      raw_write->server->store->unreserve(raw_write->blocks, raw_write->pages);
      if (op->result < 0) raw_write->server->failed(Code::kIo);
      if (raw_write->alive.expired()) return raw_write->server->sync_budget.give_back(kBlockBytes);
      SyncTarget* target = raw_write->target;
      --target->writes_;
      target->block_done(raw_write->op.chunk, raw_write->op.block);
      target->pump();
    };
    Write* raw = write.get();
    server_.sync_writes[raw] = std::shared_ptr<Write>(std::move(write));
    server_.store->write(&raw->op);
  }
  mark_complete();
  server_.wants_space |= waits_for_space_;
}

void SyncTarget::mark_complete() {
  for (const auto& [page, index] : complete_) {
    const auto first = static_cast<uint16_t>(page.page * chunkstore::kBlocksPerPage);
    server_.store->clear(copyset_.id, page.chunk, first, 0, index);  // raises the page's index only
  }
  complete_.clear();
}

void SyncTarget::wait_for_space() {
  server_.wants_space = waits_for_space_ = true;
  const uint64_t now = server_.loop.now_ns();
  if (said_waits_ns_ != 0 && now < said_waits_ns_ + kSayAgainNs) return;
  said_waits_ns_ = now;
  base::log(base::LogLevel::kError, "sync_waits_for_space", {{"copyset", copyset_.id}});
}

// R8: what is filled in takes no block that was promised to a write. False: there is none now.
bool SyncTarget::reserve(Write& write) {
  const chunkstore::WriteOp& op = write.op;
  const auto state = server_.store->block_state(copyset_.id, op.chunk, op.block);
  if (op.mask == 0 || (state.written & ~write.clear) != 0) return true;  // in place, or nothing
  const auto page = static_cast<uint8_t>(op.block / chunkstore::kBlocksPerPage);
  const uint32_t pages = server_.store->has_page({copyset_.id, op.chunk, page}) ? 0 : 1;
  if (!server_.store->reserve(1, pages, true)) {
    wait_for_space();
    return false;
  }
  waits_for_space_ = false;
  write.blocks = 1;
  write.pages = pages;
  return true;
}

// R8: from here on it acknowledges again, and what it has in its log behind S will be applied.
void SyncTarget::finish() {
  if (!server_.reserve_logged(copyset_, index_)) return wait_for_space();  // with the next pump()
  waits_for_space_ = false;
  phase_ = Phase::kFinishing;
  server_.replica->prepare_finish_sync(
      *copyset_.group, index_, term_, [this, alive = std::weak_ptr<bool>(alive_)](Code code) {
        if (alive.expired() || code != Code::kOk) return;
        server_.background->run_now([this, alive](Code result) {
          if (alive.expired() || result != Code::kOk) return;
          base::Reader reader(fences_);
          copyset_.fences.clear();
          (void)copyset_.fences.merge(reader);
          copyset_.applied = std::max(copyset_.applied, index_);
          copyset_.holds = std::max(copyset_.holds, holds_);
          server_.replica->finish_sync(*copyset_.group, index_, term_, config_, config_index_);
          ++server_.counters.syncs_finished;
          base::log(base::LogLevel::kInfo, "sync_finished",
                    {{"copyset", copyset_.id}, {"index", index_}});
          phase_ = Phase::kDone;
          copyset_.sync.reset();  // ends this object: the last statement
        });
      });
}

void SyncTarget::override_blob(replica::GroupBlob& blob, std::vector<std::byte>& fences) const {
  blob.applied = index_;
  blob.applied_term = term_;
  blob.commit = std::max(blob.commit, index_);
  blob.config = config_;
  blob.config_index = config_index_;
  blob.syncing = false;  // damaged stays as it is: raft says when it is whole again (R3)
  fences = fences_;
}

// ---- what the server hands over

void StoreServer::State::sync_offered(replica::ReplicaGroup& group, const StoreId& leader, Index) {
  Copyset& copyset = copyset_of(group.id());
  if (stopping || out_of_service) return;
  if (copyset.sync) {
    if (copyset.sync->leader() != leader) copyset.sync->restart(leader);
    return;
  }
  // More wait for their turn: the leader offers again.
  const uint32_t most = sync_budget.limits.syncs_at_once;
  const auto running = std::count_if(copysets.begin(), copysets.end(),
                                     [](const auto& item) { return item.second->sync != nullptr; });
  if (most != 0 && running >= static_cast<int64_t>(most)) return;
  copyset.sync = std::make_unique<SyncTarget>(*this, copyset, leader);
  copyset.sync->start();
}

void StoreServer::State::peer_frame(const StoreId& peer, wire::Connection* connection,
                                    wire::Frame& frame) {
  if (frame.type == wire::FrameType::kSyncRequest)
    return sync_source->request(peer, connection, frame);
  if (frame.type == wire::FrameType::kRepairRequest)
    return repair->request(peer, connection, frame);
  if (frame.type == wire::FrameType::kRepairReply) return repair->reply(peer, frame);
  if (frame.type == wire::FrameType::kChunkDigest) return scrub->digest(peer, frame);
  if (frame.type == wire::FrameType::kSyncReply) {
    base::Reader reader(frame.body);
    const auto body = reader.get<SyncReplyBody>();
    auto it = copysets.find(body.copyset);
    if (reader.ok() && it != copysets.end() && it->second->sync &&
        it->second->sync->leader() == peer) {
      it->second->sync->reply(frame);
    }
    return;
  }
  base::log(base::LogLevel::kError, "peer_malformed_frame",
            {{"peer", peer.text()},
             {"what", std::string("unknown frame type")},
             {"type", uint64_t(frame.type)}});
  connection->close();
}

void StoreServer::State::peer_closed(const StoreId& peer) {
  sync_source->peer_closed(peer);
  for (auto& [id, copyset] : copysets) {
    if (copyset->sync && copyset->sync->leader() == peer) copyset->sync->lost();
  }
  scrub->peer_closed(peer);
}

}  // namespace curve::copyset
