#include "scheduler/planner/stage_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace isthmus::planner {
namespace {

struct Tried {
  std::vector<std::uint32_t> counts;
  bool whole = false;
};

// With a plan that is best in `best` stages; below `least` there is none.
Tried search(std::uint32_t most, double budget, double best, std::uint32_t least = 1) {
  StageSearch search(stage_counts(most, [](std::uint32_t) { return true; }), 1, budget);
  Tried tried;
  while (const auto stages = search.next()) {
    search.tried(*stages,
                 *stages < least ? std::numeric_limits<double>::infinity() : std::abs(std::log(*stages / best)));
    tried.counts.push_back(*stages);
  }
  tried.whole = search.whole();
  return tried;
}

TEST(StageSearch, TriesAllIfItMay) {
  const auto tried = search(12, 78, 3);
  EXPECT_EQ(tried.counts, (std::vector<std::uint32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  EXPECT_TRUE(tried.whole);
}

TEST(StageSearch, TriesPowersOfTwoAndThenAroundTheBest) {
  const auto tried = search(24, 100, 11);
  EXPECT_EQ(tried.counts, (std::vector<std::uint32_t>{1, 2, 4, 8, 16, 6, 7, 12, 10, 11}));
  EXPECT_FALSE(tried.whole);
}

TEST(StageSearch, StopsWhenTheBudgetIsOutUnlessNothingWasFound) {
  EXPECT_EQ(search(24, 20, 11).counts, (std::vector<std::uint32_t>{1, 2, 4, 8}));
  EXPECT_EQ(search(24, 3, 11, 8).counts, (std::vector<std::uint32_t>{1, 2, 4, 8}));
  EXPECT_EQ(search(20, 3, 11, 20).counts, (std::vector<std::uint32_t>{1, 2, 4, 8, 16, 20}));
  EXPECT_EQ(search(20, 3, 11, 21).counts.size(), 20u);
}

}  // namespace
}  // namespace isthmus::planner
