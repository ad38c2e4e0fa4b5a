// GroupLog: each rule by itself, then random histories of a group, with reclaimed segments and
// copies (R7), against a twin that simply keeps the log.
#include "native/wal/group_log.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "native/sim/random.h"
#include "native/wal/test_log.h"

namespace curve::wal {
namespace {

// "3@1" is entry 3 of term 1.
struct Script {
  explicit Script(Index base = 0, Term base_term = 0) : log(base, base_term) {}
  Script& add(RecordType type, Index index, Term term, bool promised = true,
              uint32_t payload_bytes = 0, uint8_t entry_type = 2) {
    place += kSectorBytes;
    log.add({.type = type,
             .entry_type = entry_type,
             .group = 1,
             .index = index,
             .term = term,
             .head = {},
             .annotation = {},
             .sector_crcs = {},
             .payload_bytes = payload_bytes,
             .place = place + 1,
             .payload_position = 0,
             .promised = promised});
    return *this;
  }
  Script& entry(Index index, Term term) { return add(RecordType::kEntry, index, term); }
  Script& copy(Index index, Term term) { return add(RecordType::kEntryCopy, index, term); }
  // Its payload is not in the WAL (R4).
  Script& external(Index index, Term term) {
    return add(RecordType::kEntry, index, term, true, kBlockBytes);
  }
  Script& cut_torn(Index after) { return add(RecordType::kTruncate, after, 0, true, 0, kCutTorn); }
  Script& truncate(Index after) { return add(RecordType::kTruncate, after, 0); }
  std::string shown() {
    auto a = log.assemble();
    std::string out = std::to_string(a.before) + "@" + std::to_string(a.before_term) + ":";
    for (const LoggedEntry& e : a.entries)
      out += " " + std::to_string(e.index) + "@" + std::to_string(e.term);
    return out + (a.hole ? " hole" : "") + (a.replaced ? " replaced" : "");
  }
  GroupLog log;
  uint64_t place = 0;
};

TEST(GroupLog, EntriesInOrder) {
  EXPECT_EQ(Script().entry(1, 1).entry(2, 1).entry(3, 2).shown(), "0@0: 1@1 2@1 3@2");
}
// R5: what blocks hold is the log's only until the checkpoint.
TEST(GroupLog, AnExternalEntryInTheCheckpointIsNotRetained) {
  EXPECT_EQ(Script(3, 1).entry(1, 1).external(2, 1).entry(3, 1).entry(4, 1).shown(),
            "2@1: 3@1 4@1");
  EXPECT_EQ(Script(3, 1).entry(2, 1).external(3, 1).external(4, 1).shown(), "3@1: 4@1");
}
// R4: the commit index beyond a torn payload was known here and promised by nobody here.
TEST(GroupLog, ACutBeforeATornPayloadForgetsTheCommitsBehindIt) {
  Script s;
  s.entry(1, 1).external(2, 1).add(RecordType::kCommit, 2, 0).cut_torn(1);
  EXPECT_EQ(s.shown(), "0@0: 1@1");
  EXPECT_EQ(s.log.commit, 1u);
  s.entry(2, 1).add(RecordType::kCommit, 2, 0);
  EXPECT_EQ(s.log.commit, 2u);
  EXPECT_EQ(s.shown(), "0@0: 1@1 2@1");
}
TEST(GroupLog, NothingAtAll) { EXPECT_EQ(Script(7, 3).shown(), "7@3:"); }
TEST(GroupLog, AnEntryVoidsWhatIsBehindIt) {
  EXPECT_EQ(Script().entry(1, 1).entry(2, 1).entry(3, 1).entry(2, 2).shown(), "0@0: 1@1 2@2");
}
// R3: entry 2 of term 2 went with damage, and those of term 1 are not what entry 3 came behind.
TEST(GroupLog, WhatMayHaveBeenReplacedInAGapIsVoid) {
  Script s;
  s.entry(1, 1).add(RecordType::kCommit, 1, 0).entry(2, 1).entry(3, 1);
  s.log.gap();
  EXPECT_EQ(s.entry(3, 2).shown(), "0@0: 1@1 hole");
  Script committed;
  committed.entry(1, 1).entry(2, 1).add(RecordType::kCommit, 2, 0);
  committed.log.gap();
  EXPECT_EQ(committed.entry(3, 2).shown(), "0@0: 1@1 2@1 3@2");
}
TEST(GroupLog, ATruncationVoidsWhatIsBehindIt) {
  EXPECT_EQ(Script().entry(1, 1).entry(2, 1).entry(3, 1).truncate(1).shown(), "0@0: 1@1");
}
TEST(GroupLog, ACopyFillsInAndVoidsNothing) {  // R7
  EXPECT_EQ(Script(4, 1).entry(7, 2).entry(8, 2).copy(5, 1).copy(6, 2).shown(),
            "4@1: 5@1 6@2 7@2 8@2");
  EXPECT_EQ(Script().entry(1, 1).entry(2, 1).entry(3, 1).copy(2, 1).shown(), "0@0: 1@1 2@1 3@1");
}
TEST(GroupLog, ACopyOfTheSameEntryMovesItsPlace) {
  Script script;
  script.entry(1, 1).entry(2, 1);
  const uint64_t before = script.log.assemble().entries[0].place;
  script.add(RecordType::kEntryCopy, 1, 1, false);
  EXPECT_GT(script.log.assemble().entries[0].place, before);
  EXPECT_TRUE(script.log.assemble().entries[0].promised);  // the original was
}
TEST(GroupLog, ACopyOfAnOlderTermLoses) {
  EXPECT_EQ(Script().entry(1, 1).entry(2, 3).copy(2, 2).shown(), "0@0: 1@1 2@3");
}
TEST(GroupLog, AMissingEntryIsAHole) {
  EXPECT_EQ(Script().entry(1, 1).entry(2, 1).entry(4, 1).shown(), "0@0: 1@1 2@1 hole");
  EXPECT_EQ(Script(5, 1).entry(7, 1).shown(), "5@1: hole");
}
TEST(GroupLog, ATermThatFallsIsAHole) {
  EXPECT_EQ(Script().entry(1, 3).copy(2, 2).shown(), "0@0: 1@3 hole");
}
TEST(GroupLog, EntriesBelowBaseAreKeptForLaggards) {
  EXPECT_EQ(Script(3, 2).entry(1, 1).entry(2, 1).entry(3, 2).entry(4, 2).shown(),
            "1@1: 2@1 3@2 4@2");
  EXPECT_EQ(Script(4, 2).entry(1, 1).entry(3, 2).entry(4, 2).entry(5, 2).shown(), "3@2: 4@2 5@2");
}
TEST(GroupLog, EntriesBelowBaseThatDoNotReachItAreDropped) {
  EXPECT_EQ(Script(9, 2).entry(1, 1).entry(2, 1).shown(), "9@2:");
}
TEST(GroupLog, AnotherEntryAtBaseIsNeverTrusted) {  // R4
  EXPECT_EQ(Script(3, 2).entry(2, 1).entry(3, 1).shown(), "3@2: replaced");
  EXPECT_EQ(Script(3, 2).entry(2, 3).entry(3, 3).entry(4, 3).shown(), "3@2: hole");
  EXPECT_EQ(Script(3, 2).entry(3, 1).entry(4, 1).shown(), "3@2: replaced")
      << "4@1 cannot follow 3@2";
}
// R10: 2@1 and 3@1 were replaced by a sync to 3@2. They fit before 4@3, so that only the record
// that voids them keeps them from coming back once base has moved on.
TEST(GroupLog, WhatSyncReplacedDoesNotComeBack) {
  EXPECT_EQ(Script(3, 2).entry(2, 1).entry(3, 1).truncate(0).entry(4, 3).shown(), "3@2: 4@3");
  EXPECT_EQ(Script(4, 3).entry(2, 1).entry(3, 1).truncate(0).entry(4, 3).shown(), "4@3:");
}
TEST(GroupLog, HardStateAndCommitOnlyRise) {
  Script s;
  s.add(RecordType::kHardState, 0, 4)
      .add(RecordType::kHardState, 0, 3)
      .add(RecordType::kCommit, 9, 0)
      .add(RecordType::kCommit, 5, 0);
  EXPECT_EQ(s.log.term, 4u);
  EXPECT_EQ(s.log.commit, 9u);
  std::vector<std::byte> vote(16, std::byte{7});
  s.log.add({.type = RecordType::kHardState,
             .entry_type = 0,
             .group = 1,
             .index = 0,
             .term = 4,
             .head = vote,
             .annotation = {},
             .sector_crcs = {},
             .payload_bytes = 0,
             .place = 1,
             .payload_position = 0,
             .promised = true});
  EXPECT_EQ(s.log.vote.bytes[0], 7);
  s.add(RecordType::kHardState, 0, 4);
  EXPECT_EQ(s.log.vote.bytes[0], 7) << "a vote is not taken back within its term";
  s.add(RecordType::kHardState, 0, 5);
  EXPECT_TRUE(s.log.vote.is_none());
}
TEST(GroupLog, AReplacedGroupStartsAnew) {
  Script s;
  s.entry(1, 1).add(RecordType::kHardState, 0, 4).add(RecordType::kGroup, 0, 0);
  EXPECT_EQ(s.shown(), "0@0:");
  EXPECT_EQ(s.log.term, 0u);
}

// --- random histories ---

struct Written {
  RecordType type;
  Index index;
  Term term;
  uint64_t place;
};

// A group as its owner runs it: a log, a checkpoint (base), a WAL of records whose front is
// reclaimed.
struct History {
  explicit History(uint64_t seed) : random(seed) {}
  void write(RecordType type, Index index, Term of) {
    wal.push_back({type, index, of, ++places});
    if (type == RecordType::kEntry || type == RecordType::kEntryCopy) place[index] = places;
  }
  Index last() const { return terms.size() - 1; }
  void step() {
    const uint64_t what = random.below(20);
    if (what < 10) {
      terms.push_back(term);
      write(RecordType::kEntry, last(), term);
    } else if (what < 12 && last() > applied) {  // a new leader overwrites what was not committed
      const Index from = random.between(applied + 1, last());
      terms.resize(from);
      terms.push_back(++term);
      write(RecordType::kEntry, from, term);
    } else if (what == 12 && last() > applied) {
      const Index after = random.between(applied, last());
      terms.resize(after + 1);
      write(RecordType::kTruncate, after, 0);
    } else if (what < 15) {
      applied = random.between(applied, last());
    } else if (what == 15) {
      ++term;
      write(RecordType::kHardState, 0, term);
    } else if (what < 18) {
      base = applied;  // checkpoint
    } else {
      reclaim();
    }
  }
  // What is live in the front is copied to the head; then the front may go (or the crash comes
  // first).
  void reclaim() {
    if (wal.empty()) return;
    const uint64_t before = wal[random.below(wal.size())].place;
    for (Index i = base + 1; i <= last(); ++i)
      if (place[i] < before) write(RecordType::kEntryCopy, i, terms[i]);
    write(RecordType::kHardState, 0, term);
    if (random.chance(0.7)) std::erase_if(wal, [&](const Written& w) { return w.place < before; });
  }
  GroupLog replay() const {
    GroupLog log(base, terms[base]);
    for (const Written& w : wal)
      log.add({.type = w.type,
               .entry_type = 2,
               .group = 1,
               .index = w.index,
               .term = w.term,
               .head = {},
               .annotation = {},
               .sector_crcs = {},
               .payload_bytes = 0,
               .place = w.place,
               .payload_position = 0,
               .promised = true});
    return log;
  }
  sim::Random random;
  std::vector<Term> terms{0};  // by index; the twin
  std::map<Index, uint64_t> place;
  std::vector<Written> wal;
  Index applied = 0, base = 0;
  Term term = 1;
  uint64_t places = 0;
};

TEST(GroupLogHistories, ReplayGivesTheLog) {
  for (uint64_t seed = 1; seed <= seeds(400); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    History h(seed);
    for (int step = 0; step < 120; ++step) {
      h.step();
      GroupLog log = h.replay();
      auto a = log.assemble();
      ASSERT_FALSE(a.hole);
      ASSERT_LE(a.before, h.base);
      ASSERT_EQ(a.before_term, h.terms[a.before]);
      ASSERT_EQ(a.before + a.entries.size(), h.last());
      Index index = a.before;
      for (const LoggedEntry& e : a.entries) {
        ASSERT_EQ(e.index, ++index);
        ASSERT_EQ(e.term, h.terms[index]) << "entry " << index;
        ASSERT_TRUE(index <= h.base || e.place == h.place.at(index))
            << "entry " << index << " is not where it was moved to";
      }
    }
  }
}

TEST(GroupLogHistories, LostRecordsNeverMakeALogThatIsNotOne) {
  uint64_t holes = 0;
  for (uint64_t seed = 1; seed <= seeds(300); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    History h(seed + 5000);
    for (int step = 0; step < 80; ++step) h.step();
    std::erase_if(h.wal, [&](const Written&) { return h.random.chance(0.1); });
    GroupLog log = h.replay();
    auto a = log.assemble();
    holes += a.hole;
    Index index = a.before;
    Term term = a.before_term;
    for (const LoggedEntry& e : a.entries) {
      ASSERT_EQ(e.index, ++index);
      ASSERT_GE(e.term, term);
      term = e.term;
    }
  }
  EXPECT_GT(holes, 20u);
}

}  // namespace
}  // namespace curve::wal
