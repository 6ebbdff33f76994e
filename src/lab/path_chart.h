#pragma once

#include <string>
#include <vector>

#include "scheduler/paths/path_problem.h"

namespace isthmus::lab {

struct ChartedPlan {
  std::string title;
  const paths::PathProblem* problem;  // outlives the call
  paths::PathPlan plan;
};

// The plans below one another on one time axis, as SVG: a row for each node, a bar for each forward (blue), loss (grey)
// and backward (orange), with the number of its microbatch. `places`: where each node is.
std::string path_chart(const std::vector<ChartedPlan>& plans, const std::vector<std::string>& places);

}  // namespace isthmus::lab
