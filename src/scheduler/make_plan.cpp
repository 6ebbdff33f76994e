#include "scheduler/make_plan.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "base/digest.h"
#include "base/token_width.h"
#include "config/load_run.h"

namespace isthmus {

std::uint32_t boundary_columns(const RunConfig& run) {
  return run.boundary.codec == "identity" ? run.model.hidden : run.boundary.rank;
}

std::uint32_t credits_of(const RunConfig& run, StageId stage) {
  const std::uint32_t all = run.train.microbatches_per_step;
  const std::string& credits = run.pipeline.credits;
  if (credits != "auto") {
    std::uint32_t number = 1;
    std::from_chars(credits.data(), credits.data() + credits.size(), number);
    return std::clamp(number, 1u, all);
  }
  if (run.pipeline.schedule == "1f1b")
    return std::min(all, static_cast<std::uint32_t>(run.pipeline.stage.size()) - stage.value);
  return all;
}

std::uint64_t parameters_of(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer) {
  const std::uint64_t d = run.model.hidden, m = run.model.mlp, k = run.boundary.rank, v = run.model.vocabulary;
  std::uint64_t parameters = 0;
  for (auto l = first_layer; l < end_layer; ++l) {
    const std::uint64_t out = l < run.boundary.factored_layers.value_or(0) ? k : d;
    parameters += 3 * d * d + out * d + 2 * m * d + out * m + 2 * d;
  }
  if (first_layer == 0) parameters += v * (run.boundary.codec == "subspace" ? k : d);
  if (end_layer == run.model.layers) parameters += v * d + d;
  return parameters;
}

Plan make_plan(const RunConfig& run) {
  Plan plan;
  const std::string text = resolved_toml(run);
  plan.run_id = checksum({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  plan.schedule = run.pipeline.schedule == "1f1b" ? ScheduleKind::kOneForwardOneBackward : ScheduleKind::kDeep;
  plan.routing = run.pipeline.routing == "round_robin" ? Routing::kRoundRobin : Routing::kFinishTime;
  plan.steps = run.run.steps;
  plan.microbatches = run.train.microbatches_per_step;
  plan.evaluation_microbatches = run.train.evaluation_microbatches;
  plan.evaluate_every = run.train.evaluate_every;
  plan.checkpoint_every = run.checkpoint.every;
  plan.tokens_per_microbatch = run.train.sequences_per_microbatch * run.model.context;
  for (std::uint32_t s = 0; s < run.pipeline.stage.size(); ++s) {
    const auto& stage = run.pipeline.stage[s];
    StagePlan& planned = plan.stages.emplace_back();
    planned.first_layer = stage.first_layer;
    planned.end_layer = stage.end_layer;
    planned.replicas = stage.replicas;
    planned.credits = credits_of(run, StageId(s));
    // An emulated stage has one weight and no optimizer.
    const bool emulated = run.pipeline.device == "emulated";
    planned.parameters = emulated ? 1 : parameters_of(run, stage.first_layer, stage.end_layer);
    // fp32 weights and two moments each, and the optimizer's count of steps.
    planned.state_bytes = emulated ? 8 : planned.parameters * 12 + 8;
  }
  if (run.pipeline.device == "emulated")
    plan.part_width = plan.total_width = 8;
  else if (run.run.deterministic)
    plan.part_width = 8;
  // One id more than the context per sequence: the last label.
  plan.token_bytes = std::uint64_t{run.train.sequences_per_microbatch} * (run.model.context + 1) * token_width(run.model.vocabulary);
  const std::uint64_t values = std::uint64_t{plan.tokens_per_microbatch} * boundary_columns(run) * (run.boundary.values == "fp32" ? 4 : 2);
  plan.forward_bytes = run.emulated.forward_bytes ? run.emulated.forward_bytes : values;
  plan.backward_bytes = run.emulated.backward_bytes ? run.emulated.backward_bytes : values;
  return plan;
}

}  // namespace isthmus
