#include "scheduler/planner/split_layers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/counter_random.h"

namespace isthmus::planner {
namespace {

// Every choice of stage ends.
double best_by_trying(std::uint32_t layers, const std::vector<double>& speeds, const auto& cost, const auto& fits,
                      std::uint32_t stage = 0, std::uint32_t first = 0) {
  const auto stages = static_cast<std::uint32_t>(speeds.size());
  double best = std::numeric_limits<double>::infinity();
  for (std::uint32_t end = stage + 1 == stages ? layers : first + 1; end <= layers; ++end) {
    if (!fits(stage, first, end)) continue;
    const double own = cost(first, end) / speeds[stage];
    const double rest = stage + 1 == stages ? 0
                        : end < layers      ? best_by_trying(layers, speeds, cost, fits, stage + 1, end)
                                            : std::numeric_limits<double>::infinity();
    best = std::min(best, std::max(own, rest));
  }
  return best;
}

TEST(SplitLayers, IsAsGoodAsTheBestOfAllSplits) {
  const CounterRandom random(3, "splits");
  std::size_t impossible = 0;
  for (std::uint64_t trial = 0; trial < 300; ++trial) {
    std::uint64_t drawn = trial * 100;
    const auto draw = [&](std::uint64_t limit) { return static_cast<std::uint32_t>(random.below(limit, drawn++)); };
    const std::uint32_t layers = 1 + draw(9), stages = 1 + draw(layers);
    std::vector<double> layer_costs, speeds, sizes;
    for (std::uint32_t l = 0; l < layers; ++l) layer_costs.push_back(1 + draw(20));
    for (std::uint32_t s = 0; s < stages; ++s) speeds.push_back(1 + draw(5));
    for (std::uint32_t s = 0; s < stages; ++s) sizes.push_back(1 + draw(9));
    const double head = draw(30);
    const auto cost = [&](std::uint32_t first, std::uint32_t end) {
      return std::accumulate(layer_costs.begin() + first, layer_costs.begin() + end, end == layers ? head : 0.0);
    };
    const auto fits = [&](std::uint32_t stage, std::uint32_t first, std::uint32_t end) {
      return end - first <= sizes[stage];
    };
    const auto ends = split_layers(layers, speeds, cost, fits);
    const double best = best_by_trying(layers, speeds, cost, fits);
    if (best == std::numeric_limits<double>::infinity()) {
      ++impossible;
      EXPECT_FALSE(ends.has_value()) << trial;
      continue;
    }
    ASSERT_TRUE(ends.has_value()) << trial;
    double slowest = 0;
    std::uint32_t first = 0;
    for (std::uint32_t s = 0; s < stages; ++s) {
      ASSERT_LT(first, (*ends)[s]) << trial;
      EXPECT_TRUE(fits(s, first, (*ends)[s]));
      slowest = std::max(slowest, cost(first, (*ends)[s]) / speeds[s]);
      first = (*ends)[s];
    }
    EXPECT_EQ(first, layers);
    EXPECT_DOUBLE_EQ(slowest, best) << trial;
  }
  EXPECT_GT(impossible, 5u);
  EXPECT_LT(impossible, 200u);
}

TEST(SplitLayers, SpendsTheHeadOnFewerLayers) {
  const auto cost = [](std::uint32_t first, std::uint32_t end) { return end - first + (end == 8 ? 2.0 : 0.0); };
  const auto any = [](auto...) { return true; };
  EXPECT_EQ(split_layers(8, {1, 1}, cost, any), (std::vector<std::uint32_t>{5, 8}));
  EXPECT_EQ(split_layers(8, {3, 1}, cost, any), (std::vector<std::uint32_t>{7, 8}));
}

}  // namespace
}  // namespace isthmus::planner
