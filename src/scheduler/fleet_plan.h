#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "scheduler/fleet.h"
#include "scheduler/placement.h"
#include "scheduler/step_simulation.h"

namespace isthmus {

// Who holds what, and the step that is predicted for it.
struct FleetPlan {
  RunConfig asked;  // as the run file has it, but for its fleet
  RunConfig run;    // with the layer map, its replicas and how they agree: what `train` trains
  Fleet fleet;
  Placement placement;
  std::vector<double> memory_bytes;       // by stage, of each replica
  std::vector<std::uint32_t> machine_of;  // by worker, in the order of the stages, then of the machines
  // Of each step, how long exact sums of gradients keep, or would keep, the slowest line of a replica busy.
  double sum_seconds = 0;
  StepSimulationInput input;
  StepSimulation simulation;
  std::vector<std::string> remarks;  // for people: what was not tried, who left

  double tokens_per_second() const;
};

// The run with `ends`, the end layer of each stage, and these machines at its stages. How replicas agree follows from them and
// their lines, unless `asked` says it.
RunConfig placed_run(const RunConfig& asked, const Fleet& fleet, const std::vector<std::uint32_t>& ends, const Placement& placement);

// All of the plan that follows from it, but for memory_bytes; with paths of `path_width` (StepSimulationInput). REQUIRES: every stage
// has a machine.
FleetPlan predict_plan(const RunConfig& asked, const Fleet& fleet, const std::vector<std::uint32_t>& ends, const Placement& placement, std::uint32_t path_width = 0);

// The end layer of each stage.
std::vector<std::uint32_t> ends_of(const RunConfig& run);

// What the predictor plays for a run (with a map) on machines placed so; their order is that of `machine_of`.
StepSimulationInput fleet_input(const RunConfig& run, const Fleet& fleet, const std::vector<std::uint32_t>& machine_of);

// About how many events the predictor plays for a step: what a prediction costs, in about half a microsecond each.
double predicted_events(const Plan& plan);

}  // namespace isthmus
