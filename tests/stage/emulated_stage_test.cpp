#include "stage/emulated_stage.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "config/load_run.h"
#include "scheduler/planner/make_plan.h"
#include "store/checkpoint.h"

namespace isthmus::stage {
namespace {

class EmulatedStageTest : public ::testing::Test {
 protected:
  EmulatedStageTest()
      : run_(*config::load_run(ISTHMUS_SOURCE_DIR "/configs/emulated.toml",
                               {"pipeline.stages=2", "emulated.forward_ms=0", "emulated.input_gradient_ms=0",
                                "emulated.weight_gradient_ms=0"})),
        plan_(planner::make_plan(run_)) {
    for (std::uint32_t s = 0; s < 2; ++s) stages_.push_back(make_emulated_stage(run_, plan_, StageId(s), ReplicaId(0)));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  compress::EncodedTensor read(std::uint64_t step, std::uint32_t m) const {
    return {nullptr, share(emulated_tokens(run_, plan_, {StepId(step), MicrobatchId(m)}))};
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-emulated-" + std::to_string(::getpid());
  const spec::RunConfig run_;
  const protocol::Plan plan_;
  std::vector<std::unique_ptr<runner::StageCompute>> stages_;
};

TEST_F(EmulatedStageTest, MakesPayloadsOfThePlansSizes) {
  const auto sent = stages_[0]->forward(StepId(1), MicrobatchId(0), true, read(1, 0));
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->output.values->size(), plan_.forward_bytes);
  EXPECT_EQ(sent->output.tokens->size(), plan_.token_bytes);
  const auto received = stages_[1]->forward(StepId(1), MicrobatchId(0), true, sent->output);
  ASSERT_TRUE(received) << received.error().message;
  EXPECT_EQ(received->loss->tokens, plan_.tokens_per_microbatch);
  EXPECT_EQ(stages_[1]->input_gradient(MicrobatchId(0), {})->values->size(), plan_.backward_bytes);
}

TEST_F(EmulatedStageTest, NoticesAPayloadOfAnotherMicrobatch) {
  const auto sent = stages_[0]->forward(StepId(1), MicrobatchId(0), true, read(1, 0));
  EXPECT_FALSE(stages_[1]->forward(StepId(1), MicrobatchId(1), true, sent->output));
  EXPECT_FALSE(stages_[1]->forward(StepId(2), MicrobatchId(0), true, sent->output));
}

TEST_F(EmulatedStageTest, NoticesTokensOfAnotherSample) {
  EXPECT_FALSE(stages_[0]->forward(StepId(1), MicrobatchId(0), true, {}));
  EXPECT_FALSE(stages_[0]->forward(StepId(1), MicrobatchId(0), true, read(1, 1)));
  EXPECT_FALSE(stages_[0]->forward(StepId(1), MicrobatchId(0), true, read(2, 0)));
  EXPECT_FALSE(stages_[0]->forward(StepId(1), MicrobatchId(0), false, read(1, 0)));
  EXPECT_TRUE(stages_[0]->forward(StepId(1), MicrobatchId(0), false, read(0, 0)));
  auto sent = stages_[0]->forward(StepId(1), MicrobatchId(0), true, read(1, 0));
  ASSERT_TRUE(sent);
  sent->output.tokens = read(1, 1).tokens;
  EXPECT_FALSE(stages_[1]->forward(StepId(1), MicrobatchId(0), true, sent->output));
}

TEST_F(EmulatedStageTest, HasWeightsThatTellALostMicrobatchFromNone) {
  const auto weights_after = [&](std::uint32_t microbatches) {
    auto stage = make_emulated_stage(run_, plan_, StageId(0), ReplicaId(0));
    for (std::uint32_t m = 0; m < microbatches; ++m) {
      (void)stage->forward(StepId(1), MicrobatchId(m), true, read(1, m));
      stage->weight_gradient(MicrobatchId(m));
    }
    protocol::Commit commit;
    commit.step = StepId(1);
    (void)stage->prepare({}, true);
    stage->apply(commit, 0);
    return stage->weight_digests().front().hex;
  };
  EXPECT_EQ(weights_after(3), weights_after(3));
  EXPECT_NE(weights_after(3), weights_after(2));
}

TEST_F(EmulatedStageTest, ComesBackFromItsCheckpoint) {
  protocol::Commit commit;
  commit.step = StepId(1);
  stages_[0]->apply(commit, 0);
  const store::CheckpointPlace place{folder_, StageId(0), plan_.stages[0].first_layer, plan_.stages[0].end_layer,
                                     ReplicaId(0)};
  const auto copy = stages_[0]->copy();
  ASSERT_TRUE(store::write_checkpoint(place, 1, 0, copy.weights, copy.optimizer));
  auto again = make_emulated_stage(run_, plan_, StageId(0), ReplicaId(0));
  ASSERT_TRUE(again->load(*store::read_checkpoint(place, 1)));
  EXPECT_EQ(again->weight_digests(), stages_[0]->weight_digests());
}

TEST_F(EmulatedStageTest, SaysWhatItPretendsToTakePerLayer) {
  spec::RunConfig run = run_;
  run.emulated.forward_ms = 8;
  run.emulated.input_gradient_ms = 12;
  run.emulated.weight_gradient_ms = 20;
  const auto device = make_emulated_stage(run, plan_, StageId(1), ReplicaId(0), 6)->measure();
  // Three layers, six times slower.
  EXPECT_EQ(device.layer, (protocol::OperationCosts{std::chrono::milliseconds(16), std::chrono::milliseconds(24),
                                                    std::chrono::milliseconds(40)}));
  EXPECT_EQ(device.head, protocol::OperationCosts());
  EXPECT_GT(device.memory_bytes, 0u);
}

TEST_F(EmulatedStageTest, BecomesSlowerInAStepAfterSoManyOperations) {
  spec::RunConfig run = run_;
  run.emulated.forward_ms = 1;
  run.emulated.slow_step = 2;
  run.emulated.slow_after = 1;
  const auto stage = make_emulated_stage(run, plan_, StageId(0), ReplicaId(0), 6);
  const auto forward = [&] { return stage->measure().layer.forward * plan_.stages[0].end_layer; };
  for (const auto& [step, expected] :
       {std::pair(1, 1), std::pair(1, 1), std::pair(2, 6), std::pair(2, 6), std::pair(3, 6)}) {
    const auto takes = forward();  // as it says before it begins
    const auto began = std::chrono::steady_clock::now();
    ASSERT_TRUE(stage->forward(StepId(static_cast<std::uint64_t>(step)), MicrobatchId(0), false, read(0, 0)));
    EXPECT_GE(std::chrono::steady_clock::now() - began, takes) << "step " << step;
    EXPECT_EQ(forward(), std::chrono::milliseconds(expected)) << "step " << step;
  }
}

}  // namespace
}  // namespace isthmus::stage
