// Replicas that come and go on four real stores: join, learner, filled, voter, the old one removed,
// its space back, the same store joins again; orders repeated and out of place.
#include <optional>

#include "native/copyset/spine_test.h"

namespace curve::copyset {
namespace {

struct Membership : Spine {
  void SetUp() override {
    count = 4;
    Spine::SetUp();
    form();
    fence(5, 1);
    open_client(5, 1);
  }

  CopysetId id(uint32_t index) { return base::copyset_id(kPool, index); }
  StoreId store(int i) { return servers[i]->store_id(); }

  int leader(CopysetId copyset) {
    for (int i = 0; i < kServersMax; ++i) {
      if (!servers[i]) continue;
      replica::ReplicaGroup* group = servers[i]->replica().find(copyset);
      if (group && group->is_leader() && group->raft().lease_valid(loop->now_ns())) return i;
    }
    return -1;
  }

  // So many bytes of chunk 0, again and again: whoever joins finds them in no log. How many it
  // says.
  uint64_t fill_beyond_the_logs() {
    constexpr uint64_t kPieces = 3;
    auto data = pattern(4u << 20, 3);
    for (uint64_t round = 0; round < 8 * kPieces; ++round)
      EXPECT_EQ(io(client::IoType::kWrite, round % kPieces * data.size(), data), Code::kOk);
    checkpoint_all();
    return kPieces * data.size();
  }

  std::vector<CopysetId> join(int i, std::vector<CopysetId> copysets) {
    bool answered = false;
    std::vector<CopysetId> joined;
    run_until(
        [&] {
          servers[i]->join(copysets, [&](std::vector<CopysetId> here) {
            joined = std::move(here);
            answered = true;
          });
        },
        [&] { return answered; });
    return joined;
  }

  MemberOutcome order(int at, CopysetId copyset, MemberChange change, const StoreId& member) {
    bool answered = false;
    MemberOutcome outcome;
    run_until(
        [&] {
          servers[at]->change_members({copyset, change, member, 3}, [&](MemberOutcome result) {
            outcome = std::move(result);
            answered = true;
          });
        },
        [&] { return answered; });
    return outcome;
  }

  // Asks whoever leads until it is done.
  MemberOutcome change(CopysetId copyset, MemberChange kind, const StoreId& member) {
    MemberOutcome outcome;
    const uint64_t until = loop->now_ns() + 30'000'000'000;
    while (!outcome.applied && loop->now_ns() < until) {
      run_until([] {}, [&] { return leader(copyset) >= 0; });
      outcome = order(leader(copyset), copyset, kind, member);
    }
    EXPECT_TRUE(outcome.applied) << outcome.busy;
    return outcome;
  }

  bool remove(int i, CopysetId copyset, Index config_index, Term leader_term = 1) {
    bool answered = false, removed = false;
    run_until(
        [&] {
          servers[i]->remove_replica(copyset, {config_index, leader_term}, [&](bool result) {
            removed = result;
            answered = true;
          });
        },
        [&] { return answered; });
    return removed;
  }

  void checkpoint(int i) {
    Code code = Code::kBusy;
    run_until([&] { servers[i]->checkpoint_now([&](Code result) { code = result; }); },
              [&] { return code != Code::kBusy; });
    EXPECT_EQ(code, Code::kOk);
  }

  // Replaces `from` by `to` in all copysets; the index of each last configuration.
  std::vector<Index> replace(int from, int to) {
    std::vector<Index> last;
    std::vector<CopysetId> all;
    for (uint32_t c = 0; c < kCopysets; ++c) all.push_back(id(c));
    EXPECT_EQ(join(to, all).size(), all.size());
    EXPECT_EQ(join(to, all).size(), all.size());  // idempotent
    for (CopysetId copyset : all) {
      change(copyset, MemberChange::kAddLearner, store(to));
      change(copyset, MemberChange::kPromote, store(to));
      if (leader(copyset) == from) {
        run_until([] {},
                  [&] {
                    if (leader(copyset) == from) (void)servers[from]->transfer(copyset, store(to));
                    return leader(copyset) >= 0 && leader(copyset) != from;
                  });
      }
      last.push_back(change(copyset, MemberChange::kRemove, store(from)).config_index);
    }
    return last;
  }

  uint64_t used(int i) {
    const ServerStatus status = servers[i]->status(false);
    return status.blocks_total - status.blocks_free;
  }
};

// R1: the second order is durable when the replica that the first one made is removed already.
TEST_F(Membership, AnOrderThatIsLateBringsNoRemovedReplicaBack) {
  bool removed = false, answered = false;
  std::vector<CopysetId> again;
  run_until(
      [&] {
        servers[3]->join({id(0)}, [&](std::vector<CopysetId>) {
          servers[3]->remove_replica(id(0), {1, 1}, [&](bool result) { removed = result; });
        });
        servers[3]->join({id(0)}, [&](std::vector<CopysetId> joined) {
          again = std::move(joined);
          answered = true;
        });
      },
      [&] { return removed && answered; });
  EXPECT_TRUE(again.empty());
  EXPECT_EQ(servers[3]->replica().find(id(0)), nullptr);
  EXPECT_EQ(join(3, {id(0)}).size(), 1u);
}

// Likewise genesis, sent twice: whoever asked is told that there is no replica.
TEST_F(Membership, GenesisThatIsLateBringsNoRemovedReplicaBackAndSaysSo) {
  replica::Genesis genesis;
  genesis.group = base::copyset_id(kPool, kCopysets);  // nobody has it yet
  genesis.config.count = 1;
  genesis.config.members[0].store = store(3);
  bool removed = false;
  std::optional<Code> first, second;
  run_until(
      [&] {
        servers[3]->form(genesis, [&](Code code) {
          first = code;
          servers[3]->remove_replica(genesis.group, {1, 1}, [&](bool result) { removed = result; });
        });
        servers[3]->form(genesis, [&](Code code) { second = code; });
      },
      [&] { return removed && second; });
  EXPECT_EQ(first, Code::kOk);
  EXPECT_EQ(second, Code::kExists);
  EXPECT_EQ(servers[3]->replica().find(genesis.group), nullptr);
}

TEST_F(Membership, AReplacedReplicaIsRemovedAndMayComeBack) {
  auto data = pattern(4u << 20, 1);
  for (int round = 0; round < 24; ++round) {  // what it needs has left the logs
    ASSERT_EQ(io(client::IoType::kWrite, (round % 12) * (20ull << 20), data), Code::kOk);
  }
  for (int i = 0; i < 3; ++i) checkpoint(i);
  auto last = replace(1, 3);
  EXPECT_GT(counters(3).syncs_finished, 0u);
  const raft::HardState promised = servers[1]->replica().find(id(0))->raft().hard();
  for (uint32_t c = 0; c < kCopysets; ++c) {
    EXPECT_TRUE(remove(1, id(c), last[c]));
    EXPECT_TRUE(remove(1, id(c), last[c]));
    EXPECT_EQ(servers[1]->replica().find(id(c)), nullptr);
  }
  run_until([] {}, [&] { return in_step(); });
  EXPECT_TRUE(contents(0) == contents(3));
  checkpoint(1);
  EXPECT_EQ(used(1), 0u);
  EXPECT_TRUE(contents(1).empty());
  // R1: genesis comes late and does not bring it back; nor does a restart.
  stop_server(1);
  open_server(1);
  introduce(1);
  EXPECT_TRUE(servers[1]->status(true).copysets.empty());
  Code formed = Code::kBusy;
  replica::Genesis genesis;
  genesis.group = id(0);
  genesis.config.count = 3;
  for (int i = 0; i < 3; ++i) genesis.config.members[i].store = store(i);
  run_until([&] { servers[1]->form(genesis, [&](Code code) { formed = code; }); },
            [&] { return formed != Code::kBusy; });
  EXPECT_EQ(formed, Code::kExists);
  // It comes back with what it promised.
  EXPECT_EQ(join(1, {id(0)}).size(), 1u);
  EXPECT_EQ(servers[1]->replica().find(id(0))->raft().hard(), promised);
  EXPECT_EQ(servers[1]->replica().find(id(0))->raft().config().count, 0);
  last = replace(0, 1);
  for (uint32_t c = 0; c < kCopysets; ++c) EXPECT_TRUE(remove(0, id(c), last[c]));
  run_until([] {}, [&] { return in_step(); });
  EXPECT_TRUE(contents(1) == contents(3));
  close_client();
  open_client(5, 1);  // the store that was restarted has another port
  for (int round = 0; round < 12; ++round) {
    std::vector<std::byte> got(data.size());
    ASSERT_EQ(io(client::IoType::kRead, round * (20ull << 20), got), Code::kOk);
    EXPECT_TRUE(got == data);
  }
}

// R10: what changes while a replica is filled comes in a second pass, and nothing else does.
TEST_F(Membership, ASecondPassTakesInWhatChangedDuringTheFirst) {
  const CopysetId copyset = id(base::copyset_index(5, 0, kCopysets));
  const uint64_t bytes = fill_beyond_the_logs();
  const int at = leader(copyset);
  servers[3]->set_limits({2u << 20, 0});
  EXPECT_EQ(join(3, {copyset}).size(), 1u);
  change(copyset, MemberChange::kAddLearner, store(3));
  auto taken = [&] { return counters(3).sync_bytes; };
  run_until([] {}, [&] { return taken() > 0; });
  auto sector = pattern(kSectorBytes, 4);
  for (uint64_t offset = 0; offset < bytes; offset += 1u << 20)
    ASSERT_EQ(io(client::IoType::kWrite, offset, sector), Code::kOk);
  checkpoint(at);  // the blocks are in the store, and no longer in the overlay
  servers[3]->set_limits({});
  change(copyset, MemberChange::kPromote, store(3));
  EXPECT_GE(taken(), bytes);
  EXPECT_LE(taken(), bytes + 12 * kBlockBytes);
  EXPECT_EQ(counters(3).syncs_finished, 1u);
  run_until([] {}, [&] { return in_step(); });
  auto whole = contents(at);
  std::erase_if(whole, [&](const auto& item) { return std::get<0>(item.first) != copyset; });
  EXPECT_TRUE(whole == contents(3));
}

struct ShortLogs : Membership {  // no more of them is kept than has to be
  ShortLogs() { options.checkpoint_idle_ns = options.checkpoint_interval_ns = 200'000'000; }
};

// R10: a filling ends though somebody writes to every block again and again, faster than it goes
// on.
TEST_F(ShortLogs, WritersAreSlowedToWhatAFillingCanFollow) {
  const CopysetId copyset = id(base::copyset_index(5, 0, kCopysets));
  const uint64_t bytes = fill_beyond_the_logs();
  struct Writer : client::IoRequest {
    Membership* test = nullptr;
    iovec part{};
    uint64_t bytes_max = 0, written = 0;
    bool stop = false, stopped = false;
    void next() {
      offset_bytes = (offset_bytes + kBlockBytes) % bytes_max;
      test->client->submit(this);
    }
  } writer;
  auto sector = pattern(kSectorBytes, 4);
  writer.test = this;
  writer.part = {sector.data(), sector.size()};
  writer.iov = {&writer.part, 1};
  writer.type = client::IoType::kWrite;
  writer.bytes = sector.size();
  writer.bytes_max = bytes;
  writer.done = [](client::IoRequest* request) {
    auto* each = static_cast<Writer*>(request);
    EXPECT_EQ(each->code, Code::kOk);
    ++each->written;
    each->stop ? void(each->stopped = true) : each->next();
  };
  servers[3]->set_limits({16u << 20, 0});
  run_until([&] { writer.next(); }, [&] { return writer.written > 100; });
  EXPECT_EQ(join(3, {copyset}).size(), 1u);
  change(copyset, MemberChange::kAddLearner, store(3));
  change(copyset, MemberChange::kPromote, store(3));
  const ServerCounters filled = counters(3);
  EXPECT_EQ(filled.syncs_finished, 1u);
  EXPECT_LE(filled.sync_bytes, 6 * bytes);  // whole, whole again, then each pass half of the last
  const uint64_t before = writer.written;
  run_until([] {}, [&] { return writer.written > before + 1000; });  // at full speed again
  run_until([&] { writer.stop = true; }, [&] { return writer.stopped; });
}

// R1: a leader alone makes store 3 a learner, which has the entry; others lead then, without it, by
// the configuration of genesis. Nobody sends the learner anything any more that would tell it.
TEST_F(Membership, ALearnerThatOnlyALostLeaderKnewIsRemoved) {
  const CopysetId copyset = id(0);
  run_until([] {}, [&] { return leader(copyset) >= 0; });
  const int at = leader(copyset);
  raft::Group& lost = servers[at]->replica().find(copyset)->raft();
  const Term term = lost.term();
  EXPECT_TRUE(lost.config_settled());
  EXPECT_EQ(join(3, {copyset}).size(), 1u);
  raft::Group& stray = servers[3]->replica().find(copyset)->raft();
  int stopped = 0;
  bool answered = false;
  run_until(
      [&] {
        for (int i = 0; i < 3; ++i) {
          if (i != at) servers[i]->stop([&] { ++stopped; });
        }
        servers[at]->change_members({copyset, MemberChange::kAddLearner, store(3), 3},
                                    [&](MemberOutcome outcome) {
                                      answered = true;
                                      EXPECT_FALSE(outcome.applied);
                                    });
      },
      [&] { return stopped == 2 && stray.config().count == 4; });
  EXPECT_FALSE(lost.config_settled());
  for (int i = 0; i < 3; ++i) {
    if (i != at) servers[i].reset();
  }
  EXPECT_FALSE(answered);
  stop_server(at);
  EXPECT_TRUE(answered);  // not in time: whoever asked is told that it stopped
  for (int i = 0; i < 3; ++i) {
    if (i != at) open_server(i);
  }
  for (int i = 0; i < 3; ++i) {
    if (i != at) introduce(i);
  }
  run_until([] {}, [&] { return leader(copyset) >= 0; });
  raft::Group& now = servers[leader(copyset)]->replica().find(copyset)->raft();
  EXPECT_TRUE(now.config_settled());
  EXPECT_EQ(now.config_index(), 0u);
  EXPECT_EQ(stray.term_at(stray.config_index()), term);
  // What the lost leader said before it changed the members says nothing of that change.
  EXPECT_FALSE(remove(3, copyset, 0, term));
  EXPECT_TRUE(remove(3, copyset, 0, now.term()));
  EXPECT_EQ(servers[3]->replica().find(copyset), nullptr);
}

TEST_F(Membership, OrdersOutOfPlaceAreRefusedWithAReason) {
  const CopysetId copyset = id(0);
  run_until([] {}, [&] { return leader(copyset) >= 0; });
  const int at = leader(copyset), other = (at + 1) % 3;
  MemberOutcome outcome = order(other, copyset, MemberChange::kAddLearner, store(3));
  EXPECT_FALSE(outcome.applied);
  EXPECT_EQ(outcome.leader, store(at));
  outcome = order(at, copyset, MemberChange::kRemove, store(at));
  EXPECT_FALSE(outcome.applied);
  EXPECT_NE(outcome.busy.find("transfer"), std::string::npos);
  outcome = order(at, copyset, MemberChange::kRemove, store(other));
  EXPECT_NE(outcome.busy.find("leave 2 voters"), std::string::npos) << outcome.busy;
  outcome = order(at, copyset, MemberChange::kPromote, store(3));
  EXPECT_NE(outcome.busy.find("no member"), std::string::npos) << outcome.busy;
  outcome = order(at, copyset, MemberChange::kPrefer, store(3));
  EXPECT_FALSE(outcome.applied);
  // A learner that has no replica yet is not promoted.
  change(copyset, MemberChange::kAddLearner, store(3));
  outcome = order(at, copyset, MemberChange::kPromote, store(3));
  EXPECT_FALSE(outcome.applied);
  EXPECT_FALSE(outcome.busy.empty());
  EXPECT_EQ(join(3, {copyset}).size(), 1u);
  const Index promoted = change(copyset, MemberChange::kPromote, store(3)).config_index;
  change(copyset, MemberChange::kPrefer, store(3));
  // A removal that was overtaken: it is a member since.
  EXPECT_FALSE(remove(3, copyset, promoted - 1));
  EXPECT_NE(servers[3]->replica().find(copyset), nullptr);
  EXPECT_TRUE(remove(3, id(1), 7));  // there is none
}

}  // namespace
}  // namespace curve::copyset
