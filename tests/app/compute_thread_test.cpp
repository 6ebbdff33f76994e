#include "app/compute_thread.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>

#include "config/load_run.h"
#include "scheduler/make_plan.h"

namespace isthmus {
namespace {

// Holds whoever waits until it is opened.
class Gate {
 public:
  void open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [&] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

// Computes nothing; its disk takes until the gate is open.
class StageWithASlowDisk final : public StageCompute {
 public:
  explicit StageWithASlowDisk(Gate& disk) : disk_(disk) {}
  DeviceFigures measure() override { return {}; }
  Result<ForwardResult> forward(StepId, MicrobatchId, bool, const EncodedTensor&) override { return ForwardResult{}; }
  Result<EncodedTensor> input_gradient(MicrobatchId, const EncodedTensor&) override { return EncodedTensor{}; }
  void weight_gradient(MicrobatchId) override {}
  Sum close() override { return {}; }
  SharedBytes add(const std::vector<SharedBytes>&) const override { return {}; }
  Prepared prepare(const std::vector<SharedBytes>&, bool) override { return {}; }
  SharedBytes total() const override { return {}; }
  void apply(const Commit&, double) override { ++version_; }
  OuterOptimizer* outer() override { return nullptr; }
  std::vector<SharedBytes> updates(std::uint64_t) override { return {}; }
  void settle_sync() override {}
  void drop_step() override {}
  Write save(std::uint64_t version, std::uint32_t) const override {
    return [this, version, copied = version_]() -> Status {
      disk_.wait();
      if (copied != version) return fail("version {} was copied, not {}", copied, version);
      if (version == 2) throw std::runtime_error("the disk went away");
      return {};
    };
  }
  Result<std::uint32_t> load(std::uint64_t version) override {
    version_ = version;
    return 0;
  }
  SharedBytes state() const override { return share(Bytes()); }
  Status restore(ByteView) override { return {}; }
  std::vector<UnitDigest> weight_digests() const override { return {{"version", std::to_string(version_)}}; }

 private:
  Gate& disk_;
  std::uint64_t version_ = 0;
};

class ComputeThreadTest : public ::testing::Test {
 protected:
  ComputeThreadTest()
      : run_(*load_run(ISTHMUS_SOURCE_DIR "/configs/emulated.toml", {})),
        plan_(make_plan(run_)),
        thread_(run_, plan_, options(), [this] { woken_.push(true); }) {}
  ~ComputeThreadTest() override {
    disk_.open();
    thread_.join();
    std::filesystem::remove_all(folder_);
  }
  ComputeThread::Options options() {
    ComputeThread::Options options;
    options.make = [this]() -> Result<std::unique_ptr<StageCompute>> { return std::make_unique<StageWithASlowDisk>(disk_); };
    options.checkpoints.folder = folder_ + "/checkpoint";
    options.journal_folder = folder_ + "/journal";
    return options;
  }
  ComputeResult next() {
    while (true) {
      if (auto result = thread_.try_take()) return std::move(*result);
      (void)woken_.pop();
    }
  }
  void take_step(std::uint64_t step) {
    Commit commit;
    commit.step = StepId(step);
    thread_.give(RunApply{commit});
  }

  const std::string folder_ = ::testing::TempDir() + "/isthmus-compute-thread-" + std::to_string(::getpid());
  const RunConfig run_;
  const Plan plan_;
  Gate disk_;
  BoundedQueue<bool> woken_{1024};
  ComputeThread thread_;
};

TEST_F(ComputeThreadTest, GoesOnWhileACheckpointOfWhatItWasIsWritten) {
  EXPECT_TRUE(std::holds_alternative<StageReady>(next().value));
  take_step(1);
  thread_.give(RunSave{1, 0});
  take_step(2);
  thread_.give(RunDigests{});
  const auto digests = next();
  ASSERT_TRUE(std::holds_alternative<DigestsDone>(digests.value)) << "it waits for the disk";
  EXPECT_EQ(std::get<DigestsDone>(digests.value).weights.front().hex, "2");
  disk_.open();
  const auto saved = next();
  ASSERT_TRUE(std::holds_alternative<SaveDone>(saved.value));
  EXPECT_EQ(std::get<SaveDone>(saved.value).version, 1u);
  EXPECT_EQ(std::get<SaveDone>(saved.value).error, "");
}

TEST_F(ComputeThreadTest, GoesBackOnlyOnceWhatWasBegunIsWritten) {
  (void)next();
  take_step(1);
  thread_.give(RunSave{1, 3});
  thread_.give(RunLoad{0, 4});
  thread_.give(RunDigests{});
  disk_.open();
  const auto saved = next();
  ASSERT_TRUE(std::holds_alternative<SaveDone>(saved.value));
  EXPECT_EQ(std::get<SaveDone>(saved.value).timeline, 3u);
  EXPECT_TRUE(std::holds_alternative<LoadDone>(next().value));
  EXPECT_TRUE(std::holds_alternative<DigestsDone>(next().value));
}

TEST_F(ComputeThreadTest, SaysWhatWentWrongInTheBackground) {
  (void)next();
  take_step(1);
  take_step(2);
  thread_.give(RunSave{2, 0});
  disk_.open();
  const auto saved = next();
  ASSERT_TRUE(std::holds_alternative<SaveDone>(saved.value));
  EXPECT_NE(std::get<SaveDone>(saved.value).error.find("the disk went away"), std::string::npos);
}

}  // namespace
}  // namespace isthmus
