// R3, R7: the recovery table row by row, and a crash matrix: random appends and releases, a kill or
// a power cut at every kind of moment (also in the middle of recovery), writes in flight torn and
// dropped by the disk, bits flipped; what comes back is compared with what was promised.
#include "native/wal/recovery.h"

#include <gtest/gtest.h>

#include "native/wal/test_log.h"

namespace curve::wal {
namespace {

// --- the table, row by row; one test per cell that can be reached from outside ---

// Appends 1..count, each published by the next but the last.
struct Chain : TestLog {
  explicit Chain(uint64_t count,
                 Shape shape = {.segment_bytes = 1 << 20, .idle_publish_ns = ~0ull >> 1})
      : TestLog(99, shape) {
    for (uint64_t id = 1; id <= count; ++id) append_and_settle(id);
    for (const Known& k : model()) at.push_back(k);
  }
  void harm_header(uint64_t id) { flip_at(at[id - 1].position + 40); }
  void zero(uint64_t id) {
    for (uint64_t p = at[id - 1].position; p < at[id - 1].position + at[id - 1].bytes;
         p += kSectorBytes)
      file().drop_page(file_offset(p) / sim::kPageBytes);
  }
  // Flips a bit of the first inline payload; false: it has none.
  bool harm_payload(uint64_t id) {
    const Known& k = at[id - 1];
    if (k.bytes <= k.header_bytes) return false;
    flip_at(k.position + k.header_bytes + 77);
    return true;
  }
  uint64_t with_payload(uint64_t from) const {
    for (uint64_t id = from; id <= at.size(); ++id)
      if (at[id - 1].bytes > at[id - 1].header_bytes) return id;
    return 0;
  }
  std::vector<Known> at;
};
std::vector<uint64_t> ids(uint64_t from, uint64_t to, std::vector<uint64_t> without = {}) {
  std::vector<uint64_t> out;
  for (uint64_t id = from; id <= to; ++id)
    if (std::find(without.begin(), without.end(), id) == without.end()) out.push_back(id);
  return out;
}

TEST(RecoveryTable, IsTotalAndNeverCutsWhatWasPromised) {
  for (int found = 0; found < kFoundCount; ++found) {
    EXPECT_NE(kRecoveryTable[found][static_cast<int>(Promise::kWatermark)], Action::kEnd);
    EXPECT_NE(kRecoveryTable[found][static_cast<int>(Promise::kAnchor)], Action::kEnd);
  }
  EXPECT_EQ(recovery_action(Found::kNext, Promise::kNone), Action::kTake);
}

TEST(RecoveryTable, UnreadableAndNotPromisedIsCut) {
  Chain log(5);
  log.crash(sim::CrashKind::kKill);
  log.harm_header(5);
  ASSERT_TRUE(log.start());
  EXPECT_EQ(log.seen_ids(), ids(1, 4));
  EXPECT_TRUE(log.report().torn_tail);
  EXPECT_EQ(log.report().torn_position, log.at[4].position);
  EXPECT_FALSE(log.report().damaged);
  log.restart();
  EXPECT_EQ(log.seen_ids(), ids(1, 4));
}

TEST(RecoveryTable, UnreadableAndPromisedIsDamageAndTheRestIsKept) {
  for (uint64_t harmed : {1, 2, 4, 6, 9}) {
    Chain log(10);
    log.crash(sim::CrashKind::kKill);
    log.harm_header(harmed);
    ASSERT_TRUE(log.start());
    log.check({harmed});
    EXPECT_EQ(log.seen_ids(), ids(1, 10, {harmed}));
    EXPECT_TRUE(log.report().damaged);
    EXPECT_NE(log.report().damage.find(
                  "offset " + std::to_string(log.file_offset(log.at[harmed - 1].position))),
              std::string::npos)
        << log.report().damage;
    EXPECT_EQ(log.report().damage_position, log.at[harmed].position);
    EXPECT_FALSE(log.report().torn_tail);
    // It goes on, and the damage is not forgotten.
    log.append_and_settle(11);
    log.restart();
    EXPECT_TRUE(log.report().damaged);
    EXPECT_EQ(log.report().damage_position, log.at[harmed].position);
    EXPECT_EQ(log.seen_ids(), ids(1, 11, {harmed}));
  }
}

TEST(RecoveryTable, ZerosWherePromisedAreDamage) {  // a lost write
  Chain log(8);
  log.crash(sim::CrashKind::kKill);
  log.zero(3);
  log.zero(4);
  ASSERT_TRUE(log.start());
  EXPECT_TRUE(log.report().damaged);
  EXPECT_EQ(log.seen_ids(), ids(1, 8, {3, 4}));
}

TEST(RecoveryTable, WhatAnEarlierRecoveryTookIsPromisedByTheAnchor) {
  Chain log(5);
  log.restart();
  EXPECT_EQ(log.seen_ids(), ids(1, 5));
  log.crash(sim::CrashKind::kKill);
  log.harm_header(5);
  ASSERT_TRUE(log.start());
  EXPECT_TRUE(log.report().damaged);
  EXPECT_FALSE(log.report().torn_tail);
  EXPECT_EQ(log.seen_ids(), ids(1, 4));
  // Said again by the next one, though the log was written on meanwhile.
  log.append_and_settle(6);
  log.restart();
  EXPECT_TRUE(log.report().damaged);
  EXPECT_EQ(log.seen_ids(), (std::vector<uint64_t>{1, 2, 3, 4, 6}));
  EXPECT_LE(log.report().damage_position, log.known(6).position);
}

TEST(RecoveryTable, ATornPayloadEndsTheLogWhereNothingWasPromised) {
  Chain log(12);
  const uint64_t id = 12;
  ASSERT_TRUE(log.with_payload(id) == id) << "choose another seed";
  log.crash(sim::CrashKind::kKill);
  ASSERT_TRUE(log.harm_payload(id));
  ASSERT_TRUE(log.start());
  EXPECT_EQ(log.seen_ids(), ids(1, 11));
  EXPECT_TRUE(log.report().torn_tail);
  EXPECT_EQ(log.report().torn_position, log.at[id - 1].position);
}

TEST(RecoveryTable, ADamagedPayloadThatAnEarlierRecoveryTookIsDamageButItsRecordStays) {
  Chain log(12);
  log.restart();
  log.crash(sim::CrashKind::kKill);
  ASSERT_TRUE(log.harm_payload(12));
  ASSERT_TRUE(log.start());
  EXPECT_EQ(log.seen_ids(), ids(1, 12));
  EXPECT_TRUE(log.report().damaged);
  EXPECT_FALSE(log.report().torn_tail);
}

TEST(RecoveryTable, ADamagedPayloadOfAPromisedAppendIsLeftToItsReader) {
  Chain log(12);
  const uint64_t id = log.with_payload(3);
  log.crash(sim::CrashKind::kKill);
  ASSERT_TRUE(log.harm_payload(id));
  ASSERT_TRUE(log.start());
  EXPECT_EQ(log.seen_ids(), ids(1, 12));
  EXPECT_FALSE(log.report().damaged);
}

TEST(RecoveryTable, AWholeAppendBehindATornOneIsCutWithItAndStaysDead) {
  // Two in flight: the first is torn, the second is whole on disk. Nobody was told of either.
  TestLog log(3, {.segment_bytes = 1 << 20, .idle_publish_ns = ~0ull >> 1});
  for (uint64_t id = 1; id <= 3; ++id) log.append_and_settle(id);
  ASSERT_TRUE(log.append(4));
  ASSERT_TRUE(log.append(5));
  log.settle();
  const uint64_t fourth = log.known(4).position;
  log.crash(sim::CrashKind::kKill);
  log.flip_at(fourth + 20);
  ASSERT_TRUE(log.start());
  EXPECT_EQ(log.seen_ids(), ids(1, 3));
  EXPECT_TRUE(log.report().torn_tail);
  EXPECT_FALSE(log.report().damaged);
  log.flip_at(fourth + 20);  // the sector can be read again: too late
  log.restart();
  EXPECT_EQ(log.seen_ids(), ids(1, 3));
  EXPECT_FALSE(log.report().damaged);
  // The place of the torn one is written again with something of the same size: its old follower
  // must not join.
  log.check({4, 5});
  log.append_and_settle(4);
  log.restart();
  EXPECT_EQ(log.seen_ids(), ids(1, 4));
}

TEST(RecoveryTable, AnUnreadableRegionIsJumpedOver) {
  Chain log(60);
  log.crash(sim::CrashKind::kKill);
  std::vector<uint64_t> lost;
  for (uint64_t id = 20; id <= 40; ++id) {
    for (uint64_t p = 0; p < log.at[id - 1].bytes; p += 512)
      log.flip_at(log.at[id - 1].position + p + 9);
    lost.push_back(id);
  }
  ASSERT_TRUE(log.start());
  log.check(lost);
  EXPECT_EQ(log.seen_ids(), ids(1, 60, lost));
}

TEST(RecoveryTable, AWholeSegmentCanBeLostAndTheRestIsFound) {
  Chain log(60, {.segment_bytes = 64 * 1024, .segments = 32, .idle_publish_ns = ~0ull >> 1});
  log.crash(sim::CrashKind::kKill);
  const uint64_t segment = log.at[0].position + 2 * 64 * 1024;
  std::vector<uint64_t> lost;
  for (const Known& k : log.at)
    if (k.position >= segment && k.position < segment + 64 * 1024) lost.push_back(k.id);
  ASSERT_GT(lost.size(), 2u);
  for (uint64_t p = segment; p < segment + 64 * 1024; p += kSectorBytes)
    log.file().drop_page(log.file_offset(p) / sim::kPageBytes);
  ASSERT_TRUE(log.start());
  log.check(lost);
  EXPECT_EQ(log.seen_ids(), ids(1, 60, lost));
}

TEST(RecoveryTable, DamageIsForgottenOnlyWhenItsSegmentIsReleased) {
  Chain log(60, {.segment_bytes = 64 * 1024, .segments = 32, .idle_publish_ns = ~0ull >> 1});
  log.crash(sim::CrashKind::kKill);
  const uint64_t segment = log.at[0].position + 64 * 1024;
  for (uint64_t p = segment; p < segment + 64 * 1024; p += kSectorBytes)
    log.file().drop_page(log.file_offset(p) / sim::kPageBytes);
  ASSERT_TRUE(log.start());
  ASSERT_TRUE(log.report().damaged);
  for (uint64_t position : {segment - 1, segment, segment + 5000}) {
    log.release(position);
    log.restart();
    EXPECT_TRUE(log.report().damaged) << position - segment;
  }
  log.release(segment + 64 * 1024);
  log.restart();
  EXPECT_FALSE(log.report().damaged) << log.report().damage;
  EXPECT_EQ(log.seen_ids().back(), 60u);
}

// --- footers ---

TEST(Footer, SealedSegmentsAreReadFromTheirFooters) {
  Chain log(100, {.segment_bytes = 256 * 1024, .segments = 16, .idle_publish_ns = ~0ull >> 1});
  log.crash(sim::CrashKind::kKill);
  // All headers of the first segment are harmed: only the footer knows what it held.
  std::vector<uint64_t> harmed;
  for (const Known& k : log.at) {
    if (k.position / (256 * 1024) != 1) continue;
    log.flip_at(k.position + 30);
    harmed.push_back(k.id);
  }
  ASSERT_GT(harmed.size(), 5u);
  ASSERT_TRUE(log.start());
  log.check();
  EXPECT_EQ(log.seen_ids(), ids(1, 100));
}

TEST(Footer, ADamagedFooterIsNoDamage) {
  for (uint64_t offset :
       {uint64_t{4096}, uint64_t{4096 - 30}, uint64_t{2 * 4096}, uint64_t{3 * 4096 - 700}}) {
    Chain log(100, {.segment_bytes = 256 * 1024, .segments = 16, .idle_publish_ns = ~0ull >> 1});
    log.crash(sim::CrashKind::kKill);
    for (uint64_t segment : {1, 2}) log.flip_at((segment + 1) * 256 * 1024 - offset);
    ASSERT_TRUE(log.start());
    log.check();
    EXPECT_EQ(log.seen_ids(), ids(1, 100));
  }
}

TEST(Footer, AFooterIsNotBelievedOnceItsSegmentWasCutAndWrittenOn) {
  // The first append of the next segment is torn, and the last one before it: recovery goes back
  // into the sealed segment.
  Chain log(100, {.segment_bytes = 256 * 1024, .segments = 16, .idle_publish_ns = ~0ull >> 1});
  uint64_t last = 0;  // in the segment that was sealed last
  const uint64_t head_segment = log.at.back().position / (256 * 1024);
  for (const Known& k : log.at)
    if (k.position / (256 * 1024) < head_segment) last = k.id;
  log.crash(sim::CrashKind::kKill);
  for (const Known& k : log.at)
    if (k.id > last) log.zero(k.id);
  const uint64_t footer_end = log.at[last - 1].position / (256 * 1024) * 256 * 1024 + 256 * 1024;
  log.flip_at(footer_end - 4096);  // unreadable this time
  ASSERT_TRUE(log.start());
  log.check(ids(last + 1, 100));
  log.flip_at(footer_end - 4096);  // and readable again
  uint64_t id = 1000;
  for (int i = 0; i < 3; ++i) {
    log.append_and_settle(++id);
    log.restart();
    log.check();
    EXPECT_EQ(log.seen_ids().back(), id);
  }
}

// --- anchors ---

TEST(Anchor, EitherSlotIsEnough) {
  for (uint64_t offset : kAnchorOffsets) {
    Chain log(10);
    log.release(log.at[9].position);
    log.crash(sim::CrashKind::kKill);
    log.flip(offset + 24);
    ASSERT_TRUE(log.start());
    log.check();
    EXPECT_EQ(log.seen_ids(), ids(1, 10));
    log.restart();  // both slots were written again
    EXPECT_EQ(log.seen_ids(), ids(1, 10));
  }
}

// R3: damage that is remembered takes a vote; what a device refuses once is not damage yet.
TEST(Recovery, WhatTheDeviceRefusesOnceIsNoDamage) {
  Chain log(6);
  for (int round = 0; round < 30; ++round) {
    log.crash(sim::CrashKind::kKill);
    log.node().disk->faults.read_error_chance = 0.1;
    while (!log.start()) {  // the anchors are read as well
    }
    ASSERT_FALSE(log.report().damaged) << log.report().damage;
  }
}

TEST(Anchor, NoneIsRefusedWithASentence) {
  Chain log(3);
  log.crash(sim::CrashKind::kKill);
  for (uint64_t offset : kAnchorOffsets) log.flip(offset + 24);
  EXPECT_FALSE(log.start());
  EXPECT_NE(log.refusal().find("no readable anchor (offset 0: CRC does not match; offset 65536"),
            std::string::npos)
      << log.refusal();
}

TEST(Anchor, AnAnchorOlderThanTheLogIsRefused) {  // the device lost the writes of both slots
  Chain log(3);
  log.crash(sim::CrashKind::kKill);
  sim::Page before[2];
  for (int i = 0; i < 2; ++i) log.file().read(kAnchorOffsets[i], before[i]);
  ASSERT_TRUE(log.start());
  log.append_and_settle(4);
  log.crash(sim::CrashKind::kKill);
  for (int i = 0; i < 2; ++i) log.file().put(kAnchorOffsets[i], before[i]);
  EXPECT_FALSE(log.start());
  EXPECT_NE(log.refusal().find("lost writes of both anchors"), std::string::npos) << log.refusal();
}

TEST(Anchor, CodecKeepsEverythingAndRefusesNonsense) {
  Anchor a;
  a.store = kTestStore;
  a.log_id = 7;
  a.anchor_sequence = 9;
  a.segment_bytes = 1 << 20;
  a.segment_count = 12;
  a.generation = 5;
  a.start_position = 3 << 20;
  a.start_sequence = 44;
  a.start_link = 0xabcd;
  a.watermark = 50;
  a.damage_position = 5 << 20;
  a.boundaries = {{1, 1 << 20, 1, 0, 0}, {5, 4 << 20, 60, 77, 0}};
  a.blob.resize(kBlobBytesMax, std::byte{9});
  std::vector<std::byte> bytes(kAnchorBytes);
  encode_anchor(a, bytes);
  auto back = decode_anchor(bytes);
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(*back, a);
  auto refused = [&](auto change) {
    Anchor bad = a;
    change(bad);
    encode_anchor(bad, bytes);
    return !decode_anchor(bytes).ok();
  };
  EXPECT_TRUE(refused([](Anchor& x) { x.segment_bytes = 0; }));
  EXPECT_TRUE(refused([](Anchor& x) { x.segment_count = 0; }));
  EXPECT_TRUE(refused([](Anchor& x) { x.segment_count = ~0ull; }));
  EXPECT_TRUE(refused([](Anchor& x) { x.start_position = 5; }));
  EXPECT_TRUE(refused([](Anchor& x) { x.boundaries.clear(); }));
  EXPECT_TRUE(refused([](Anchor& x) { x.generation = 6; }));
  EXPECT_TRUE(refused([](Anchor& x) { std::swap(x.boundaries[0], x.boundaries[1]); }));
  EXPECT_TRUE(refused([](Anchor& x) { x.boundaries[0].position = ~0ull; }));
}

TEST(Anchor, ManyGenerationsWithinTheRetainedLog) {
  TestLog log(5, {.segment_bytes = 1 << 20});
  for (uint64_t id = 1; id <= 3 * kBoundariesMax; ++id) {
    log.append_and_settle(id);
    log.restart();
    log.check();
    ASSERT_EQ(log.seen().size(), id);
  }
}

// --- the matrix ---

struct Matrix {
  explicit Matrix(uint64_t seed)
      : random(sim::Random(seed).split("matrix")),
        log(seed, {.segment_bytes = 64 * 1024 * random.between(1, 3),
                   .segments = random.between(5, 9),
                   .inflight_appends_max = static_cast<uint32_t>(random.between(1, 4))}) {}

  // Appends and releases until a random moment.
  void work() {
    const uint64_t steps = random.skewed(120);
    for (uint64_t i = 0; i < steps; ++i) {
      const uint64_t what = random.below(10);
      if (what < 6) {
        if (log.append(next_id)) ++next_id;
      } else if (what == 6) {
        log.settle_externals();
      } else if (what == 7 && !log.releasing() && random.chance(0.3)) {
        release();
      } else {
        log.run_for(random.skewed(sim::kMillisecond * 8));
      }
      if (!log.can_append(next_id) && log.wal().ready()) release();
    }
  }
  void release() {
    if (log.releasing()) return;
    const uint64_t start = log.wal().start_position(), head = log.wal().head_position();
    log.release(start + random.below((head - start) / 2 + head % 2 + 1), random.chance(0.5));
  }
  sim::Random random;
  TestLog log;
  uint64_t next_id = 1;
};

TEST(CrashMatrix, NothingAcknowledgedIsLostNothingDeadComesBack) {
  uint64_t torn = 0, cut = 0;
  for (uint64_t seed = 1; seed <= seeds(60); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Matrix m(seed);
    for (int round = 0; round < 12; ++round) {
      SCOPED_TRACE("round " + std::to_string(round));
      m.work();
      m.log.crash(m.random.chance(0.5) ? sim::CrashKind::kPower : sim::CrashKind::kKill);
      // Recovery itself may be cut short, several times.
      while (m.random.chance(0.3)) {
        m.log.crash_in_recovery(m.random.between(1, 40));
        if (m.log.start()) {
          m.log.crash(sim::CrashKind::kPower);
          break;
        }
      }
      ASSERT_TRUE(m.log.start()) << m.log.refusal();
      cut += m.log.report().torn_tail;
      const auto first = m.log.seen_ids();
      m.log.check();
      if (m.random.chance(0.5)) {  // twice in a row, the same
        m.log.restart(m.random.chance(0.5) ? sim::CrashKind::kPower : sim::CrashKind::kKill);
        EXPECT_EQ(m.log.seen_ids(), first);
        m.log.check();
      }
      if (m.random.chance(0.2)) m.log.check_reads();
      if (testing::Test::HasFailure()) return;
    }
    torn += m.log.node().disk->torn_writes();
  }
  EXPECT_GT(torn, 50u);  // the adversary did something
  EXPECT_GT(cut, 20u);
}

// R7: the log is full, a release is under way, and the power goes at some moment of it.
TEST(CrashMatrix, ASegmentIsUsedAgainOnlyAfterItsAnchorIsDurable) {
  uint64_t released = 0;
  for (uint64_t seed = 1; seed <= seeds(60); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Matrix m(2000 + seed);
    // Full to the last sector: none of many sizes fits any more.
    for (int refused = 0; refused < 30; ++m.next_id) {
      if (!m.log.can_append(m.next_id)) {
        ++refused;
        continue;
      }
      m.log.append_and_settle(m.next_id);
      refused = 0;
    }
    m.log.release(m.log.wal().start_position() + 2 * m.log.wal().segment_bytes(), false);
    for (uint64_t left = m.random.below(8); left > 0; --left) {
      if (m.log.append(m.next_id)) ++m.next_id;
      m.log.run_for(m.random.below(150 * sim::kMicrosecond));
    }
    released += !m.log.releasing();
    m.log.crash(sim::CrashKind::kPower);
    ASSERT_TRUE(m.log.start()) << m.log.refusal();
    m.log.check();
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(released, 3u);
  EXPECT_LT(released, seeds(60));
}

TEST(CrashMatrix, AFullLogThatEndsWithItsLastSegmentIsNotWrittenOver) {
  // Headers that fill their sector leave no footer: segments are used to the last sector, and the
  // watermark that the idle log publishes takes the very last one of the lap.
  TestLog log(17, {.segment_bytes = 64 * 1024, .segments = 4});
  const std::vector<std::byte> head(3900, std::byte{7});
  Append append;
  bool done = false;
  uint64_t appends = 0;
  append.owner = &done;
  append.done = [](Append* a) { *static_cast<bool*>(a->owner) = true; };
  auto fill = [&] {
    while (log.wal().has_room(0, 1, head.size(), 0)) {
      append.records.assign(1, {});
      append.records[0].type = RecordType::kLocal;
      append.records[0].head = head;
      done = false;
      log.wal().append(&append);
      ASSERT_TRUE(log.world().run_until([&] { return done; }, sim::kSecond));
      ++appends;
    }
  };
  fill();
  log.run_for(sim::kSecond);  // publishes
  append.header = {};
  ++appends;
  const uint64_t start = log.wal().start_position();
  EXPECT_EQ(log.wal().head_position(), start + log.wal().capacity_bytes());
  EXPECT_EQ(appends, log.wal().capacity_bytes() / kSectorBytes);
  for (int i = 0; i < 3; ++i) {
    log.restart(i % 2 ? sim::CrashKind::kKill : sim::CrashKind::kPower);
    EXPECT_EQ(log.report().appends, appends);
    EXPECT_FALSE(log.report().damaged || log.report().torn_tail);
    fill();  // nothing fits
    log.run_for(sim::kSecond);
    EXPECT_EQ(log.wal().head_position(), start + log.wal().capacity_bytes());
  }
  log.release(start + log.wal().segment_bytes());
  fill();
  append.header = {};
  log.restart();
  EXPECT_EQ(log.report().appends, appends - log.wal().segment_bytes() / kSectorBytes);
  EXPECT_FALSE(log.report().damaged);
}

TEST(CrashMatrix, AFlippedBitBelowTheWatermarkIsNeverSilent) {
  uint64_t reported = 0;
  for (uint64_t seed = 1; seed <= seeds(80); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Matrix m(1000 + seed);
    m.work();
    m.log.settle();
    m.log.run_for(sim::kSecond);  // published
    auto& model = m.log.model();
    std::vector<const Known*> retained;
    for (const Known& k : model)
      if (k.position >= m.log.wal().start_position()) retained.push_back(&k);
    if (retained.empty()) continue;
    const Known harmed = *retained[m.random.below(retained.size())];
    m.log.crash(m.random.chance(0.5) ? sim::CrashKind::kPower : sim::CrashKind::kKill);
    m.log.flip_at(harmed.position + m.random.below(sizeof(AppendHeader) + sizeof(RecordHead)));
    ASSERT_TRUE(m.log.start()) << m.log.refusal();
    // Lost and said so, or still there (the bit was padding, or a footer knew).
    const auto seen = m.log.seen_ids();
    const bool there = std::find(seen.begin(), seen.end(), harmed.id) != seen.end();
    EXPECT_NE(there, m.log.report().damaged) << "append " << harmed.id;
    reported += m.log.report().damaged;
    m.log.check({harmed.id});
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(reported, 10u);
}

TEST(CrashMatrix, AReadErrorIsDamageAndNeverSilent) {
  uint64_t errors = 0;
  for (uint64_t seed = 1; seed <= seeds(40); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Matrix m(3000 + seed);
    m.work();
    m.log.settle();
    m.log.run_for(sim::kSecond);  // published
    m.log.crash(sim::CrashKind::kKill);
    m.log.node().disk->faults.read_error_chance = 0.7;
    if (!m.log.start()) continue;  // no anchor could be read: refused
    m.log.node().disk->faults.read_error_chance = 0;
    const bool damaged = m.log.report().damaged;
    errors += damaged;
    const uint64_t end = m.log.wal().head_position();
    std::vector<uint64_t> lost{0};  // perhaps only an append that published a watermark
    const auto seen = m.log.seen_ids();
    for (const Known& k : m.log.model())
      if (std::find(seen.begin(), seen.end(), k.id) == seen.end()) lost.push_back(k.id);
    m.log.check(m.log.report().damaged ? lost : std::vector<uint64_t>{});
    if (testing::Test::HasFailure()) return;
    m.log.restart();
    // What can be read again comes back in its place (it is part of the log); what was cut does
    // not.
    const auto again = m.log.seen_ids();
    EXPECT_TRUE(std::includes(again.begin(), again.end(), seen.begin(), seen.end()));
    EXPECT_TRUE(m.log.seen().empty() || m.log.seen().back().position < end);
    EXPECT_EQ(m.log.report().damaged, damaged);
  }
  EXPECT_GT(errors, 2u);
}

}  // namespace
}  // namespace curve::wal
