#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "spec/run_config.h"

namespace isthmus::app {

// A run whose stages a command puts together, with its owner's leave.
struct OwnedRunOptions {
  std::string path;                   // of the run's folder
  std::string owner_key;              // file; empty: the one in the folder
  std::optional<std::uint64_t> step;  // absent: the newest of which every stage has a checkpoint
};

struct OwnedRun {
  spec::RunConfig run;
  std::string checkpoints;    // folder
  std::uint64_t version = 0;  // of it, the one to read
};

// Errors: no run there, not its owner, no such checkpoint, nothing but emulated stages.
Result<OwnedRun> open_owned_run(const OwnedRunOptions& options);

}  // namespace isthmus::app
