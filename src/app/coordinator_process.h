#pragma once

#include <optional>
#include <string>

#include "app/token_server.h"
#include "base/result.h"
#include "record/run_folder.h"
#include "spec/run_config.h"

namespace isthmus::app {

// The process that serves a run: sockets, log, output files and display around scheduler/coordinator/coordinator.h.
struct CoordinatorOptions {
  record::RunFolder folder;
  // Begins, or begins again, from the weights of this version; nothing: goes on where the log ends.
  std::optional<std::uint64_t> begin_at;
  std::string host = "127.0.0.1";
  std::uint16_t port =
      0;  // control; bulk takes the next one, the door for those who want to join the one after. 0: any
  std::size_t expected = 0;  // so many workers are waited for, some seconds at most, before the first gets a seat
  // Lines of a supervisor: "stop CODE REASON" ends the run; "lost IDENTITY" and "gone IDENTITY WHY" say that the
  // process of the worker with this identity key, in hexadecimal, has ended, and that it will not come back. Hints:
  // without them the same is found out from silence. -1: none.
  int control_fd = -1;
};

// Returns the process's exit code. `tokens`: of this run.
int serve_coordinator(const spec::RunConfig& run, const CoordinatorOptions& options, TokenServer tokens);

}  // namespace isthmus::app
