#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace isthmus::config {

// A case for the path planners, as its file says it (configs/paths.schema.json). Filled and checked by load_paths;
// const from then on. Links are the same both ways.
struct PathsConfig {
  struct Link {
    double fastest_mbps = 0;
    double fastest_rtt_ms = 0;
    double slowest_mbps = 0;
    double slowest_rtt_ms = 0;
    double overhead_seconds = 0;
  };
  struct Region {
    std::string name;
    std::vector<double> rtt_ms;  // to the regions before it
  };
  std::string name;                   // the file's, without .toml
  std::vector<std::uint32_t> stages;  // nodes of each
  std::uint32_t visits = 1;
  std::uint32_t skips_in_a_row = 2;
  std::string end = "origin";
  std::uint32_t microbatches = 1;  // per node of the first stage
  std::uint32_t memory = 3;
  double forward_seconds = 0;
  double backward = 1.5;
  double loss = 0.25;
  std::uint64_t microbatch_bytes = 0;
  std::uint64_t seed = 1;
  std::uint32_t draws = 0;
  Link link;
  std::vector<Region> region;
};

}  // namespace isthmus::config
