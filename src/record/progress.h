#pragma once

#include <cstdio>
#include <map>
#include <string>

#include "base/time.h"
#include "record/run_record.h"
#include "scheduler/coordinator/coordinator.h"
#include "scheduler/coordinator/run_status.h"
#include "spec/run_config.h"

namespace isthmus::record {

// Shows a run while it goes: on a terminal one block that stays in place (a line for the run, a row per worker), in a
// pipe one line per step. Results go to stdout.
class Progress {
 public:
  Progress(const spec::RunConfig& run, std::FILE* out);

  // A step was committed.
  void committed(const RunFigures& figures);
  // Whether the block is due again: a few times a second, never in a pipe.
  bool is_due(Time now) const;
  // Draws it.
  void refresh(const RunFigures& figures, const coordinator::RunStatus& status);
  // Says what whoever watches should know of; `routine`: of the run's beginning, so that members are no news.
  void happened(const coordinator::Event& event, bool routine);
  // How the run ended, and where what it leaves behind is. `whole`: the newest version that every stage has saved.
  void ended(const coordinator::RunEnded& end, const RunFigures& figures, const std::string& folder,
             std::uint64_t whole);
  // A message that stays above the block.
  void say(const std::string& line);

 private:
  std::string worker_row(const coordinator::RunStatus::Worker& worker, double seconds);
  void erase_block();

  const spec::RunConfig run_;
  std::FILE* const out_;
  const bool terminal_;
  const bool colour_;
  int block_lines_ = 0;
  Time drawn_{};
  std::map<StageId, protocol::WorkerStats> before_;
};

}  // namespace isthmus::record
