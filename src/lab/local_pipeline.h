#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "config/sweep_config.h"
#include "data/token_source.h"
#include "protocol/plan.h"
#include "protocol/step_paths.h"
#include "runner/job_runner.h"
#include "scheduler/coordinator/step_guard.h"
#include "scheduler/coordinator/step_result.h"
#include "spec/run_config.h"

namespace isthmus::lab {

// Payload bytes that crossed the boundaries, all of them together.
struct BoundaryTraffic {
  std::uint64_t forward = 0;   // values forward
  std::uint64_t backward = 0;  // their gradients
  std::uint64_t tokens = 0;    // token ids
  std::uint64_t total() const { return forward + backward + tokens; }
};

// How long one stage's device worked on training, added up over the run; evaluation is not in it. On a CPU it is the
// processor's time, so that runs side by side do not slow each other down on paper.
struct StageTime {
  Duration forward{};
  Duration input_gradient{};
  Duration weight_gradient{};
  Duration update{};  // norms and optimizer
};

// Every stage of a run in this process, one thread, no sockets. A microbatch goes down and up the stages as encoded
// bytes, exactly what a real run would send, and a step ends with the same decision; with run.deterministic the losses
// are those of `isthmus train`, to the bit. Of a stage's replicas each gets as many of a step's microbatches as the
// others, dealt anew for every step and stage, and they agree as in a run. There is no checkpoint to go back to after
// bad steps.
class LocalPipeline {
 public:
  // `absence`: a stage that some steps go without. Errors: data shards, no such device.
  static Result<LocalPipeline> open(const spec::RunConfig& run, const std::optional<config::Absence>& absence = {});

  // Runs the next step: 1 … plan().steps train, plan().final_step() only evaluates. Errors: a stage that refuses its
  // neighbour's bytes, or a payload that has not the size the plan says.
  Result<coordinator::StepResult> run_step();

  const protocol::Plan& plan() const { return plan_; }
  StepId last_step() const { return step_; }
  // Of training microbatches.
  const BoundaryTraffic& traffic() const { return traffic_; }
  const std::vector<StageTime>& times() const { return times_; }

 private:
  // Each replica's jobs are carried out as in a run, without a journal and without checkpoints.
  using Replicas = std::vector<std::unique_ptr<runner::JobRunner>>;
  LocalPipeline(const spec::RunConfig& run, const std::optional<config::Absence>& absence, const protocol::Plan& plan,
                data::TokenSource source, std::vector<Replicas> stages);
  void deal();
  runner::JobRunner& replica_of(std::size_t stage, MicrobatchId m) const {
    return *stages_[stage][dealt_[stage][m.value]];
  }
  std::uint32_t share_of(std::size_t stage, std::size_t replica) const;
  protocol::JobTag tag() const { return {step_, 0, kNoSession}; }
  // The squared norms of a stage's gradient.
  std::vector<protocol::UnitNorm> prepare(std::size_t stage, bool& finite);
  void agree(std::size_t stage);
  // What the head reads.
  compress::EncodedTensor tokens(MicrobatchId m) const;
  // All stages' F, from the tokens to the loss.
  Result<protocol::MicrobatchLoss> forward(MicrobatchId m);
  // All stages' I and W.
  Status backward(MicrobatchId m);
  Status check_forward(std::size_t boundary, const compress::EncodedTensor& tensor) const;
  // Calls `work` and adds how long the device took for it.
  template <class Work>
  auto timed(Duration& sum, Work&& work) const;

  spec::RunConfig run_;
  std::optional<config::Absence> absence_;
  protocol::Plan plan_;
  data::TokenSource source_;
  std::vector<Replicas> stages_;
  std::vector<std::vector<std::uint32_t>> dealt_;  // by stage: of every microbatch of the step, its replica
  StepId step_;
  protocol::StepPaths paths_;  // of that step
  coordinator::StepGuard guard_;
  BoundaryTraffic traffic_;
  std::vector<StageTime> times_;
};

}  // namespace isthmus::lab
