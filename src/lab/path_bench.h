#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/output_file.h"
#include "config/paths_config.h"

namespace isthmus::lab {

struct PathBenchOptions {
  std::uint32_t scale = 1;         // times as many nodes in every stage as the case says
  std::optional<std::string> out;  // SVG file to write
  Existing existing = Existing::kRefused;
  bool json = false;
};

// `isthmus bench paths`: the step of a case by full pipelines, by full paths that are planned, by skipping blindly, and
// by planned paths that skip, and how long planning took; then the ratios over further draws of the regions. Every plan
// passes check_plan before its figure is printed. Cases of more than kSearchNodesMax nodes are planned by the heuristic
// only. Returns the process's exit code: 1 if a plan cannot be made or breaks a constraint.
int bench_paths(config::PathsConfig paths, const PathBenchOptions& options);

inline constexpr std::uint32_t kSearchNodesMax = 30;

}  // namespace isthmus::lab
