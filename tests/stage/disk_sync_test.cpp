#include "stage/disk_sync.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <future>

namespace isthmus {
namespace {

std::shared_ptr<const OpenFile> a_file() { return std::make_shared<OpenFile>("/dev/null", ::open("/dev/null", O_WRONLY | O_CLOEXEC)); }

TEST(DiskSync, HoldsUpOnlyWhoWaits) {
  std::promise<void> gate;
  std::atomic<int> synced = 0;
  DiskSync sync([&, opened = gate.get_future().share()](int) {
    opened.wait();
    ++synced;
    return 0;
  });
  const auto file = a_file();
  for (int i = 0; i < 100; ++i) sync.request(file);
  auto waiting = std::async(std::launch::async, [&] { return sync.wait().has_value(); });
  EXPECT_EQ(synced, 0) << "the disk is not asked before it is there";
  gate.set_value();
  EXPECT_TRUE(waiting.get());
  EXPECT_GE(synced, 1);
  EXPECT_LE(synced, 2) << "one call serves all that was asked for meanwhile";
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
  std::promise<void> gate;
  std::atomic<int> synced = 0;
  DiskSync sync([&, opened = gate.get_future().share()](int) {
    opened.wait();
    ++synced;
    return 0;
  });
  sync.request(a_file());
  sync.request(a_file());
  sync.request(a_file());
  gate.set_value();
  ASSERT_TRUE(sync.wait());
  EXPECT_EQ(synced, 3);
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
