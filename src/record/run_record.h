#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "protocol/plan.h"
#include "record/line_file.h"
#include "record/run_folder.h"
#include "scheduler/coordinator/coordinator.h"
#include "spec/run_config.h"

namespace isthmus::record {

// What the run has come to, for the display and the summary.
struct RunFigures {
  StepId step;
  std::optional<double> loss;  // as last measured; nothing: no step has been taken
  double grad_norm = 0;
  std::optional<double> validation_loss;
  std::uint64_t validation_step = 0;
  std::uint64_t tokens = 0;
  double seconds = 0;
  double step_seconds = 0;
  double tokens_per_second = 0;  // of the last step
  std::uint64_t wire_bytes = 0;  // of the last step
  double wire_bytes_per_token_hop = 0;
};

// Writes metrics.jsonl, events.jsonl and summary.json from what the coordinator decides.
class RunRecord {
 public:
  // `start`: when this process began, on the clock of every later `now`. Continues the files of an earlier process.
  static Result<RunRecord> open(const RunFolder& folder, const spec::RunConfig& run, const protocol::Plan& plan,
                                std::uint64_t version, Time start);

  Status committed(const coordinator::StepOutcome& outcome, Time now);
  // Writes the lines of committed steps that an earlier process of this run decided and did not get to write.
  Status take_up(const std::vector<coordinator::LogRecord>& log);
  // Every line of a later step than `version` goes.
  Status rolled_back(std::uint64_t version);
  Status happened(const coordinator::Happened& happened, std::uint64_t time_us);
  Status ended(const coordinator::RunEnded& end, Time now);
  const RunFigures& figures() const { return figures_; }

 private:
  RunRecord(const RunFolder& folder, const spec::RunConfig& run, const protocol::Plan& plan, LineFile metrics,
            LineFile events);
  void resume_from(const std::string& metrics);

  RunFolder folder_;
  spec::RunConfig run_;
  protocol::Plan plan_;
  LineFile metrics_;
  LineFile events_;
  RunFigures figures_;
  Time start_{};
  Time step_began_{};
  double seconds_before_ = 0;  // of earlier processes of this run
  double device_bound_seconds_ = 0;
  double stepped_seconds_ = 0;
  std::uint64_t wire_bytes_total_ = 0;
  std::uint64_t stepped_tokens_ = 0;
  std::uint64_t control_bytes_total_ = 0;
  std::uint64_t sync_bytes_total_ = 0;
  std::uint64_t state_bytes_total_ = 0;
  std::map<PeerId, protocol::WorkerStats> last_stats_;
};

}  // namespace isthmus::record
