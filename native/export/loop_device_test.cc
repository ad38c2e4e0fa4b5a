// The FUSE export behind a real loop device, as the kernel and the file systems of Linux use it.
// Needs root, /dev/fuse and /dev/loop-control, and fails without them.
#include "native/export/loop_device.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <thread>

#include "native/export/fuse_export.h"
#include "native/export/ram_device.h"
#include "native/io/loop_thread.h"

namespace curve::exports {
namespace {

constexpr uint64_t kMiB = 1 << 20;

std::string new_uuid() {
  std::ifstream file("/proc/sys/kernel/random/uuid");
  std::string text;
  std::getline(file, text);
  return text;
}

class LoopDeviceTest : public ::testing::Test {
 protected:
  void start(uint64_t bytes, bool read_only = false) {
    auto loop = io::make_loop();
    ASSERT_TRUE(loop) << loop.error().message;
    thread_ = std::make_unique<io::LoopThread>(std::move(*loop));
    device_ = std::make_unique<RamDevice>(thread_->loop(), bytes, read_only);
    thread_->run();
    auto fd = open_fuse();
    ASSERT_TRUE(fd) << fd.error().message;
    serve(*fd, false);
    auto number = attach_loop(*fd, uuid_, read_only);
    ASSERT_TRUE(number) << number.error().message;
    number_ = *number;
    attached_ = true;
    path_ = "/dev/loop" + std::to_string(number_);
  }
  void serve(int fd, bool resumed) {
    thread_->call_and_wait([&] {
      export_ = std::make_unique<FuseExport>(thread_->loop(), pool_, fd, loop_file_name(uuid_),
                                             device_.get(), device_->read_only(), resumed);
    });
  }
  // As if the process were killed now and another one went on: what is in flight is not answered,
  // and the device has it or has it not.
  void replace_process() {
    const int kept = dup(export_->fd());
    thread_->stop_and_join();
    thread_->loop().abandon();
    resent_ += export_->stats().resent;
    export_.reset();
    auto data = std::move(device_->data());
    device_.reset();
    auto loop = io::make_loop();
    ASSERT_TRUE(loop);
    thread_ = std::make_unique<io::LoopThread>(std::move(*loop));
    device_ = std::make_unique<RamDevice>(thread_->loop(), data.size());
    device_->data() = std::move(data);
    thread_->run();
    serve(kept, true);
  }
  void TearDown() override {
    if (!thread_) return;
    if (!mounted_.empty()) {
      std::system(("umount -l " + mounted_).c_str());
      std::filesystem::remove(mounted_);
    }
    if (attached_) {
      EXPECT_TRUE(detach_loop(number_, uuid_, true));
    }
    std::promise<void> closed;
    thread_->call([&] { export_->close([&] { closed.set_value(); }); });
    closed.get_future().wait();
    thread_->stop_and_join();
    thread_->loop().abandon();
    export_.reset();
    device_.reset();
    EXPECT_EQ(pool_.used_bytes(), 0u);
  }
  void mount_point() {
    char name[] = "/tmp/curve-loop-test-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    mounted_ = name;
  }
  int run(const std::string& command) {
    return std::system(("set -e; exec >/dev/null; DEV=" + path_ + "; COPY=" + copy_ +
                        "; M=" + mounted_ + "; " + command)
                           .c_str());
  }
  bool written(uint64_t sector) {
    bool out = false;
    thread_->call_and_wait([&] { out = device_->written(sector); });
    return out;
  }

  std::string uuid_ = new_uuid();
  std::unique_ptr<io::LoopThread> thread_;
  base::BufferPool pool_;
  std::unique_ptr<RamDevice> device_;
  std::unique_ptr<FuseExport> export_;
  uint32_t number_ = 0;
  uint64_t resent_ = 0;
  bool attached_ = false;
  std::string path_, mounted_, copy_ = "/tmp/curve-loop-test-" + uuid_;
};

TEST_F(LoopDeviceTest, IsABlockDeviceWithOurIdentity) {
  start(64 * kMiB);
  EXPECT_EQ(loop_identity(number_), uuid_);
  EXPECT_EQ(loop_size_bytes(number_), 64 * kMiB);
  EXPECT_EQ(run("test $(blockdev --getss $DEV) = 4096"), 0);
  EXPECT_EQ(run("test $(cat /sys/block/$(basename $DEV)/loop/dio) = 1"), 0);
  EXPECT_EQ(run("test $(cat /sys/block/$(basename $DEV)/queue/discard_granularity) = 65536"), 0);
  EXPECT_EQ(run("dd if=/dev/urandom of=$DEV bs=1M count=16 oflag=direct status=none"
                " && blkdiscard -o 1M -l 1M $DEV && blkdiscard -z -o 2M -l 64k $DEV"),
            0);
  EXPECT_TRUE(written(0));
  EXPECT_FALSE(written(kMiB / kSectorBytes));
  EXPECT_TRUE(detach_loop(number_, new_uuid(), true)) << "not that one's";
  EXPECT_EQ(loop_identity(number_), uuid_);
  EXPECT_TRUE(detach_loop(number_, uuid_, false));
  EXPECT_EQ(loop_identity(number_), "");
  attached_ = false;
}

TEST_F(LoopDeviceTest, GrowsWhileItIsThere) {
  start(16 * kMiB);
  thread_->call_and_wait([&] {
    device_->grow(32 * kMiB);
    export_->grew();
  });
  EXPECT_TRUE(grow_loop(number_));
  EXPECT_EQ(loop_size_bytes(number_), 32 * kMiB);
  EXPECT_EQ(run("dd if=/dev/urandom of=$DEV bs=1M seek=16 count=16 oflag=direct status=none"), 0);
  EXPECT_TRUE(written(32 * kMiB / kSectorBytes - 1));
}

TEST_F(LoopDeviceTest, ReadOnlyRefusesWrites) {
  start(16 * kMiB, true);
  EXPECT_EQ(run("dd if=$DEV of=/dev/null bs=1M count=1 iflag=direct status=none"), 0);
  EXPECT_NE(run("dd if=/dev/zero of=$DEV bs=4k count=1 oflag=direct status=none 2>/dev/null"), 0);
  EXPECT_NE(run("blkdiscard $DEV 2>/dev/null"), 0);
}

TEST_F(LoopDeviceTest, FileSystems) {
  start(400 * kMiB);
  mount_point();
  for (const char* make : {"mkfs.ext4 -q -E lazy_itable_init=0 $DEV", "mkfs.xfs -q -f $DEV"}) {
    const bool xfs = std::string(make).find("xfs") != std::string::npos;
    EXPECT_EQ(run(std::string("blkdiscard $DEV; ") + make + "; mount $DEV $M"), 0) << make;
    EXPECT_EQ(run("dd if=/dev/urandom of=$M/a bs=1M count=40 status=none; cp $M/a $M/b; sync;"
                  "echo 3 >/proc/sys/vm/drop_caches; cmp $M/a $M/b; rm $M/a; fstrim $M"),
              0)
        << make;
    EXPECT_FALSE(detach_loop(number_, uuid_, false)) << "it is mounted";
    EXPECT_EQ(run("umount $M"), 0);
    EXPECT_EQ(run(xfs ? "xfs_repair -n $DEV 2>&1" : "e2fsck -f -n $DEV 2>&1"), 0);
  }
}

TEST_F(LoopDeviceTest, AProcessThatIsReplacedLosesNoRequest) {
  start(64 * kMiB);
  EXPECT_EQ(run("dd if=/dev/urandom of=$COPY bs=1M count=64 status=none"), 0);
  thread_->call_and_wait([&] { device_->hold = true; });
  std::thread writer(
      [&] { EXPECT_EQ(run("dd if=$COPY of=$DEV bs=1M count=64 oflag=direct status=none"), 0); });
  for (int i = 0; i < 5; ++i) {
    usleep(50'000);
    replace_process();
    if (i < 4) thread_->call_and_wait([&] { device_->hold = i % 2 == 0; });
  }
  writer.join();
  EXPECT_GT(resent_, 0u);
  EXPECT_EQ(run("cmp $COPY $DEV; rm $COPY"), 0);
}

}  // namespace
}  // namespace curve::exports
