#pragma once

#include <optional>

#include "scheduler/planner/placement.h"

namespace isthmus::planner {

// A placement to improve on: every stage gets its share of the fleet's speed, and of all such divisions the one that
// loses least of it to links, by min-cost flow (successive shortest paths, Ahuja, Magnanti, Orlin, "Network Flows",
// 1993) from machines to the stages they fit, rounded to whole machines. In a large fleet machines of about equal
// speed, memory and rates flow together. Nothing if no placement has a machine for every stage.
std::optional<Placement> place_by_flow(const PlacementProblem& problem);

}  // namespace isthmus::planner
