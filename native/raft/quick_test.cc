// Each clever function beside a naive twin, on random input.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <set>

#include "native/raft/config.h"
#include "native/raft/group.h"
#include "native/raft/host.h"
#include "native/raft/log.h"
#include "native/raft/quorum.h"
#include "native/raft/timers.h"

namespace curve::raft {
namespace {

class Quick : public ::testing::Test {
 protected:
  uint64_t below(uint64_t limit) { return random_() % limit; }
  StoreId store(uint8_t n) {
    StoreId id;
    id.bytes[15] = n;
    return id;
  }
  std::mt19937_64 random_{20251121};
};

TEST_F(Quick, QuorumValue) {
  for (int round = 0; round < 20'000; ++round) {
    std::vector<uint64_t> values(1 + below(kReplicasMax));
    for (uint64_t& v : values) v = below(6);
    uint64_t naive = 0;  // the greatest value that more than half of them reach
    for (uint64_t candidate = 0; candidate < 6; ++candidate) {
      const auto reach =
          std::count_if(values.begin(), values.end(), [&](uint64_t v) { return v >= candidate; });
      if (static_cast<size_t>(reach) * 2 > values.size()) naive = candidate;
    }
    EXPECT_EQ(quorum_value(values), naive);
  }
  EXPECT_EQ(quorum_value({}), 0u);
}

// Naive: try all ways in which the missing answers may come.
TEST_F(Quick, ElectionOutcome) {
  auto won = [](const std::vector<Answer>& answers) {
    size_t clean = 0, voted = 0;
    for (Answer a : answers) {
      clean += a == Answer::kGranted;
      voted += a == Answer::kGranted || a == Answer::kGrantedDamaged;
    }
    return clean * 2 > answers.size() || voted == answers.size();
  };
  for (int round = 0; round < 5'000; ++round) {
    std::vector<Answer> answers(1 + below(5));
    for (Answer& a : answers) a = static_cast<Answer>(below(4));
    std::vector<Answer> best = answers;
    bool possible = won(answers);
    for (const Answer hoped : {Answer::kGranted, Answer::kGrantedDamaged}) {
      for (size_t i = 0; i < best.size(); ++i)
        best[i] = answers[i] == Answer::kNone ? hoped : answers[i];
      possible |= won(best);
    }
    const ElectionOutcome expected = won(answers) ? ElectionOutcome::kWon
                                     : possible   ? ElectionOutcome::kPending
                                                  : ElectionOutcome::kLost;
    EXPECT_EQ(election_outcome(answers), expected);
  }
  EXPECT_EQ(election_outcome({}), ElectionOutcome::kLost);
}

TEST_F(Quick, LeadDigest) {
  uint64_t running = 0;
  std::set<std::pair<CopysetId, Term>> leads;
  for (int round = 0; round < 5'000; ++round) {
    const std::pair<CopysetId, Term> lead{below(50), 1 + below(4)};
    if (leads.insert(lead).second) {
      running += lead_digest({lead.first, lead.second});
    } else {
      leads.erase(lead);
      running -= lead_digest({lead.first, lead.second});
    }
    uint64_t naive = 0;
    for (const auto& [group, term] : leads) naive += lead_digest({group, term});
    EXPECT_EQ(running, naive);
  }
  // Different small sets differ.
  std::set<uint64_t> seen;
  for (CopysetId g = 0; g < 300; ++g) {
    for (Term t = 0; t < 30; ++t) EXPECT_TRUE(seen.insert(lead_digest({g, t})).second);
  }
}

// A vector with the whole log, from index 1 on.
TEST_F(Quick, Log) {
  Log log;
  std::vector<Term> naive = {0};
  Index base = 0;
  for (int round = 0; round < 30'000; ++round) {
    switch (below(4)) {
      case 0:
      case 1:
        naive.push_back(std::max<Term>(naive.back() + (below(3) == 0), 1));
        log.push({naive.back(), 0, 0, EntryType::kData});
        break;
      case 2:
        naive.resize(base + 1 + below(naive.size() - base));
        log.truncate(naive.size() - 1);
        break;
      case 3:
        if (below(8) != 0) break;
        base += below(naive.size() - base);
        log.trim(base);
        break;
    }
    const Index last = naive.size() - 1;
    ASSERT_EQ(log.last(), last);
    ASSERT_EQ(log.base(), base);
    ASSERT_EQ(log.last_term(), naive[last]);
    const Index index = below(last + 3);
    ASSERT_EQ(log.term_at(index), index >= base && index <= last ? naive[index] : 0);
    const Term term = below(naive[last] + 2);
    Index expected = std::min(index, last);
    if (index >= base) {
      while (expected > base && naive[expected] > term) --expected;
      if (naive[expected] > term && base > 0) expected = base - 1;  // not here
    }
    ASSERT_EQ(log.back_off(index, term), expected) << index << " " << term << " base " << base;
  }
}

TEST_F(Quick, Timers) {
  TimerHeap heap;
  std::vector<Timer> timers(40);
  std::set<std::pair<uint64_t, uint64_t>> naive;  // deadline, order
  for (size_t i = 0; i < timers.size(); ++i) timers[i].order = i;
  for (int round = 0; round < 30'000; ++round) {
    if (below(3) != 0) {
      Timer& timer = timers[below(timers.size())];
      naive.erase({timer.deadline_ns, timer.order});
      const uint64_t deadline = below(5) == 0 ? kNever : below(1'000);
      heap.set(&timer, deadline);
      if (deadline != kNever) naive.insert({deadline, timer.order});
    } else {
      const uint64_t now = below(1'000);
      Timer* due = heap.take_due(now);
      if (naive.empty() || naive.begin()->first > now) {
        ASSERT_EQ(due, nullptr);
      } else {
        ASSERT_EQ(due->order, naive.begin()->second);
        naive.erase(naive.begin());
      }
    }
    ASSERT_EQ(heap.size(), naive.size());
    ASSERT_EQ(heap.next_deadline_ns(), naive.empty() ? kNever : naive.begin()->first);
  }
}

// Every pair of small configurations: a single step exactly if the sets of voters and learners
// differ in one of the allowed ways, and then every majority of the one meets every majority of the
// other.
TEST_F(Quick, SingleSteps) {
  int allowed = 0;
  for (int round = 0; round < 40'000; ++round) {
    Config from, to;
    for (Config* config : {&from, &to}) {
      for (uint8_t n = 1; n <= 4; ++n) {
        const uint64_t role = below(3);
        if (role < 2) config->members[config->count++] = {store(n), static_cast<MemberRole>(role)};
      }
    }
    if (!single_step(from, to)) continue;
    ++allowed;
    EXPECT_GT(voters_in(to), 0u);
    std::vector<StoreId> a, b, both;
    for (uint8_t n = 1; n <= 4; ++n) {
      if (is_voter(from, store(n))) a.push_back(store(n));
      if (is_voter(to, store(n))) b.push_back(store(n));
      if (is_voter(from, store(n)) && is_voter(to, store(n))) both.push_back(store(n));
    }
    // Smallest majorities placed apart as far as possible still share a voter of both.
    const size_t only_a = a.size() - both.size(), only_b = b.size() - both.size();
    const size_t need_a = quorum_of(a.size()) - std::min(only_a, quorum_of(a.size()));
    const size_t need_b = quorum_of(b.size()) - std::min(only_b, quorum_of(b.size()));
    if (!a.empty()) {
      EXPECT_GT(need_a + need_b, both.size());
    }
  }
  EXPECT_GT(allowed, 100);
}

TEST_F(Quick, ConfigBytes) {
  for (int round = 0; round < 2'000; ++round) {
    Config config;
    const uint8_t count = static_cast<uint8_t>(below(kReplicasMax + 1));
    for (uint8_t n = 0; n < count; ++n) {
      config.members[config.count++] = {store(n + 1), static_cast<MemberRole>(below(2))};
    }
    if (count > 0) config.preferred = config.members[below(count)].store;
    std::vector<std::byte> bytes = encode_config(config);
    const Result<Config> back = decode_config(bytes);
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(*back, config);
    // Damaged bytes give an error or another well-formed configuration.
    if (below(2) == 0) {
      bytes.resize(below(bytes.size()));
    } else {
      bytes[below(bytes.size())] ^= static_cast<std::byte>(1 + below(255));
    }
    const Result<Config> other = decode_config(bytes);
    if (other.ok()) {
      EXPECT_TRUE(well_formed(*other));
    }
  }
}

TEST_F(Quick, ConfigHistory) {
  ConfigHistory history;
  std::deque<std::pair<Index, Config>> naive;  // all of them
  auto config_with = [&](uint64_t n) {
    Config config;
    config.members[config.count++] = {store(static_cast<uint8_t>(n)), MemberRole::kVoter};
    return config;
  };
  history.reset(0, config_with(1));
  naive.push_back({0, config_with(1)});
  Index commit = 0, last = 0;
  for (int round = 0; round < 5'000; ++round) {
    switch (below(3)) {
      case 0: {
        const Config config = config_with(1 + below(3));
        naive.push_back({++last, config});
        history.push(last, config);
        break;
      }
      case 1:
        last = commit + below(last - commit + 1);
        while (naive.back().first > last) naive.pop_back();
        history.roll_back(last);
        break;
      case 2:
        commit += below(last - commit + 1);
        history.settle(commit);
        break;
    }
    ASSERT_EQ(history.current(), naive.back().second);
    ASSERT_EQ(history.current_index(), naive.back().first);
  }
}

// Nonsense from peers, at a leader and at a follower: it may cost the leadership, never the
// process. (Only what contradicts the rules themselves, such as a second leader of a term, stops
// it.)
TEST_F(Quick, Nonsense) {
  HostOptions options;
  options.fresh = true;
  uint64_t now = 1'000'000'000;
  Host host(store(1), 1, options, now, 7);
  GroupInit init;
  init.id = 1;
  for (uint8_t n = 1; n <= 3; ++n)
    init.config.members[init.config.count++] = {store(n), MemberRole::kVoter};
  init.config.preferred = store(1);
  Group* group = host.create(std::move(init), now);
  host.on_peer_up(store(2), now);
  host.on_peer_up(store(3), now);
  uint64_t terms_led = 0;
  constexpr MessageType kTypes[] = {MessageType::kPreVote,     MessageType::kPreVoteReply,
                                    MessageType::kVote,        MessageType::kVoteReply,
                                    MessageType::kAppendReply, MessageType::kTimeoutNow,
                                    MessageType::kSyncRequest, MessageType::kFilled};
  for (int round = 0; round < 200'000; ++round) {
    now += below(3'000'000);
    host.tick(now);
    while (Group* ready = host.next_ready()) {
      const Ready out = ready->take_ready();
      terms_led += out.role_changed && out.role == Role::kLeader;
      if (out.persist_id != 0) ready->on_durable(out.persist_id, now);
      if (out.commit > ready->applied()) ready->on_applied(out.commit);
    }
    OutgoingBeat beat;
    while (host.take_beat(&beat, now)) {
    }
    Index first = 0;
    const EntryMeta meta;
    if (below(4) == 0) (void)group->propose({&meta, 1}, &first);
    Message m;
    m.type = kTypes[below(std::size(kTypes))];
    m.group = 1;
    m.peer = store(static_cast<uint8_t>(2 + below(3)));  // one of them is no member
    m.term = group->term() + below(20) / 19;
    m.index = below(group->last_index() + 3);
    m.log_term = below(group->term() + 2);
    m.first = below(3) == 0 ? group->term() + below(2) : below(group->last_index() + 3);
    m.last = below(group->last_index() + 3);
    m.commit = below(group->last_index() + 3);
    m.reject = below(3) == 0;
    m.transfer = below(3) == 0;
    m.damaged = below(8) == 0;
    group->step(m, now);
    BeatReply reply;
    reply.from_incarnation = below(3);
    reply.to_incarnation = below(3);
    reply.sequence = below(50);
    reply.confirmed = below(2) == 0;
    reply.need_full = below(2) == 0;
    if (below(8) == 0) reply.refused.push_back({below(3), below(group->term() + 1)});
    host.on_beat_reply(m.peer, reply, now);
    Message append;  // of an old leader, malformed
    append.type = MessageType::kAppend;
    append.group = 1;
    append.peer = m.peer;
    append.term = group->term();
    append.first = 5;
    append.last = 3 + below(4);
    const EntryMeta strange[2] = {{9, 9, 0, EntryType::kData}, {2, 1, 0, EntryType::kConfig}};
    group->step_append(append, strange, {}, now);
  }
  EXPECT_GT(terms_led, 10u);
}

}  // namespace
}  // namespace curve::raft
