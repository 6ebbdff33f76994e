#include "scheduler/paths/path_heuristic.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "scheduler/paths/min_cost_assignment.h"
#include "scheduler/paths/path_baselines.h"
#include "scheduler/paths/path_cases.h"
#include "scheduler/paths/path_checks.h"
#include "scheduler/paths/path_simulation.h"

namespace isthmus::paths {
namespace {

std::string broken(const PathProblem& problem, const PathChoice& choice) {
  PathSimulation simulation(problem);
  const Duration makespan = simulation.run(choice);
  const auto plan = simulation.plan();
  if (makespan != plan.makespan) return "two makespans";
  const auto sound = check_plan(problem, plan);
  return sound ? "" : sound.error().message;
}

// A problem of any shape that has a plan.
PathProblem any_problem(std::uint64_t seed) {
  const CounterRandom random(seed, "any problem");
  std::uint64_t drawn = 0;
  const auto below = [&](std::uint64_t limit) { return static_cast<std::uint32_t>(random.below(limit, drawn++)); };
  for (;;) {
    std::vector<std::uint32_t> stages(2 + below(5));
    for (auto& count : stages) count = 1 + below(4);
    const auto end = below(2) ? PathEnd::kOrigin : PathEnd::kLastStage;
    const auto visits = 2 + below(stages.size() - 1);
    auto problem = drawn_problem(seed, stages, 1 + below(4), visits, below(4), 1 + below(3), end);
    if (match_paths(problem)) return problem;
  }
}

TEST(PathHeuristic, KeepsEveryConstraintOfAnyProblem) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto problem = any_problem(seed);
    const auto start = match_paths(problem);
    ASSERT_TRUE(start);
    EXPECT_EQ(broken(problem, *start), "") << "seed " << seed;
    const auto planned = plan_paths(problem, {seed, 200});
    ASSERT_TRUE(planned);
    EXPECT_EQ(broken(problem, *planned), "") << "seed " << seed;
    PathSimulation simulation(problem);
    EXPECT_LE(simulation.run(*planned), simulation.run(*start)) << "seed " << seed;
  }
}

TEST(PathHeuristic, RepeatsItself) {
  const auto problem = drawn_problem(3, {3, 2, 2, 2}, 2, 3, 1, 2);
  EXPECT_EQ(*plan_paths(problem, {1, 500}), *plan_paths(problem, {1, 500}));
  EXPECT_NE(*plan_paths(problem, {1, 500}), *plan_paths(problem, {2, 500}));
}

TEST(PathHeuristic, GivesAFastReplicaMoreVisits) {
  auto problem = drawn_problem(1, {1, 2}, 8, 2, 0, 8);
  problem.nodes[1] = {seconds(1), seconds(2), {}, 8};
  problem.nodes[2] = {seconds(3), seconds(6), {}, 8};
  EXPECT_EQ(std::ranges::count(deal_visits(problem, 1, 8), 1u), 6);
}

TEST(PathHeuristic, PlansNothingForNoMicrobatches) {
  auto problem = drawn_problem(1, {2, 2}, 0, 2, 0, 1);
  EXPECT_TRUE(plan_paths(problem, {})->nodes.empty());
}

TEST(PathBaselines, KeepEveryConstraint) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const auto problem = any_problem(seed);
    const auto full = full_pipelines(problem);
    ASSERT_TRUE(full);
    EXPECT_EQ(broken(full->problem, full->choice), "") << "seed " << seed;
    const auto blind = blind_paths(problem, seed);
    ASSERT_TRUE(blind);
    EXPECT_EQ(broken(problem, *blind), "") << "seed " << seed;
  }
}

TEST(PathBaselines, SkipBlindlyAsTheSeedSays) {
  const auto problem = drawn_problem(1, {3, 3, 3, 3}, 2, 3, 1, 3);
  EXPECT_EQ(*blind_paths(problem, 1), *blind_paths(problem, 1));
  EXPECT_NE(*blind_paths(problem, 1), *blind_paths(problem, 2));
}

TEST(PathBaselines, SendThroughAsManyPipelinesAsTheSmallestStageHasNodes) {
  const auto full = full_pipelines(drawn_problem(1, {5, 3, 3}, 3, 2, 1, 3));
  ASSERT_TRUE(full);
  std::vector<std::uint32_t> sends = full->problem.microbatches;
  std::ranges::sort(sends);
  EXPECT_EQ(sends, (std::vector<std::uint32_t>{0, 0, 5, 5, 5}));
  EXPECT_EQ(full->problem.visits, 3u);
}

TEST(MinCostAssignment, IsTheBestPermutation) {
  const CounterRandom random(5, "assignment");
  for (std::uint64_t trial = 0; trial < 50; ++trial) {
    const std::size_t rows = 1 + trial % 5, columns = rows + trial % 2;
    std::vector<std::vector<double>> cost(rows, std::vector<double>(columns));
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < columns; ++c)
        cost[r][c] = static_cast<double>(random.below(100, trial * 100 + r * 10 + c));
    std::vector<std::size_t> order(columns);
    for (std::size_t c = 0; c < columns; ++c) order[c] = c;
    double best = 1e9;
    do {
      double sum = 0;
      for (std::size_t r = 0; r < rows; ++r) sum += cost[r][order[r]];
      best = std::min(best, sum);
    } while (std::ranges::next_permutation(order).found);
    double found = 0;
    const auto column = min_cost_assignment(cost);
    for (std::size_t r = 0; r < rows; ++r) found += cost[r][column[r]];
    EXPECT_EQ(found, best) << "trial " << trial;
  }
}

}  // namespace
}  // namespace isthmus::paths
