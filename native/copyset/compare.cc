// Comparing the replicas of a chunk at one log index. See scrub.h.
#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "native/base/crc32c.h"
#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/base/placement.h"
#include "native/copyset/repair.h"
#include "native/copyset/scrub.h"
#include "native/wire/codec.h"

namespace curve::copyset {

namespace {

constexpr uint64_t kAnswerNs = 5'000'000'000, kVerifyNs = 60'000'000'000;
constexpr uint64_t kTickNs = 100'000'000;
constexpr uint32_t kChecksAtOnce = 4, kRepeatsMax = 64;
constexpr uint64_t kLatelyNs = 10'000'000'000;
constexpr size_t kComparedMax = 64;

}  // namespace

struct Scrub::Comparison {
  uint64_t id = 0;
  CopysetId copyset = 0;
  ChunkKey chunk;
  Index index = 0;
  uint64_t deadline_ns = 0;
  std::vector<StoreId> members;
  std::map<StoreId, Answer> answers;
  std::function<void(Comparison&, Code)> done;
};

struct Scrub::Check {
  CheckRequest request;
  CheckReport report;
  uint32_t next_chunk = 0, running = 0, repeated = 0;
  bool ended = false;
  std::function<void(CheckReport)> done;
};

// Reads a chunk from the device, block by block, for a digest that asks for it.
struct Scrub::Reader {
  Scrub* scrub = nullptr;
  CopysetId copyset = 0;
  ChunkKey chunk;
  StoreId asker;
  ChunkDigestBody body;
  Digests digests{};
  uint32_t block = 0;
  base::Buffer buffer;
  chunkstore::ReadOp op;
};

Scrub::Scrub(StoreServer::State& server) : server_(server) {
  timer_.owner = expire_timer_.owner = this;
  timer_.fire = [](io::Timer* timer) { static_cast<Scrub*>(timer->owner)->tick(); };
  expire_timer_.fire = [](io::Timer* timer) { static_cast<Scrub*>(timer->owner)->expire(); };
  page_op_.owner = read_op_.owner = this;
  page_op_.done = [](io::Op* op) { static_cast<Scrub*>(op->owner)->page_done(op->result); };
  read_op_.done = [](io::Op* op) { static_cast<Scrub*>(op->owner)->block_done(op->result); };
  status_.bytes_per_second = server.options.scrub_bytes_per_second;
}

Scrub::~Scrub() {
  for (io::Timer* timer : {&timer_, &expire_timer_})
    if (timer->armed()) server_.loop.disarm(timer);
}

void Scrub::stop() {
  stopped_ = true;
  for (io::Timer* timer : {&timer_, &expire_timer_})
    if (timer->armed()) server_.loop.disarm(timer);
  while (!comparisons_.empty()) end(comparisons_.begin()->first, Code::kShuttingDown);
}

void Scrub::compare(Copyset& copyset, const ChunkKey& chunk, bool verify,
                    std::function<void(Comparison&, Code)> done) {
  struct Asked : Proposal {
    Scrub* scrub = nullptr;
    uint64_t id = 0;
  };
  auto made = std::make_unique<Comparison>();
  Comparison& comparison = *made;
  comparison.id = ++next_id_;
  comparison.copyset = copyset.id;
  comparison.chunk = chunk;
  comparison.deadline_ns = server_.loop.now_ns() + (verify ? kVerifyNs : kAnswerNs);
  comparison.done = std::move(done);
  const raft::Config& config = copyset.group->raft().config();
  for (uint8_t i = 0; i < config.count; ++i)
    if (config.members[i].role == raft::MemberRole::kVoter)
      comparison.members.push_back(config.members[i].store);
  comparisons_.emplace(comparison.id, std::move(made));
  DigestCommand command;
  command.verify = verify;
  command.chunk = chunk.chunk;
  command.volume = chunk.volume;
  command.id = comparison.id;
  command.asker = server_.identity.id;
  auto* asked = new Asked;
  asked->scrub = this;
  asked->id = comparison.id;
  asked->finished = [](Proposal* proposal, Code code) {
    std::unique_ptr<Asked> mine(static_cast<Asked*>(proposal));
    mine->scrub->proposed(mine->id, code);
  };
  if (!expire_timer_.armed()) server_.loop.arm(&expire_timer_, server_.loop.now_ns() + kTickNs);
  server_.propose_control(copyset, wire::body_bytes(command), asked);
}

void Scrub::proposed(uint64_t id, Code code) {
  if (code != Code::kOk) end(id, code);
}

// Every replica, when it applies the entry: what it holds at this index, by its checksums.
void Scrub::applied(Copyset& copyset, const DigestCommand& command, Index index) {
  if (stopped_ || !server_.replica) return;
  const bool mine = command.asker == server_.identity.id;
  if (mine ? !comparisons_.contains(command.id) : !server_.replica->peer_connection(command.asker))
    return;  // nobody waits for it (any more): a replay, for example
  const ChunkKey chunk{command.volume, command.chunk};
  if (!mine) {
    compared_.push_back({copyset.id, chunk, server_.loop.now_ns()});
    if (compared_.size() > kComparedMax) compared_.pop_front();
  }
  ChunkDigestBody body;
  body.copyset = copyset.id;
  body.volume = command.volume;
  body.chunk = command.chunk;
  body.id = command.id;
  body.index = index;
  // R10: blocks that it was filled with may be of an index behind this one.
  if (index <= copyset.holds && !CURVE_MUTANT("r10_compare_before_replayed")) {
    body.damaged_blocks = kOfSeveralIndexes;
    return send(command.asker, body, {});
  }
  const Digests digests = digests_of(copyset, chunk);
  if (command.verify) return read_chunk(copyset, command.asker, body, digests);
  send(command.asker, body, digests);
}

Scrub::Digests Scrub::digests_of(const Copyset& copyset, const ChunkKey& chunk) const {
  Digests out{};
  if (copyset.fences.deleted(chunk.volume)) return out;  // what is left goes with the next pass
  for (uint16_t block = 0; block < kBlocksPerChunk; ++block) {
    if (!server_.store->is_mapped(copyset.id, chunk, block) &&
        !copyset.overlay.has_block(chunk, block))
      continue;
    uint32_t crc = 0;
    bool any = false;
    for (uint32_t s = 0; s < kSectorsPerBlock; ++s) {
      const Repair::Expected sector =
          server_.repair->expected(copyset, chunk, block * kSectorsPerBlock + s);
      const uint32_t words[2] = {sector.data, sector.data ? sector.crc : 0};
      crc = base::crc32c(std::as_bytes(std::span(words)), crc);
      any |= sector.data;
    }
    if (any) out[block] = crc ? crc : 1;  // 0: nothing is written
  }
  return out;
}

void Scrub::read_chunk(Copyset& copyset, const StoreId& asker, const ChunkDigestBody& body,
                       const Digests& digests) {
  auto made = std::make_unique<Reader>();
  Reader* reader = made.get();
  reader->scrub = this;
  reader->copyset = copyset.id;
  reader->chunk = {body.volume, body.chunk};
  reader->asker = asker;
  reader->body = body;
  reader->digests = digests;
  reader->buffer = server_.pool.take(kBlockBytes);
  reader->op.owner = reader;
  reader->op.done = [](io::Op* op) {
    auto* reader = static_cast<Reader*>(op->owner);
    Scrub& scrub = *reader->scrub;
    const auto state =
        scrub.server_.store->block_state(reader->copyset, reader->chunk, reader->op.block);
    if (op->result < 0 && state.written && !scrub.stopped_) {
      ++reader->body.damaged_blocks;
      scrub.server_.repair->want({.copyset = reader->copyset,
                                  .chunk = reader->chunk,
                                  .block = reader->op.block,
                                  .mask = state.written});
    }
    scrub.reader_next(reader);
  };
  readers_.emplace(reader, std::move(made));
  reader_next(reader);
}

void Scrub::reader_next(Reader* reader) {
  for (; reader->block < kBlocksPerChunk && !stopped_; ++reader->block) {
    const auto block = static_cast<uint16_t>(reader->block);
    if (!server_.store->is_mapped(reader->copyset, reader->chunk, block)) continue;
    ++reader->block;
    reader->op.copyset = reader->copyset;
    reader->op.chunk = reader->chunk;
    reader->op.block = block;
    reader->op.first_sector = 0;
    reader->op.sectors = kSectorsPerBlock;
    reader->op.into = reader->buffer.span().first(kBlockBytes);
    return server_.store->read(&reader->op);
  }
  if (!stopped_) send(reader->asker, reader->body, reader->digests);
  readers_.erase(reader);
}

void Scrub::send(const StoreId& asker, const ChunkDigestBody& body, const Digests& digests) {
  if (asker == server_.identity.id) return accept(asker, body, digests);
  if (wire::Connection* connection = server_.replica->peer_connection(asker))
    connection->send(wire::FrameType::kChunkDigest, 0, wire::body_bytes(body),
                     std::as_bytes(std::span(digests)));
}

void Scrub::digest(const StoreId& peer, wire::Frame& frame) {
  base::Reader reader(frame.body);
  const auto body = reader.get<ChunkDigestBody>();
  const auto bytes = reader.raw(sizeof(Digests));
  if (!reader.done() || stopped_) return;
  Digests digests;
  std::memcpy(digests.data(), bytes.data(), sizeof digests);
  accept(peer, body, digests);
}

void Scrub::accept(const StoreId& store, const ChunkDigestBody& body, const Digests& digests) {
  auto it = comparisons_.find(body.id);
  if (it == comparisons_.end()) return;
  Comparison& comparison = *it->second;
  const bool member = std::find(comparison.members.begin(), comparison.members.end(), store) !=
                      comparison.members.end();
  if (!member || body.copyset != comparison.copyset || body.chunk != comparison.chunk.chunk) return;
  if (body.damaged_blocks == kOfSeveralIndexes) return end(body.id, Code::kBusy);
  comparison.answers[store] = {body.damaged_blocks, digests};
  if (comparison.answers.size() == comparison.members.size()) end(body.id, Code::kOk);
}

// It may have been started again, and not know what it was filled with before (Copyset::holds):
// what it applies from now on is not compared with what others held before.
void Scrub::peer_closed(const StoreId& peer) {
  std::vector<uint64_t> lost;
  for (const auto& [id, comparison] : comparisons_) {
    const auto& members = comparison->members;
    if (std::find(members.begin(), members.end(), peer) != members.end() &&
        !comparison->answers.contains(peer))
      lost.push_back(id);
  }
  for (uint64_t id : lost) end(id, Code::kBusy);
}

void Scrub::expire() {
  std::vector<uint64_t> late;
  for (const auto& [id, comparison] : comparisons_)
    if (server_.loop.now_ns() >= comparison->deadline_ns) late.push_back(id);
  for (uint64_t id : late) end(id, Code::kOk);
  for (const Compared& each : std::exchange(again_, {})) {
    const auto it = server_.copysets.find(each.copyset);
    if (it == server_.copysets.end() || !it->second->group || !it->second->group->is_leader())
      continue;
    compare(*it->second, each.chunk, false, [](Comparison&, Code) {});
  }
  if (!comparisons_.empty() && !stopped_)
    server_.loop.arm(&expire_timer_, server_.loop.now_ns() + kTickNs);
}

// Per block what most replicas hold; where no value has more than the others, our own.
Scrub::Digests Scrub::most(const Comparison& comparison, const StoreId& self) {
  Digests out{};
  const auto own = comparison.answers.find(self);
  for (uint32_t block = 0; block < kBlocksPerChunk; ++block) {
    std::map<uint32_t, uint32_t> votes;
    for (const auto& [store, answer] : comparison.answers) ++votes[answer.digests[block]];
    uint32_t best = 0;
    if (own != comparison.answers.end()) {
      out[block] = own->second.digests[block];
      best = votes[out[block]];
    }
    for (const auto& [value, count] : votes)
      if (count > best) out[block] = value, best = count;
  }
  return out;
}

void Scrub::end(uint64_t id, Code code) {
  auto it = comparisons_.find(id);
  if (it == comparisons_.end()) return;
  std::unique_ptr<Comparison> comparison = std::move(it->second);
  comparisons_.erase(it);
  if (code == Code::kOk) {
    ++status_.chunks_compared;
    const Digests wanted = most(*comparison, server_.identity.id);
    bool differs = false;
    for (const auto& [store, answer] : comparison->answers) {
      uint64_t blocks = 0;
      for (uint32_t block = 0; block < kBlocksPerChunk; ++block)
        blocks += answer.digests[block] != wanted[block];
      if (blocks == 0) continue;
      differs = true;
      base::log(base::LogLevel::kError, "replicas_differ",
                {{"copyset", comparison->copyset},
                 {"volume", comparison->chunk.volume},
                 {"chunk", uint64_t{comparison->chunk.chunk}},
                 {"store", store.text()},
                 {"blocks", blocks}});
    }
    if (differs) {
      ++status_.chunks_differ;
      restore(*comparison, wanted);
    }
  }
  comparison->done(*comparison, code);
}

// With care: everybody has answered, and we hold what more than half of them hold.
void Scrub::restore(Comparison& comparison, const Digests& wanted) {
  auto own = comparison.answers.find(server_.identity.id);
  if (own == comparison.answers.end() || comparison.answers.size() != comparison.members.size())
    return;
  std::vector<uint16_t> odd;  // here
  for (uint16_t block = 0; block < kBlocksPerChunk; ++block) {
    size_t same = 0;
    for (const auto& [store, answer] : comparison.answers)
      same += answer.digests[block] == wanted[block];
    if (same == comparison.answers.size()) continue;
    const bool most_have = 2 * same > comparison.members.size();
    if (most_have && own->second.digests[block] == wanted[block]) {
      restore_block(comparison.copyset, comparison.chunk, block);
    } else {
      odd.push_back(block);
    }
  }
  if (odd.empty() || hand_over(comparison, wanted)) return;
  for (uint16_t block : odd) {
    base::log(base::LogLevel::kError, "difference_not_repaired",
              {{"copyset", comparison.copyset},
               {"volume", comparison.chunk.volume},
               {"chunk", uint64_t{comparison.chunk.chunk}},
               {"block", uint64_t{block}},
               {"why", std::string("there is nothing that most replicas hold, or their store "
                                   "cannot lead now")}});
  }
}

// To the member that differs least from what most hold, if that is less than the leader does: it
// compares again (leads()), and can restore more. So it ends.
bool Scrub::hand_over(Comparison& comparison, const Digests& wanted) {
  const auto differs = [&](const Answer& answer) {
    return std::inner_product(wanted.begin(), wanted.end(), answer.digests.begin(), size_t{0},
                              std::plus<>(), std::not_equal_to<>());
  };
  const auto best = std::min_element(
      comparison.answers.begin(), comparison.answers.end(),
      [&](const auto& a, const auto& b) { return differs(a.second) < differs(b.second); });
  const auto it = server_.copysets.find(comparison.copyset);
  if (it == server_.copysets.end() || !it->second->group ||
      differs(best->second) >= differs(comparison.answers.at(server_.identity.id)))
    return false;
  raft::Group& raft = it->second->group->raft();
  if (raft.transfer_to(best->first, server_.loop.now_ns()) != Code::kOk) return false;
  base::log(base::LogLevel::kWarning, "leader_differs",
            {{"copyset", comparison.copyset},
             {"volume", comparison.chunk.volume},
             {"chunk", uint64_t{comparison.chunk.chunk}},
             {"now_leads", best->first.text()}});
  return true;
}

// Soon: not from within raft.
void Scrub::leads(const Copyset& copyset) {
  const uint64_t now = server_.loop.now_ns();
  std::erase_if(compared_, [&](const Compared& each) {
    if (each.copyset != copyset.id) return false;
    if (now < each.at_ns + kLatelyNs) again_.push_back(each);
    return true;
  });
  if (!again_.empty() && !stopped_) server_.loop.arm(&expire_timer_, now);
}

// Our content, checked, as an entry of the log like any other.
void Scrub::restore_block(CopysetId id, const ChunkKey& chunk, uint16_t block) {
  struct Content {
    base::Buffer bytes;
    std::array<uint32_t, kSectorsPerBlock> crcs{};
  };
  auto content = std::make_shared<Content>();
  content->bytes = server_.pool.take(kBlockBytes);
  server_.repair->want({.copyset = id,
                        .chunk = chunk,
                        .block = block,
                        .mask = 0xffff,
                        .into = content->bytes.data(),
                        .crcs = content->crcs.data(),
                        .done = [this, id, chunk, block, content](bool ok) {
                          auto it = server_.copysets.find(id);
                          if (!ok || stopped_ || it == server_.copysets.end()) return;
                          propose_restore(*it->second, chunk, block,
                                          content->bytes.bytes().first(kBlockBytes), content->crcs);
                        }});
}

// Among the entries that are appended and not yet applied.
bool Scrub::change_is_coming(Copyset& copyset, const ChunkKey& chunk, uint16_t block) const {
  const Index last = copyset.group->raft().last_index();
  for (Index index = copyset.applied + 1; index <= last; ++index) {
    const replica::Entry* entry = server_.replica->entry_at(*copyset.group, index);
    if (!entry) return true;
    if (entry->type != raft::EntryType::kData) continue;
    const auto type = command_type(entry->head);
    if (type == CommandType::kDeleteVolume) return true;
    if (type != CommandType::kWrite && type != CommandType::kZero) continue;
    const auto range = decode_range(entry->head);
    if (!range || ChunkKey{range->volume, range->chunk} != chunk) continue;
    const uint32_t first = range->first_sector / kSectorsPerBlock;
    const uint32_t end = (range->first_sector + range->sectors - 1) / kSectorsPerBlock;
    if (block >= first && block <= end) return true;
  }
  return false;
}

void Scrub::propose_restore(Copyset& copyset, const ChunkKey& chunk, uint16_t block,
                            std::span<const std::byte> content, std::span<const uint32_t> crcs) {
  if (!copyset.group || !copyset.group->is_leader()) return;
  // R11, R14: nothing that was appended since may be overtaken; the next pass looks again.
  if (copyset.merging.contains(chunk) || change_is_coming(copyset, chunk, block)) return;
  const uint32_t first = block * kSectorsPerBlock;
  for (uint32_t s = 0; s < kSectorsPerBlock;) {
    const Repair::Expected sector = server_.repair->expected(copyset, chunk, first + s);
    if (sector.crc != crcs[s]) return;  // changed meanwhile
    uint32_t end = s + 1;
    while (end < kSectorsPerBlock &&
           server_.repair->expected(copyset, chunk, first + end).data == sector.data &&
           server_.repair->expected(copyset, chunk, first + end).crc == crcs[end])
      ++end;
    RangeCommand command;
    command.type = sector.data ? CommandType::kWrite : CommandType::kZero;
    command.restores = 1;
    command.volume = chunk.volume;
    command.chunk = chunk.chunk;
    command.first_sector = first + s;
    command.sectors = end - s;
    const uint64_t bytes = sector.data ? (end - s) * uint64_t{kSectorBytes} : 0;
    if (server_.replica->may_propose(*copyset.group, bytes, sizeof(command)) != Code::kOk) return;
    uint32_t fresh = 0;
    if (sector.data && server_.reserve(copyset, chunk, command.first_sector, command.sectors,
                                       &fresh) != StoreServer::State::Space::kOk) {
      return;
    }
    replica::EntryRef entry = server_.replica->take_entry();
    const auto head = wire::body_bytes(command);
    entry->head.assign(head.begin(), head.end());
    if (sector.data) {
      const auto part = content.subspan(s * static_cast<size_t>(kSectorBytes), bytes);
      entry->payload = server_.pool.take(part.size());
      std::memcpy(entry->payload.data(), part.data(), part.size());
      entry->sector_crcs.assign(crcs.begin() + s, crcs.begin() + end);
    }
    server_.replica->propose(*copyset.group, entry);
    if (!sector.data) server_.note_zero(copyset, command, entry->index);
    server_.note_new_blocks(copyset, entry->index, fresh);
    s = end;
  }
  ++server_.counters.blocks_restored;
  base::log(base::LogLevel::kWarning, "block_restored",
            {{"copyset", copyset.id},
             {"volume", chunk.volume},
             {"chunk", uint64_t{chunk.chunk}},
             {"block", uint64_t{block}}});
}

// ---- a whole volume

void Scrub::check(const CheckRequest& request, std::function<void(CheckReport)> done) {
  auto check = std::make_shared<Check>();
  check->request = request;
  check->done = std::move(done);
  auto it = server_.copysets.find(request.copyset);
  if (it == server_.copysets.end() || !it->second->group || stopped_) {
    check->report.code = Code::kNoCopyset;
    return check->done(check->report);
  }
  raft::Group& raft = it->second->group->raft();
  check->report.leader = raft.leader();
  if (!it->second->group->is_leader()) {
    check->report.code = Code::kNotLeader;
    return check->done(check->report);
  }
  check_next(check);
}

void Scrub::check_next(const std::shared_ptr<Check>& check) {
  const CheckRequest& request = check->request;
  const auto wanted = static_cast<uint32_t>(request.copyset & 0xffffffff);
  while (check->running < kChecksAtOnce && check->report.code == Code::kOk &&
         check->next_chunk < request.chunks) {
    const uint32_t chunk = check->next_chunk++;
    if (base::copyset_index(request.placement_id, chunk, request.copysets) != wanted) continue;
    if (!check_chunk(check, chunk)) break;
  }
  if (check->running || check->ended) return;
  check->ended = true;
  check->done(check->report);
}

bool Scrub::check_chunk(const std::shared_ptr<Check>& check, uint32_t chunk) {
  auto it = server_.copysets.find(check->request.copyset);
  if (it == server_.copysets.end() || !it->second->group || !it->second->group->is_leader()) {
    check->report.code = Code::kNotLeader;
    return false;
  }
  ++check->running;
  compare(*it->second, {check->request.volume, chunk}, true,
          [this, check](Comparison& comparison, Code code) { checked(check, comparison, code); });
  return true;
}

void Scrub::checked(const std::shared_ptr<Check>& check, Comparison& comparison, Code code) {
  --check->running;
  CheckReport& report = check->report;
  // A replica that was filled or started again while it was asked: once more.
  if (code == Code::kBusy && !stopped_ && check->repeated++ < kRepeatsMax) {
    if (!check_chunk(check, comparison.chunk.chunk)) check_next(check);
    return;
  }
  if (code != Code::kOk) {
    report.code = code;
    return check_next(check);
  }
  ++report.chunks;
  report.replicas = std::max<uint64_t>(report.replicas, comparison.members.size());
  const Digests wanted = most(comparison, server_.identity.id);
  for (const StoreId& member : comparison.members) {
    CheckReport::Difference difference;
    difference.store = member;
    difference.chunk = comparison.chunk.chunk;
    const auto answer = comparison.answers.find(member);
    difference.missing = answer == comparison.answers.end();
    if (!difference.missing) {
      for (uint32_t block = 0; block < kBlocksPerChunk; ++block)
        difference.blocks += answer->second.digests[block] != wanted[block];
      difference.damaged_blocks = answer->second.damaged_blocks;
    }
    if (difference.missing || difference.blocks || difference.damaged_blocks)
      report.differences.push_back(difference);
  }
  check_next(check);
}

}  // namespace curve::copyset
