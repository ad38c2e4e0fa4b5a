// Appending, order, room, segments, reads, failure, on a simulated disk without crashes or with
// plain ones. The crash matrix is in recovery_test.cc.
#include "native/wal/wal.h"

#include <gtest/gtest.h>

#include "native/wal/test_log.h"

namespace curve::wal {
namespace {

TEST(Wal, AppendsComeBackInOrderAfterRestart) {
  TestLog log(1);
  for (uint64_t id = 1; id <= 10; ++id) log.append_and_settle(id);
  log.restart(sim::CrashKind::kKill);
  log.check();
  EXPECT_EQ(log.seen_ids(), (std::vector<uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(log.report().appends, 10u);
  EXPECT_FALSE(log.report().torn_tail);
  log.check_reads();
}

TEST(Wal, EmptyLogComesBackEmpty) {
  TestLog log(2);
  log.restart();
  EXPECT_TRUE(log.seen().empty());
  EXPECT_EQ(log.report().generation, 3u);  // formatted as 1, first start 2
  EXPECT_FALSE(log.report().torn_tail || log.report().damaged);
}

TEST(Wal, GoesOnAfterEachRestart) {
  TestLog log(3);
  uint64_t id = 0;
  for (int round = 0; round < 60; ++round) {
    for (int i = 0; i < 2; ++i)
      if (log.can_append(++id)) log.append_and_settle(id);
    log.restart(round % 2 ? sim::CrashKind::kKill : sim::CrashKind::kPower);
    log.check();
    if (log.wal().used_bytes() > 300 * 1024) log.release(log.wal().head_position());
  }
}

TEST(Wal, DoneIsCalledInOrderThoughWritesFinishInAnyOrder) {  // R2
  TestLog log(4, {.segment_bytes = 1 << 20, .inflight_appends_max = 8});
  uint64_t id = 0;
  for (int round = 0; round < 300; ++round) {
    while (id < 500 && log.append(id + 1)) ++id;
    log.run_for(sim::kMillisecond / 10);
    if (round % 7 == 0) log.settle_externals();
    if (log.wal().used_bytes() > (4 << 20)) log.release(log.wal().head_position());
  }
  log.settle();
  EXPECT_GT(id, 40u);
  for (const Known& k : log.model()) EXPECT_TRUE(k.done);
}

TEST(Wal, AnExternalPayloadHoldsBackItsAppendAndThoseBehind) {
  TestLog log(5);
  std::vector<int> order;
  Append first, second;
  first.records.resize(1);
  second.records.resize(1);
  first.records[0].type = second.records[0].type = RecordType::kLocal;
  first.owner = second.owner = &order;
  first.done = [](Append* a) { static_cast<std::vector<int>*>(a->owner)->push_back(1); };
  second.done = [](Append* a) { static_cast<std::vector<int>*>(a->owner)->push_back(2); };
  first.external_pending = 2;
  log.wal().append(&first);
  log.wal().append(&second);
  EXPECT_FALSE(log.wal().ready());
  log.run_for(sim::kSecond);
  EXPECT_TRUE(order.empty());
  log.wal().external_done(&first, 4096);
  EXPECT_TRUE(order.empty());
  log.wal().external_done(&first, 4096);
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  first.header = second.header = {};
}

TEST(Wal, WrapsOnlyIntoReleasedSegments) {  // R7
  TestLog log(6);
  uint64_t id = 0;
  for (int lap = 0; lap < 5; ++lap) {
    uint64_t before = id;
    while (log.can_append(id + 1)) log.append_and_settle(++id);
    EXPECT_GT(id, before);
    EXPECT_GT(log.wal().used_bytes(), log.wal().capacity_bytes() / 2);
    EXPECT_LE(log.wal().used_bytes(), log.wal().capacity_bytes());
    log.restart();
    log.check();
    log.check_reads();
    log.release(log.wal().head_position() - log.wal().segment_bytes());
  }
  EXPECT_EQ(log.blob().substr(0, 4), "blob");
}

TEST(Wal, APinnedSegmentIsNotUsedAgain) {  // R7
  TestLog log(7);
  uint64_t id = 0;
  while (log.can_append(id + 1)) log.append_and_settle(++id);
  const uint64_t pinned = log.wal().start_position();
  log.wal().pin(pinned);
  log.release(log.wal().head_position());
  EXPECT_FALSE(log.can_append(id + 1));  // the only next segment is the pinned one
  log.wal().unpin(pinned);
  EXPECT_TRUE(log.can_append(id + 1));
  log.append_and_settle(++id);
}

TEST(Wal, RoomIsKeptForOthers) {
  TestLog log(8, {.segment_bytes = 256 * 1024, .segments = 8});
  Wal& wal = log.wal();
  EXPECT_TRUE(wal.has_room(4096, 1, 50, 0));
  EXPECT_TRUE(wal.has_room(4096, 1, 50, wal.capacity_bytes() / 4));
  EXPECT_FALSE(wal.has_room(4096, 1, 50, wal.capacity_bytes()));
  EXPECT_FALSE(wal.has_room(wal.append_bytes_max(), 1, 50, 0));
  EXPECT_FALSE(wal.has_room(0, kAppendRecordsMax + 1, 0, 0));
  // What is reserved can be used to the last byte by appends of any size.
  uint64_t id = 0;
  const uint64_t reserve = 512 * 1024;
  while (wal.has_room(16 * 4096, 6, 9000, reserve)) log.append_and_settle(++id);
  uint64_t used = 0;
  while (used + 80 * 1024 <= reserve) {
    ASSERT_TRUE(log.append(++id));
    log.settle();
    used += log.model().back().bytes;
  }
}

TEST(Wal, ReadsGiveThePayloadAsItWasWritten) {
  TestLog log(9);
  for (uint64_t id = 1; id <= 8; ++id) log.append_and_settle(id);
  alignas(4096) static std::byte into[4096 * 4];
  log.restart();
  int reads = 0;
  for (const Seen& seen : log.seen()) {
    for (size_t i = 0; i < seen.items.size(); ++i) {
      if (!seen.payload_positions[i]) continue;
      const auto wanted = Content::of(seen.id).items[i].payload;
      ReadOp op;
      bool done = false;
      op.owner = &done;
      op.done = [](io::Op* o) { *static_cast<bool*>(o->owner) = true; };
      op.position = seen.payload_positions[i];
      op.into = {into, wanted.size()};
      log.wal().read(&op);
      ASSERT_TRUE(log.world().run_until([&] { return done; }, sim::kSecond));
      EXPECT_EQ(op.result, static_cast<int32_t>(wanted.size()));
      EXPECT_EQ(std::memcmp(into, wanted.data(), wanted.size()), 0);
      ++reads;
    }
  }
  EXPECT_GT(reads, 3);
}

TEST(Wal, ReadsOutsideTheLogAreRefused) {
  TestLog log(10);
  for (uint64_t id = 1; id <= 3; ++id) log.append_and_settle(id);
  alignas(4096) static std::byte into[8192];
  for (uint64_t position : {uint64_t{0}, log.wal().head_position(),
                            log.wal().head_position() - 4096, uint64_t{123}, ~uint64_t{4095}}) {
    ReadOp op;
    bool done = false;
    op.owner = &done;
    op.done = [](io::Op* o) { *static_cast<bool*>(o->owner) = true; };
    op.position = position;
    op.into = into;
    log.wal().read(&op);
    EXPECT_FALSE(done) << "never from inside the call";
    ASSERT_TRUE(log.world().run_until([&] { return done; }, sim::kSecond));
    EXPECT_LT(op.result, 0);
  }
  for (uint64_t place : {uint64_t{0}, uint64_t{1}, log.wal().head_position() + 1,
                         log.known(1).position, log.known(1).position + 4000}) {
    RecordReadOp op;
    EXPECT_LT(log.read_record(place, &op), 0);
  }
}

TEST(Wal, ADamagedPayloadIsSeenWhenItIsRead) {
  TestLog log(11);
  uint64_t id = 0;
  uint64_t hit = 0;
  for (id = 1; id <= 20; ++id) log.append_and_settle(id);
  log.restart();
  for (const Seen& seen : log.seen()) {
    if (seen.payload_positions.empty() || seen.payload_positions[0] == 0) continue;
    hit = seen.places[0];
    log.flip_at(seen.payload_positions[0] + 1000);
    break;
  }
  RecordReadOp op;
  EXPECT_EQ(log.read_record(hit, &op), -EILSEQ);
  EXPECT_FALSE(op.payload);
}

TEST(Wal, AFailedWriteTakesTheLogOutOfService) {
  TestLog log(12);
  log.append_and_settle(1);
  log.node().disk->faults.write_error_chance = 1;
  ASSERT_TRUE(log.append(2));
  ASSERT_TRUE(log.append(3));
  log.settle_externals();
  log.run_for(sim::kSecond);
  EXPECT_TRUE(log.wal().failed());
  EXPECT_EQ(log.results, (std::vector<Code>{Code::kOk, Code::kIo, Code::kIo}));
  log.node().disk->faults.write_error_chance = 0;  // it would work again: never retried
  ASSERT_TRUE(log.append(4));
  EXPECT_EQ(log.results.size(), 3u) << "never from inside the call";
  log.run_for(sim::kSecond);
  ASSERT_EQ(log.results.size(), 4u);
  EXPECT_EQ(log.results.back(), Code::kIo);
  io::Op op;
  op.done = [](io::Op*) {};
  log.wal().release_before(log.wal().head_position(), {}, &op);
  log.run_for(sim::kSecond);
  EXPECT_EQ(op.result, -EIO);
}

TEST(Wal, AFailedExternalPayloadFailsItsAppendAndThoseBehind) {
  TestLog log(13);
  std::vector<Code> results;
  Append appends[2];
  for (Append& a : appends) {
    a.records.resize(1);
    a.records[0].type = RecordType::kLocal;
    a.owner = &results;
    a.done = [](Append* x) { static_cast<std::vector<Code>*>(x->owner)->push_back(x->result); };
  }
  appends[0].external_pending = 1;
  log.wal().append(&appends[0]);
  log.wal().append(&appends[1]);
  log.run_for(sim::kSecond);
  log.wal().external_done(&appends[0], -EIO);
  EXPECT_EQ(results, (std::vector<Code>{Code::kIo, Code::kIo}));
  EXPECT_TRUE(log.wal().failed());
  for (Append& a : appends) a.header = {};
}

TEST(Wal, AfterAFailureAppendsAreStillAnsweredInOrder) {  // their memory is the owner's until then
  TestLog log(14);
  std::vector<const Append*> answered;
  Append appends[3];
  for (Append& a : appends) {
    a.records.resize(1);
    a.records[0].type = RecordType::kLocal;
    a.owner = &answered;
    a.done = [](Append* x) { static_cast<std::vector<const Append*>*>(x->owner)->push_back(x); };
  }
  appends[1].external_pending = 1;
  log.node().disk->faults.write_error_chance = 1;
  log.wal().append(&appends[0]);
  log.wal().append(&appends[1]);
  log.run_for(sim::kSecond);
  EXPECT_TRUE(log.wal().failed());
  log.wal().append(&appends[2]);
  log.run_for(sim::kSecond);
  EXPECT_EQ(answered, (std::vector<const Append*>{&appends[0]}));
  log.wal().external_done(&appends[1], 0);
  EXPECT_EQ(answered, (std::vector<const Append*>{&appends[0], &appends[1], &appends[2]}));
  for (Append& a : appends) a.header = {};
}

TEST(Wal, AnIdleLogPublishesItsLastWatermarkOnceAndSleeps) {  // R3
  TestLog log(14);
  log.append_and_settle(1);
  const uint64_t head = log.wal().head_position();
  log.run_for(100 * sim::kMillisecond);
  EXPECT_EQ(log.wal().head_position(), head + kSectorBytes);
  const uint64_t events = log.world().events();
  log.run_for(10 * sim::kSecond);
  EXPECT_EQ(log.wal().head_position(), head + kSectorBytes);
  EXPECT_LE(log.world().events(), events + 2) << "an idle log burns nothing";
  log.restart();
  ASSERT_EQ(log.seen().size(), 1u);
  EXPECT_TRUE(log.seen()[0].promised);
}

TEST(Wal, NothingIsPublishedBeforeTheOwnersFirstAppendAfterRecovery) {
  TestLog log(15, {.idle_publish_ns = 3'600'000'000'000});
  log.append_and_settle(1);
  for (int i = 0; i < 3; ++i) {
    log.restart();
    log.run_for(sim::kSecond);
    ASSERT_EQ(log.seen().size(), 1u);
    EXPECT_FALSE(log.seen()[0].promised);
  }
  log.append_and_settle(2);
  log.append_and_settle(3);
  log.restart();
  ASSERT_EQ(log.seen().size(), 3u);
  EXPECT_TRUE(log.seen()[0].promised && log.seen()[1].promised);
  EXPECT_FALSE(log.seen()[2].promised);
}

TEST(Wal, RefusesWhatIsNotItsOwn) {
  TestLog log(16);
  log.append_and_settle(1);
  log.crash(sim::CrashKind::kKill);
  log.node().boot = [](io::Loop& loop) -> std::unique_ptr<sim::Process> {
    base::BufferPool pool;
    StoreId other = kTestStore;
    other.bytes[0] = 99;
    auto foreign = Wal::open(loop, pool, TestLog::kPath, other, {});
    EXPECT_FALSE(foreign);
    EXPECT_EQ(foreign.error().code, Code::kCorrupt);
    EXPECT_NE(foreign.error().message.find("belongs to store"), std::string::npos);
    auto missing = Wal::open(loop, pool, "/nothing", kTestStore, {});
    EXPECT_EQ(missing.error().code, Code::kNotFound);
    auto mine = Wal::open(loop, pool, TestLog::kPath, kTestStore, {});
    EXPECT_TRUE(mine.ok());
    auto twice = Wal::open(loop, pool, TestLog::kPath, kTestStore, {});
    EXPECT_EQ(twice.error().code, Code::kLocked);
    return nullptr;
  };
  log.start();
}

TEST(Wal, FormatChecksItsNumbers) {
  sim::World world(1);
  world.start(world.add_node("store"), [](io::Loop& loop) -> std::unique_ptr<sim::Process> {
    EXPECT_EQ(Wal::format(loop, "/a", {.store = kTestStore, .bytes = 1 << 20}).error().code,
              Code::kInvalid);
    EXPECT_EQ(Wal::format(loop, "/a", {.store = {}, .bytes = 64 << 20}).error().code,
              Code::kInvalid);
    EXPECT_EQ(
        Wal::format(loop, "/a", {.store = kTestStore, .bytes = 64 << 20, .segment_bytes = 5000})
            .error()
            .code,
        Code::kInvalid);
    EXPECT_EQ(
        Wal::format(loop, "/a", {.store = kTestStore, .bytes = 1 << 20, .segment_bytes = 1 << 20})
            .error()
            .code,
        Code::kInvalid);
    return nullptr;
  });
}

}  // namespace
}  // namespace curve::wal
