#pragma once

#include <cstdint>

#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

struct PathImprovement {
  std::uint64_t seed = 1;
  std::uint64_t evaluations = 100'000;  // simulated steps: the whole budget, so that equal inputs give equal plans
};

// Local search on the event simulation itself: threshold accepting (Dueck and Scheuer, 1990) over moves that keep the
// number of visits, the limit of skips in a row and equal coverage. A microbatch gets another replica, or another stage
// where coverage leaves the choice; two exchange their replicas of a stage, two stages of which each visits one, all
// that follows the origin, or their ranks. Most moves are drawn on the chain of operations that decides the makespan,
// since no other can shorten it. Returns the best choice seen, `start` at worst.
//
// REQUIRES: a problem that passed check_problem and a start that keeps every constraint.
PathChoice improve_paths(const PathProblem& problem, PathChoice start, const PathImprovement& improvement);

}  // namespace isthmus::paths
