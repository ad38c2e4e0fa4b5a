// The log on the real io: files, io_uring, O_DIRECT where the file system has it.
#include <gtest/gtest.h>

#include <cstring>

#include "native/base/crc32c.h"
#include "native/io/test_loop.h"
#include "native/wal/wal.h"

namespace curve::wal {
namespace {

constexpr StoreId kStore{{42}};

struct RealLog {
  explicit RealLog(uint64_t bytes = 64 << 20) {
    path = directory.file("wal");
    Outcome made = Wal::format(*loop, path, {.store = kStore, .bytes = bytes});
    EXPECT_TRUE(made.ok()) << made.error().message;
  }
  RecoveryReport open(const std::function<void(const RecoveredRecord&)>& visit =
                          [](const RecoveredRecord&) {}) {
    wal.reset();
    auto opened = Wal::open(*loop, pool, path, kStore, {});
    EXPECT_TRUE(opened.ok()) << opened.error().message;
    wal = std::move(*opened);
    auto report = wal->recover(visit);
    EXPECT_TRUE(report.ok()) << report.error().message;
    return *report;
  }
  io::TestLoop loop;
  io::TemporaryDirectory directory;
  std::string path;
  base::BufferPool pool;
  std::unique_ptr<Wal> wal;
};

struct Sender {
  RealLog& log;
  std::vector<uint32_t> crcs;
  std::vector<std::byte> head;
  Append append;
  bool done = false;

  explicit Sender(RealLog& log_in) : log(log_in) {
    append.owner = this;
    append.done = [](Append* a) { static_cast<Sender*>(a->owner)->done = true; };
  }
  Record& send(uint64_t number, size_t sectors, size_t records = 1) {
    append.records.assign(records, {});
    crcs.clear();
    head.assign(40, static_cast<std::byte>(number));
    base::Buffer payload;
    if (sectors) {
      payload = log.pool.take(sectors * kSectorBytes);
      std::memset(payload.data(), static_cast<int>(number), payload.size());
      crcs.assign(sectors, base::crc32c(payload.bytes().first(kSectorBytes)));
    }
    for (Record& r : append.records) {
      r.group = 1;
      r.index = number;
      r.head = head;
      r.payload = payload;
      r.sector_crcs = crcs;
    }
    done = false;
    EXPECT_TRUE(log.wal->has_room(sectors * kSectorBytes * records, records, 40 * records, 0));
    log.wal->append(&append);
    log.loop.run_until([&] { return done; });
    EXPECT_EQ(append.result, Code::kOk);
    return append.records.back();
  }
};

TEST(WalOnFiles, AppendsRestartsAndReads) {
  RealLog log;
  log.open();
  std::vector<uint64_t> places;
  {
    Sender sender(log);
    for (uint64_t n = 1; n <= 50; ++n) places.push_back(sender.send(n, n % 5).place);
    places.push_back(sender.send(51, 256, 3).place);  // three of 1 MiB in one append
  }
  uint64_t next = 1;
  const RecoveryReport report = log.open([&](const RecoveredRecord& r) {
    EXPECT_EQ(r.index, std::min<uint64_t>(next++, 51));
    EXPECT_EQ(r.head.size(), 40u);
  });
  EXPECT_EQ(report.records, 53u);
  EXPECT_FALSE(report.damaged || report.torn_tail) << report.damage;
  for (uint64_t n = 1; n <= 51; ++n) {
    io::Tracked<RecordReadOp> op;
    op.place = places[n - 1];
    log.wal->read_record(&op);
    log.loop.run_until([&] { return op.is_done(); });
    ASSERT_EQ(op.result, 0);
    EXPECT_EQ(op.index, n);
    const size_t sectors = n == 51 ? 256 : n % 5;
    ASSERT_EQ(op.payload.size(), sectors * kSectorBytes);
    if (sectors) {
      EXPECT_EQ(op.payload.data()[sectors * kSectorBytes - 1], static_cast<std::byte>(n));
    }
  }
}

TEST(WalOnFiles, ManySegmentsManyLapsThenFooters) {
  RealLog log;
  log.open();
  Sender sender(log);
  uint64_t n = 0;
  for (int lap = 0; lap < 2; ++lap) {
    while (log.wal->has_room(256 * kSectorBytes, 1, 40, 0)) sender.send(++n, 256);
    io::Tracked<io::Op> op;
    log.wal->release_before(log.wal->head_position(), {}, &op);
    log.loop.run_until([&] { return op.is_done(); });
    ASSERT_EQ(op.result, 0);
    // A few into the segment after.
    for (int i = 0; i < 20; ++i) sender.send(++n, 3);
  }
  uint64_t last = 0;
  const RecoveryReport report = log.open([&](const RecoveredRecord& r) { last = r.index; });
  EXPECT_EQ(last, n);
  EXPECT_FALSE(report.damaged);
}

TEST(WalOnFiles, ASecondProcessIsRefused) {
  RealLog log;
  log.open();
  auto second = Wal::open(*log.loop, log.pool, log.path, kStore, {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Code::kLocked);
}

TEST(WalOnFiles, AForeignFileIsRefused) {
  RealLog log;
  auto missing = Wal::open(*log.loop, log.pool, log.directory.file("none"), kStore, {});
  ASSERT_FALSE(missing.ok());
  const std::string path = log.directory.file("zeros");
  {
    auto file = io::File::open(*log.loop, path, {.create = true});
    ASSERT_TRUE(file.ok());
    ASSERT_EQ(file->allocate_sync(64 << 20), 0);
  }
  auto zeros = Wal::open(*log.loop, log.pool, path, kStore, {});
  ASSERT_FALSE(zeros.ok());
  EXPECT_EQ(zeros.error().code, Code::kCorrupt);
  EXPECT_NE(zeros.error().message.find(path), std::string::npos);
}

}  // namespace
}  // namespace curve::wal
