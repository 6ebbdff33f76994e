#include "spec/layer_map.h"

#include <algorithm>

#include "spec/boundary_form.h"
#include "spec/step_limits.h"

namespace isthmus::spec {

std::vector<RunSpec::Stage> balanced_layers(std::uint32_t layers, std::uint32_t stages, double head_cost) {
  if (stages == 1) return {{0, layers, 1}};
  std::uint32_t best_last = 1;
  double best_cost = 0;
  for (std::uint32_t last = 1; last + stages - 1 <= layers; ++last) {
    const std::uint32_t even = (layers - last + stages - 2) / (stages - 1);
    const double cost = std::max<double>(even, last + head_cost);
    if (last == 1 || cost < best_cost) {
      best_cost = cost;
      best_last = last;
    }
  }
  std::vector<RunSpec::Stage> map;
  std::uint32_t at = 0;
  const std::uint32_t rest = layers - best_last;
  for (std::uint32_t s = 0; s + 1 < stages; ++s) {
    // The first stage reads the data and embeds it; what does not divide evenly goes to later ones.
    const std::uint32_t size = rest / (stages - 1) + (s + 1 + rest % (stages - 1) >= stages ? 1 : 0);
    map.push_back({at, at + size, 1});
    at += size;
  }
  map.push_back({at, layers, 1});
  return map;
}

std::vector<RunSpec::Stage> layer_map(const RunSpec& run) {
  if (run.pipeline.layout != "auto") return run.pipeline.stage;
  // A layer has about 12 hidden² weights, the head vocabulary × hidden.
  const double head_cost = run.model.vocabulary / (12.0 * run.model.hidden);
  auto stages = balanced_layers(run.model.layers, run.pipeline.stages, head_cost);
  for (auto& stage : stages) stage.replicas = run.pipeline.replicas;
  return stages;
}

bool may_have_stages(const RunSpec& run, std::uint32_t stages) {
  const std::uint32_t microbatches = run.train.microbatches_per_step;
  if (stages == 0 || stages > std::min(kStagesMax, run.model.layers) ||
      std::uint64_t{stages} * microbatches > kVisitsMax)
    return false;
  if (run.pipeline.skip_share > skip_share_max(stages, microbatches) + 1e-9) return false;
  return !boundary_form(run.boundary.codec).constrained || stages - 1 <= run.boundary.factored_layers.value_or(stages);
}

double skip_share_max(std::size_t stages, std::uint32_t microbatches) {
  if (stages < 3 || microbatches == 0) return 0;
  const double by_path = static_cast<double>(stages / 3) * microbatches;
  const double by_stage = static_cast<double>(stages - 2) * (microbatches / 2);
  return std::min(by_path, by_stage) / (static_cast<double>(stages) * microbatches);
}

}  // namespace isthmus::spec
