#include "scheduler/planner/make_plan.h"

#include <gtest/gtest.h>

#include <sstream>

#include "base/token_width.h"
#include "config/load_run.h"
#include "scheduler/planner/plan_text.h"
#include "spec/learning_rate.h"

namespace isthmus::planner {
namespace {

spec::RunConfig emulated(const std::vector<std::string>& overrides = {}) {
  const auto run = config::load_run(ISTHMUS_SOURCE_DIR "/configs/emulated.toml", overrides);
  return *run;
}

TEST(MakePlan, CountsTheBytesOfAMicrobatch) {
  const protocol::Plan plan = make_plan(emulated());
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

TEST(MakePlan, GivesTheSameIdToHostsThatDifferInWhatIsTheirOwn) {
  auto other = emulated();
  other.host = {.data = {"elsewhere/t.bin", "/v.bin"},
                .device = "cuda",
                .threads = 7,
                .activation_mb = 1,
                .recompute = "always",
                .journal_mb = 3,
                .replace = false};
  EXPECT_EQ(make_plan(emulated()).run_id, make_plan(other).run_id);
}

TEST(MakePlan, KeepsTheDepthOfOneForwardOneBackward) {
  const protocol::Plan plan = make_plan(emulated({"pipeline.schedule=1f1b"}));
  EXPECT_EQ(plan.stages.front().credits, 8u);
  EXPECT_EQ(plan.stages.back().credits, 1u);
}

TEST(MakePlan, EvaluatesAtTheStepsAskedForAndAfterTheLast) {
  protocol::Plan plan;
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
  spec::RunConfig run;
  run.run.steps = 100;
  run.train.warmup_steps = 10;
  run.train.learning_rate = 1.0;
  run.train.final_learning_rate = 0.1;
  EXPECT_DOUBLE_EQ(spec::learning_rate(run, StepId(5)), 0.5);
  EXPECT_DOUBLE_EQ(spec::learning_rate(run, StepId(10)), 1.0);
  EXPECT_NEAR(spec::learning_rate(run, StepId(55)), 0.55, 1e-12);
  EXPECT_NEAR(spec::learning_rate(run, StepId(100)), 0.1, 1e-12);
}

TEST(PlanText, ShowsTheGridAndSaysWhatIsAnEstimate) {
  const std::string text = plan_text(emulated(), {});
  EXPECT_NE(text.find("stage 7"), std::string::npos);
  EXPECT_NE(text.find("predicted"), std::string::npos);
  EXPECT_NE(text.find("as [emulated] says"), std::string::npos);
  const auto webster = config::load_run(ISTHMUS_SOURCE_DIR "/configs/webster.toml");
  EXPECT_NE(plan_text(*webster, {}).find("an estimate at"), std::string::npos);
  EXPECT_NE(plan_text(*webster, {}).find("total: 5796608 parameters; on disk "), std::string::npos)
      << plan_text(*webster, {});
}

// The links take nearly all of its step.
TEST(PlanText, ShowsTheWorkOfASmallModel) {
  const auto small = config::load_run(ISTHMUS_SOURCE_DIR "/configs/webster.toml",
                                      {"model.hidden=64", "model.context=64", "boundary.rank=15",
                                       "train.sequences_per_microbatch=1", "link.latency_ms=150"});
  ASSERT_TRUE(small);
  const std::string text = plan_text(*small, {.gflops = 500});
  EXPECT_EQ(text.find("0.000 s"), std::string::npos) << text;
  EXPECT_NE(text.find(" µs"), std::string::npos) << text;
  std::istringstream lines(text);
  int rows = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("  stage ") || line.find("·") == std::string::npos) continue;
    ++rows;
    EXPECT_NE(line.find_first_of("FIW"), std::string::npos) << text;
  }
  EXPECT_EQ(rows, 4);
}

}  // namespace
}  // namespace isthmus::planner
