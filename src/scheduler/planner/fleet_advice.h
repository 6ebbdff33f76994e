#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "scheduler/planner/fleet_plan.h"

namespace isthmus::planner {

struct Advice {
  std::string change;  // "a replica of stage 2 like gpu.0"
  double tokens_per_second = 0;
};

struct FleetAdvice {
  std::vector<Advice> best;  // three at most, best first; fewer if fewer help
  std::size_t tried = 0;     // changes
  std::size_t untried = 0;   // left out: the predictor would have taken too long
};

// The changes of a plan that would help most. Tried, each alone, with the predictor: one more replica for each stage
// like one it has, twice the uplink of each machine, half the rank; how replicas agree is decided anew each time. Of
// many stages and machines, the busiest; of a fleet whose step is long to predict, fewer.
inline constexpr double kAdviceEvents = 6e6;  // that the predictor may play for it: some seconds
FleetAdvice fleet_advice(const FleetPlan& plan, double events = kAdviceEvents);

}  // namespace isthmus::planner
