#include "base/disk_sync.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <optional>
#include <thread>

namespace isthmus {
namespace {

std::shared_ptr<const OpenFile> a_file(const std::string& name = "/dev/null") {
  return std::make_shared<OpenFile>(name, ::open("/dev/null", O_WRONLY | O_CLOEXEC));
}

// A disk that does nothing until its gate is open.
class SlowDisk {
 public:
  DiskSync::Sync sync() {
    return [this, opened = gate_.get_future().share()](int) {
      ++begun_;
      opened.wait();
      ++done_;
      return 0;
    };
  }
  void open() { gate_.set_value(); }
  void wait_until_begun() const {
    while (begun_ == 0) std::this_thread::yield();
  }
  int begun() const { return begun_; }
  int done() const { return done_; }

 private:
  std::promise<void> gate_;
  std::atomic<int> begun_ = 0, done_ = 0;
};

TEST(DiskSync, HoldsUpOnlyWhoWaits) {
  SlowDisk disk;
  DiskSync sync(disk.sync());
  const auto file = a_file();
  for (int i = 0; i < 100; ++i) sync.request(file);
  // None of the requests waited for the disk; this does, and is released with everything done.
  auto done_when_released = std::async(std::launch::async, [&] { return sync.wait() ? disk.done() : -1; });
  disk.wait_until_begun();
  disk.open();
  const int done = done_when_released.get();
  EXPECT_GE(done, 1);
  EXPECT_LE(done, 2) << "one call serves all that was asked for meanwhile";
  EXPECT_EQ(disk.done(), done);
}

// Each write is followed by a call that begins after it.
TEST(DiskSync, BringsEveryWriteToTheDisk) {
  std::atomic<int> written = 0, durable = 0;
  DiskSync sync([&](int) {
    durable = written.load();
    return 0;
  });
  const auto file = a_file();
  for (int i = 1; i <= 1000; ++i) {
    written = i;
    sync.request(file);
    if (i % 10 != 0) continue;
    ASSERT_TRUE(sync.wait());
    ASSERT_EQ(durable, i);
  }
}

TEST(DiskSync, ForgetsNoFileForAnother) {
  SlowDisk disk;
  DiskSync sync(disk.sync());
  for (const char* name : {"a", "b", "c"}) sync.request(a_file(name));
  disk.open();
  ASSERT_TRUE(sync.wait());
  EXPECT_EQ(disk.done(), 3);
}

TEST(DiskSync, LeavesOutWhatNobodyWantsAnyMore) {
  SlowDisk disk;
  DiskSync sync(disk.sync());
  sync.request(a_file("a"));
  disk.wait_until_begun();
  sync.request(a_file("b"));
  sync.request(a_file("c"));
  sync.forget("b");
  disk.open();
  ASSERT_TRUE(sync.wait());
  EXPECT_EQ(disk.done(), 2);
}

TEST(DiskSync, EndsWithTheCallThatRuns) {
  SlowDisk disk;
  std::optional<DiskSync> sync(std::in_place, disk.sync());
  sync->request(a_file("a"));
  disk.wait_until_begun();
  sync->request(a_file("b"));
  auto opened = std::async(std::launch::async, [&] { disk.open(); });
  sync.reset();
  EXPECT_EQ(disk.done(), disk.begun());
}

TEST(DiskSync, AsksAgainAfterASignal) {
  std::atomic<int> calls = 0;
  DiskSync sync([&](int) {
    errno = EINTR;
    return ++calls < 3 ? -1 : 0;
  });
  sync.request(a_file());
  EXPECT_TRUE(sync.wait());
  EXPECT_EQ(calls, 3);
}

TEST(DiskSync, TellsOfAnErrorOnce) {
  std::atomic<int> calls = 0;
  DiskSync sync([&](int) {
    errno = EIO;
    return ++calls == 1 ? -1 : 0;
  });
  sync.request(a_file());
  const auto failed = sync.wait();
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "cannot sync /dev/null: Input/output error");
  sync.request(a_file());
  EXPECT_TRUE(sync.wait());
}

TEST(DiskSync, NothingAskedForIsNothingToWaitFor) { EXPECT_TRUE(DiskSync().wait()); }

}  // namespace
}  // namespace isthmus
