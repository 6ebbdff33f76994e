#pragma once

#include <cstdint>

#include "lab/preemption.h"

namespace isthmus::lab {

struct RebalanceBenchOptions {
  PreemptionOptions preemption;
  std::uint64_t seeds = 10;  // 1, 2, …
  bool json = false;
};

// `isthmus bench rebalance`: SWARM's experiment on simulated preemptions (lab/preemption.h), without moves, with
// SWARM's rule, and with scheduler/coordinator/rebalance.h. Prints a table or one JSON object. Returns the process's
// exit code: 2 if there are fewer peers than stages.
int bench_rebalance(const RebalanceBenchOptions& options);

}  // namespace isthmus::lab
