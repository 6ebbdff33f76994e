#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

// Stages of one path: ascending, beginning with 0.
using StageSet = std::vector<std::uint32_t>;

// Whether a path may visit these: first (and last) stage, number, order, skips in a row.
bool may_visit(const PathProblem& problem, const StageSet& stages);

// The allowed set of stages with the smallest sum of costs; of equal ones the earliest stages. `cost` is per stage.
// Exact, by dynamic programming. REQUIRES: a problem that passed check_problem.
StageSet cheapest_stages(const PathProblem& problem, const std::vector<double>& cost);

// The stages of every microbatch such that the visits of any two skippable stages differ by at most one. Each takes the
// stages that were visited least; then those that are too many are chosen anew. An error if they do not even out.
Result<std::vector<StageSet>> cover_equally(const PathProblem& problem);

// By how many visits the coverage misses the nearest equal one. `coverage` is per stage.
std::uint32_t uneven_visits(const PathProblem& problem, const std::vector<std::uint32_t>& coverage);

// Visits that each stage should have at most so that the same number of visits, stages in order of their coverage, is
// spread equally: those with the most may have the one that does not divide.
std::vector<std::uint32_t> equal_coverage(const PathProblem& problem, const std::vector<std::uint32_t>& coverage);

}  // namespace isthmus::paths
