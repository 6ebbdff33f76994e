#pragma once

#include <cstdint>
#include <vector>

#include "config/load_run.h"
#include "scheduler/planner/placement.h"

namespace isthmus::planner {

// What may be changed so that a stage keeps less.
inline constexpr const char* kLessKept = "less kept (pipeline.activation_mb, pipeline.recompute, pipeline.credits)";

// The stages, by the end of each, that cannot all have a machine with enough memory: each with what it needs, and how
// many machines have as much for how many stages that need as much or more. Empty if every stage can have a machine of
// its own. With an explicit map a stage is told at its own layers, otherwise at pipeline.stages or the machines.
std::vector<config::KeyProblem> unplaced_stages(const spec::RunConfig& run, const PlacementProblem& problem,
                                                const std::vector<std::uint32_t>& ends);

}  // namespace isthmus::planner
