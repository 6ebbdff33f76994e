#pragma once

#include <cstdint>
#include <string>

#include "config/run_config.h"

namespace isthmus {

struct SimulateOptions {
  std::uint64_t seed = 1;
  std::uint64_t runs = 1;      // of seeds seed, seed + 1, …
  std::string kinds;           // comma-separated fault kinds; empty: all
  std::uint32_t faults = 0;    // per run; 0: drawn
  std::uint64_t steps = 8;     // of the run file's, at most
  bool any_shape = false;      // stages, replicas and microbatches from the seed instead of the run file
  bool json = false;           // a line per run
};

// `isthmus simulate`: the run's stages, replicas and microbatches under drawn faults (sim/simulation.h). Prints what
// happened; the exit code is 1 if anything was violated, 2 for a fault that does not exist.
int simulate_run(const RunConfig& run, const SimulateOptions& options);

}  // namespace isthmus
