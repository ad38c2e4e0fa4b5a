// The language in which the tests of the WAL speak: a log on a simulated disk, appends whose
// content follows from a number, and a model of what was promised about each of them. check()
// compares a recovery with the model.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "native/base/crc32c.h"
#include "native/sim/disk.h"
#include "native/sim/random.h"
#include "native/sim/world.h"
#include "native/wal/format.h"
#include "native/wal/wal.h"

namespace curve::wal {

inline constexpr StoreId kTestStore{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

// How many seeds a random test runs: CURVE_WAL_SEEDS, or the usual number.
inline uint64_t seeds(uint64_t usual) {
  const char* wanted = std::getenv("CURVE_WAL_SEEDS");
  return wanted ? std::strtoull(wanted, nullptr, 10) : usual;
}

// What append number `id` contains. Equal ids, equal bytes.
struct Content {
  struct Item {
    RecordType type;
    std::vector<std::byte> head, annotation, payload;
    std::vector<uint32_t> crcs;
    bool external;
  };
  std::vector<Item> items;

  static Content of(uint64_t id, uint32_t sectors_max = 4) {
    sim::Random random(id);
    auto bytes = [&](size_t count) {
      std::vector<std::byte> out(count);
      for (auto& b : out) b = static_cast<std::byte>(random.next());
      return out;
    };
    Content content;
    content.items.resize(random.chance(0.7) ? 1 : random.below(5));
    uint64_t sectors_left = sectors_max;  // of the append
    for (Item& item : content.items) {
      item.type = static_cast<RecordType>(random.between(1, 8));
      item.head = bytes(random.chance(0.05) ? random.below(6000) : random.below(100));
      item.annotation = bytes(random.chance(0.2) ? random.below(64) : 0);
      item.external = random.chance(0.1);
      const uint64_t sectors = random.below(sectors_left + 1);
      sectors_left -= sectors;
      item.payload = bytes(sectors * kSectorBytes);
      for (size_t at = 0; at < item.payload.size(); at += kSectorBytes)
        item.crcs.push_back(base::crc32c({item.payload.data() + at, kSectorBytes}));
    }
    return content;
  }
};

// One append as the model knows it.
struct Known {
  uint64_t id = 0;
  Content content;
  uint64_t position = 0, bytes = 0, sequence = 0;
  uint64_t header_bytes = 0;
  bool done = false;
  bool recovered = false;
};

// One append as recovery showed it.
struct Seen {
  uint64_t id = 0;
  uint64_t position = 0;
  bool promised = false;
  std::vector<Content::Item> items;
  std::vector<uint64_t> places, payload_positions;
};

struct TestAppend {
  Append append;
  uint64_t id = 0;
  Content content;
  class TestLog* log = nullptr;
};

class TestProcess : public sim::Process {
 public:
  base::BufferPool pool{1 << 20};
  std::deque<TestAppend> appends;
  std::vector<TestAppend*> idle;
  std::unique_ptr<Wal> wal;
};

struct Shape {
  uint64_t segment_bytes = 64 * 1024;
  uint64_t segments = 8;
  uint32_t inflight_appends_max = 2;
  uint64_t idle_publish_ns = 5'000'000;
  uint32_t payload_sectors_max = 4;
};

class TestLog {
 public:
  static constexpr const char* kPath = "/wal";

  explicit TestLog(uint64_t seed, Shape shape = {})
      : shape_(shape),
        random_(sim::Random(seed).split("log")),
        world_(seed),
        node_(world_.add_node("store")) {
    world_.start(node_, [this](io::Loop& loop) {
      Outcome made = Wal::format(loop, kPath,
                                 {.store = kTestStore,
                                  .bytes = kDataOffset + shape_.segments * shape_.segment_bytes,
                                  .segment_bytes = shape_.segment_bytes});
      EXPECT_TRUE(made.ok()) << made.error().message;
      return boot(loop);
    });
    node_.boot = [this](io::Loop& loop) { return boot(loop); };
  }

  // --- doing ---
  bool can_append(uint64_t id) {
    AppendNeed need = need_of(Content::of(id, shape_.payload_sectors_max));
    return wal().ready() && wal().has_room(need.payload, need.records, need.heads, 0);
  }
  // Submits append `id`; false: no slot or no room.
  bool append(uint64_t id) {
    if (!can_append(id)) return false;
    TestAppend* a = take();
    a->id = id;
    a->content = Content::of(id, shape_.payload_sectors_max);
    auto& records = a->append.records;
    records.clear();
    for (const Content::Item& item : a->content.items) {
      Record& record = records.emplace_back();
      record.group = id;
      record.type = item.type;
      record.entry_type = static_cast<uint8_t>(id);
      record.index = id + 1;
      record.term = id + 2;
      record.head = item.head;
      record.annotation = item.annotation;
      record.sector_crcs = item.crcs;
      if (!item.external && !item.payload.empty()) {
        record.payload = process().pool.take(item.payload.size());
        std::memcpy(record.payload.data(), item.payload.data(), item.payload.size());
      }
    }
    // An append of no records says nothing: recovery would not show it.
    if (records.empty()) {
      Record& record = records.emplace_back();
      record.group = id;
      record.type = RecordType::kLocal;
      a->content.items.push_back({RecordType::kLocal, {}, {}, {}, {}, false});
    }
    a->append.external_pending = random_.chance(0.1) ? 1 : 0;
    const bool external = a->append.external_pending > 0;
    wal().append(&a->append);
    model_.push_back({.id = id,
                      .content = a->content,
                      .position = a->append.position,
                      .bytes = a->append.bytes,
                      .sequence = a->append.sequence,
                      .header_bytes = a->append.header.size()});
    if (external) externals_.push_back(a);
    return true;
  }
  void settle_externals() {
    for (TestAppend* a : std::exchange(externals_, {})) wal().external_done(&a->append, 0);
  }
  // Runs until every append submitted so far is done.
  void settle() {
    settle_externals();
    EXPECT_TRUE(
        world_.run_until([&] { return model_.empty() || model_.back().done; }, 10 * sim::kSecond));
  }
  void append_and_settle(uint64_t id) {
    ASSERT_TRUE(append(id)) << "append " << id;
    settle();
  }
  void run_for(uint64_t ns) { world_.run_for(ns); }

  // Releases what is before the position; waits for the answer unless told not to.
  void release(uint64_t position, bool wait = true) {
    releasing_ = position - position % shape_.segment_bytes;
    release_op_.owner = this;
    release_op_.done = [](io::Op* op) {
      auto* log = static_cast<TestLog*>(op->owner);
      EXPECT_EQ(op->result, 0);
      log->released_ = std::max(log->released_, log->releasing_);
      log->releasing_ = 0;
    };
    blob_ = "blob " + std::to_string(position);
    wal().release_before(position, std::as_bytes(std::span(blob_)), &release_op_);
    if (wait) {
      EXPECT_TRUE(world_.run_until([&] { return releasing_ == 0; }, 10 * sim::kSecond));
    }
  }
  bool releasing() const { return releasing_ != 0; }

  // --- crashing and coming back ---
  void crash(sim::CrashKind kind) {
    world_.crash(node_, kind);
    externals_.clear();
  }
  // Crash in the middle of the next recovery, at its `step`-th synchronous call.
  void crash_in_recovery(uint64_t step) { node_.disk->crash_in_sync_call(step); }
  bool start() {
    seen_.clear();
    world_.restart(node_);
    return node_.state == sim::NodeState::kUp;
  }
  void restart(sim::CrashKind kind = sim::CrashKind::kPower) {
    crash(kind);
    ASSERT_TRUE(start());
  }
  // What recovery showed, against what was promised. `lost`: ids that damage may have taken. Then
  // the model is what was seen.
  void check(const std::vector<uint64_t>& lost = {}) {
    auto may_be_lost = [&](uint64_t id) {
      return std::find(lost.begin(), lost.end(), id) != lost.end();
    };
    std::map<uint64_t, const Known*> known;
    for (const Known& k : model_) known[k.id] = &k;
    uint64_t before = 0;
    std::map<uint64_t, bool> shown;
    for (const Seen& seen : seen_) {
      ASSERT_TRUE(known.contains(seen.id)) << "append " << seen.id << " came back from the dead";
      const Known& k = *known[seen.id];
      EXPECT_EQ(seen.position, k.position);
      EXPECT_GT(k.sequence, before) << "order";
      before = k.sequence;
      EXPECT_TRUE(!seen.promised || k.done || k.recovered)
          << "append " << k.id << " was promised to nobody";
      compare(seen, k);
      shown[seen.id] = true;
    }
    // Acknowledged and retained: there. Whole prefix: nothing behind a gap, but for damage.
    bool gap = false;
    for (const Known& k : model_) {
      if (k.position < std::max(released_, start_position_)) continue;
      if (!shown.contains(k.id)) {
        EXPECT_TRUE(!(k.done || k.recovered) || may_be_lost(k.id))
            << "append " << k.id << " was acknowledged and is lost";
        if (!may_be_lost(k.id)) gap = true;
      } else {
        EXPECT_FALSE(gap) << "append " << k.id << " stands behind a gap";
      }
    }
    EXPECT_TRUE(!lost.empty() || !report_.damaged) << report_.damage;
    std::deque<Known> next;
    for (const Known& k : model_) {
      if (!shown.contains(k.id)) continue;
      next.push_back(k);
      next.back().recovered = true;
    }
    model_ = std::move(next);
  }

  // --- reading back ---
  int32_t read_record(uint64_t place, RecordReadOp* op) {
    bool done = false;
    op->place = place;
    op->owner = &done;
    op->done = [](io::Op* o) { *static_cast<bool*>(o->owner) = true; };
    wal().read_record(op);
    EXPECT_TRUE(world_.run_until([&] { return done; }, 10 * sim::kSecond));
    return op->result;
  }
  // Every record that recovery showed, read back whole.
  void check_reads() {
    for (const Seen& seen : seen_) {
      for (size_t i = 0; i < seen.items.size(); ++i) {
        RecordReadOp op;
        ASSERT_EQ(read_record(seen.places[i], &op), 0) << "append " << seen.id;
        const Content::Item& item = seen.items[i];
        EXPECT_EQ(op.group, seen.id);
        EXPECT_EQ(op.head, item.head);
        EXPECT_EQ(op.annotation, item.annotation);
        EXPECT_EQ(op.sector_crcs, item.crcs);
        const Content wanted = content_of(seen.id);
        if (seen.payload_positions[i]) {
          ASSERT_EQ(op.payload.size(), wanted.items[i].payload.size());
          EXPECT_EQ(
              std::memcmp(op.payload.data(), wanted.items[i].payload.data(), op.payload.size()), 0);
        } else {
          EXPECT_FALSE(op.payload);
        }
      }
    }
  }

  // --- harming ---
  uint64_t file_offset(uint64_t position) const {
    return kDataOffset + position / shape_.segment_bytes % shape_.segments * shape_.segment_bytes +
           position % shape_.segment_bytes;
  }
  void flip(uint64_t offset) {
    sim::VirtualFile& file = *node_.disk->find(kPath);
    file.make_page(offset / sim::kPageBytes)[offset % sim::kPageBytes] ^= std::byte{0x10};
  }
  void flip_at(uint64_t position) { flip(file_offset(position)); }

  Wal& wal() { return *process().wal; }
  TestProcess& process() { return static_cast<TestProcess&>(*node_.process); }
  sim::World& world() { return world_; }
  sim::Node& node() { return node_; }
  sim::VirtualFile& file() { return *node_.disk->find(kPath); }
  const RecoveryReport& report() const { return report_; }
  const std::vector<Seen>& seen() const { return seen_; }
  std::vector<uint64_t> seen_ids() const {
    std::vector<uint64_t> out;
    for (const Seen& s : seen_) out.push_back(s.id);
    return out;
  }
  std::deque<Known>& model() { return model_; }
  const Known& known(uint64_t id) const {
    for (const Known& k : model_)
      if (k.id == id) return k;
    static Known none;
    ADD_FAILURE() << "no append " << id;
    return none;
  }
  const std::string& refusal() const { return refusal_; }
  std::string blob() const {
    return {reinterpret_cast<const char*>(report_.anchor_blob.data()), report_.anchor_blob.size()};
  }

 private:
  struct AppendNeed {
    uint64_t payload = 0;
    size_t records = 0, heads = 0;
  };
  static AppendNeed need_of(const Content& content) {
    AppendNeed need{0, std::max<size_t>(1, content.items.size()), 0};
    for (const Content::Item& item : content.items) {
      need.heads += item.head.size() + item.annotation.size();
      if (item.external)
        need.heads += 4 * item.crcs.size();
      else
        need.payload += item.payload.size();
    }
    return need;
  }
  Content content_of(uint64_t id) const {
    Content content = Content::of(id, shape_.payload_sectors_max);
    if (content.items.empty()) content.items.push_back({RecordType::kLocal, {}, {}, {}, {}, false});
    return content;
  }

  std::unique_ptr<sim::Process> boot(io::Loop& loop) {
    auto process = std::make_unique<TestProcess>();
    auto opened = Wal::open(loop, process->pool, kPath, kTestStore,
                            {.inflight_appends_max = shape_.inflight_appends_max,
                             .idle_publish_ns = shape_.idle_publish_ns});
    if (!opened) {
      refusal_ = opened.error().message;
      return nullptr;
    }
    process->wal = std::move(*opened);
    seen_.clear();
    auto report = process->wal->recover([this](const RecoveredRecord& r) { note(r); });
    if (!report) {
      refusal_ = report.error().message;
      process->wal.reset();
      return nullptr;
    }
    report_ = *report;
    start_position_ = process->wal->start_position();
    releasing_ = 0;
    return process;
  }
  void note(const RecoveredRecord& r) {
    const uint64_t position = Wal::place_position(r.place);
    if (seen_.empty() || seen_.back().position != position) {
      seen_.push_back({.id = r.group,
                       .position = position,
                       .promised = r.promised,
                       .items = {},
                       .places = {},
                       .payload_positions = {}});
    }
    Seen& seen = seen_.back();
    EXPECT_EQ(seen.promised, r.promised);
    Content::Item item;
    item.type = r.type;
    item.head.assign(r.head.begin(), r.head.end());
    item.annotation.assign(r.annotation.begin(), r.annotation.end());
    item.crcs.assign(r.sector_crcs.begin(), r.sector_crcs.end());
    item.external = r.payload_position == 0;
    EXPECT_EQ(r.payload_bytes, r.sector_crcs.size() * kSectorBytes);
    seen.items.push_back(std::move(item));
    seen.places.push_back(r.place);
    seen.payload_positions.push_back(r.payload_position);
  }
  void compare(const Seen& seen, const Known& known) {
    ASSERT_EQ(seen.items.size(), known.content.items.size());
    for (size_t i = 0; i < seen.items.size(); ++i) {
      const Content::Item &a = seen.items[i], &b = known.content.items[i];
      EXPECT_EQ(a.type, b.type);
      EXPECT_EQ(a.head, b.head);
      EXPECT_EQ(a.annotation, b.annotation);
      EXPECT_EQ(a.crcs, b.crcs);
      EXPECT_EQ(a.external, b.external || b.payload.empty());
    }
  }
  TestAppend* take() {
    TestProcess& p = process();
    if (p.idle.empty()) {
      TestAppend& made = p.appends.emplace_back();
      made.log = this;
      made.append.owner = &made;
      made.append.done = [](Append* append) {
        auto* a = static_cast<TestAppend*>(append->owner);
        a->log->on_done(a);
      };
      p.idle.push_back(&made);
    }
    TestAppend* a = p.idle.back();
    p.idle.pop_back();
    return a;
  }
  void on_done(TestAppend* a) {
    if (a->append.result == Code::kOk) {
      bool in_order = true;
      for (Known& k : model_) {
        if (k.id == a->id) {
          k.done = true;
          break;
        }
        in_order &= k.done || k.recovered;
      }
      EXPECT_TRUE(in_order) << "append " << a->id << " was done before one that precedes it";
    }
    results.push_back(a->append.result);
    process().idle.push_back(a);
  }

 public:
  std::vector<Code> results;

 private:
  Shape shape_;
  sim::Random random_;
  sim::World world_;
  sim::Node& node_;
  std::deque<Known> model_;
  std::vector<Seen> seen_;
  std::vector<TestAppend*> externals_;
  RecoveryReport report_;
  std::string refusal_, blob_;
  io::Op release_op_;
  uint64_t releasing_ = 0, released_ = 0, start_position_ = 0;
};

}  // namespace curve::wal
