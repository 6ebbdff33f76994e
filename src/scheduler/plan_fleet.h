#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "config/load_run.h"
#include "config/run_config.h"
#include "scheduler/fleet.h"
#include "scheduler/placement.h"
#include "scheduler/step_simulation.h"

namespace isthmus {

// Who holds what, and the step that is predicted for it.
struct FleetPlan {
  RunConfig run;  // with the layer map and its replicas, and no fleet: what `train` trains
  Fleet fleet;
  Placement placement;
  std::vector<double> memory_bytes;           // by stage, of each replica
  std::vector<std::uint32_t> machine_of;      // by worker, in the order of the stages, then of the machines
  StepSimulationInput input;
  StepSimulation simulation;

  double tokens_per_second() const;
};

// The fastest plan found for the machines of a run:
//
//   for each number of stages (or the one asked for): split the layers by dynamic programming, place the machines, split
//   again by the speed each stage got, until nothing is gained; the predictor chooses among the best of these, and judges
//   moves and swaps of single machines
//
// An error, the sentences of why_unplaced, if the stages or the machines' memory leave no placement. Deterministic. REQUIRES: load_run's run; it has
// machines.
Result<FleetPlan> plan_fleet(const RunConfig& run);

// Of a plan that failed: which stages find no machine with their memory. With layout = "auto" those of the split, evenest in memory,
// that leaves the fewest without one. Never empty. REQUIRES: as above.
std::vector<KeyProblem> why_unplaced(const RunConfig& run);

// What the predictor plays for a run (with a map) on machines placed so; their order is that of `machine_of`.
StepSimulationInput fleet_input(const RunConfig& run, const Fleet& fleet, const std::vector<std::uint32_t>& machine_of);

}  // namespace isthmus
