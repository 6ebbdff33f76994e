#include "scheduler/paths/path_coverage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "scheduler/paths/path_cases.h"
#include "scheduler/paths/path_checks.h"

namespace isthmus::paths {
namespace {

std::vector<StageSet> all_sets(const PathProblem& problem) {
  std::vector<StageSet> sets;
  for (std::uint32_t chosen = 0; chosen < 1u << problem.stages.size(); ++chosen) {
    StageSet set;
    for (std::uint32_t stage = 0; stage < problem.stages.size(); ++stage)
      if (chosen >> stage & 1) set.push_back(stage);
    if (!set.empty() && may_visit(problem, set)) sets.push_back(set);
  }
  return sets;
}

// Whether any choice of sets covers the stages equally: every coverage that the microbatches can add up to.
bool can_be_equal(const PathProblem& problem) {
  const auto sets = all_sets(problem);
  std::set<std::vector<std::uint32_t>> reached = {std::vector<std::uint32_t>(problem.stages.size())};
  for (std::size_t m = 0; m < problem.origins().size(); ++m) {
    std::set<std::vector<std::uint32_t>> next;
    for (auto coverage : reached)
      for (const auto& set : sets) {
        for (const std::uint32_t stage : set) ++coverage[stage];
        next.insert(coverage);
        for (const std::uint32_t stage : set) --coverage[stage];
      }
    reached = std::move(next);
  }
  return std::ranges::any_of(reached, [&](const auto& coverage) { return uneven_visits(problem, coverage) == 0; });
}

TEST(PathCoverage, IsEqualWhereverItCanBe) {
  const CounterRandom random(1, "coverage");
  int equal = 0, impossible = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const auto below = [&](std::uint64_t limit, std::uint64_t which) {
      return static_cast<std::uint32_t>(random.below(limit, seed * 8 + which));
    };
    const std::uint32_t stages = 3 + below(5, 0);
    const auto problem =
        drawn_problem(seed, std::vector<std::uint32_t>(stages, 1), 1 + below(6, 1), 2 + below(stages - 1, 2),
                      below(4, 3), 1, below(2, 4) ? PathEnd::kOrigin : PathEnd::kLastStage);
    if (!check_problem(problem)) {
      EXPECT_TRUE(all_sets(problem).empty());
      continue;
    }
    const auto sets = cover_equally(problem);
    EXPECT_EQ(sets.has_value(), can_be_equal(problem)) << "seed " << seed;
    ++(sets ? equal : impossible);
    if (!sets) continue;
    for (const auto& set : *sets) EXPECT_TRUE(may_visit(problem, set));
  }
  EXPECT_GT(equal, 100);
  EXPECT_GT(impossible, 5);
}

TEST(PathCoverage, TakesTheCheapestStages) {
  const auto problem = drawn_problem(1, {1, 1, 1, 1, 1}, 1, 3, 2, 1, PathEnd::kLastStage);
  EXPECT_EQ(cheapest_stages(problem, {0, 3, 1, 2, 0}), (StageSet{0, 2, 4}));
  EXPECT_EQ(cheapest_stages(problem, {0, 0, 1, 2, 0}), (StageSet{0, 1, 4}));
}

}  // namespace
}  // namespace isthmus::paths
