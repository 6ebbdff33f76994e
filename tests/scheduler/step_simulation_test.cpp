#include "scheduler/step_simulation.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/counter_random.h"

namespace isthmus {
namespace {

StepSimulationInput input_of(std::uint32_t stages, std::uint32_t microbatches, std::uint32_t replicas = 1) {
  StepSimulationInput input;
  input.plan.microbatches = microbatches;
  for (std::uint32_t s = 0; s < stages; ++s) {
    input.plan.stages.push_back({s, s + 1, replicas, microbatches});
    input.costs.insert(input.costs.end(), replicas, {seconds(.25), seconds(.5), seconds(.25)});
  }
  input.commit = Duration{};
  return input;
}

// Eight GPUs behind 80 Mb/s and 100 ms, hidden states of 4096 × 4096 in 1/100 of their size.
StepSimulationInput home_links() {
  auto input = input_of(8, 32);
  input.link = {80e6, seconds(.1), {}, 0, 1};
  input.plan.forward_bytes = input.plan.backward_bytes = 4096 * 41 * 2;
  input.plan.token_bytes = 4097 * 2;
  return input;
}

TEST(StepSimulation, TakesExactlyTheComputeOfASingleStage) {
  const auto step = simulate_step(input_of(1, 7));
  EXPECT_EQ(step.step, seconds(7.0));
  EXPECT_DOUBLE_EQ(step.efficiency, 1.0);
}

TEST(StepSimulation, FillsAndDrainsFreeLinksInTheClassicTime) {
  // One microbatch: down through every F, back through every I, the last W alone.
  const auto step = simulate_step(input_of(4, 1));
  EXPECT_NEAR(to_seconds(step.step), 4 * .25 + 4 * .5 + .25, 1e-4);
}

TEST(StepSimulation, AddsOneRoundTripForTheCommit) {
  auto input = input_of(1, 1);
  input.link.latency = seconds(.1);
  EXPECT_EQ(simulate_step(input).step, seconds(1.2));
}

TEST(StepSimulation, ReachesTheGoalOnHomeLinks) {
  const auto deep = simulate_step(home_links());
  EXPECT_GE(deep.efficiency, 0.88);
  auto classic = home_links();
  classic.plan.schedule = ScheduleKind::kOneForwardOneBackward;
  for (std::uint32_t s = 0; s < 8; ++s) classic.plan.stages[s].credits = 8 - s;
  EXPECT_LT(simulate_step(classic).efficiency, deep.efficiency);
}

TEST(StepSimulation, IsBoundByTheUplinkWithDensePayloads) {
  auto dense = home_links();
  dense.plan.microbatches = 4;
  dense.plan.forward_bytes = dense.plan.backward_bytes = 4096ull * 4096 * 2;
  const auto step = simulate_step(dense);
  // A middle stage sends each microbatch down and its gradient up through one uplink.
  EXPECT_GE(to_seconds(step.step), 4 * 2 * 4096.0 * 4096 * 2 * 8 / 80e6);
}

// The optimum of unequal replicas: the slow one does a quarter of the work of a stage that three fast ones' worth serve.
TEST(StepSimulation, GivesUnequalReplicasUnequalShares) {
  auto input = input_of(2, 32, 2);
  input.costs[3] = input.costs[3] * 3;
  const auto step = simulate_step(input);
  EXPECT_EQ(step.workers[0].microbatches, 16u);
  EXPECT_EQ(step.workers[2].microbatches, 24u);
  EXPECT_EQ(step.workers[3].microbatches, 8u);
  EXPECT_GE(to_seconds(step.step), 24.0);
  EXPECT_LE(to_seconds(step.step), 24.0 * 1.05);
}

TEST(StepSimulation, AddsTheCombinationOfReplicas) {
  auto input = input_of(1, 4, 2);
  EXPECT_EQ(simulate_step(input).step, seconds(2.0));
  input.link.latency = seconds(.1);
  EXPECT_EQ(simulate_step(input).step, seconds(2.6));  // done, view, parts, totals, prepared, view
  input.plan.stages[0].parameters = 1'000'000;
  EXPECT_NEAR(to_seconds(simulate_step(input).step), 2.6 + 4e6 * 8 / 80e6 * 1514 / 1448, 1e-6);
}

TEST(StepSimulation, RepeatsItself) {
  auto input = home_links();
  input.link.jitter = seconds(.05);
  input.link.loss = .01;
  const auto a = simulate_step(input), b = simulate_step(input);
  EXPECT_EQ(a.step, b.step);
  input.link.seed = 2;
  EXPECT_NE(simulate_step(input).step, a.step);
}

// Whatever the shape of the pipeline: everything runs once, in order, one thing at a time, within the credits.
TEST(StepSimulation, RunsEveryOperationOnceAndInOrder) {
  const CounterRandom random(11, "configurations");
  for (std::uint64_t trial = 0; trial < 60; ++trial) {
    const auto draw = [&](std::uint64_t limit, std::uint64_t which) { return random.below(limit, trial * 16 + which); };
    const auto stages = static_cast<std::uint32_t>(1 + draw(6, 0));
    const auto replicas = static_cast<std::uint32_t>(1 + draw(3, 11));
    const auto microbatches = static_cast<std::uint32_t>(1 + draw(12, 1));
    auto input = input_of(stages, microbatches, replicas);
    for (auto& costs : input.costs) costs = costs * (1 + double(draw(3, 12)));
    input.evaluation_microbatches = static_cast<std::uint32_t>(draw(3, 2));
    input.link = {1e6 + 1e6 * double(draw(100, 3)), seconds(1e-3 * double(draw(200, 4))), seconds(1e-3 * double(draw(50, 5))), draw(2, 6) ? .05 : 0, trial};
    input.plan.forward_bytes = draw(300000, 7);
    input.plan.backward_bytes = draw(300000, 8);
    for (auto& stage : input.plan.stages) stage.credits = static_cast<std::uint32_t>(1 + draw(microbatches, 9));
    if (draw(2, 10)) input.plan.schedule = ScheduleKind::kOneForwardOneBackward;
    const auto step = simulate_step(input);

    std::map<std::tuple<std::uint32_t, int, std::uint32_t>, Span> seen;
    std::vector<Time> free(step.workers.size());
    for (const auto& span : step.spans) {
      const auto s = step.workers[span.worker].stage.value;
      EXPECT_GE(span.start, free[span.worker]) << "two operations at once, trial " << trial;
      free[span.worker] = span.end;
      EXPECT_TRUE(seen.emplace(std::tuple(s, int(span.task.operation), span.task.microbatch.value), span).second);
    }
    EXPECT_EQ(seen.size(), stages * (3ull * microbatches + input.evaluation_microbatches)) << "trial " << trial;
    for (const auto& worker : step.workers) {
      EXPECT_LE(worker.in_flight_max, input.plan.stages[worker.stage.value].credits);
      if (worker.bytes_up > 0) {
        EXPECT_LE(double(worker.bytes_up) * 8 / to_seconds(worker.uplink_busy), input.link.bits_per_second);
      }
    }
    for (std::uint32_t s = 0; s < stages; ++s) {
      for (std::uint32_t m = 0; m < microbatches; ++m) {
        const auto& f = seen.at({s, 0, m});
        const auto& i = seen.at({s, 1, m});
        const auto& w = seen.at({s, 2, m});
        EXPECT_TRUE(f.worker == i.worker && i.worker == w.worker);  // what F kept is needed by I and W
        EXPECT_LE(f.end, i.start);
        EXPECT_LE(i.end, w.start);
        if (s + 1 < stages) {
          EXPECT_LE(f.end + input.link.latency, seen.at({s + 1, 0, m}).start);
          EXPECT_LE(seen.at({s + 1, 1, m}).end + input.link.latency, i.start);
        }
      }
    }
  }
}

}  // namespace
}  // namespace isthmus
