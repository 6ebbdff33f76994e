#pragma once

#include <span>
#include <vector>

#include "spec/run_spec.h"

namespace isthmus::config {

// What a run file leaves open and no plan decides: mlp, rank, gradient_values, and a machine's region and rates.
void resolve_values(spec::RunSpec& run);

// Gives the run its layer map and what follows from it: layout is "explicit" then, factored_layers known. How replicas
// agree is open until there are any. REQUIRES: a whole map.
void resolve_layers(spec::RunSpec& run, std::vector<spec::RunSpec::Stage> map);

// The same, and how replicas agree: exactly where each step's sums keep no line busy for longer than a second, unless
// the run says how. `lines`: of each stage, the slowest that its replicas' sums take, in bits per second; empty:
// [link]'s for all.
void resolve_map(spec::RunSpec& run, std::vector<spec::RunSpec::Stage> map, std::span<const double> lines = {});

// How long the exact sum of a step's gradients keeps a line of so many bits per second busy that belongs to one of the
// stage's replicas. REQUIRES: factored_layers are known.
double exact_sync_seconds(const spec::RunSpec& run, const spec::RunSpec::Stage& stage, double line);
// That of [link].
double exact_sync_seconds(const spec::RunSpec& run, const spec::RunSpec::Stage& stage);

}  // namespace isthmus::config
