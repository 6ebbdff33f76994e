#pragma once

#include <string>

#include "base/result.h"
#include "config/load_run.h"
#include "scheduler/planner/fleet_plan.h"

namespace isthmus::planner {

// The fastest plan found for the machines of a run:
//
//   for each number of stages (or the one asked for): split the layers by dynamic programming, place the machines,
//   split again by the speed each stage got, until nothing is gained; the predictor chooses among the best of these,
//   and judges moves and swaps of single machines
//
// Of a large fleet as much of this as a few seconds allow, counted in machines, stages and events and not by a clock;
// the plan's remarks say what was left out. An error, the sentences of why_unplaced, if the stages or the machines'
// memory leave no placement. Deterministic. REQUIRES: load_run's run; it has machines.
Result<FleetPlan> plan_fleet(const spec::RunConfig& run);
// The same for these machines, whatever the run has. REQUIRES: there is one.
Result<FleetPlan> plan_fleet(const spec::RunConfig& run, Fleet fleet);

// Of a plan that failed: which stages find no machine with their memory. With layout = "auto" those of the split,
// evenest in memory, that leaves the fewest without one. Never empty. REQUIRES: as above.
std::vector<config::KeyProblem> why_unplaced(const spec::RunConfig& run);

// What the planner placed: the plan's stages, for its fleet. REQUIRES: `plan` outlives it.
PlacementProblem placement_problem(const FleetPlan& plan);

// The plan after a machine has left: at most one other moves, to the stage that lost it, and the rest stays where it
// is. An error if no machine has that name, or if a stage is left without one.
Result<FleetPlan> plan_without(const FleetPlan& plan, const std::string& machine);

}  // namespace isthmus::planner
