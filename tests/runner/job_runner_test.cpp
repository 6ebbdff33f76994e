#include "runner/job_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "sim/arithmetic.h"
#include "sim/simulated_disk.h"
#include "sim/simulated_stage.h"

namespace isthmus::runner {
namespace {

using ::testing::HasSubstr;

protocol::Plan three_stages() {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < 3; ++s) plan.stages.push_back({s, s + 1, 1, 2, 4});
  plan.steps = 10;
  plan.microbatches = 2;
  return plan;
}

// Checkpoints that are written at once; a damaged one cannot be read.
class Checkpoints final : public store::CheckpointStore {
 public:
  void write(const Mark& mark, store::StageTensors tensors, Done done) override {
    disk_.write(mark, std::move(tensors), std::move(done));
  }
  void wait() override {}
  std::vector<std::uint64_t> versions() const override { return disk_.versions(); }
  Result<store::LoadedCheckpoint> read(std::uint64_t version) const override {
    return version == damaged ? fail("version {} is damaged", version) : disk_.read(version);
  }
  void forget(std::uint64_t version, std::uint32_t timeline) override { disk_.forget(version, timeline); }
  std::uint64_t damaged = 0;

 private:
  sim::SimulatedCheckpoints disk_{[](const std::function<void()>& written) { written(); }, [] { return false; }};
};

class JobRunnerTest : public ::testing::Test {
 protected:
  JobRunner& of_stage(std::uint32_t stage) {
    JobRunner::Options options;
    options.stage = StageId(stage);
    options.make = [this, stage]() -> Result<std::unique_ptr<StageCompute>> {
      return std::make_unique<sim::SimulatedStage>(plan_, 1, StageId(stage), protocol::DeviceFigures());
    };
    runner_ = std::make_unique<JobRunner>(plan_, std::move(options), &journal_, &checkpoints_);
    EXPECT_TRUE(runner_->start());
    return *runner_;
  }
  static protocol::OperationDone operate(JobRunner& runner, protocol::Operation operation, bool training = true) {
    compress::EncodedTensor tensor = sim::encode(7);
    compress::seal(tensor);
    return operate(runner, operation, tensor, training);
  }
  static protocol::OperationDone operate(JobRunner& runner, protocol::Operation operation,
                                         const compress::EncodedTensor& tensor, bool training = true) {
    auto done = runner.run(protocol::RunOperation{kTag, {operation, MicrobatchId(0)}, training, tensor});
    return std::get<protocol::OperationDone>(std::move(**done));
  }
  bool has(bool gradient, const compress::EncodedTensor& tensor) const {
    const auto found = journal_.find({kTag.step, kTag.attempt, MicrobatchId(0), gradient});
    return found && found->values == tensor.values;
  }
  bool is_empty(bool gradient) const { return !journal_.find({kTag.step, kTag.attempt, MicrobatchId(0), gradient}); }
  // Takes `steps` steps, each of another sum, and writes a checkpoint after every one.
  static void train(JobRunner& runner, std::uint64_t steps) {
    for (std::uint64_t step = 1; step <= steps; ++step) {
      for (const auto operation :
           {protocol::Operation::kForward, protocol::Operation::kInputGradient, protocol::Operation::kWeightGradient})
        operate(runner, operation);
      protocol::Commit commit;
      commit.step = StepId(step);
      ASSERT_TRUE(runner.run(protocol::RunApply{commit}));
      ASSERT_TRUE(runner.run(protocol::RunSave{step, 0}));
    }
  }
  static std::vector<protocol::UnitDigest> weights(JobRunner& runner) {
    return std::get<protocol::DigestsDone>(**runner.run(protocol::RunDigests{})).weights;
  }
  static protocol::LoadDone load(JobRunner& runner, std::uint64_t version) {
    return std::get<protocol::LoadDone>(**runner.run(protocol::RunLoad{version, 0}));
  }

  static constexpr protocol::JobTag kTag{StepId(1), 0, kNoSession};
  const protocol::Plan plan_ = three_stages();
  bool full_ = false;
  sim::SimulatedJournal journal_{100, [this] { return full_; }};
  Checkpoints checkpoints_;
  std::unique_ptr<JobRunner> runner_;
};

// A neighbour that lost all its replicas is rebuilt from this and nothing else.
TEST_F(JobRunnerTest, KeepsInTheJournalWhatItSendsBothWays) {
  JobRunner& middle = of_stage(1);
  const auto output = operate(middle, protocol::Operation::kForward).tensor;
  EXPECT_TRUE(has(false, output));
  const auto gradient = operate(middle, protocol::Operation::kInputGradient).tensor;
  EXPECT_TRUE(has(true, gradient));
  EXPECT_TRUE(has(false, output)) << "beside it";
}

TEST_F(JobRunnerTest, KeepsNothingThatNobodyGets) {
  JobRunner& tail = of_stage(2);
  operate(tail, protocol::Operation::kForward);
  EXPECT_TRUE(is_empty(false)) << "the last stage sends nothing on";
  operate(tail, protocol::Operation::kInputGradient);
  EXPECT_FALSE(is_empty(true));
  journal_.clear();
  JobRunner& head = of_stage(0);
  operate(head, protocol::Operation::kForward);
  EXPECT_FALSE(is_empty(false));
  operate(head, protocol::Operation::kInputGradient);
  EXPECT_TRUE(is_empty(true)) << "the first stage sends nothing back";
}

TEST_F(JobRunnerTest, KeepsNoEvaluation) {
  compress::EncodedTensor tensor = sim::encode(7);
  compress::seal(tensor);
  auto done =
      of_stage(1).run(protocol::RunOperation{kTag, {protocol::Operation::kForward, MicrobatchId(2)}, false, tensor});
  ASSERT_TRUE(done);
  EXPECT_EQ(std::get<protocol::OperationDone>(**done).error, "");
  EXPECT_FALSE(journal_.find({kTag.step, kTag.attempt, MicrobatchId(2), false}));
}

TEST_F(JobRunnerTest, ComputesWithNoPayloadThatIsNotWhatItsSenderSealed) {
  JobRunner& middle = of_stage(1);
  compress::EncodedTensor sound = sim::encode(7), damaged = sim::encode(8);
  compress::seal(sound);
  damaged.header = sound.header;
  EXPECT_THAT(operate(middle, protocol::Operation::kForward, damaged).error, HasSubstr("its header says"));
  EXPECT_TRUE(is_empty(false));
  const auto forward = operate(middle, protocol::Operation::kForward, sound);
  EXPECT_EQ(forward.error, "");
  EXPECT_TRUE(compress::check_seal(forward.tensor));
  EXPECT_THAT(operate(middle, protocol::Operation::kInputGradient, damaged).error, HasSubstr("its header says"));
  const auto back = operate(middle, protocol::Operation::kInputGradient, sound);
  EXPECT_EQ(back.error, "");
  EXPECT_TRUE(compress::check_seal(back.tensor));
  compress::EncodedTensor tokens = sim::token_ids(1, {kTag.step, MicrobatchId(0)}).tensor;
  EXPECT_EQ(operate(of_stage(0), protocol::Operation::kForward, tokens).error, "");
  tokens.tokens = share(Bytes(8, 1));
  EXPECT_THAT(operate(of_stage(0), protocol::Operation::kForward, tokens).error, HasSubstr("its header says"));
}

TEST_F(JobRunnerTest, WarnsOfAFullDiskAndGoesOn) {
  JobRunner& middle = of_stage(1);
  full_ = true;
  const auto done = operate(middle, protocol::Operation::kForward);
  full_ = false;
  EXPECT_EQ(done.error, "");
  EXPECT_EQ(middle.take_warning(), "disk full");
  EXPECT_EQ(middle.take_warning(), "") << "once";
}

TEST_F(JobRunnerTest, LoadsTheNewestCheckpointThatIsWhole) {
  JobRunner& runner = of_stage(1);
  const auto initial = weights(runner);
  train(runner, 2);
  const auto second = weights(runner);
  EXPECT_EQ(load(runner, 1).version, 1u);
  const auto first = weights(runner);
  EXPECT_NE(first, second);
  EXPECT_EQ(load(runner, 2).version, 2u);
  EXPECT_EQ(weights(runner), second);
  checkpoints_.damaged = 2;
  EXPECT_EQ(load(runner, 2).version, 1u) << "there is less to repeat than from the beginning";
  EXPECT_EQ(runner.take_warning(), "version 2 is damaged");
  EXPECT_EQ(weights(runner), first);
  EXPECT_EQ(load(runner, 0).version, 0u);
  EXPECT_EQ(weights(runner), initial);
}

TEST_F(JobRunnerTest, TakesASnapshotInPiecesIfItIsWhatItsDigestSays) {
  JobRunner& giver = of_stage(1);
  train(giver, 1);
  const auto snapshot = std::get<protocol::SnapshotDone>(**giver.run(protocol::RunSnapshot{1}));
  const auto trained = weights(giver);
  JobRunner& joiner = of_stage(1);
  const auto initial = weights(joiner);
  const std::size_t half = snapshot.state->size() / 2;
  std::vector<SharedBytes> pieces = {snapshot.state.part(half, snapshot.state->size() - half),
                                     snapshot.state.part(0, half)};
  const auto restore = [&] {
    return std::get<protocol::LoadDone>(**joiner.run(protocol::RunRestore{1, pieces, snapshot.digest})).error;
  };
  EXPECT_THAT(restore(), HasSubstr("has not the digest"));
  EXPECT_EQ(weights(joiner), initial);
  std::swap(pieces[0], pieces[1]);
  EXPECT_EQ(restore(), "");
  EXPECT_EQ(weights(joiner), trained);
}

}  // namespace
}  // namespace isthmus::runner
