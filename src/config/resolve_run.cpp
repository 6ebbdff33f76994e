#include "config/resolve_run.h"

#include <algorithm>
#include <utility>

#include "config/boundary_form.h"

namespace isthmus {

void resolve_values(RunConfig& run) {
  if (run.model.mlp == 0) run.model.mlp = ((run.model.hidden * 8 + 2) / 3 + 31) / 32 * 32;
  if (run.boundary.rank == 0) run.boundary.rank = std::max(1u, run.model.hidden * 4 / 17);
  if (!run.recovery.skip_after_s) run.recovery.skip_after_s = run.run.deterministic || !boundary_form(run.boundary.codec).shared() ? 0 : 20;
  if (run.boundary.gradient_values.empty()) run.boundary.gradient_values = run.boundary.values;
  if (!boundary_form(run.boundary.codec).constrained) run.boundary.factored_layers = 0;
  for (auto& machine : run.fleet.machine) {
    if (machine.region.empty()) machine.region = machine.name;
    if (machine.uplink_mbps == 0) machine.uplink_mbps = run.link.bandwidth_mbps;
    if (machine.downlink_mbps == 0) machine.downlink_mbps = run.link.bandwidth_mbps;
  }
}

void resolve_map(RunConfig& run, std::vector<RunConfig::Stage> map) {
  run.pipeline.stage = std::move(map);
  run.pipeline.layout = "explicit";
  run.pipeline.replicas = 1;
  run.pipeline.stages = static_cast<std::uint32_t>(run.pipeline.stage.size());
  if (!run.boundary.factored_layers) run.boundary.factored_layers = run.pipeline.stage.back().first_layer;
}

}  // namespace isthmus
