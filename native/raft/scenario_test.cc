// Runs testdata/*.txt and compares the traces. `raft_scenario_test --rewrite` writes what happens
// now into the files: read the difference before you commit it.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "native/raft/scenario.h"

namespace curve::raft::testing {

bool rewrite = false;

namespace {

std::vector<std::filesystem::path> scenario_files() {
  std::vector<std::filesystem::path> files;
  const auto directory = std::filesystem::path(RAFT_TESTDATA);
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A scenario as it should read: comments, empty lines and commands as they are, and behind each
// command its trace.
std::string with_traces(const std::string& text) {
  Scenario scenario;
  std::istringstream in(text);
  std::ostringstream out;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("> ")) {
      out << line << '\n' << scenario.command(line.substr(2));
    } else if (line.empty() || line.starts_with("#")) {
      out << line << '\n';
    }
  }
  return out.str();
}

class Scenarios : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(Scenarios, ReadAsWritten) {
  std::ifstream in(GetParam());
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  ASSERT_FALSE(text.empty());
  const std::string now = with_traces(text);
  if (rewrite) {
    std::ofstream(GetParam()) << now;
  } else {
    EXPECT_EQ(text, now);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Scenarios, ::testing::ValuesIn(scenario_files()),
                         [](const auto& info) { return info.param.stem().string(); });

}  // namespace
}  // namespace curve::raft::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i)
    curve::raft::testing::rewrite |= std::string(argv[i]) == "--rewrite";
  return RUN_ALL_TESTS();
}
