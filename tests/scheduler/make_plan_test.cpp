#include "scheduler/make_plan.h"

#include <gtest/gtest.h>

#include "base/token_width.h"
#include "config/load_run.h"
#include "scheduler/learning_rate.h"
#include "scheduler/plan_text.h"

namespace isthmus {
namespace {

RunConfig emulated(const std::vector<std::string>& overrides = {}) {
  const auto run = load_run(ISTHMUS_SOURCE_DIR "/configs/emulated.toml", overrides);
  return *run;
}

TEST(MakePlan, CountsTheBytesOfAMicrobatch) {
  const Plan plan = make_plan(emulated());
  EXPECT_EQ(plan.tokens_per_microbatch, 4096u);
  EXPECT_EQ(plan.forward_bytes, 4096u * 41 * 2);
  EXPECT_EQ(plan.backward_bytes, 4096u * 41 * 2);
  EXPECT_EQ(plan.token_bytes, 4097u * 2);
}

TEST(MakePlan, MakesTokenIdsAsNarrowAsTheVocabularyAllows) {
  EXPECT_EQ(token_width(256), 1u);
  EXPECT_EQ(token_width(257), 2u);
  EXPECT_EQ(token_width(65537), 4u);
}

TEST(MakePlan, GivesOtherRunsOtherIds) {
  EXPECT_EQ(make_plan(emulated()).run_id, make_plan(emulated()).run_id);
  EXPECT_NE(make_plan(emulated()).run_id, make_plan(emulated({"run.seed=2"})).run_id);
}

TEST(MakePlan, KeepsTheDepthOfOneForwardOneBackward) {
  const Plan plan = make_plan(emulated({"pipeline.schedule=1f1b"}));
  EXPECT_EQ(plan.stages.front().credits, 8u);
  EXPECT_EQ(plan.stages.back().credits, 1u);
}

TEST(MakePlan, EvaluatesAtTheStepsAskedForAndAfterTheLast) {
  Plan plan;
  plan.steps = 10;
  plan.microbatches = 4;
  plan.evaluation_microbatches = 2;
  plan.evaluate_every = 5;
  EXPECT_EQ(plan.count(StepId(1)), 4u);
  EXPECT_EQ(plan.count(StepId(6)), 6u);
  EXPECT_EQ(plan.count(StepId(11)), 2u);
  EXPECT_EQ(plan.count(StepId(12)), 0u);
}

TEST(LearningRate, WarmsUpAndEndsAtItsFinalShare) {
  RunConfig run;
  run.run.steps = 100;
  run.train.warmup_steps = 10;
  run.train.learning_rate = 1.0;
  run.train.final_learning_rate = 0.1;
  EXPECT_DOUBLE_EQ(learning_rate(run, StepId(5)), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(run, StepId(10)), 1.0);
  EXPECT_NEAR(learning_rate(run, StepId(55)), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(run, StepId(100)), 0.1, 1e-12);
}

TEST(PlanText, ShowsTheGridAndSaysWhatIsAnEstimate) {
  const std::string text = plan_text(emulated(), {});
  EXPECT_NE(text.find("stage 7"), std::string::npos);
  EXPECT_NE(text.find("predicted"), std::string::npos);
  EXPECT_NE(text.find("as [emulated] says"), std::string::npos);
  const auto webster = load_run(ISTHMUS_SOURCE_DIR "/configs/webster.toml");
  EXPECT_NE(plan_text(*webster, {}).find("an estimate at"), std::string::npos);
}

}  // namespace
}  // namespace isthmus
