#include "scheduler/paths/path_simulation.h"

#include <gtest/gtest.h>

#include "scheduler/paths/path_cases.h"

namespace isthmus::paths {
namespace {

// Every forward 1 s, backward 2 s, loss .5 s, every transfer .25 s.
PathProblem even(const std::vector<std::uint32_t>& stages, std::uint32_t visits, std::uint32_t memory, PathEnd end) {
  PathProblem problem = drawn_problem(1, stages, 2, visits, 1, memory, end);
  for (auto& node : problem.nodes) node = {seconds(1), seconds(2), seconds(.5), memory};
  for (auto& transfer : problem.transfer)
    if (transfer > Duration{}) transfer = seconds(.25);
  return problem;
}

TEST(PathSimulation, TakesTheSumOfAPathThatIsAlone) {
  auto problem = even({1, 1, 1}, 3, 1, PathEnd::kOrigin);
  problem.microbatches = {1};
  // Three edges forward, the last one back to the origin, and the same again backward.
  EXPECT_EQ(PathSimulation(problem).run({{{0, 1, 2}}, {0}}), seconds(3 * 3 + .5 + 6 * .25));
  problem.end = PathEnd::kLastStage;
  EXPECT_EQ(PathSimulation(problem).run({{{0, 1, 2}}, {0}}), seconds(3 * 3 + .5 + 4 * .25));
}

TEST(PathSimulation, SerialisesANodeAndLetsTheLowerRankGoFirst) {
  const auto problem = even({1, 1}, 2, 2, PathEnd::kLastStage);
  PathSimulation simulation(problem);
  simulation.run({{{0, 1}, {0, 1}}, {1, 0}});
  const auto plan = simulation.plan();
  EXPECT_EQ(plan.paths[1].visits[0].forward, Time{});
  EXPECT_EQ(plan.paths[0].visits[0].forward, seconds(1));
  // Forward of 1, of 0, backward and loss before the other's forward: node 1 works 2 × 3.5 s from 1.25 s on.
  EXPECT_EQ(plan.makespan, seconds(1.25 + 7 + .25 + 2));
  EXPECT_EQ(plan.coverage, (std::vector<std::uint32_t>{2, 2}));
}

TEST(PathSimulation, HoldsAForwardBackWhileTheMemoryIsFull) {
  const auto problem = even({1, 1}, 2, 1, PathEnd::kLastStage);
  // One after the other, all of the way.
  EXPECT_EQ(PathSimulation(problem).run({{{0, 1}, {0, 1}}, {0, 1}}), seconds(2 * (6 + .5 + 2 * .25)));
}

TEST(PathSimulation, NamesTheChainThatDecides) {
  const auto problem = even({1, 1}, 2, 2, PathEnd::kLastStage);
  const PathChoice choice = {{{0, 1}, {0, 1}}, {0, 1}};
  PathSimulation simulation(problem);
  const Duration makespan = simulation.run(choice);
  const auto chain = simulation.critical();
  EXPECT_EQ(chain.front().microbatch, 1u);
  EXPECT_EQ(chain.back().microbatch, 0u);
  std::size_t waits = 0;
  for (const auto& operation : chain) waits += operation.waited ? 1 : 0;
  EXPECT_GT(waits, 0u);
  EXPECT_EQ(simulation.run(choice), makespan);
}

}  // namespace
}  // namespace isthmus::paths
