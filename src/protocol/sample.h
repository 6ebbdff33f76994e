#pragma once

#include <cstdint>

#include "base/ids.h"
#include "protocol/plan.h"

namespace isthmus::protocol {

// The step of held-out samples: evaluations all read the same ones.
inline constexpr StepId kHeldOut{0};

// What a microbatch reads from the shards: a training one by its step, a held-out one by its place in an evaluation,
// from 0. A pure function of the run's seed, so whoever asks again gets the same token ids.
struct Sample {
  StepId step;
  MicrobatchId microbatch;
  friend auto operator<=>(const Sample&, const Sample&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("step", self.step);
    visit("microbatch", self.microbatch);
  }

  // Of a step's microbatch, which counts those of an evaluation behind the training ones.
  static Sample of(const Plan& plan, StepId step, MicrobatchId m) {
    if (plan.is_training(step, m)) return {step, m};
    return {kHeldOut, MicrobatchId(m.value - plan.training_count(step))};
  }
  bool exists_in(const Plan& plan) const {
    return microbatch.value < (step == kHeldOut ? plan.evaluation_microbatches : plan.training_count(step));
  }
};

// A head asks for what it needs in so many steps behind the running one: a step's worth of time for the way there and
// back, and as much again for a pause of the coordinator.
inline constexpr std::uint32_t kStepsAhead = 2;
// So many samples a head wants at a time, at most.
inline std::uint32_t samples_max(const Plan& plan) {
  return (1 + kStepsAhead) * plan.microbatches + plan.evaluation_microbatches;
}

}  // namespace isthmus::protocol
