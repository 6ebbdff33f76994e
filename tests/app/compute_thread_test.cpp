#include "app/compute_thread.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>

#include "config/load_run.h"
#include "scheduler/planner/make_plan.h"
#include "store/disk_checkpoints.h"

namespace isthmus::app {
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

// Counts the steps it has seen.
class CountingStage final : public runner::StageCompute {
 public:
  protocol::DeviceFigures measure() override { return {}; }
  Result<ForwardResult> forward(StepId, MicrobatchId, bool, const compress::EncodedTensor&) override {
    return ForwardResult{};
  }
  Result<compress::EncodedTensor> input_gradient(MicrobatchId, const compress::EncodedTensor&) override {
    return compress::EncodedTensor{};
  }
  void weight_gradient(MicrobatchId) override {}
  Sum close() override { return {}; }
  SharedBytes add(const std::vector<SharedBytes>&) const override { return {}; }
  Prepared prepare(const std::vector<SharedBytes>&, bool) override { return {}; }
  SharedBytes total() const override { return {}; }
  void apply(const protocol::Commit&, double) override { ++version_; }
  runner::OuterStep* outer() override { return nullptr; }
  std::vector<SharedBytes> updates(std::uint64_t) override { return {}; }
  void settle_sync() override {}
  void drop_step() override {}
  store::StageTensors copy() const override {
    const auto number = share(Bytes{static_cast<std::uint8_t>(version_), 0, 0, 0});
    return {{{"steps", {1}, *number}}, {}, number.owner()};
  }
  Status load(const store::LoadedCheckpoint& checkpoint) override {
    version_ = checkpoint.version;
    return {};
  }
  SharedBytes state() const override { return share(Bytes()); }
  Status restore(ByteView) override { return {}; }
  std::vector<protocol::UnitDigest> weight_digests() const override { return {{"version", std::to_string(version_)}}; }

 private:
  std::uint64_t version_ = 0;
};

// A disk that takes until the gate is open.
class SlowCheckpoints final : public store::DiskCheckpoints {
 public:
  SlowCheckpoints(Gate& disk, const std::string& folder)
      : DiskCheckpoints({folder, StageId(0), 0, 1, ReplicaId(0)}, 2), disk_(disk) {}
  ~SlowCheckpoints() override { wait(); }

 private:
  Status put(const Mark& mark, const store::StageTensors& tensors) override {
    disk_.wait();
    const std::uint64_t copied = tensors.weights.front().bytes[0];
    if (copied != mark.version) return fail("version {} was copied, not {}", copied, mark.version);
    if (mark.version == 2) throw std::runtime_error("the disk went away");
    return {};
  }
  Gate& disk_;
};

class ComputeThreadTest : public ::testing::Test {
 protected:
  ComputeThreadTest()
      : run_(*config::load_run(ISTHMUS_SOURCE_DIR "/configs/emulated.toml", {})),
        plan_(planner::make_plan(run_)),
        thread_(run_, plan_, options(), [this] { woken_.push(true); }) {}
  ~ComputeThreadTest() override {
    disk_.open();
    thread_.join();
    std::filesystem::remove_all(folder_);
  }
  ComputeThread::Options options() {
    ComputeThread::Options options;
    options.make = []() -> Result<std::unique_ptr<runner::StageCompute>> { return std::make_unique<CountingStage>(); };
    options.checkpoints = std::make_unique<SlowCheckpoints>(disk_, folder_ + "/checkpoint");
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
    protocol::Commit commit;
    commit.step = StepId(step);
    thread_.give(protocol::RunApply{commit});
  }

  const std::string folder_ = ::testing::TempDir() + "/isthmus-compute-thread-" + std::to_string(::getpid());
  const spec::RunConfig run_;
  const protocol::Plan plan_;
  Gate disk_;
  BoundedQueue<bool> woken_{1024};
  ComputeThread thread_;
};

TEST_F(ComputeThreadTest, GoesOnWhileACheckpointOfWhatItWasIsWritten) {
  EXPECT_TRUE(std::holds_alternative<runner::StageReady>(next().value));
  take_step(1);
  thread_.give(protocol::RunSave{1, 0});
  take_step(2);
  thread_.give(protocol::RunDigests{});
  const auto digests = next();
  ASSERT_TRUE(std::holds_alternative<protocol::DigestsDone>(digests.value)) << "it waits for the disk";
  EXPECT_EQ(std::get<protocol::DigestsDone>(digests.value).weights.front().hex, "2");
  disk_.open();
  const auto saved = next();
  ASSERT_TRUE(std::holds_alternative<protocol::SaveDone>(saved.value));
  EXPECT_EQ(std::get<protocol::SaveDone>(saved.value).version, 1u);
  EXPECT_EQ(std::get<protocol::SaveDone>(saved.value).error, "");
}

TEST_F(ComputeThreadTest, GoesBackOnlyOnceWhatWasBegunIsWritten) {
  (void)next();
  take_step(1);
  thread_.give(protocol::RunSave{1, 3});
  thread_.give(protocol::RunLoad{0, 4});
  thread_.give(protocol::RunDigests{});
  disk_.open();
  const auto saved = next();
  ASSERT_TRUE(std::holds_alternative<protocol::SaveDone>(saved.value));
  EXPECT_EQ(std::get<protocol::SaveDone>(saved.value).timeline, 3u);
  EXPECT_TRUE(std::holds_alternative<protocol::LoadDone>(next().value));
  EXPECT_TRUE(std::holds_alternative<protocol::DigestsDone>(next().value));
}

TEST_F(ComputeThreadTest, SaysWhatWentWrongInTheBackground) {
  (void)next();
  take_step(1);
  take_step(2);
  thread_.give(protocol::RunSave{2, 0});
  disk_.open();
  const auto saved = next();
  ASSERT_TRUE(std::holds_alternative<protocol::SaveDone>(saved.value));
  EXPECT_NE(std::get<protocol::SaveDone>(saved.value).error.find("the disk went away"), std::string::npos);
}

}  // namespace
}  // namespace isthmus::app
