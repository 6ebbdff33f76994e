#include "app/simulate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "scheduler/make_plan.h"
#include "sim/simulation.h"

namespace isthmus {

namespace {

// The protocol does not look into tensors: a few numbers stand for each stage's weights.
Plan simulated(const RunConfig& run, std::uint64_t steps_max) {
  constexpr std::uint64_t kParameters = 5;
  Plan plan = make_plan(run);
  plan.steps = std::min(plan.steps, steps_max);
  plan.token_bytes = 0;
  plan.forward_bytes = plan.backward_bytes = 8;
  plan.part_width = plan.total_width = 8;
  plan.tokens_per_microbatch = 1;
  if (plan.evaluate_every > plan.steps / 2) plan.evaluate_every = plan.steps / 2;
  if (plan.checkpoint_every > plan.steps / 2) plan.checkpoint_every = plan.steps / 2;
  for (auto& stage : plan.stages) {
    stage.parameters = kParameters;
    stage.state_bytes = kParameters * 8;
  }
  return plan;
}

nlohmann::json json_of(const sim::SimulationResult& result) {
  nlohmann::json faults = nlohmann::json::array();
  for (const auto& fault : result.faults) faults.push_back(fault.text());
  return {{"seed", result.seed}, {"shape", result.shape}, {"hash", fmt::format("{:016x}", result.hash)}, {"commits", result.commits},
          {"messages", result.messages}, {"replayed_microbatches", result.replayed}, {"seconds", result.seconds},
          {"faults", faults}, {"events", result.events}, {"violations", result.violations}};
}

void print(const sim::SimulationResult& result, bool with_faults) {
  fmt::print("seed {}: {}; {} commits, {} messages, {} microbatches done again, {:.1f} simulated seconds, log {:016x}\n", result.seed,
             result.shape, result.commits, result.messages, result.replayed, result.seconds, result.hash);
  if (!with_faults && result.violations.empty()) return;
  for (const auto& fault : result.faults) fmt::print("  {}\n", fault.text());
  for (const auto& [event, count] : result.events) fmt::print("  {} × {}\n", count, event);
  for (const auto& violation : result.violations) fmt::print("  VIOLATION: {}\n", violation);
}

}  // namespace

int simulate_run(const RunConfig& run, const SimulateOptions& options) {
  sim::SimulationOptions simulation;
  std::string unknown;
  simulation.kinds = sim::fault_kinds(options.kinds, unknown);
  if (!unknown.empty()) {
    std::string known;
    for (std::size_t k = 0; k < sim::kFaultKinds; ++k) known += fmt::format("{}{}", k ? ", " : "", sim::name_of(static_cast<sim::FaultKind>(k)));
    fmt::print(stderr, "--faults: there is no fault \"{}\", expected some of {}\n", unknown, known);
    return 2;
  }
  simulation.faults = options.faults;
  const Plan of_run = simulated(run, options.steps);
  std::uint64_t violated = 0;
  for (std::uint64_t seed = options.seed; seed < options.seed + options.runs; ++seed) {
    const auto result = sim::simulate(options.any_shape ? sim::draw_plan(seed) : of_run, seed, simulation);
    violated += !result.violations.empty();
    if (options.json)
      fmt::print("{}\n", json_of(result).dump());
    else if (options.runs <= 20 || !result.violations.empty())
      print(result, options.runs == 1);
    else if ((seed - options.seed + 1) % (options.runs / 10 + 1) == 0)
      fmt::print(stderr, "{} of {} runs\n", seed - options.seed + 1, options.runs);
  }
  if (!options.json) fmt::print("{} run{}, {} with violations\n", options.runs, options.runs == 1 ? "" : "s", violated);
  return violated == 0 ? 0 : 1;
}

}  // namespace isthmus
