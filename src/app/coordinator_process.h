#pragma once

#include <string>

#include "app/run_folder.h"
#include "base/result.h"
#include "config/run_config.h"

namespace isthmus {

// The process that serves a run: sockets, log, output files and display around scheduler/coordinator.h.
struct CoordinatorOptions {
  RunFolder folder;
  std::uint64_t version = 0;  // weights the run begins with
  bool fresh = true;          // append Init; false: take the log up where it ends
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
  std::uint16_t bulk_port = 0;  // 0: the one after `port`
  // Lines read here: "stop CODE REASON" ends the run, "lost PEER" says that a worker's process has ended. -1: none.
  int control_fd = -1;
  // The bound endpoints are written here as one line, "control bulk". -1: nowhere.
  int ready_fd = -1;
};

// Returns the process's exit code.
int serve_coordinator(const RunConfig& run, const CoordinatorOptions& options);

}  // namespace isthmus
