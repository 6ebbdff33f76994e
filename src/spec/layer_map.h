#pragma once

#include <cstdint>
#include <vector>

#include "spec/run_spec.h"

namespace isthmus::spec {

// Layers 0 … layers-1 in `stages` contiguous pieces so that the heaviest stage is as light as
// possible. A layer costs 1; the last stage also bears the head, worth `head_cost` layers. Exact:
// with the last stage's share fixed, the rest is as even as it can be. REQUIRES: 1 ≤ stages ≤
// layers.
std::vector<RunSpec::Stage> balanced_layers(std::uint32_t layers, std::uint32_t stages, double head_cost);

// The layer map of a run: [[pipeline.stage]], or, with layout = "auto", `stages` balanced ones.
// REQUIRES: the run has passed the checks of its map.
std::vector<RunSpec::Stage> layer_map(const RunSpec& run);

// Whether a planner may give the run so many stages: within its layers and limits, with room for pipeline.skip_share,
// and with no layer of the tail before boundary.factored_layers.
bool may_have_stages(const RunSpec& run, std::uint32_t stages);

// Largest pipeline.skip_share that the paths of a step can have (protocol/step_paths.h).
double skip_share_max(std::size_t stages, std::uint32_t microbatches);

}  // namespace isthmus::spec
