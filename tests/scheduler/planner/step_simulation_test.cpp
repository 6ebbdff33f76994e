#include "scheduler/planner/step_simulation.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/counter_random.h"

namespace isthmus::planner {
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
  classic.plan.schedule = protocol::ScheduleKind::kOneForwardOneBackward;
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

// The optimum of unequal replicas: the slow one does a quarter of the work of a stage that three fast ones' worth
// serve.
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

TEST(StepSimulation, PassesBySkippedStages) {
  StepSimulationInput input = input_of(6, 8);
  const auto whole = simulate_step(input);
  input.plan.planned_skips = 12;
  const auto skipping = simulate_step(input);
  std::uint32_t visits = 0;
  for (const auto& worker : skipping.workers) visits += worker.microbatches;
  EXPECT_EQ(visits, 6u * 8u - 12u);
  EXPECT_EQ(skipping.workers[0].microbatches, 8u);
  EXPECT_EQ(skipping.workers[2].microbatches, 5u);
  EXPECT_LT(skipping.step, whole.step);
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

// A pipeline of some shape on links of some kind: the trial-th that `random` draws.
StepSimulationInput drawn(const CounterRandom& random, std::uint64_t trial) {
  const auto draw = [&](std::uint64_t limit, std::uint64_t which) { return random.below(limit, trial * 16 + which); };
  const auto stages = static_cast<std::uint32_t>(1 + draw(6, 0));
  const auto replicas = static_cast<std::uint32_t>(1 + draw(3, 11));
  const auto microbatches = static_cast<std::uint32_t>(1 + draw(12, 1));
  auto input = input_of(stages, microbatches, replicas);
  for (auto& costs : input.costs) costs = costs * (1 + double(draw(3, 12)));
  input.evaluation_microbatches = static_cast<std::uint32_t>(draw(3, 2));
  input.link = {1e6 + 1e6 * double(draw(100, 3)), seconds(1e-3 * double(draw(200, 4))),
                seconds(1e-3 * double(draw(50, 5))), draw(2, 6) ? .05 : 0, trial};
  input.plan.forward_bytes = draw(300000, 7);
  input.plan.backward_bytes = draw(300000, 8);
  for (auto& stage : input.plan.stages) stage.credits = static_cast<std::uint32_t>(1 + draw(microbatches, 9));
  return input;
}

// Whatever the shape of the pipeline: everything runs once, in order, one thing at a time, within the credits.
TEST(StepSimulation, RunsEveryOperationOnceAndInOrder) {
  const CounterRandom random(11, "configurations");
  for (std::uint64_t trial = 0; trial < 60; ++trial) {
    auto input = drawn(random, trial);
    const auto stages = static_cast<std::uint32_t>(input.plan.stages.size());
    const std::uint32_t microbatches = input.plan.microbatches;
    if (random.below(2, trial * 16 + 10)) input.plan.schedule = protocol::ScheduleKind::kOneForwardOneBackward;
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

// Every worker its own connection, one site, all alike.
StepSimulationInput spelt_out(StepSimulationInput input) {
  input.rates.assign(input.costs.size(), {input.link.bits_per_second, input.link.bits_per_second});
  input.sites.assign(input.costs.size(), 0);
  input.pairs = protocol::LinkMatrix(1);
  input.pairs.record(0, 0, {.latency = input.link.latency});
  return input;
}

std::uint64_t digest_of(const StepSimulation& step) {
  auto sum = static_cast<std::uint64_t>(step.step.count());
  for (const auto& span : step.spans) sum = sum * 31 + static_cast<std::uint64_t>(span.start.count()) + span.worker;
  for (const auto& worker : step.workers)
    sum = sum * 31 + static_cast<std::uint64_t>(worker.uplink_busy.count()) + worker.bytes_up;
  return sum;
}

// The figure is that of the predictor before it knew unequal links.
TEST(StepSimulation, PlaysEqualLinksAsItAlwaysDid) {
  const CounterRandom random(5, "golden");
  std::uint64_t all = 0;
  for (std::uint64_t trial = 0; trial < 40; ++trial) {
    auto input = drawn(random, trial);
    for (auto& stage : input.plan.stages) stage.parameters = 1'000'000;
    const auto step = simulate_step(input);
    all = all * 1000003 + digest_of(step);
    if (input.link.bits_per_second >= 20e6) {
      EXPECT_EQ(digest_of(simulate_step(spelt_out(input))), digest_of(step)) << trial;
    }
    for (const auto& w : step.workers)
      EXPECT_EQ(w.busy + w.waited_forward + w.waited_gradient + w.waited_link + w.waited_end, step.step) << trial;
  }
  EXPECT_EQ(all, 8702320806054681475u);
}

TEST(StepSimulation, SendsBeforeAFasterUplinkMore) {
  // Two heads that compute alike; the second has an eighth of the rate, below what its share would need.
  auto input = input_of(2, 32);
  input.plan.stages[0].replicas = 2;
  input.costs.insert(input.costs.begin(), input.costs.front());
  input.costs[2] = input.costs[2] * .3;
  input.plan.forward_bytes = input.plan.backward_bytes = 1'000'000;
  input = spelt_out(input);
  input.rates[1] = {4e6, 80e6};
  const auto slow = simulate_step(input);
  EXPECT_GT(slow.workers[0].microbatches, slow.workers[1].microbatches + 6);
  input.rates[1] = {80e6, 80e6};
  const auto fast = simulate_step(input);
  EXPECT_EQ(fast.workers[0].microbatches, fast.workers[1].microbatches);
  EXPECT_LT(fast.step, slow.step);
}

TEST(StepSimulation, GoesAroundASlowPair) {
  auto input = input_of(2, 16);
  input.plan.stages[1].replicas = 2;
  input.costs.push_back(input.costs.back());
  input.plan.forward_bytes = 1'000'000;
  input = spelt_out(input);
  input.sites = {0, 1, 2};
  input.pairs = protocol::LinkMatrix(3);
  for (std::uint32_t a = 0; a < 3; ++a)
    for (std::uint32_t b = a; b < 3; ++b) input.pairs.record(a, b, {80e6, seconds(.01)});
  EXPECT_NEAR(simulate_step(input).workers[1].microbatches, 8, 2);
  input.pairs.record(0, 2, {2e6, seconds(.01)});
  const auto step = simulate_step(input);
  EXPECT_GT(step.workers[1].microbatches, 12u);
  // What went there took its time.
  EXPECT_GE(to_seconds(step.step), 1e6 * 8 / 2e6);
}

TEST(StepSimulation, TakesTheLatencyOfThePairAndTheRateOfTheReceiver) {
  auto input = spelt_out(input_of(2, 1));
  input.plan.forward_bytes = 1'000'000;
  input.sites = {0, 1};
  input.pairs = protocol::LinkMatrix(2);
  input.pairs.record(0, 1, {.latency = seconds(.3)});
  input.rates[1].down = 10e6;
  const auto step = simulate_step(input);
  const double receive = wire_bits(1'000'000 + 16 * 82) / 10e6;
  EXPECT_NEAR(to_seconds(step.step), .25 + receive + .3 + .25 + .5 + .3 + .5 + .25, 1e-3);
  EXPECT_NEAR(to_seconds(step.workers[1].waited_link), receive + .3, 1e-3);
  EXPECT_EQ(to_seconds(step.workers[1].waited_forward), .25);
}

TEST(StepSimulation, NamesPathsAlternatesAndBytesOfLinks) {
  auto input = input_of(3, 12, 3);
  input.plan.forward_bytes = 1000;
  input.plan.backward_bytes = 500;
  EXPECT_TRUE(simulate_step(input).paths.empty());
  input.path_width = 2;
  const auto step = simulate_step(input);
  ASSERT_EQ(step.paths.size(), 12u);
  std::vector<std::uint32_t> taken(9);
  for (const auto& path : step.paths)
    for (std::uint32_t s = 0; s < 3; ++s) {
      ASSERT_EQ(path[s].size(), 2u);
      EXPECT_NE(path[s][0], path[s][1]);
      for (const std::uint32_t worker : path[s]) EXPECT_EQ(step.workers[worker].stage.value, s);
      ++taken[path[s][0]];
    }
  for (std::uint32_t w = 0; w < 9; ++w) EXPECT_EQ(taken[w], step.workers[w].microbatches);
  std::uint64_t bytes = 0;
  for (const auto& link : step.links) bytes += link.bytes;
  EXPECT_EQ(bytes, 12u * 2 * 1500);
}

TEST(LinkMatrix, KeepsTheYoungerOfTwoMeasurements) {
  protocol::LinkMatrix links(2);
  links.record(0, 1, {50e6, seconds(.02), seconds(60)});
  links.record(1, 0, {10e6, seconds(.09), seconds(90)});
  EXPECT_EQ(links.at(1, 0).bits_per_second, 50e6);
  links.record(0, 1, {20e6, seconds(.03), seconds(5)});
  EXPECT_EQ(links.at(1, 0).latency, seconds(.03));
}

}  // namespace
}  // namespace isthmus::planner
