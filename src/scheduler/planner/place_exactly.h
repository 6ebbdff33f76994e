#pragma once

#include <optional>

#include "scheduler/planner/placement.h"

namespace isthmus::planner {

// The placement with the least score of all, spares included; nothing if there is none, or if more than `limit` would
// have to be looked at. Machines that are alike are not told apart.
std::optional<Placement> place_exactly(const PlacementProblem& problem, std::uint64_t limit);

}  // namespace isthmus::planner
