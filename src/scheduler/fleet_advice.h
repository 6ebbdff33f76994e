#pragma once

#include <string>
#include <vector>

#include "scheduler/plan_fleet.h"

namespace isthmus {

struct Advice {
  std::string change;  // "a replica of stage 2 like gpu.0"
  double tokens_per_second = 0;
};

// The three changes of a plan that would help most, best first; fewer if fewer help. Tried, each alone, with the
// predictor: one more replica for each stage like one it has, twice the uplink of each machine, half the rank. Of many
// stages and machines, the busiest.
std::vector<Advice> fleet_advice(const FleetPlan& plan);

}  // namespace isthmus
