#pragma once

#include <cstdint>
#include <string>

#include "app/restore.h"
#include "config/run_config.h"

namespace isthmus {

// `isthmus train`: a whole run on this machine, one coordinator process and one worker process per stage replica.
struct TrainOptions {
  std::string out;  // folder the run leaves behind
  bool resume = false;
  RestoreOptions restore;  // if it has a path: the run to go on from
  bool trace = false;
  std::uint16_t port = 0;  // of the coordinator; 0: any
};

// Returns the process's exit code.
int train(const RunConfig& run, const TrainOptions& options);

}  // namespace isthmus
