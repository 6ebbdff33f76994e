#pragma once

#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "config/load_run.h"
#include "config/paths_config.h"

namespace isthmus::config {

// Nodes of a case at most: the links of all pairs are kept.
inline constexpr std::uint32_t kPathNodesMax = 2'000;
// Visits of a stage by a microbatch: planners keep several plans of all of them.
inline constexpr std::uint32_t kPathVisitsMax = 1'000'000;
double path_visits(const PathsConfig& paths);

// Reads and checks a path planning case; returns every problem at once, in the order of the file.
tl::expected<PathsConfig, std::vector<Problem>> load_paths(const std::string& path);

}  // namespace isthmus::config
