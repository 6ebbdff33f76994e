#pragma once

#include <cstdint>

#include "base/result.h"
#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

// What planned paths are compared with. Both are played by the same PathSimulation.

// The same number of microbatches on full paths.
struct FullPaths {
  PathProblem problem;  // visits every stage; microbatches moved to the origins that have a pipeline
  PathChoice choice;
};

// Disjoint pipelines through every stage, as many as the smallest stage has nodes, neighbours matched at the smallest
// sum of transfer times; the microbatches are dealt to them equally (DT-FM, arXiv 2206.01288, without its placement).
// Origins that get no pipeline send nothing. Errors: check_problem's.
Result<FullPaths> full_pipelines(const PathProblem& problem);

// The problem with every stage on every path and nothing else changed: what a planner makes of it shows how much is due
// to skipping itself.
PathProblem without_skips(const PathProblem& problem);

// Paths that skip and cover every stage equally, on replicas drawn without regard to links: every visit of a stage gets
// one of deal_visits at random. Errors: check_problem's and cover_equally's.
Result<PathChoice> blind_paths(const PathProblem& problem, std::uint64_t seed);

}  // namespace isthmus::paths
