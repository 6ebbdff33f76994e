#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "protocol/plan.h"
#include "protocol/view.h"

namespace isthmus::protocol {

// Which stages each microbatch of a step visits, in order (Skip-Pipe, arXiv 2502.19913). A skipped stage is a residual
// block that adds nothing: what the stage before it sent goes to the stage behind it unchanged, and so does the
// gradient on its way back. First and last stage are never skipped, of two neighbours one at most, and of a path a
// third at most.
//
// A pure function of the plan, the step and the absent stages, so coordinator and workers never have to send a path.
class StepPaths {
 public:
  StepPaths() = default;
  // `absent`: stages that no microbatch of the step visits, because nobody serves them. Without any, the microbatches
  // skip plan.planned_skips stages among them, dealt so that coverage of the stages differs by one at most and
  // the shortfall moves on from step to step; every tenth step, and every evaluation, takes the full path.
  StepPaths(const Plan& plan, StepId step, const std::vector<StageId>& absent);

  bool visits(MicrobatchId m, StageId stage) const { return !skips(m).contains(stage); }
  // REQUIRES: there is one.
  StageId next(MicrobatchId m, StageId stage) const { return neighbour(m, stage, 1); }
  StageId previous(MicrobatchId m, StageId stage) const { return neighbour(m, stage, -1); }

  // Whether some microbatch goes straight from one of the two stages to the other.
  bool meet(StageId a, StageId b) const;
  std::size_t stages() const { return count_.size(); }
  // Microbatches that visit the stage: all of them, and those that train.
  std::uint32_t count(StageId stage) const { return count_.at(stage.value); }
  std::uint32_t training_count(StageId stage) const { return training_count_.at(stage.value); }
  // Visits by training microbatches that the step leaves out, and their share of those of a full step.
  std::uint32_t skipped() const;
  double skip_ratio() const;

  // The same decision as it concerns one stage: its sum is of fewer microbatches than the step has, so it counts for
  // more; a stage that saw none leaves its weights alone.
  Commit for_stage(Commit commit, StageId stage) const;
  double weight(StageId stage) const;
  // … and one of its replicas that steps on its own: `own` training microbatches count as if they were all of the
  // stage's; without any it leaves its weights alone.
  Commit for_replica(const Commit& commit, StageId stage, std::uint32_t own) const;

 private:
  struct Skips {
    std::vector<StageId> stages;  // ascending
    bool contains(StageId stage) const;
  };
  const Skips& skips(MicrobatchId m) const { return skips_.at(m.value); }
  StageId neighbour(MicrobatchId m, StageId stage, int step) const;

  std::vector<Skips> skips_;  // by microbatch
  std::vector<std::uint32_t> count_;
  std::vector<std::uint32_t> training_count_;
  std::uint32_t training_ = 0;
};

// Stages that may be left out of a path at once.
std::uint32_t skips_max(std::size_t stages);
// Whether a run may go on without these: neither first nor last, no two neighbours, not more than a third.
bool may_be_absent(const Plan& plan, const std::vector<StageId>& stages);

}  // namespace isthmus::protocol
