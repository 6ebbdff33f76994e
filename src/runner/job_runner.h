#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "protocol/effects.h"
#include "protocol/plan.h"
#include "runner/stage_compute.h"
#include "store/checkpoint_store.h"
#include "store/journal.h"

namespace isthmus::runner {

// What a worker's state machine asks of its device and its disk, in the order in which it is given out.
using Job =
    std::variant<protocol::RunOperation, protocol::RunClose, protocol::RunAdd, protocol::RunPrepare, protocol::RunApply,
                 protocol::RunDropStep, protocol::RunSave, protocol::RunDigests, protocol::RunLoad,
                 protocol::RunRestore, protocol::RunSnapshot, protocol::RunFollow, protocol::RunRecall,
                 protocol::RunTrim, protocol::RunUpdate, protocol::RunAgree, protocol::RunTake>;

// The stage is made; the weights are those of this version.
struct StageReady {
  std::uint64_t version = 0;
  std::uint32_t timeline = 0;
  protocol::DeviceFigures device;
};

// Carries out jobs on a stage, with a journal of what it sent and its checkpoints. The only interpreter of jobs there
// is: the worker's compute thread, the simulator and the pipeline in one process differ in what they hand it. Pure but
// for what stage, journal and store do. One owner, one job at a time.
class JobRunner {
 public:
  struct Options {
    StageId stage;
    // Makes the stage with its initial weights; also when no checkpoint can be loaded any more.
    std::function<Result<std::unique_ptr<StageCompute>>()> make;
    std::function<double(StepId)> learning_rate = [](StepId) { return 0.0; };
    // A checkpoint was written, or not; from whatever thread the store writes on.
    std::function<void(protocol::SaveDone)> saved = [](protocol::SaveDone) {};
  };
  // Both outlive the runner. No journal: what was sent is kept nowhere. No checkpoints: REQUIRES no RunSave, no
  // RunLoad.
  JobRunner(const protocol::Plan& plan, Options options, store::Journal* journal, store::CheckpointStore* checkpoints);
  virtual ~JobRunner() = default;

  // Makes the stage and loads the first of these versions that can be (0: initial weights). Errors: it cannot be made,
  // or the last one not be loaded.
  Result<StageReady> start(const std::vector<std::uint64_t>& versions = {0});
  // REQUIRES: start() was well. Nothing, if the job has no result, or it comes later (RunSave). Errors: the stage
  // cannot go on.
  virtual Result<std::optional<protocol::JobResult>> run(const Job& job);
  // What could not be done and training goes on without, since it was last asked for; empty: nothing.
  std::string take_warning() { return std::exchange(warning_, {}); }

  StageCompute& stage() { return *stage_; }

 private:
  using Answer = std::optional<protocol::JobResult>;
  Answer carry_out(const protocol::RunOperation& job);
  Answer carry_out(const protocol::RunClose& job);
  Answer carry_out(const protocol::RunAdd& job);
  Answer carry_out(const protocol::RunPrepare& job);
  Answer carry_out(const protocol::RunApply& job);
  Answer carry_out(const protocol::RunDropStep& job);
  Answer carry_out(const protocol::RunSave& job);
  Answer carry_out(const protocol::RunDigests& job);
  Answer carry_out(const protocol::RunLoad& job);
  Answer carry_out(const protocol::RunRestore& job);
  Answer carry_out(const protocol::RunSnapshot& job);
  Answer carry_out(const protocol::RunFollow& job);
  Answer carry_out(const protocol::RunRecall& job);
  Answer carry_out(const protocol::RunTrim& job);
  Answer carry_out(const protocol::RunUpdate& job);
  Answer carry_out(const protocol::RunAgree& job);
  Answer carry_out(const protocol::RunTake& job);
  Status load(std::uint64_t version, std::uint32_t& timeline);
  void forward(const protocol::RunOperation& job, protocol::OperationDone& done);
  void input_gradient(const protocol::RunOperation& job, protocol::OperationDone& done);
  void note_sent(const protocol::JobTag& tag, MicrobatchId m, bool gradient, const compress::EncodedTensor& tensor);
  void sync_journal();
  void warn(const Status& status);

  const protocol::Plan plan_;
  const Options options_;
  store::Journal* const journal_;
  store::CheckpointStore* const checkpoints_;
  std::unique_ptr<StageCompute> stage_;
  std::string warning_;
};

}  // namespace isthmus::runner
