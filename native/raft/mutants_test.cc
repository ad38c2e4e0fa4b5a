// The randomized test must notice each deliberate bug (native/base/mutant.h); each runs in a
// process of its own, because a broken invariant stops it.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "native/base/log.h"
#include "native/base/mutant.h"
#include "native/raft/scenario.h"
#include "native/raft/world.h"

namespace curve::raft::testing {
namespace {

constexpr uint64_t kSeedsMax = 1500;

WorldOptions kind_of(uint64_t seed) {
  WorldOptions options;
  options.seed = seed;
  options.damage = seed % 3 == 0;
  options.membership = seed % 3 == 1;
  options.stores = options.membership ? 4 : 3;
  options.calm_ns = 5'000'000'000;
  return options;
}

// The first seed that shows something wrong; 0: none.
uint64_t first_seed_caught(uint64_t seeds) {
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    World world(kind_of(seed));
    if (world.run()) return seed;
  }
  return 0;
}

class RandomMutants : public ::testing::TestWithParam<const char*> {};

TEST_P(RandomMutants, AreCaught) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    base::set_log_level(base::LogLevel::kError);
    base::chosen_mutant = GetParam();
    const uint64_t seed = first_seed_caught(kSeedsMax);
    std::fprintf(stderr, "%s: seed %lu, reached %lu times\n", GetParam(), seed,
                 base::mutant_reached);
    _exit(seed == 0 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  const bool stopped = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  EXPECT_TRUE(stopped || (WIFEXITED(status) && WEXITSTATUS(status) == 1))
      << GetParam() << " was not noticed";
}

INSTANTIATE_TEST_SUITE_P(All, RandomMutants,
                         ::testing::Values("r2_vote_before_durable", "r2_cut_keeps_durable",
                                           "r2_acknowledge_early", "r2_vote_twice",
                                           "r3_damaged_acknowledges", "r3_damaged_votes",
                                           "r9_forget_promise", "r9_lease_from_arrival",
                                           "r9_lease_after_transfer",
                                           "r9_confirm_without_agreement", "r9_no_wait_after_start",
                                           "r9_read_before_noop", "r9_lease_too_long",
                                           "r9_hasten_shortens", "r10_acknowledge_syncing"),
                         [](const auto& info) { return std::string(info.param); });

// Faults that a random life meets too rarely have scenarios, which then read differently.
std::string read_differently(const std::string& name, const std::string& mutant) {
  std::ifstream in(std::filesystem::path(RAFT_TESTDATA) / (name + ".txt"));
  base::chosen_mutant = mutant;
  Scenario scenario;
  std::string expected, got;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("> ")) {
      got += scenario.command(line.substr(2));
    } else if (!line.empty() && !line.starts_with("#")) {
      expected += line + "\n";
    }
  }
  base::chosen_mutant.clear();
  return expected == got ? "as written" : "differently";
}

TEST(Mutants, ReadDifferentlyInScenarios) {
  EXPECT_EQ(read_differently("damaged_forgotten_vote", ""), "as written");
  EXPECT_EQ(read_differently("damaged_forgotten_vote", "r3_fill_in_old_term"), "differently");
  EXPECT_EQ(read_differently("damaged_forgotten_vote", "r3_damaged_promises"), "differently");
  EXPECT_EQ(read_differently("damaged_heard_late", ""), "as written");
  EXPECT_EQ(read_differently("damaged_heard_late", "r3_damage_known_after_votes"), "differently");
  EXPECT_EQ(read_differently("incarnations", "r9_any_incarnation"), "differently");
  EXPECT_EQ(read_differently("votes", "r1_unconfigured_votes"), "differently");
  EXPECT_EQ(read_differently("membership", "promote_before_filled"), "differently");
  EXPECT_EQ(read_differently("sync_quorum", "r10_sync_shrinks_quorum"), "differently");
  EXPECT_EQ(read_differently("commit_own_term", "raft_commit_older_term"), "differently");
  EXPECT_EQ(read_differently("commit_own_term", "r1_settled_before_noop"), "differently");
}

TEST(NoMutant, IsNotCaught) { EXPECT_EQ(first_seed_caught(60), 0u); }

}  // namespace
}  // namespace curve::raft::testing
