#pragma once

#include <string>
#include <vector>

#include "config/paths_config.h"
#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

// Region of each node, an index into the case's: every region has equally many nodes, or one more, and the seed decides
// which. Nodes are numbered stage by stage.
std::vector<std::uint32_t> draw_regions(const config::PathsConfig& paths, std::uint64_t seed);

// The case with its nodes in these regions. A transfer takes half a round trip, the overhead, and the bytes over the
// rate, which falls from the fastest to the slowest link as a power of the round trip (what a TCP connection gets over
// a long way); a round trip outside the stated ends, as within a region, counts as the nearer end.
PathProblem make_path_problem(const config::PathsConfig& paths, const std::vector<std::uint32_t>& region_of_node);

}  // namespace isthmus::paths
