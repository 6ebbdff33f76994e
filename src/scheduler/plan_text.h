#pragma once

#include <string>

#include "config/run_config.h"
#include "scheduler/step_simulation.h"

namespace isthmus {

struct PlanTextOptions {
  // Arithmetic speed of one worker's device, in 10^9 operations per second: compute times that nobody has measured
  // are estimated with it. An emulated device says its own times.
  double gflops = 50;
};

// What the predictor plays for this run: compute times from [emulated] or estimated, links from [link].
StepSimulationInput simulation_input(const RunConfig& run, const PlanTextOptions& options);

// What `isthmus plan` prints: layer map, stage × time grid, memory and bytes, predicted speed and what limits it.
std::string plan_text(const RunConfig& run, const PlanTextOptions& options);
std::string plan_json(const RunConfig& run, const PlanTextOptions& options);

}  // namespace isthmus
