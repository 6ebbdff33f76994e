#pragma once

#include "base/result.h"
#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

// Whether a problem has a plan, as far as it can be told without planning: sizes that fit together, nodes in every
// stage, memory for a microbatch on each, and a number of visits that the limit of skips in a row allows. Says which
// cannot be met.
Status check_problem(const PathProblem& problem);

// Holds every constraint against a plan, from its times alone, without any planner's or the simulation's code: origins,
// number and order of visits, stages that must not be skipped, skips in a row, equal coverage, transfers waited for,
// one thing at a time on a node, memory, and the makespan and coverage it claims. The first one that is broken is the
// error. REQUIRES: a problem that passed check_problem.
Status check_plan(const PathProblem& problem, const PathPlan& plan);

}  // namespace isthmus::paths
