#pragma once

#include <optional>
#include <string>

#include "scheduler/planner/step_simulation.h"
#include "spec/run_config.h"

namespace isthmus::planner {

struct PlanTextOptions {
  // Arithmetic speed of one worker's device, in 10^9 operations per second: compute times that nobody has measured
  // are estimated with it. An emulated device says its own times.
  double gflops = 50;
  // Whether the workers' devices multiply bf16 numbers; nothing: not known, and what takes more memory is planned.
  std::optional<bool> bf16;
};

// What the predictor plays for this run: compute times from [emulated] or estimated, links from [link].
StepSimulationInput simulation_input(const spec::RunConfig& run, const PlanTextOptions& options);

// What `isthmus plan` prints: layer map, stage × time grid, memory and bytes, predicted speed and what limits it.
std::string plan_text(const spec::RunConfig& run, const PlanTextOptions& options);
std::string plan_json(const spec::RunConfig& run, const PlanTextOptions& options);

}  // namespace isthmus::planner
