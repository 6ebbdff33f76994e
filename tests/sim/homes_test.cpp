#include "sim/homes.h"

#include <gtest/gtest.h>

#include <set>

#include "base/times.h"
#include "sim/simulation.h"

namespace isthmus::sim {
namespace {

TEST(Homes, AreOfAllKinds) {
  const Homes homes(200, 1);
  std::set<std::string> networks;
  std::uint32_t open = 0, at_home = 0, apart = 0;
  for (std::uint32_t w = 1; w <= 200; ++w) {
    const auto here = homes.location(PeerId(w));
    networks.insert(here.network);
    open += !here.outside.empty();
    if (w == 1 || homes.location(PeerId(w - 1)).network != here.network) continue;
    ++(homes.reaches(PeerId(w), PeerId(w - 1), {}, protocol::Way::kNetwork) ? at_home : apart);
  }
  EXPECT_GT(networks.size(), 100u);
  EXPECT_GT(open, 20u);
  EXPECT_LT(open, 100u);
  EXPECT_GT(at_home, 10u);
  EXPECT_GT(apart, 5u) << "one address, and no way from one to the other";
}

TEST(Homes, AreReachedWhereTheyAreAndNotWhereTheyWere) {
  Homes homes(50, 2);
  std::uint32_t w = 1;
  while (homes.location(PeerId(w)).outside.empty()) ++w;
  const PeerId worker(w), other(w == 1 ? 2 : 1);
  const auto before = homes.location(worker);
  EXPECT_TRUE(homes.reaches(other, worker, before, protocol::Way::kOutside));
  homes.renumber(worker);
  EXPECT_FALSE(homes.reaches(other, worker, before, protocol::Way::kOutside));
  EXPECT_TRUE(homes.reaches(other, worker, homes.location(worker), protocol::Way::kOutside));
  EXPECT_TRUE(homes.reaches(other, worker, before, protocol::Way::kRelay));
  homes.set_relay(false);
  EXPECT_FALSE(homes.reaches(other, worker, before, protocol::Way::kRelay));
}

TEST(Homes, LoseNothingWhateverBreaks) {
  SimulationOptions options;
  options.homes = true;
  for (std::uint64_t seed = 1; seed <= times(100); ++seed) {
    const auto result = simulate(draw_plan(seed), seed, options);
    EXPECT_TRUE(result.violations.empty()) << "seed " << seed << ": " << result.violations.front();
  }
}

// 1,000 of them take minutes: docs/figures.md.
TEST(Homes, LoseNothingWhenThereAreManyOfThem) {
  protocol::Plan plan = draw_plan(1);
  plan.stages.resize(2, plan.stages.front());
  for (auto& stage : plan.stages) stage.replicas = 40;
  plan.microbatches = 80;
  plan.steps = 4;
  SimulationOptions options;
  options.homes = true;
  options.faults = 60;
  for (std::uint64_t seed = 1; seed <= times(5); ++seed) {
    const auto result = simulate(plan, seed, options);
    EXPECT_TRUE(result.violations.empty()) << "seed " << seed << ": " << result.violations.front();
  }
}

TEST(Homes, LoseNothingToRelaysAddressesAndSleep) {
  SimulationOptions options;
  options.homes = true;
  options.kinds = {FaultKind::kRelay, FaultKind::kAddress, FaultKind::kSleep};
  options.faults = 12;
  for (std::uint64_t seed = 1; seed <= times(100); ++seed) {
    const auto result = simulate(draw_plan(seed), seed, options);
    EXPECT_TRUE(result.violations.empty()) << "seed " << seed << ": " << result.violations.front();
  }
}

}  // namespace
}  // namespace isthmus::sim
