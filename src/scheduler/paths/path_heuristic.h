#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "scheduler/paths/path_improvement.h"
#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

// The replica for each of `visits` visits of a stage, in turn: the one furthest behind its share by speed (forward +
// backward).
std::vector<std::uint32_t> deal_visits(const PathProblem& problem, std::uint32_t stage, std::uint32_t visits);

// A first choice for any number of machines: stages by cover_equally; then, stage after stage, the microbatches that
// visit it are matched with its replicas at the smallest sum of transfer times (as many at a time as there are
// replicas, each replica as often as deal_visits says), as DT-FM matches neighbours (arXiv 2206.01288). Errors:
// check_problem's and cover_equally's.
Result<PathChoice> match_paths(const PathProblem& problem);

// match_paths, then improve_paths. For any number of machines; the time is that of the evaluations.
Result<PathChoice> plan_paths(const PathProblem& problem, const PathImprovement& improvement);

// Evaluations that take about `simulated_operations` operations of the event simulation (some millions per second).
std::uint64_t evaluations_of(const PathProblem& problem, std::uint64_t simulated_operations);

}  // namespace isthmus::paths
