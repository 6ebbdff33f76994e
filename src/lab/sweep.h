#pragma once

#include <string>

#include "config/sweep_config.h"

namespace isthmus::lab {

// `isthmus bench convergence`: every row of a sweep with every seed, each in a process of its own.
struct SweepOptions {
  std::string out;    // folder the sweep leaves behind
  unsigned jobs = 1;  // processes at a time
  bool as_json = false;
};

// Runs what is not in OUT/runs yet, then writes results.jsonl, table.md and report.html and prints the table. Returns
// the process's exit code: 1 if a run failed, 130 if interrupted; what is finished is kept either way.
int run_sweep(const config::SweepConfig& sweep, const SweepOptions& options);

}  // namespace isthmus::lab
