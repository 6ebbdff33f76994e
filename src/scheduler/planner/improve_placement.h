#pragma once

#include <cstdint>

#include "scheduler/planner/placement.h"

namespace isthmus::planner {

// Moves and swaps machines as long as that lowers the estimate's score. In a small fleet every move and swap is tried
// and the best one made; in a large one only those that touch the slowest stage or the slowest combination, for no
// other can help, and the first that does is made. Deterministic.
void improve_placement(const PlacementProblem& problem, PlacementEstimate& estimate);

// After `gone` has left: the one move that helps its stage most, or none if none helps. The rest stays where it is.
// False if a stage is left without a machine.
bool replace_departed(const PlacementProblem& problem, PlacementEstimate& estimate, std::uint32_t gone);

}  // namespace isthmus::planner
