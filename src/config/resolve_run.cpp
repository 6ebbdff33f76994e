#include "config/resolve_run.h"

#include <algorithm>
#include <utility>

#include "spec/boundary_form.h"
#include "spec/learning_rate.h"
#include "spec/stage_tensors.h"

namespace isthmus::config {

namespace {

// What each step's sum of gradients may take the line of a replica.
constexpr double kExactSecondsMax = 1;

double link_line(const spec::RunSpec& run) { return run.link.bandwidth_mbps * 1e6; }

bool sums_are_quick(const spec::RunSpec& run, std::span<const double> lines) {
  for (std::size_t s = 0; s < run.pipeline.stage.size(); ++s)
    if (exact_sync_seconds(run, run.pipeline.stage[s], lines.empty() ? link_line(run) : lines[s]) > kExactSecondsMax)
      return false;
  return true;
}

void resolve_sync(spec::RunSpec& run, std::span<const double> lines) {
  auto& sync = run.sync;
  if (sync.mode.empty()) sync.mode = run.run.deterministic || sums_are_quick(run, lines) ? "exact" : "sparseloco";
  if (sync.every == 0) sync.every = sync.mode == "exact" || sync.mode == "slices" ? 1 : 30;
  // A sparse mean counts replicas that told other numbers as not having moved at all.
  const bool doubled = sync.mode == "sparseloco" && sync.residual == "weights" && sync.rule == "mean";
  if (!sync.learning_rate) sync.learning_rate = sync.mode == "diloco" ? 0.7 : doubled ? 2.0 : 1.0;
  if (!sync.momentum) sync.momentum = sync.mode == "diloco" ? 0.9 : 0.0;
}

}  // namespace

double exact_sync_seconds(const spec::RunSpec& run, const spec::RunSpec::Stage& stage, double line) {
  if (stage.replicas < 2) return 0;
  double numbers = static_cast<double>(run.emulated.parameters);
  if (!run.emulated.devices) {
    numbers = 0;
    for (const auto& tensor : spec::stage_tensors(run, stage.first_layer, stage.end_layer))
      numbers += static_cast<double>(tensor.numbers());
  }
  // Its part of every slice but its own, and its slice's sum to all others, in fp32.
  const double bytes = 8 * numbers * (stage.replicas - 1) / stage.replicas;
  return bytes * 8 / line;
}

double exact_sync_seconds(const spec::RunSpec& run, const spec::RunSpec::Stage& stage) {
  return exact_sync_seconds(run, stage, link_line(run));
}

void resolve_values(spec::RunSpec& run) {
  if (run.model.mlp == 0) run.model.mlp = ((run.model.hidden * 8 + 2) / 3 + 31) / 32 * 32;
  run.train.schedule_steps = spec::schedule_steps(run);
  if (run.boundary.rank == 0) run.boundary.rank = std::max(1u, run.model.hidden * 4 / 17);
  if (!run.recovery.skip_after_s)
    run.recovery.skip_after_s = run.run.deterministic || !spec::boundary_form(run.boundary.codec).shared() ? 0 : 20;
  if (run.boundary.gradient_values.empty()) run.boundary.gradient_values = run.boundary.values;
  if (!spec::boundary_form(run.boundary.codec).constrained) run.boundary.factored_layers = 0;
  for (auto& machine : run.fleet.machine) {
    if (machine.region.empty()) machine.region = machine.name;
    if (machine.uplink_mbps == 0) machine.uplink_mbps = run.link.bandwidth_mbps;
    if (machine.downlink_mbps == 0) machine.downlink_mbps = run.link.bandwidth_mbps;
  }
}

void resolve_layers(spec::RunSpec& run, std::vector<spec::RunSpec::Stage> map) {
  run.pipeline.stage = std::move(map);
  run.pipeline.layout = "explicit";
  run.pipeline.replicas = 1;
  run.pipeline.stages = static_cast<std::uint32_t>(run.pipeline.stage.size());
  if (!run.boundary.factored_layers) run.boundary.factored_layers = run.pipeline.stage.back().first_layer;
}

void resolve_map(spec::RunSpec& run, std::vector<spec::RunSpec::Stage> map, std::span<const double> lines) {
  resolve_layers(run, std::move(map));
  resolve_sync(run, lines);
}

}  // namespace isthmus::config
