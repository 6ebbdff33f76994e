#pragma once

#include <cstdint>

namespace isthmus::lab {

struct FleetBenchOptions {
  std::uint32_t machines = 10'000;
  std::uint32_t stages = 100;
  std::uint32_t microbatches = 2'000;
  std::uint64_t seed = 1;
  double step_seconds = 10;  // for the coordinator
  bool json = false;
};

// `isthmus bench fleet`: makes a random fleet of uneven machines in twelve regions, times what `isthmus plan` does for
// them and the plan after each of some departures, and sets the predicted speed beside what all devices could compute
// together; then runs the coordinator with that many workers (lab/coordinator_bench.h). Prints a table or one JSON
// object. Returns the process's exit code.
int bench_fleet(const FleetBenchOptions& options);

}  // namespace isthmus::lab
