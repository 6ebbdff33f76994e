#pragma once

#include <cstdint>

#include "sim/preemption.h"

namespace isthmus {

struct RebalanceBenchOptions {
  sim::PreemptionOptions preemption;
  std::uint64_t seeds = 10;  // 1, 2, …
  bool json = false;
};

// `isthmus bench rebalance`: SWARM's experiment on simulated preemptions (sim/preemption.h), without moves, with SWARM's
// rule, and with scheduler/rebalance.h. Prints a table or one JSON object. Returns the process's exit code: 2 if there
// are fewer peers than stages.
int bench_rebalance(const RebalanceBenchOptions& options);

}  // namespace isthmus
