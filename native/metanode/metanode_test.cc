// Three metaserver nodes on real sockets and files, each with the threads that it has in
// production: its loop, a control thread that polls, proposes and reads, and one that writes
// snapshots. Under the thread sanitizer (tools/test --only tsan) the test is about what crosses
// them.
#include "native/metanode/metanode.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <thread>

#include "native/io/test_loop.h"

namespace curve::metanode {
namespace {

constexpr size_t kMembers = 3, kCommands = 400, kLargeEvery = 50, kLargeBytes = 100'000;
constexpr auto kBound = std::chrono::seconds(60);

std::string free_address() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  close(fd);
  return "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
}

// The state machine: what was committed, one command a line.
class Member {
 public:
  Member(Options options, std::atomic<size_t>& next) : options_(std::move(options)), next_(next) {}
  ~Member() { stop(); }

  void start() {
    auto opened = MetaNode::open(options_);
    ASSERT_TRUE(opened) << opened.error().message;
    node_ = std::move(*opened);
    ended_ = false;
    node_->start();
    control_ = std::thread([this] { control(); });
    snapshots_ = std::thread([this] { write_snapshots(); });
  }
  void stop() {
    if (!node_) return;
    ended_ = true;
    control_.join();
    snapshots_.join();
    node_->stop();
    node_.reset();
  }
  void bootstrap(bool on) { options_.bootstrap = on; }
  std::vector<std::string> committed() {
    std::lock_guard lock(mutex_);
    return committed_;
  }
  size_t snapshots_made() const { return made_; }
  size_t reads_answered() const { return reads_; }

 private:
  void control() {
    bool leads = false;
    size_t outstanding = 0;
    while (!ended_) {
      for (const Event& event : node_->poll(64)) {
        std::lock_guard lock(mutex_);
        if (event.type == EventType::kCommitted) {
          if (!event.text.empty()) committed_.push_back(event.text);
          index_ = event.index;
          term_ = event.term;
          if (event.ticket) --outstanding;
        } else if (event.type == EventType::kProposalFailed) {
          --outstanding;
        } else if (event.type == EventType::kLeaderChanged) {
          leads = event.flag;
        } else if (event.type == EventType::kReadReady) {
          ++reads_;
        } else if (event.type == EventType::kInstallSnapshot) {
          index_ = event.index;
          term_ = event.term;
          committed_ = load(event.text);
        }
      }
      if (leads && outstanding < 8 && next_ < kCommands) {
        const size_t number = next_++;
        std::string command = std::to_string(number) + " ";
        if (number % kLargeEvery == 0) command.resize(kLargeBytes, 'x');
        if (node_->propose(command)) ++outstanding;
        if (number % 5 == 0) node_->read_index();
        if (number % 7 == 0) {
          EXPECT_FALSE(node_->status().role.empty());
        }
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
  }
  void write_snapshots() {
    while (!ended_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      std::string state;
      Index index = 0;
      Term term = 0;
      {
        std::lock_guard lock(mutex_);
        if (index_ == snapshot_) continue;
        for (const std::string& command : committed_) state += command + "\n";
        index = index_;
        term = term_;
      }
      const auto begun = node_->snapshot_begin(index, term);
      ASSERT_TRUE(begun) << begun.error().message;
      ASSERT_TRUE(node_->snapshot_write(std::as_bytes(std::span(state))));
      if (node_->snapshot_commit()) ++made_;  // refused: the leader's was installed meanwhile
      snapshot_ = index;
    }
  }
  static std::vector<std::string> load(const std::string& path) {
    std::vector<std::string> out;
    FILE* file = fopen(path.c_str(), "r");
    char* line = nullptr;
    size_t room = 0;
    while (file && getline(&line, &room, file) > 0) {
      out.emplace_back(line);
      out.back().pop_back();
    }
    free(line);
    if (file) fclose(file);
    return out;
  }

  Options options_;
  std::atomic<size_t>& next_;  // command to be proposed by whoever leads
  std::unique_ptr<MetaNode> node_;
  std::thread control_, snapshots_;
  std::atomic<bool> ended_{false};
  std::atomic<size_t> made_{0}, reads_{0};
  std::mutex mutex_;
  std::vector<std::string> committed_;
  Index index_ = 0, snapshot_ = 0;
  Term term_ = 0;
};

TEST(MetaNode, ThreeMembersWithTheirThreads) {
  io::TemporaryDirectory directory;
  Options options;
  options.secret.assign(32, std::byte{7});
  options.wal_bytes = 64u << 20;
  options.bootstrap = true;
  for (uint8_t i = 0; i < kMembers; ++i) {
    StoreId id;
    id.bytes.fill(static_cast<uint8_t>(i + 1));
    options.members.push_back({id, free_address()});
  }
  std::atomic<size_t> next{1};
  std::vector<std::unique_ptr<Member>> members;
  for (size_t i = 0; i < kMembers; ++i) {
    Options own = options;
    own.directory = directory.path + "/" + std::to_string(i);
    std::filesystem::create_directory(own.directory);
    own.id = options.members[i].id;
    own.listen = options.members[i].address;
    members.push_back(std::make_unique<Member>(std::move(own), next));
    members.back()->start();
  }
  const auto all_have = [&](size_t least) {
    const auto deadline = std::chrono::steady_clock::now() + kBound;
    while (std::chrono::steady_clock::now() < deadline) {
      std::vector<std::vector<std::string>> seen;
      for (const auto& member : members) seen.push_back(member->committed());
      if (seen[0].size() >= least && seen[0] == seen[1] && seen[1] == seen[2]) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  };
  ASSERT_TRUE(all_have(kCommands / 2));  // fewer than proposed where the leader changed
  const auto before = members[1]->committed();
  members[1]->stop();
  members[1]->bootstrap(false);
  members[1]->start();
  next = kCommands / 2;  // some more of them
  ASSERT_TRUE(all_have(before.size() + 10));
  const auto after = members[1]->committed();
  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin()));
  size_t snapshots = 0, reads = 0;
  for (const auto& member : members) {
    snapshots += member->snapshots_made();
    reads += member->reads_answered();
  }
  EXPECT_GT(snapshots, 0u);
  EXPECT_GT(reads, 0u);
  for (const auto& member : members) member->stop();
}

}  // namespace
}  // namespace curve::metanode
