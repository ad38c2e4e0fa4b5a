#include "native/copyset/repair.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "native/base/bytes.h"
#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/wire/codec.h"

namespace curve::copyset {

namespace {

constexpr uint64_t kTickNs = 20'000'000;
constexpr uint64_t kAnswerNs = 300'000'000;  // then the next peer is asked
constexpr uint32_t kBehindMax = 10;  // ticks that a peer may be behind before another is asked
constexpr uint32_t kRoundsMax = 10;  // over all peers, where nobody waits
constexpr uint32_t kWritesMax = 3;   // of one sector that stays bad

// The deliberate bugs take what a peer says for what this replica should have.
bool trust_peer() { return CURVE_MUTANT("r11_repair_from_laggard"); }

template <class F>
void each_bit(uint16_t mask, F f) {
  for (uint32_t left = mask; left; left &= left - 1)
    f(static_cast<uint32_t>(std::countr_zero(left)));
}
uint16_t bit(uint32_t sector) { return static_cast<uint16_t>(1u << sector); }

}  // namespace

// One block. Every sector in `wanted` is in exactly one of unknown, bad, good.
struct Repair::Job {
  uint64_t id = 0;
  CopysetId copyset = 0;
  ChunkKey chunk;
  uint16_t block = 0;
  uint16_t unknown = 0;     // to be looked at here
  uint16_t bad = 0;         // cannot be read here; crc says what is expected
  uint16_t good = 0;        // content is in `content`, with this crc
  uint16_t to_write = 0;    // good, and to be written back
  uint16_t unverified = 0;  // was written back, not yet read again
  std::array<uint32_t, kSectorsPerBlock> crc{};
  std::array<uint8_t, kSectorsPerBlock> writes{};
  base::Buffer content;
  bool examining = false;
  Index index = 0;  // R11: asked for; fixed while the same damage is asked for
  std::vector<StoreId> peers;
  StoreId asked;
  uint64_t asked_ns = 0, ask_after_ns = 0;
  uint32_t behind = 0, round = 0;
  std::vector<RepairWant> waiting;
  std::vector<uint64_t> deadlines;
  uint32_t writing = 0;
  chunkstore::RepairOp store_op;
  uint16_t store_mask = 0;
  struct Rewrite {
    Job* job;
    uint32_t sector;
    bool running = false;
    wal::RewriteOp op;
  };
  std::array<Rewrite, kSectorsPerBlock> rewrites;
  Repair* owner = nullptr;

  // Sectors that are being written back from `content`: what is there must stay until that ends.
  uint16_t in_flight() const {
    if (CURVE_MUTANT("r11_repair_reads_into_its_write")) return 0;
    uint16_t mask = store_mask;
    for (uint32_t s = 0; s < kSectorsPerBlock; ++s)
      if (rewrites[s].running) mask |= bit(s);
    return mask;
  }
};

Repair::Repair(StoreServer::State& server) : server_(server) {
  timer_.owner = this;
  timer_.fire = [](io::Timer* timer) { static_cast<Repair*>(timer->owner)->tick(); };
}

Repair::~Repair() {
  if (timer_.armed()) server_.loop.disarm(&timer_);
}

void Repair::arm() {
  if (!timer_.armed() && !jobs_.empty()) server_.loop.arm(&timer_, server_.loop.now_ns() + kTickNs);
}

void Repair::want(RepairWant want) {
  if (stopped_) return want.done ? want.done(false) : void();
  if (!repairable(want.copyset, want.chunk.volume)) return want.done ? want.done(false) : void();
  Job* job = nullptr;
  for (auto& [id, each] : jobs_) {
    if (each->copyset == want.copyset && each->chunk == want.chunk && each->block == want.block)
      job = each.get();
  }
  if (!job) {
    auto made = std::make_unique<Job>();
    job = made.get();
    job->id = next_job_++;
    job->owner = this;
    job->copyset = want.copyset;
    job->chunk = want.chunk;
    job->block = want.block;
    job->content = server_.pool.take(kBlockBytes);
    jobs_.emplace(job->id, std::move(made));
  }
  job->unknown |= want.mask & ~(job->bad | job->good);
  if (want.done) {
    job->deadlines.push_back(server_.loop.now_ns() + want.patience_ns);
    job->waiting.push_back(std::move(want));
  }
  after(*job);
}

bool Repair::repairable(CopysetId copyset, VolumeId volume) const {
  const auto it = server_.copysets.find(copyset);
  return it != server_.copysets.end() && it->second->group && !it->second->fences.deleted(volume);
}

// The end of every event: a job that has nothing left to do ends, then whoever waited is told
// (which may bring new work).
void Repair::after(Job& job) {
  if (!go_on(job)) jobs_.erase(job.id);
  tell();
}

void Repair::tell() {
  std::vector<std::pair<RepairWant, bool>> ended;
  ended.swap(ended_);
  for (auto& [want, ok] : ended) want.done(ok);
  arm();
}

void Repair::piece(ReadPiece* piece) {
  Request* request = piece->request;
  piece->repairs = 1;
  const auto end = [this, piece](bool ok) {
    if (!ok) piece->request->code = Code::kBusy;
    if (--piece->repairs == 0) server_.end_piece(piece);
  };
  const std::span<std::byte> bytes = piece->into;
  for (uint32_t i = 0; i < piece->sectors;) {
    const uint32_t sector = piece->sector + i, first = sector % kSectorsPerBlock;
    const uint32_t count = std::min(piece->sectors - i, kSectorsPerBlock - first);
    ++piece->repairs;
    want({.copyset = request->copyset->id,
          .chunk = {request->body.volume, request->body.chunk},
          .block = static_cast<uint16_t>(sector / kSectorsPerBlock),
          .mask = static_cast<uint16_t>(((1u << count) - 1) << first),
          .into = bytes.data() + i * static_cast<size_t>(kSectorBytes),
          .crcs = &request->crcs[piece->first + i],
          .first = first,
          .done = end});
    i += count;
  }
  end(true);
}

void Repair::stop() {
  stopped_ = true;
  for (auto it = jobs_.begin(); it != jobs_.end();) {
    Job& job = *it->second;
    it = go_on(job) ? std::next(it) : jobs_.erase(it);
  }
  tell();
}

void Repair::tick() {
  for (auto it = jobs_.begin(); it != jobs_.end();) {
    Job& job = *it->second;
    expire(job);
    it = go_on(job) ? std::next(it) : jobs_.erase(it);
  }
  tell();
}

Repair::Expected Repair::expected(const Copyset& copyset, const ChunkKey& chunk,
                                  uint32_t sector) const {
  const OverlaySector found = copyset.overlay.find(chunk, sector);
  if (found.present) return {!found.zero, found.zero ? base::crc32c_zero_sector() : found.crc};
  const auto state = server_.store->block_state(copyset.id, chunk,
                                                static_cast<uint16_t>(sector / kSectorsPerBlock));
  const bool data = state.physical && (state.written >> (sector % kSectorsPerBlock) & 1);
  return {data, data ? state.crc[sector % kSectorsPerBlock] : base::crc32c_zero_sector()};
}

// Whatever can be done now. Runs after each event and at each tick.
bool Repair::go_on(Job& job) {
  if (!repairable(job.copyset, job.chunk.volume) || stopped_) {
    job.unknown = job.bad = job.to_write = 0;
    for (RepairWant& want : job.waiting) ended_.emplace_back(std::move(want), false);
    job.waiting.clear();
    job.deadlines.clear();
    return job.examining || job.writing != 0;
  }
  Copyset& copyset = *server_.copysets.at(job.copyset);
  deliver(job, copyset);
  if ((job.unknown & ~job.in_flight()) && !job.examining && examine(job, copyset))
    deliver(job, copyset);
  if (job.to_write) write_back(job, copyset);
  if (job.bad && !job.examining) ask(job, copyset);
  return job.examining || job.writing || job.unknown || job.bad || job.to_write ||
         !job.waiting.empty();
}

// Content that is what this replica should have now goes to whoever waits for it.
void Repair::deliver(Job& job, Copyset& copyset) {
  if (job.waiting.empty()) return;
  each_bit(job.good, [&](uint32_t s) {
    const Expected now = expected(copyset, job.chunk, job.block * kSectorsPerBlock + s);
    if (now.crc == job.crc[s] || trust_peer()) return;
    job.good &= ~bit(s);  // changed meanwhile
    job.to_write &= ~bit(s);
    job.unknown |= bit(s);
  });
  for (size_t i = 0; i < job.waiting.size();) {
    RepairWant& want = job.waiting[i];
    each_bit(want.mask & job.good, [&](uint32_t s) {
      if (want.into)
        std::memcpy(want.into + (s - want.first) * static_cast<size_t>(kSectorBytes),
                    job.content.data() + s * static_cast<size_t>(kSectorBytes), kSectorBytes);
      if (want.crcs) want.crcs[s - want.first] = job.crc[s];
      want.mask &= ~bit(s);
    });
    job.unknown |= want.mask & ~(job.good | job.bad);
    if (want.mask) {
      ++i;
      continue;
    }
    ended_.emplace_back(std::move(want), true);
    job.waiting.erase(job.waiting.begin() + static_cast<ptrdiff_t>(i));
    job.deadlines.erase(job.deadlines.begin() + static_cast<ptrdiff_t>(i));
  }
}

void Repair::expire(Job& job) {
  const uint64_t now = server_.loop.now_ns();
  for (size_t i = 0; i < job.waiting.size();) {
    if (now < job.deadlines[i]) {
      ++i;
      continue;
    }
    ended_.emplace_back(std::move(job.waiting[i]), false);
    job.waiting.erase(job.waiting.begin() + static_cast<ptrdiff_t>(i));
    job.deadlines.erase(job.deadlines.begin() + static_cast<ptrdiff_t>(i));
  }
}

// True: done at once.
bool Repair::examine(Job& job, Copyset& copyset) {
  const auto mask = static_cast<uint16_t>(job.unknown & ~job.in_flight());
  job.unknown &= ~mask;
  job.examining = true;
  Request* request = server_.take_request();
  request->peer = {};
  request->tag = job.id;
  if (!read_block(request, copyset, job.chunk, job.block, mask)) return false;
  found(job, request);
  server_.release(request);
  return true;
}

void Repair::examined(Request* request) {
  if (!request->peer.is_none()) return answer(request);
  auto it = jobs_.find(request->tag);
  if (it != jobs_.end()) found(*it->second, request);
  server_.release(request);
  if (it != jobs_.end()) after(*it->second);
}

// What a look at our own sectors has shown.
void Repair::found(Job& job, Request* request) {
  job.examining = false;
  Copyset& copyset = *request->copyset;
  if (!repairable(job.copyset, job.chunk.volume)) return;
  each_bit(request->written, [&](uint32_t s) {
    if (!(request->bad >> s & 1)) {
      std::memcpy(job.content.data() + s * static_cast<size_t>(kSectorBytes),
                  request->buffer.data() + s * static_cast<size_t>(kSectorBytes), kSectorBytes);
      job.crc[s] = request->crcs[s];
      job.good |= bit(s);
      if (job.unverified >> s & 1) ++server_.counters.repaired_sectors;
      job.unverified &= ~bit(s);
      return;
    }
    found_damage(job, copyset, s);
  });
}

void Repair::found_damage(Job& job, Copyset& copyset, uint32_t s) {
  const uint32_t sector = job.block * kSectorsPerBlock + s;
  const Expected now = expected(copyset, job.chunk, sector);
  if (!now.data) {  // zeroed meanwhile
    job.unknown |= bit(s);
    return;
  }
  if (job.unverified >> s & 1) {
    job.unverified &= ~bit(s);
    if (job.writes[s] >= kWritesMax)
      return give_up(job, bit(s), "it cannot be read although it was written again");
  } else {
    ++server_.counters.damaged_sectors;
  }
  const OverlaySector in_log = copyset.overlay.find(job.chunk, sector);
  const bool in_wal = in_log.present && in_log.physical == 0;
  const uint32_t physical =
      in_log.present ? in_log.physical
                     : server_.store->block_state(copyset.id, job.chunk, job.block).physical;
  const uint64_t offset =
      in_wal     ? server_.wal->file_offset(server_.wal_position(in_log.wal_sector))
      : physical ? server_.store->block_offset_bytes(physical) + s * uint64_t{kSectorBytes}
                 : 0;
  base::log(base::LogLevel::kError, "sector_damaged",
            {{"store", server_.identity.id.text()},
             {"copyset", copyset.id},
             {"volume", job.chunk.volume},
             {"chunk", uint64_t{job.chunk.chunk}},
             {"sector", uint64_t{sector}},
             {"file", std::string(in_wal ? "wal" : "data")},
             {"offset", offset}});
  job.index = copyset.applied;
  if (!job.bad) {
    job.peers.clear();
    job.behind = job.round = 0;
    job.asked_ns = job.ask_after_ns = 0;
  }
  job.crc[s] = now.crc;
  job.bad |= bit(s);
}

// The leader first, then the other members; one at a time.
void Repair::ask(Job& job, Copyset& copyset) {
  const uint64_t now = server_.loop.now_ns();
  if (job.asked_ns && now - job.asked_ns < kAnswerNs) return;
  if (job.asked_ns && !job.peers.empty()) job.peers.pop_back();  // it did not answer
  job.asked_ns = 0;
  if (now < job.ask_after_ns) return;
  if (job.peers.empty()) {
    if (++job.round > kRoundsMax && job.waiting.empty())
      return give_up(job, job.bad, "no other replica has it");
    raft::Group& raft = copyset.group->raft();
    for (uint8_t i = 0; i < raft.config().count; ++i) {
      const StoreId& member = raft.config().members[i].store;
      if (member != server_.identity.id && member != raft.leader()) job.peers.push_back(member);
    }
    if (!raft.leader().is_none() && raft.leader() != server_.identity.id)
      job.peers.push_back(raft.leader());
    if (job.round > 1) {
      job.ask_after_ns = now + std::min<uint64_t>(job.round, 10) * 2 * kTickNs;
      return;
    }
  }
  while (!job.peers.empty()) {
    job.asked = job.peers.back();
    if (wire::Connection* connection = server_.replica->peer_connection(job.asked)) {
      RepairRequestBody body;
      body.copyset = job.copyset;
      body.volume = job.chunk.volume;
      body.index = job.index;
      body.chunk = job.chunk.chunk;
      body.block = job.block;
      body.mask = job.bad;
      job.asked_ns = now;
      return connection->send(wire::FrameType::kRepairRequest, job.id, wire::body_bytes(body));
    }
    job.peers.pop_back();
  }
}

void Repair::reply(const StoreId& peer, wire::Frame& frame) {
  base::Reader reader(frame.body);
  const auto body = reader.get<RepairReplyBody>();
  auto it = jobs_.find(frame.tag);
  if (!reader.ok() || stopped_ || it == jobs_.end()) return;
  Job& job = *it->second;
  auto copyset = server_.copysets.find(job.copyset);
  if (job.asked != peer || !job.asked_ns || body.copyset != job.copyset ||
      body.volume != job.chunk.volume || body.chunk != job.chunk.chunk || body.block != job.block ||
      copyset == server_.copysets.end()) {
    return;
  }
  job.asked_ns = 0;
  const auto code = static_cast<Code>(body.code);
  const bool whole = reader.left() == kSectorsPerBlock * 4 && frame.payload.size() == kBlockBytes;
  if (code == Code::kOk && whole) take(job, *copyset->second, body, frame.payload.bytes());
  if (code == Code::kBusy && ++job.behind < kBehindMax) {
    job.ask_after_ns = server_.loop.now_ns() + kTickNs;
  } else if (job.bad && !job.peers.empty()) {
    job.peers.pop_back();
    job.behind = 0;
  }
  after(job);
}

void Repair::take(Job& job, Copyset& copyset, const RepairReplyBody& body,
                  std::span<const std::byte> block) {
  if (body.index < job.index && !trust_peer()) return;  // R11
  each_bit(job.bad & body.mask, [&](uint32_t s) {
    const auto bytes = block.subspan(s * static_cast<size_t>(kSectorBytes), kSectorBytes);
    const uint32_t crc = base::crc32c(bytes);
    const Expected now = expected(copyset, job.chunk, job.block * kSectorsPerBlock + s);
    // R11: the sector changed meanwhile: the repair is dropped, and it is looked at again.
    if ((!now.data || now.crc != job.crc[s]) && !CURVE_MUTANT("r11_repair_over_newer_write")) {
      ++server_.counters.repairs_dropped;
      job.bad &= ~bit(s);
      job.unknown |= bit(s);
      return;
    }
    if (crc != job.crc[s]) {
      if (!trust_peer()) return;  // not what this replica should have: another peer is asked
      job.crc[s] = crc;
    }
    std::memcpy(job.content.data() + s * static_cast<size_t>(kSectorBytes), bytes.data(),
                kSectorBytes);
    job.bad &= ~bit(s);
    job.good |= bit(s);
    job.to_write |= bit(s);
  });
}

// To where the sector is read from now: the WAL if the overlay has it, else its block.
void Repair::write_back(Job& job, Copyset& copyset) {
  uint16_t in_store = 0;
  each_bit(job.to_write, [&](uint32_t s) {
    const uint32_t sector = job.block * kSectorsPerBlock + s;
    const OverlaySector found = copyset.overlay.find(job.chunk, sector);
    if (!found.present) {
      in_store |= bit(s);
      return;
    }
    Job::Rewrite& rewrite = job.rewrites[s];
    if (rewrite.running) return;
    job.to_write &= ~bit(s);
    // A block that is the log's is written to by nobody (R4): it is repaired once the map has it.
    if (found.physical != 0) return;
    uint32_t ignored = 0;
    if (found.zero || found.crc != job.crc[s] ||
        server_.replica->pending_payload(server_.wal_position(found.wal_sector), &ignored)) {
      return;  // changed meanwhile
    }
    rewrite.running = true;
    rewrite.job = &job;
    rewrite.sector = s;
    rewrite.op.owner = &rewrite;
    rewrite.op.position = server_.wal_position(found.wal_sector);
    rewrite.op.from =
        job.content.bytes().subspan(s * static_cast<size_t>(kSectorBytes), kSectorBytes);
    rewrite.op.done = [](io::Op* op) {
      auto* rewrite = static_cast<Job::Rewrite*>(op->owner);
      rewrite->running = false;
      rewrite->job->owner->written(*rewrite->job, bit(rewrite->sector), op->result, "wal");
    };
    ++job.writing;
    server_.wal->rewrite(&rewrite.op);
  });
  if (!in_store || job.store_mask) return;
  job.to_write &= ~in_store;
  job.store_mask = in_store;
  chunkstore::RepairOp& op = job.store_op;
  op.owner = &job;
  op.copyset = job.copyset;
  op.chunk = job.chunk;
  op.block = job.block;
  op.mask = in_store;
  op.crc = job.crc;
  op.from = job.content.bytes();
  op.done = [](io::Op* each) {
    Job& job = *static_cast<Job*>(each->owner);
    const uint16_t asked = std::exchange(job.store_mask, 0);
    job.owner->written(job, each->result == 0 ? job.store_op.mask : asked, each->result, "data");
  };
  ++job.writing;
  server_.store->repair(&op);
}

void Repair::written(Job& job, uint16_t mask, int32_t result, const char* where) {
  --job.writing;
  if (result == -EAGAIN && !stopped_) {
    job.to_write |= mask & job.good;
    return arm();  // the next tick tries again
  }
  if (result < 0 && result != -ENODATA && result != -EAGAIN) {
    server_.failed(Code::kIo);
  } else if (result == 0 && mask) {
    base::log(base::LogLevel::kWarning, "sector_repaired",
              {{"store", server_.identity.id.text()},
               {"copyset", job.copyset},
               {"volume", job.chunk.volume},
               {"chunk", uint64_t{job.chunk.chunk}},
               {"sector", uint64_t{job.block} * kSectorsPerBlock + std::countr_zero(mask)},
               {"sectors", uint64_t(std::popcount(mask))},
               {"file", std::string(where)},
               {"from", job.asked.text()}});
    each_bit(mask, [&](uint32_t s) { ++job.writes[s]; });
    job.unverified |= mask;
    job.good &= ~mask;
    job.unknown |= mask;
  }
  after(job);
}

void Repair::give_up(Job& job, uint16_t mask, const char* why) {
  server_.counters.repairs_failed += static_cast<uint64_t>(std::popcount(mask));
  job.bad &= ~mask;
  base::log(base::LogLevel::kError, "sector_not_repaired",
            {{"store", server_.identity.id.text()},
             {"copyset", job.copyset},
             {"volume", job.chunk.volume},
             {"chunk", uint64_t{job.chunk.chunk}},
             {"sector", uint64_t{job.block} * kSectorsPerBlock + std::countr_zero(mask)},
             {"sectors", uint64_t(std::popcount(mask))},
             {"why", std::string(why)}});
}

}  // namespace curve::copyset
