#pragma once

#include <cstdint>
#include <string>

#include "app/run_folder.h"
#include "base/ids.h"
#include "config/run_config.h"

namespace isthmus {

// One stage replica: an io thread (this one) around router/worker_steps.h and a compute thread. When it is moved to another
// stage it drops all it holds and begins another life there, as a worker that joins.
struct WorkerOptions {
  RunFolder folder;
  PeerId peer;
  std::uint64_t version = 0;  // checkpoint to start from; 0: initial weights
  // Instead: the newest checkpoint of its stage that is whole, or the initial weights. For a process that replaces one.
  bool newest = false;
  bool trace = false;
  // The coordinator's endpoints come from here as one line, "control bulk".
  int endpoints_fd = 0;
};

// Returns the process's exit code.
int serve_worker(const RunConfig& run, const WorkerOptions& options);

}  // namespace isthmus
