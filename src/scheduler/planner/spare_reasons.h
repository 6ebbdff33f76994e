#pragma once

#include <string>
#include <vector>

#include "scheduler/planner/fleet_plan.h"

namespace isthmus::planner {

struct SpareMachine {
  std::uint32_t machine;
  std::string reason;  // for people
};

// The machines that the plan leaves out, and why each serves no stage.
std::vector<SpareMachine> spare_machines(const FleetPlan& plan);

}  // namespace isthmus::planner
