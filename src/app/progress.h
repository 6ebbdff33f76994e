#pragma once

#include <cstdio>
#include <map>
#include <string>

#include "app/run_record.h"
#include "base/time.h"
#include "config/run_config.h"
#include "scheduler/coordinator.h"

namespace isthmus {

// Shows a run while it goes: on a terminal one block that stays in place (a line for the run, a row per worker), in a
// pipe one line per step. Results go to stdout.
class Progress {
 public:
  Progress(const RunConfig& run, std::FILE* out);

  // A step was committed.
  void committed(const RunFigures& figures);
  // Redraws the block, at most a few times a second; nothing in a pipe.
  void refresh(const RunFigures& figures, const Coordinator& coordinator, Time now);
  // A message that stays above the block.
  void say(const std::string& line);

 private:
  std::string worker_row(const Report& report, double seconds);
  void erase_block();

  const RunConfig run_;
  std::FILE* const out_;
  const bool terminal_;
  const bool colour_;
  int block_lines_ = 0;
  Time drawn_{};
  std::map<StageId, WorkerStats> before_;
};

}  // namespace isthmus
