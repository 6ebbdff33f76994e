#include "scheduler/paths/path_checks.h"

#include <gmock/gmock.h>

#include <functional>

#include "scheduler/paths/path_cases.h"
#include "scheduler/paths/path_heuristic.h"
#include "scheduler/paths/path_simulation.h"

namespace isthmus::paths {
namespace {

using testing::HasSubstr;

PathPlan played(const PathProblem& problem, const PathChoice& choice) {
  PathSimulation simulation(problem);
  simulation.run(choice);
  return simulation.plan();
}

// Stages of nodes 0 1, 2 3, 4 5, 6 7; two microbatches from each origin, on three of the four stages.
class PathChecksTest : public testing::Test {
 protected:
  void SetUp() override {
    plan_ = played(problem_, *match_paths(problem_));
    ASSERT_EQ(error(), "");
  }
  std::string error() const {
    const auto sound = check_plan(problem_, plan_);
    return sound ? "" : sound.error().message;
  }
  PathPlan::Path& path() { return plan_.paths[0]; }

  PathProblem problem_ = drawn_problem(1, {2, 2, 2, 2}, 2, 3, 1, 2);
  PathPlan plan_;
};

TEST_F(PathChecksTest, WantsAPathForEveryMicrobatch) {
  plan_.paths.pop_back();
  EXPECT_THAT(error(), HasSubstr("3 paths, expected 4"));
}

TEST_F(PathChecksTest, WantsTheNumberOfVisits) {
  path().visits.pop_back();
  EXPECT_THAT(error(), HasSubstr("microbatch 0 visits 2 stages, expected 3"));
}

TEST_F(PathChecksTest, RefusesANodeThatDoesNotExist) {
  path().visits[1].node = 8;
  EXPECT_THAT(error(), HasSubstr("visits node 8, expected one below 8"));
}

TEST_F(PathChecksTest, RefusesAPathThatSkipsTheFirstStage) {
  path().visits[0].node = 2;
  EXPECT_THAT(error(), HasSubstr("microbatch 0 skips the first stage"));
}

TEST_F(PathChecksTest, RefusesAPathFromAnotherOrigin) {
  path().visits[0].node = 1;
  EXPECT_THAT(error(), HasSubstr("microbatch 0 begins at node 1, expected 0"));
}

TEST_F(PathChecksTest, RefusesAPathThatGoesBack) {
  std::swap(path().visits[1].node, path().visits[2].node);
  EXPECT_THAT(error(), HasSubstr("expected a later one"));
}

TEST_F(PathChecksTest, RefusesTooManySkipsInARow) {
  problem_.skips_in_a_row = 0;
  EXPECT_THAT(error(), HasSubstr("skips 1 stages in a row"));
  // At the end of the path, too.
  problem_ = drawn_problem(1, {2, 2, 2}, 1, 2, 0, 2);
  plan_ = played(problem_, {{{0, 2}, {1, 3}}, {0, 1}});
  EXPECT_THAT(error(), HasSubstr("skips 1 stages in a row after stage 1"));
}

TEST_F(PathChecksTest, RefusesAPathThatSkipsTheLastStageWhereItHasTheLoss) {
  problem_ = drawn_problem(1, {2, 2, 2}, 1, 2, 1, 2, PathEnd::kLastStage);
  plan_ = played(problem_, {{{0, 2}, {1, 4}}, {0, 1}});
  EXPECT_THAT(error(), HasSubstr("microbatch 0 skips the last stage"));
}

TEST_F(PathChecksTest, RefusesUnequalCoverage) {
  plan_ = played(problem_, {{{0, 2, 4}, {1, 3, 5}, {0, 2, 4}, {1, 3, 5}}, {0, 1, 2, 3}});
  EXPECT_THAT(error(), HasSubstr("stage 1 is visited 4 times, stage 3 0 times"));
}

TEST_F(PathChecksTest, RefusesAStartBeforeTheInputIsThere) {
  // The last microbatch to end, so that nothing but its own chain is in its way.
  const auto earlier = [&](const std::function<Time&(PathPlan::Path&)>& start, const std::string& what) {
    const PathPlan sound = plan_;
    start(path()) -= Duration(1);
    EXPECT_THAT(error(), HasSubstr("microbatch 0 starts its " + what));
    plan_ = sound;
  };
  problem_.microbatches = {1, 0};
  plan_ = played(problem_, {{{0, 2, 4}}, {0}});
  ASSERT_EQ(error(), "");
  earlier([](auto& p) -> Time& { return p.visits[1].forward; }, "forward on node 2");
  earlier([](auto& p) -> Time& { return p.loss; }, "loss on node 0");
  earlier([](auto& p) -> Time& { return p.visits[2].backward; }, "backward on node 4");
  earlier([](auto& p) -> Time& { return p.visits[0].backward; }, "backward on node 0");
}

TEST_F(PathChecksTest, RefusesTwoThingsAtOnceOnANode) {
  problem_.microbatches = {2, 0};
  plan_ = played(problem_, {{{0, 2, 4}, {0, 2, 6}}, {0, 1}});
  ASSERT_EQ(error(), "");
  plan_.paths[1] = played(problem_, {{{0, 2, 6}, {0, 3, 4}}, {0, 1}}).paths[0];
  EXPECT_THAT(error(), HasSubstr("does two things at once"));
}

TEST_F(PathChecksTest, RefusesMoreMicrobatchesThanANodeHasMemoryFor) {
  problem_.nodes[0].memory = 1;
  EXPECT_THAT(error(), HasSubstr("node 0 holds 2 microbatches"));
}

TEST_F(PathChecksTest, RefusesFalseClaims) {
  plan_.makespan -= Duration(1);
  EXPECT_THAT(error(), HasSubstr("states a makespan"));
  plan_.makespan += Duration(1);
  ++plan_.coverage[1];
  EXPECT_THAT(error(), HasSubstr("another coverage"));
}

std::string refused(const PathProblem& problem) {
  const auto planned = match_paths(problem);
  return planned ? "" : planned.error().message;
}

TEST(PathProblem, SaysWhichConstraintCannotBeMet) {
  const PathProblem sound = drawn_problem(1, {2, 2, 2, 2, 2, 2}, 2, 4, 2, 2);
  EXPECT_EQ(refused(sound), "");
  const auto with = [&](const std::function<void(PathProblem&)>& change) {
    PathProblem changed = sound;
    change(changed);
    return refused(changed);
  };
  EXPECT_THAT(with([](auto& p) { p.visits = 7; }), HasSubstr("visits: a path visits 7 stages, expected 1 to 6"));
  EXPECT_THAT(with([](auto& p) {
                p.visits = 1;
                p.end = PathEnd::kLastStage;
              }),
              HasSubstr("expected 2 to 6"));
  EXPECT_THAT(
      with([](auto& p) {
        p.visits = 2;
        p.skips_in_a_row = 1;
      }),
      HasSubstr("skips in a row: with at most 1 in a row a path of 2 visits leaves out at most 2 stages, expected 4"));
  // One visit that must lie in the middle to keep both gaps short: always the same stage.
  EXPECT_THAT(with([](auto& p) { p.visits = 2; }),
              HasSubstr("equal coverage: with 2 visits and at most 2 skips in a row stage 3 is visited 4 times"));
  EXPECT_THAT(with([](auto& p) { p.nodes[3].memory = 0; }), HasSubstr("memory: node 3 can hold no microbatch"));
  EXPECT_THAT(with([](auto& p) { p.stages[2].clear(); }), HasSubstr("stage 2 has no node"));
  EXPECT_THAT(with([](auto& p) { p.stages[2] = {4}; }), HasSubstr("node 5 serves no stage"));
  EXPECT_THAT(with([](auto& p) { p.stages[2].push_back(6); }), HasSubstr("node 6 serves two stages"));
  EXPECT_THAT(with([](auto& p) { p.microbatches.pop_back(); }), HasSubstr("microbatches for 1 origins"));
  EXPECT_THAT(with([](auto& p) { p.transfer.pop_back(); }), HasSubstr("143 transfer times for 12 nodes"));
  EXPECT_THAT(with([](auto& p) { p.transfer[0] = seconds(1); }), HasSubstr("node 0 needs time to send to itself"));
}

}  // namespace
}  // namespace isthmus::paths
