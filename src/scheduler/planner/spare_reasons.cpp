#include "scheduler/planner/spare_reasons.h"

#include <fmt/format.h>

#include <algorithm>

#include "scheduler/planner/plan_fleet.h"
#include "scheduler/planner/step_grid.h"

namespace isthmus::planner {

std::vector<SpareMachine> spare_machines(const FleetPlan& plan) {
  std::vector<SpareMachine> spares;
  if (std::ranges::count(plan.placement, kSpare) == 0) return spares;
  const PlacementProblem problem = placement_problem(plan);
  const PlacementEstimate estimate(problem, plan.placement);
  const auto stages = static_cast<std::uint32_t>(problem.stages.size());
  const double least = std::ranges::min_element(problem.stages, {}, &StageNeeds::memory_bytes)->memory_bytes;
  for (std::uint32_t m = 0; m < plan.placement.size(); ++m) {
    if (plan.placement[m] != kSpare) continue;
    bool fits = false, room = false, useful = false;
    for (std::uint32_t s = 0; s < stages; ++s) {
      if (!problem.fits(m, s)) continue;
      fits = true;
      if (estimate.members(s).size() >= problem.replicas_max) continue;
      room = true;
      useful = useful || 1 / PlacementEstimate::rate(problem, m, s) < estimate.stage_seconds(s);
    }
    std::string reason = "a step would take as long with it, or longer";
    if (!fits)
      reason = fmt::format("its memory is less than any stage needs, {}", size_text(least));
    else if (!room)
      reason = fmt::format("every stage that it could hold has {} replicas", problem.replicas_max);
    else if (!useful)
      reason = "it would get no microbatch: the others have done all of a step before it has done one";
    spares.push_back({m, std::move(reason)});
  }
  return spares;
}

}  // namespace isthmus::planner
