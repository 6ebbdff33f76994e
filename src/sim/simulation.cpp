#include "sim/simulation.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/counter_random.h"

namespace isthmus::sim {

namespace {

std::vector<FaultKind> all_kinds(bool homes) {
  std::vector<FaultKind> kinds;
  for (std::size_t k = 0; k < (homes ? kFaultKinds : kFaultKindsOfAll); ++k) kinds.push_back(static_cast<FaultKind>(k));
  return kinds;
}

}  // namespace

protocol::Plan draw_plan(std::uint64_t seed) {
  const CounterRandom random(seed, "plan");
  std::uint64_t drawn = 0;
  const auto below = [&](std::uint64_t limit) { return static_cast<std::uint32_t>(random.below(limit, drawn++)); };
  protocol::Plan plan;
  plan.run_id = seed;
  const std::uint32_t stages = 2 + below(7);
  plan.microbatches = 1 + below(6);
  plan.schedule = below(4) == 0 ? protocol::ScheduleKind::kOneForwardOneBackward : protocol::ScheduleKind::kDeep;
  plan.steps = 3 + below(5);
  plan.evaluation_microbatches = below(3);
  plan.evaluate_every = below(3);
  plan.checkpoint_every = below(4);
  plan.tokens_per_microbatch = 1;
  plan.token_bytes = plan.forward_bytes = plan.backward_bytes = 8;
  plan.part_width = plan.total_width = 8;
  for (std::uint32_t s = 0; s < stages; ++s) {
    protocol::StagePlan& stage = plan.stages.emplace_back();
    stage.first_layer = s;
    stage.end_layer = s + 1;
    stage.replicas = 1 + below(4);
    stage.credits = 1 + below(plan.microbatches);
    stage.parameters = 5;
    stage.state_bytes = 5 * 8;
  }
  // Some plans leave visits out on purpose, and some go on without a stage that is gone.
  if (below(3) == 0) plan.planned_skips = below(stages * plan.microbatches / 2 + 1);
  if (below(2) == 0) {
    plan.skip_after = std::chrono::milliseconds(500 + below(4000));
    plan.skip_steps = 1 + below(6);
  }
  // And in some, replicas step on their own.
  if (below(3) == 0) {
    plan.sync_every = 1 + below(4);
    plan.sync_is_sparse = below(2) == 0;
    for (auto& stage : plan.stages) {
      stage.local = stage.replicas > 1;
      if (stage.local) stage.update_bytes.assign(plan.sync_is_sparse ? 1 : 3, 4 + 8);
      if (stage.local) stage.last_update_bytes.assign(2, 4 + 8);
    }
  }
  return plan;
}

double steps_take(const protocol::Plan& plan, const SimulatedLink& link) {
  const Cluster::Options device;
  const double work = to_seconds(device.forward + device.input_gradient + device.weight_gradient);
  const double tensor = to_seconds(link.tensor), hop = to_seconds(link.latency) + tensor;
  const double microbatches = static_cast<double>(plan.microbatches) + plan.evaluation_microbatches;
  const double step = static_cast<double>(plan.stages.size()) * (work + 2 * hop) + microbatches * (work + 2 * tensor);
  return static_cast<double>(plan.final_step().value) * step;
}

namespace {

// Steps are done again after faults, and slowly while they last.
constexpr int kStepsAgain = 4;

}  // namespace

SimulationResult simulate(const protocol::Plan& plan, std::uint64_t seed, const SimulationOptions& options) {
  const CounterRandom random(seed, "simulation");
  Cluster::Options cluster_options;
  cluster_options.seed = seed;
  cluster_options.latency = std::chrono::milliseconds(1 + static_cast<int>(random.below(60, 0)));
  if (options.link) {
    cluster_options.latency = options.link->latency;
    cluster_options.tensor = options.link->tensor;
  }
  // Now and then a journal that is too small: the stage cannot be rebuilt, and the run has to go back.
  if (random.below(6, 1) == 0) cluster_options.journal_entries = 1 + random.below(8, 2);
  // In some runs the links are measured meanwhile.
  if (random.below(3, 4) == 1)
    cluster_options.measure = std::chrono::milliseconds(1 + static_cast<int>(random.below(4000, 5)));

  cluster_options.patience = options.patience;
  cluster_options.make_runner = options.make_runner;
  cluster_options.dial = options.dial;
  cluster_options.homes = options.homes;

  Cluster cluster(plan, cluster_options);
  SimulationResult result;
  result.seed = seed;
  const auto count = options.faults > 0 ? options.faults : static_cast<std::uint32_t>(1 + random.below(12, 3));
  const Time begin = cluster.now() + std::chrono::milliseconds(200);
  result.faults = draw_faults(plan, seed, options.kinds.empty() ? all_kinds(options.homes) : options.kinds, count,
                              begin, begin + options.faulty);
  for (const auto& fault : result.faults) cluster.add(fault);
  const Time started = cluster.now();
  const Duration late =
      options.recovery + seconds(kStepsAgain * steps_take(plan, {cluster_options.latency, cluster_options.tensor}));
  cluster.run(options.faulty + late + seconds(1));
  cluster.check_end(late);
  if (!cluster.finished() && !cluster.violations().empty()) cluster.describe();
  result.violations = cluster.violations();
  result.hash = cluster.hash();
  result.commits = cluster.commits();
  result.messages = cluster.delivered();
  result.replayed = cluster.replayed();
  result.seconds = to_seconds(cluster.now() - started);
  result.events = cluster.events();
  std::string replicas;
  for (const auto& stage : plan.stages) replicas += fmt::format("{}{}", replicas.empty() ? "" : ",", stage.replicas);
  result.shape = fmt::format("replicas {}; {} microbatches, {} steps", replicas, plan.microbatches, plan.steps);
  return result;
}

}  // namespace isthmus::sim
