#pragma once

#include <string>

#include "scheduler/planner/fleet_plan.h"

namespace isthmus::planner {

// What `isthmus plan` prints for a fleet: stages and what they wait for, the stage × time grid, who holds what, bytes
// per link, how replicas agree, predicted speed, what would help most, and what was not tried.
std::string fleet_text(const FleetPlan& plan);
// The same, and the planned path of each microbatch: by stage the replica it takes, then up to two alternates.
std::string fleet_json(const FleetPlan& plan);

}  // namespace isthmus::planner
