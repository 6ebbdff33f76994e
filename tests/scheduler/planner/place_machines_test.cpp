#include "scheduler/planner/place_machines.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/counter_random.h"
#include "scheduler/planner/improve_placement.h"
#include "scheduler/planner/place_by_flow.h"
#include "scheduler/planner/place_exactly.h"

namespace isthmus::planner {
namespace {

FleetMachine machine(double gflops, double memory = 8e9, double up = 80e6, std::uint32_t site = 0) {
  const double second = 1e-9 / gflops;
  return {"m", memory, second, second, second, up, up, site};
}

// Uneven machines in two places; every fourth fleet has lines of its own between them.
struct Case {
  Fleet fleet;
  PlacementProblem problem;

  Case(std::uint64_t seed, std::uint32_t machines, std::uint32_t stages) {
    const CounterRandom random(seed, "placements");
    std::uint64_t drawn = 0;
    const auto draw = [&](std::uint64_t limit) { return static_cast<double>(random.below(limit, drawn++)); };
    fleet.links = protocol::LinkMatrix(2);
    for (std::uint32_t a = 0; a < 2; ++a)
      for (std::uint32_t b = a; b < 2; ++b) {
        protocol::PairLink link{.latency = seconds(a == b ? .005 : .02 + .1 * draw(2))};
        if (seed % 4 == 0) link.bits_per_second = 5e6 + 1e6 * draw(100);
        fleet.links.record(a, b, link);
      }
    for (std::uint32_t m = 0; m < machines; ++m)
      fleet.machines.push_back(
          machine(50 * (1 + draw(8)), 2e9 * (1 + draw(6)), 5e6 * (1 + draw(16)), static_cast<std::uint32_t>(draw(2))));
    for (std::uint32_t s = 0; s < stages; ++s)
      problem.stages.push_back({1e9 * (2 + draw(4)), 1e9 * (1 + draw(8)), 1e4 * draw(100)});
    problem.fleet = &fleet;
    problem.microbatches = 4 + static_cast<std::uint32_t>(draw(28));
    problem.forward_bytes = problem.backward_bytes = 5000 * (1 + draw(20));
  }
  Case(const Case&) = delete;

  double score(const Placement& placement) const { return PlacementEstimate(problem, placement).score(); }
};

// Every machine in every stage it fits, or spare, without any of the search's shortcuts.
double best_by_trying(const Case& c) {
  const auto stages = static_cast<std::uint32_t>(c.problem.stages.size());
  const std::size_t machines = c.fleet.machines.size();
  std::vector<std::uint32_t> digits(machines);
  double best = std::numeric_limits<double>::infinity();
  for (;;) {
    Placement placement(machines, kSpare);
    bool fits = true;
    for (std::size_t m = 0; m < machines; ++m) {
      if (digits[m] == stages) continue;
      placement[m] = digits[m];
      fits = fits && c.problem.fits(m, digits[m]);
    }
    if (fits) best = std::min(best, c.score(placement));
    std::size_t at = 0;
    while (at < machines && ++digits[at] > stages) digits[at++] = 0;
    if (at == machines) return best;
  }
}

TEST(PlaceMachines, IsExactForSmallFleets) {
  std::size_t impossible = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Case c(seed, 2 + seed % 5, 1 + seed % 3);
    const double best = best_by_trying(c);
    const auto placement = place_machines(c.problem);
    ASSERT_EQ(placement.has_value(), best < std::numeric_limits<double>::infinity()) << seed;
    if (placement)
      EXPECT_NEAR(c.score(*placement), best, 1e-9 * best) << seed;
    else
      ++impossible;
  }
  EXPECT_GT(impossible, 0u);
  EXPECT_LT(impossible, 25u);
}

TEST(PlaceMachines, FindsByFlowAndSearchWhatIsWithinTwoPercentOfTheBest) {
  double worst = 1;
  for (std::uint64_t seed = 100; seed < 160; ++seed) {
    const Case c(seed, 4 + seed % 4, 2 + seed % 3);
    const auto exact = place_exactly(c.problem, 1'000'000);
    const auto found = place_by_search(c.problem);
    ASSERT_EQ(found.has_value(), exact.has_value()) << seed;
    if (!exact) continue;
    const double ratio = c.score(*found) / c.score(*exact);
    EXPECT_GE(ratio, 1 - 1e-9) << seed;
    EXPECT_LE(ratio, 1.02) << seed;
    worst = std::max(worst, ratio);
  }
  RecordProperty("worst_ratio", std::to_string(worst));
}

TEST(PlaceMachines, TellsAlikeMachinesApartOnlyByName) {
  Case c(1, 2, 2);
  c.fleet.machines.assign(14, machine(100));
  c.problem.microbatches = 28;
  c.problem.stages = {{1e9, 1e9, 0}, {1e9, 1e9, 0}};
  // 3^14 placements, but 120 of them differ.
  const auto placement = place_exactly(c.problem, 200);
  ASSERT_TRUE(placement.has_value());
  EXPECT_EQ(std::ranges::count(*placement, 0u), 7);
  EXPECT_FALSE(place_exactly(c.problem, 100).has_value());
}

TEST(PlaceMachines, SparesAMachineWhoseLineHoldsItsSiblingsUp) {
  Case c(1, 2, 1);
  c.fleet.machines = {machine(100), machine(90, 8e9, 1e5)};
  c.problem.stages = {{1e9, 1e9, 1e6}};
  EXPECT_EQ(*place_machines(c.problem), (Placement{0, kSpare}));
  EXPECT_EQ(*place_by_search(c.problem), (Placement{0, kSpare}));
}

TEST(PlaceMachines, KeepsMachinesWithinTheirMemory) {
  Case c(1, 2, 3);
  c.fleet.machines = {machine(900, 1e9), machine(100, 9e9), machine(200, 4e9)};
  c.problem.stages = {{1e9, 8e9, 0}, {1e9, 1e9, 0}, {1e9, 4e9, 0}};
  EXPECT_EQ(*place_machines(c.problem), (Placement{1, 0, 2}));
  EXPECT_EQ(*place_by_search(c.problem), (Placement{1, 0, 2}));
  c.problem.stages[2].memory_bytes = 5e9;
  EXPECT_FALSE(place_machines(c.problem).has_value());
}

TEST(PlaceMachines, KeepsReplicasTogetherWhenTheirSumsAreLarge) {
  Case c(1, 2, 2);
  c.fleet.machines = {machine(100, 8e9, 80e6, 0), machine(100, 8e9, 80e6, 1), machine(100, 8e9, 80e6, 0),
                      machine(100, 8e9, 80e6, 1)};
  c.fleet.links = protocol::LinkMatrix(2);
  c.fleet.links.record(0, 0, {100e6, seconds(.001)});
  c.fleet.links.record(1, 1, {100e6, seconds(.001)});
  c.fleet.links.record(0, 1, {5e6, seconds(.1)});
  c.problem.stages = {{4e9, 1e9, 1e6}, {4e9, 1e9, 1e6}};
  for (const auto& placement : {*place_machines(c.problem), *place_by_search(c.problem)}) {
    EXPECT_EQ(placement[0], placement[2]);
    EXPECT_EQ(placement[1], placement[3]);
    EXPECT_NE(placement[0], placement[1]);
  }
}

TEST(PlaceMachines, IsTheSameEveryTime) {
  const Case c(7, 200, 12);
  EXPECT_EQ(*place_machines(c.problem), *place_machines(c.problem));
}

TEST(PlaceMachines, ServesALargeFleetNearlyAsFastAsItCouldCompute) {
  Case c(9, 240, 12);
  for (auto& m : c.fleet.machines) {
    m.memory_bytes = 20e9;
    m.up = m.down = 1e9;
  }
  c.fleet.links = protocol::LinkMatrix(2);
  for (auto& stage : c.problem.stages) stage.parameters = 0;
  c.problem.microbatches = 20000;
  const auto placement = place_machines(c.problem);
  ASSERT_TRUE(placement.has_value());
  const PlacementEstimate estimate(c.problem, *placement);
  double speed = 0, operations = 0, slowest = 0;
  for (const auto& m : c.fleet.machines) speed += 1 / m.seconds_per_operation();
  for (std::uint32_t s = 0; s < 12; ++s) {
    operations += c.problem.stages[s].operations;
    slowest = std::max(slowest, estimate.stage_seconds(s));
  }
  EXPECT_GE(20000 / slowest, .98 * speed / operations);
}

TEST(PlacementEstimate, IsTheSameAfterMovesAsFromTheStart) {
  for (const std::uint64_t seed : {4, 5}) {
    const Case c(seed, 30, 5);
    const CounterRandom random(seed, "moves");
    Placement placement(30);
    for (std::uint32_t m = 0; m < 30; ++m) placement[m] = m % 5;
    PlacementEstimate moved(c.problem, placement);
    for (std::uint32_t i = 0; i < 200; ++i) {
      const auto m = static_cast<std::uint32_t>(random.below(30, 2 * i)),
                 to = static_cast<std::uint32_t>(random.below(6, 2 * i + 1));
      moved.move(m, to == 5 ? kSpare : to);
      EXPECT_DOUBLE_EQ(moved.score(), c.score(moved.placement())) << seed << " " << i;
    }
  }
}

TEST(ReplaceDeparted, MovesOneMachineAtMostAndTheBestOne) {
  for (std::uint64_t seed = 200; seed < 210; ++seed) {
    const Case c(seed, 12, 3);
    const auto before = place_by_search(c.problem);
    if (!before) continue;
    for (const std::uint32_t gone : {0u, 5u, 11u}) {
      PlacementEstimate estimate(c.problem, *before);
      const bool whole = replace_departed(c.problem, estimate, gone);
      double best = std::numeric_limits<double>::infinity();
      const std::uint32_t stage = (*before)[gone];
      for (std::uint32_t m = 0; m < 12; ++m) {
        Placement other = *before;
        other[gone] = kSpare;
        if (m != gone && stage != kSpare && c.problem.fits(m, stage)) other[m] = stage;
        best = std::min(best, c.score(other));
      }
      EXPECT_EQ(whole, best < std::numeric_limits<double>::infinity());
      if (whole) {
        EXPECT_NEAR(estimate.score(), best, 1e-6 * best) << seed << " " << gone;
      }
      std::uint32_t moved = 0;
      for (std::uint32_t m = 0; m < 12; ++m) moved += m != gone && estimate.placement()[m] != (*before)[m];
      EXPECT_LE(moved, 1u);
      EXPECT_EQ(estimate.placement()[gone], kSpare);
    }
  }
}

}  // namespace
}  // namespace isthmus::planner
