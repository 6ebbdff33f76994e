#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/planner/fleet.h"
#include "scheduler/planner/placement.h"
#include "scheduler/planner/step_simulation.h"
#include "spec/run_config.h"

namespace isthmus::planner {

// Who holds what, and the step that is predicted for it.
struct FleetPlan {
  spec::RunConfig asked;  // as the run file has it, but for its fleet
  spec::RunConfig run;    // with the layer map, its replicas and how they agree: what `train` trains
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

// The run with `ends`, the end layer of each stage, and these machines at its stages. How replicas agree follows from
// them and their lines, unless `asked` says it.
spec::RunConfig placed_run(const spec::RunConfig& asked, const Fleet& fleet, const std::vector<std::uint32_t>& ends,
                           const Placement& placement);

// All of the plan that follows from it, but for memory_bytes; with paths of `path_width` (StepSimulationInput). A
// machine that gets no microbatch is a spare of the plan, whatever `placement` says: it would only be one more to agree
// with. REQUIRES: every stage has a machine.
FleetPlan predict_plan(const spec::RunConfig& asked, const Fleet& fleet, const std::vector<std::uint32_t>& ends,
                       const Placement& placement, std::uint32_t path_width = 0);

// The end layer of each stage.
std::vector<std::uint32_t> ends_of(const spec::RunConfig& run);

// What the predictor plays for a run (with a map) on machines placed so; their order is that of `machine_of`.
StepSimulationInput fleet_input(const spec::RunConfig& run, const Fleet& fleet,
                                const std::vector<std::uint32_t>& machine_of);

// About how many events the predictor plays for a step: what a prediction costs, in about half a microsecond each.
double predicted_events(const protocol::Plan& plan);

}  // namespace isthmus::planner
