#include "scheduler/paths/make_path_problem.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "config/load_paths.h"
#include "scheduler/paths/path_checks.h"

namespace isthmus::paths {
namespace {

config::PathsConfig published() {
  const auto paths = config::load_paths(ISTHMUS_SOURCE_DIR "/configs/paths/skippipe-20.toml");
  EXPECT_TRUE(paths.has_value());
  return paths.value_or(config::PathsConfig());
}

TEST(MakePathProblem, KeepsThePublishedEndsOfTheLinks) {
  const auto paths = published();
  // Region 0 Oregon, 1 Los Angeles, 7 Frankfurt, 11 Sydney; 33.5 MB and 0.35 s.
  std::vector<std::uint32_t> regions(20, 0);
  regions[1] = 1;
  regions[2] = 7;
  regions[3] = 11;
  const auto problem = make_path_problem(paths, regions);
  EXPECT_TRUE(check_problem(problem));
  EXPECT_EQ(problem.between(5, 5), Duration{});
  EXPECT_NEAR(to_seconds(problem.between(0, 1)), .023 + .35 + 33554432 * 8 / 2e9, 1e-6);
  EXPECT_NEAR(to_seconds(problem.between(2, 3)), .132 + .35 + 33554432 * 8 / 80e6, 1e-6);
  EXPECT_EQ(problem.between(3, 2), problem.between(2, 3));
  EXPECT_EQ(problem.between(4, 5), problem.between(0, 1));  // one region: as fast as links get
  EXPECT_EQ(problem.origins().size(), 15u);
}

TEST(MakePathProblem, SpreadsNodesEquallyOverRegions) {
  const auto paths = published();
  const auto regions = draw_regions(paths, 1);
  EXPECT_EQ(regions, draw_regions(paths, 1));
  EXPECT_NE(regions, draw_regions(paths, 2));
  for (std::uint32_t region = 0; region < 12; ++region) {
    const auto count = std::ranges::count(regions, region);
    EXPECT_TRUE(count == 1 || count == 2) << region;
  }
}

}  // namespace
}  // namespace isthmus::paths
