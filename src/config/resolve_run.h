#pragma once

#include <vector>

#include "config/run_config.h"

namespace isthmus {

// What a run file leaves open and no plan decides: mlp, rank, gradient_values, and a machine's region and rates.
void resolve_values(RunConfig& run);

// Gives the run its layer map and what follows from it: layout is "explicit" then, factored_layers and how replicas agree
// known. REQUIRES: a whole map.
void resolve_map(RunConfig& run, std::vector<RunConfig::Stage> map);

// How long the exact sum of a step's gradients keeps the uplink of one of the stage's replicas busy. REQUIRES: factored_layers
// are known.
double exact_sync_seconds(const RunConfig& run, const RunConfig::Stage& stage);

}  // namespace isthmus
