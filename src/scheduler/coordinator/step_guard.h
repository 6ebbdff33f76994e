#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "scheduler/coordinator/decisions.h"
#include "spec/run_spec.h"

namespace isthmus::coordinator {

// Tells bad steps from good ones, so that one batch or one broken device does not spoil the weights. A step is bad if
// its loss or the norm of its gradient is not finite or, after OLMo-core's SkipStepOptimizer, too far above the mean of
// the last good ones.
//
// All it knows comes from the log: a coordinator that starts again judges as it did before, and a run that went back to
// an older version as it did then. Pure.
class StepGuard {
 public:
  struct Options {
    double sigmas = 6;  // standard deviations above the mean that are too far; 0: only what is not finite is bad
    std::uint32_t window = 128;  // good steps that both are taken of; before half of them are there, none is too far
    std::uint32_t patience = 8;  // bad steps in a row after which skipping is not enough; 0: it always is
    static Options of(const spec::RunSpec& run);
  };
  explicit StepGuard(Options options) : options_(options) {}

  // Why the step must not be applied, for people; empty: it may be. `finite`: what all stages say of their gradients;
  // `absent`: stages that it went without. Such a step is one of another model, whose loss says nothing of this one's.
  std::string objection(StepId step, const StepFigures& figures, bool finite, const std::vector<StageId>& absent) const;

  // What was decided.
  void apply(const LogRecord& record);

  // Bad steps since the last good one.
  std::uint32_t streak() const;
  bool out_of_patience() const { return options_.patience > 0 && streak() >= options_.patience; }
  // The last step that changed the weights; 0: none that is known of.
  StepId trained() const;
  // The newest version that the run went back to because of bad steps; 0: none.
  std::uint64_t gone_back_to() const { return gone_back_to_; }
  // What to leave out when the run goes back to this version: the bad steps, and of those before them as many as the
  // window holds (PaLM, arXiv 2204.02311, 5.1: the data around a spike, without which it did not come again).
  StepRange suspects(std::uint64_t version) const;

 private:
  enum class Kind : std::uint8_t { kGood, kBad, kLeftOut, kPartial };
  // A training step of this timeline.
  struct Past {
    StepId step;
    double loss = 0;
    double grad_norm = 0;
    Kind kind = Kind::kGood;
  };
  void commit(const CommitRecord& record);
  void go_back(std::uint64_t version);
  bool is_left_out(StepId step) const;
  std::uint32_t least() const { return options_.window / 2; }
  // The last good steps, newest first, window of them at most.
  std::vector<const Past*> window() const;

  Options options_;
  std::vector<Past> past_;
  std::vector<StepRange> left_out_;  // whatever the timeline: their data stays what it is
  std::uint64_t gone_back_to_ = 0;
};

}  // namespace isthmus::coordinator
