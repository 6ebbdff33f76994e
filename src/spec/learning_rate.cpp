#include "spec/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace isthmus::spec {

std::uint64_t schedule_steps(const RunSpec& run) {
  return run.train.schedule_steps > 0 ? run.train.schedule_steps : run.run.steps;
}

double learning_rate(const RunSpec& run, StepId step) {
  const auto& train = run.train;
  const double s = static_cast<double>(step.value);
  const double warmup = static_cast<double>(train.warmup_steps);
  if (s <= warmup) return train.learning_rate * s / warmup;
  const double span = std::max(1.0, static_cast<double>(schedule_steps(run)) - warmup);
  const double progress = std::min(1.0, (s - warmup) / span);
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return train.learning_rate * (train.final_learning_rate + (1.0 - train.final_learning_rate) * cosine);
}

}  // namespace isthmus::spec
