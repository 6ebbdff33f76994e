#include "scheduler/place_machines.h"

#include "scheduler/improve_placement.h"
#include "scheduler/place_by_flow.h"
#include "scheduler/place_exactly.h"

namespace isthmus {

namespace {

// Placements of a small fleet: a tenth of a second.
constexpr std::uint64_t kExactly = 20'000;

}  // namespace

std::optional<Placement> place_by_search(const PlacementProblem& problem) {
  const auto start = place_by_flow(problem);
  if (!start) return std::nullopt;
  PlacementEstimate estimate(problem, *start);
  improve_placement(problem, estimate);
  return estimate.placement();
}

std::optional<Placement> place_machines(const PlacementProblem& problem) {
  if (auto best = place_exactly(problem, kExactly)) return best;
  return place_by_search(problem);
}

}  // namespace isthmus
