#include "scheduler/planner/make_plan.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <string>

#include "base/token_width.h"
#include "compress/boundary_codec.h"
#include "compress/update_slices.h"
#include "config/load_run.h"
#include "spec/stage_costs.h"
#include "spec/stage_memory.h"
#include "spec/stage_tensors.h"

namespace isthmus::planner {

std::uint32_t credits_of(const spec::RunSpec& run, StageId stage) {
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

std::uint64_t parameters_of(const spec::RunSpec& run, std::uint32_t first_layer, std::uint32_t end_layer) {
  std::uint64_t parameters = 0;
  for (const auto& tensor : spec::stage_tensors(run, first_layer, end_layer))
    parameters += static_cast<std::uint64_t>(tensor.numbers());
  return parameters;
}

std::uint64_t state_bytes_of(const spec::RunSpec& run, std::uint32_t first_layer, std::uint32_t end_layer) {
  std::uint64_t bytes = 8;  // the optimizer's count of steps
  for (const auto& tensor : spec::stage_tensors(run, first_layer, end_layer))
    bytes += static_cast<std::uint64_t>(tensor.numbers()) * 4 * (1 + spec::optimizer_moments(run, tensor));
  return bytes;
}

bool is_local(const spec::RunSpec& run, StageId stage) {
  return run.sync.mode != "exact" && run.pipeline.stage[stage.value].replicas > 1 &&
         !synced_tensors(run, stage).empty();
}

std::vector<std::uint64_t> synced_tensors(const spec::RunSpec& run, StageId stage) {
  std::vector<std::uint64_t> numbers;
  if (run.emulated.devices) {
    if (run.emulated.parameters > 0) numbers.push_back(run.emulated.parameters);
    return numbers;
  }
  const auto& layers = run.pipeline.stage[stage.value];
  for (const auto& tensor : spec::stage_tensors(run, layers.first_layer, layers.end_layer))
    numbers.push_back(static_cast<std::uint64_t>(tensor.numbers()));
  return numbers;
}

protocol::Plan make_plan(const spec::RunConfig& run) {
  protocol::Plan plan;
  // 64 bits of it: frames of another run are refused by it, keys keep strangers out.
  plan.run_id = std::stoull(config::spec_digest(run).substr(0, 16), nullptr, 16);
  plan.schedule =
      run.pipeline.schedule == "1f1b" ? protocol::ScheduleKind::kOneForwardOneBackward : protocol::ScheduleKind::kDeep;
  plan.routing =
      run.pipeline.routing == "round_robin" ? protocol::Routing::kRoundRobin : protocol::Routing::kFinishTime;
  plan.steps = run.run.steps;
  plan.planned_skips = static_cast<std::uint32_t>(std::lround(
      run.pipeline.skip_share * static_cast<double>(run.pipeline.stage.size() * run.train.microbatches_per_step)));
  plan.skip_after = std::chrono::seconds(run.recovery.skip_after_s.value_or(0));
  plan.skip_steps = run.recovery.skip_steps;
  plan.microbatches = run.train.microbatches_per_step;
  plan.evaluation_microbatches = run.train.evaluation_microbatches;
  plan.evaluate_every = run.train.evaluate_every;
  plan.checkpoint_every = run.checkpoint.every;
  plan.tokens_per_microbatch = run.train.sequences_per_microbatch * run.model.context;
  for (std::uint32_t s = 0; s < run.pipeline.stage.size(); ++s) {
    const auto& stage = run.pipeline.stage[s];
    protocol::StagePlan& planned = plan.stages.emplace_back();
    planned.first_layer = stage.first_layer;
    planned.end_layer = stage.end_layer;
    planned.replicas = stage.replicas;
    planned.credits = credits_of(run, StageId(s));
    // An emulated stage has one weight and no optimizer.
    const bool emulated = run.emulated.devices;
    planned.parameters = emulated ? 1 : parameters_of(run, stage.first_layer, stage.end_layer);
    planned.state_bytes = emulated ? std::max<std::uint64_t>(8, run.emulated.state_bytes)
                                   : state_bytes_of(run, stage.first_layer, stage.end_layer);
    if (is_local(run, StageId(s))) {
      planned.local = true;
      plan.sync_every = run.sync.every;
      plan.sync_is_sparse = run.sync.mode == "sparseloco";
      const auto tensors = synced_tensors(run, StageId(s));
      for (const bool last : {false, true}) {
        const compress::UpdateSlices slices(run, tensors, last);
        for (std::uint32_t slice = 0; slice < slices.count(); ++slice)
          (last ? planned.last_update_bytes : planned.update_bytes).push_back(slices.bytes(slice));
      }
      // The weights agreed on, and the momentum of that.
      planned.state_bytes =
          std::accumulate(tensors.begin(), tensors.end(), std::uint64_t{0}) * 4 * (*run.sync.momentum > 0 ? 2 : 1);
    }
    if (!emulated) planned.work = spec::forward_operations(run, stage.first_layer, stage.end_layer);
  }
  if (run.emulated.devices)
    plan.part_width = plan.total_width = 8;
  else if (run.run.deterministic)
    plan.part_width = 8;
  // One id more than the context per sequence: the last label.
  plan.token_bytes =
      std::uint64_t{run.train.sequences_per_microbatch} * (run.model.context + 1) * token_width(run.model.vocabulary);
  const auto payload = [&](compress::Direction direction) {
    return compress::make_boundary_codec(run, direction)->bytes(compress::boundary_shape(run));
  };
  plan.forward_bytes = run.emulated.forward_bytes ? run.emulated.forward_bytes : payload(compress::Direction::kForward);
  plan.backward_bytes =
      run.emulated.backward_bytes ? run.emulated.backward_bytes : payload(compress::Direction::kBackward);
  // An emulated stage holds next to nothing.
  if (!run.emulated.devices)
    for (auto& stage : plan.stages) {
      const auto boundary = static_cast<double>(plan.forward_bytes + plan.backward_bytes + plan.token_bytes);
      stage.memory_bytes = static_cast<std::uint64_t>(
          spec::stage_memory(run, stage.first_layer, stage.end_layer,
                             spec::fullest_use(run, stage.end_layer, stage.credits, stage.replicas), boundary)
              .total());
    }
  return plan;
}

}  // namespace isthmus::planner
