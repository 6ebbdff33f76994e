#include "protocol/step_paths.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "spec/layer_map.h"

namespace isthmus::protocol {
namespace {

Plan plan_of(std::uint32_t stages, std::uint32_t microbatches, double share) {
  Plan plan;
  for (std::uint32_t s = 0; s < stages; ++s) plan.stages.push_back({s, s + 1, 1, microbatches});
  plan.steps = 1000;
  plan.microbatches = microbatches;
  plan.evaluation_microbatches = 2;
  plan.evaluate_every = 7;
  plan.planned_skips = static_cast<std::uint32_t>(share * stages * microbatches + .5);
  return plan;
}

std::vector<std::uint32_t> path_of(const StepPaths& paths, std::uint32_t m) {
  std::vector<std::uint32_t> path;
  for (std::uint32_t s = 0; s < paths.stages(); ++s)
    if (paths.visits(MicrobatchId(m), StageId(s))) path.push_back(s);
  return path;
}

TEST(StepPaths, AreWholeUnlessSomethingIsLeftOut) {
  const Plan plan = plan_of(5, 6, 0);
  const StepPaths paths(plan, StepId(3), {});
  for (std::uint32_t m = 0; m < 6; ++m) EXPECT_EQ(path_of(paths, m), (std::vector<std::uint32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(paths.skip_ratio(), 0);
  EXPECT_EQ(paths.weight(StageId(2)), 1);
}

// Every share that the run file may ask for, in every shape.
TEST(StepPaths, PlannedSkipsKeepTheirRules) {
  for (std::uint32_t stages = 3; stages <= 13; ++stages)
    for (std::uint32_t microbatches : {2u, 3u, 4u, 8u, 15u, 32u})
      for (double share : {.05, .12, .25, .33}) {
        share = std::min(share, spec::skip_share_max(stages, microbatches));
        const Plan plan = plan_of(stages, microbatches, share);
        std::vector<std::uint32_t> visits(stages, 0);
        for (std::uint64_t step = 1; step <= 9; ++step) {
          const StepPaths paths(plan, StepId(step), {});
          const std::string where =
              fmt::format("{} stages, {} microbatches, share {}, step {}", stages, microbatches, share, step);
          for (std::uint32_t m = 0; m < microbatches; ++m) {
            const auto path = path_of(paths, m);
            EXPECT_EQ(path.front(), 0u) << where;
            EXPECT_EQ(path.back(), stages - 1) << where;
            EXPECT_GE(3 * path.size(), 2 * stages) << where;
            for (std::size_t i = 1; i < path.size(); ++i) {
              EXPECT_LE(path[i] - path[i - 1], 2u) << where;
              EXPECT_EQ(paths.next(MicrobatchId(m), StageId(path[i - 1])), StageId(path[i])) << where;
              EXPECT_EQ(paths.previous(MicrobatchId(m), StageId(path[i])), StageId(path[i - 1])) << where;
            }
          }
          std::uint32_t least = microbatches, most = 0;
          for (std::uint32_t s = 1; s + 1 < stages; ++s) {
            least = std::min(least, paths.training_count(StageId(s)));
            most = std::max(most, paths.training_count(StageId(s)));
            visits[s] += paths.training_count(StageId(s));
          }
          EXPECT_LE(most - least, 1u) << where;
          EXPECT_GE(2 * least, microbatches) << where;
          EXPECT_EQ(paths.skipped(), plan.planned_skips) << where;
        }
        const auto [least, most] = std::minmax_element(visits.begin() + 1, visits.end() - 1);
        EXPECT_LE(*most - *least, 9u) << stages << " stages, " << microbatches << " microbatches, share " << share;
      }
}

TEST(StepPaths, EveryTenthStepAndEveryEvaluationIsWhole) {
  const Plan plan = plan_of(6, 8, .25);
  EXPECT_GT(StepPaths(plan, StepId(9), {}).skipped(), 0u);
  EXPECT_EQ(StepPaths(plan, StepId(10), {}).skipped(), 0u);
  const StepPaths evaluates(plan, StepId(8), {});
  ASSERT_EQ(plan.count(StepId(8)), 10u);
  for (std::uint32_t m = 8; m < 10; ++m) EXPECT_EQ(path_of(evaluates, m).size(), 6u);
}

TEST(StepPaths, AStageCountsForWhatItSaw) {
  const Plan plan = plan_of(4, 4, .25);
  const StepPaths paths(plan, StepId(1), {});
  EXPECT_EQ(paths.training_count(StageId(0)), 4u);
  EXPECT_EQ(paths.training_count(StageId(1)), 2u);
  EXPECT_EQ(paths.weight(StageId(0)), 1);
  EXPECT_EQ(paths.weight(StageId(1)), 2);
  const Commit commit{StepId(1), 0, EpochId(1), .5, true};
  EXPECT_EQ(paths.for_stage(commit, StageId(0)), commit);
  EXPECT_EQ(paths.for_stage(commit, StageId(1)).scale, 1.0);
  EXPECT_DOUBLE_EQ(paths.skip_ratio(), .25);
}

TEST(StepPaths, AnAbsentStageIsPassedByAndKeepsItsWeights) {
  const Plan plan = plan_of(4, 4, .25);
  const StepPaths paths(plan, StepId(8), {StageId(2)});
  for (std::uint32_t m = 0; m < plan.count(StepId(8)); ++m)
    EXPECT_EQ(path_of(paths, m), (std::vector<std::uint32_t>{0, 1, 3}));
  EXPECT_EQ(paths.count(StageId(2)), 0u);
  EXPECT_FALSE(paths.for_stage({StepId(8), 0, EpochId(1), 1, true}, StageId(2)).apply);
  EXPECT_TRUE(paths.for_stage({StepId(8), 0, EpochId(1), 1, true}, StageId(1)).apply);
}

TEST(StepPaths, SayWhichStagesMeet) {
  const Plan plan = plan_of(5, 4, 0);
  const StepPaths whole(plan, StepId(1), {}), without(plan, StepId(1), {StageId(2)});
  EXPECT_TRUE(whole.meet(StageId(2), StageId(1)));
  EXPECT_FALSE(whole.meet(StageId(1), StageId(3)));
  EXPECT_FALSE(whole.meet(StageId(1), StageId(1)));
  EXPECT_TRUE(without.meet(StageId(3), StageId(1)));
  EXPECT_FALSE(without.meet(StageId(1), StageId(2)));
}

TEST(StepPaths, NeitherEndsNorNeighboursNorManyMayBeAbsent) {
  const Plan plan = plan_of(6, 4, 0);
  EXPECT_TRUE(may_be_absent(plan, {StageId(1)}));
  EXPECT_TRUE(may_be_absent(plan, {StageId(1), StageId(3)}));
  EXPECT_FALSE(may_be_absent(plan, {StageId(0)}));
  EXPECT_FALSE(may_be_absent(plan, {StageId(5)}));
  EXPECT_FALSE(may_be_absent(plan, {StageId(2), StageId(3)}));
  EXPECT_FALSE(may_be_absent(plan_of(5, 4, 0), {StageId(1), StageId(3)}));
  EXPECT_FALSE(may_be_absent(plan_of(2, 4, 0), {StageId(1)}));
}

}  // namespace
}  // namespace isthmus::protocol
