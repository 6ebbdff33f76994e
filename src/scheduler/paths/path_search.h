#pragma once

#include <cstdint>

#include "base/result.h"
#include "scheduler/paths/path_improvement.h"
#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

struct PathSearch {
  std::uint32_t expansions = 20'000;  // nodes of the constraint tree that are branched: the bound, not the clock
  std::uint32_t improved = 3;         // best different plans of the tree that go into improve_paths …
  PathImprovement improvement;        // … each with all of these evaluations
};

struct PathSearchResult {
  PathChoice choice;
  Duration tree{};               // makespan of the best plan of the tree, before improve_paths
  std::uint32_t expansions = 0;  // made; fewer than allowed: the tree is exhausted
};

// Conflict-based search (Sharon et al., 2015) as Skip-Pipe plans paths (arXiv 2502.19913), for up to about twenty
// machines. Every microbatch first takes its shortest path. A conflict is, in this order: a stage with more visits than
// equal coverage allows; a node with more than its share by speed; a microbatch that waits for another one on the chain
// that decides the makespan. A branch forbids the stage or the node to one of up to three visitors for which the detour
// is shortest, or lets the one that waits go first; only that microbatch is planned anew. Best first by simulated
// makespan, plus what is unequal. Anytime: it begins with match_paths and keeps the best plan that met every
// constraint. The best ones are then improved. Errors: check_problem's and cover_equally's.
Result<PathSearchResult> search_paths(const PathProblem& problem, const PathSearch& search);

}  // namespace isthmus::paths
