#pragma once

#include <optional>

#include "scheduler/planner/placement.h"

namespace isthmus::planner {

// Who holds which stage, for the fastest step by PlacementEstimate: exact if there are few enough placements, otherwise
// by flow and improved. A machine that would only hold the others up is a spare. Nothing if the stages cannot all have
// a machine. Deterministic.
std::optional<Placement> place_machines(const PlacementProblem& problem);

// The second way, whatever the size.
std::optional<Placement> place_by_search(const PlacementProblem& problem);

}  // namespace isthmus::planner
