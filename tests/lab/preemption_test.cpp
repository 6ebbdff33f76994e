#include "lab/preemption.h"

#include <gtest/gtest.h>

namespace isthmus::lab {
namespace {

using Newcomers = PlacementPolicy::Newcomers;
using Moves = PlacementPolicy::Moves;

constexpr PlacementPolicy kOurs{Newcomers::kReplace, Moves::kRebalance};

PreemptionOptions small() {
  PreemptionOptions options;
  options.stages = 8;
  options.peers = 64;
  options.hours = 8;
  options.lifetime_hours = 8;
  options.state_bytes = 200'000'000;
  return options;
}

TEST(Preemption, ReachesTheOptimumWhenNobodyLeaves) {
  auto options = small();
  options.lifetime_hours = 1e6;
  const auto result = simulate_preemptions(options, kOurs, {}, 1);
  EXPECT_DOUBLE_EQ(result.share, 1);
  EXPECT_EQ(result.moves_per_hour, 0);
}

TEST(Preemption, TakesAsManyAsTheLifetimeSays) {
  auto options = small();
  options.hours = 100;
  EXPECT_NEAR(simulate_preemptions(options, {}, {}, 1).departures_per_hour, 8, 1);
}

TEST(Preemption, IsAFunctionOfItsSeed) {
  const auto first = simulate_preemptions(small(), kOurs, {}, 1), second = simulate_preemptions(small(), kOurs, {}, 1);
  EXPECT_EQ(first.share, second.share);
  EXPECT_EQ(first.moves_per_hour, second.moves_per_hour);
  EXPECT_NE(first.share, simulate_preemptions(small(), kOurs, {}, 2).share);
}

TEST(Preemption, ComesCloserToTheOptimumByMoving) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const double without = simulate_preemptions(small(), {}, {}, seed).share;
    const double periodic = simulate_preemptions(small(), {Newcomers::kRandom, Moves::kPeriodic}, {}, seed).share;
    const double ours = simulate_preemptions(small(), kOurs, {}, seed).share;
    EXPECT_LT(without, periodic) << seed;
    EXPECT_LT(periodic, ours) << seed;
    EXPECT_GT(ours, 0.95) << seed;
    EXPECT_LT(ours, 1) << seed;
  }
}

}  // namespace
}  // namespace isthmus::lab
