#pragma once

#include <cstdint>

#include "base/ids.h"
#include "spec/run_spec.h"

namespace isthmus::spec {

// Steps of the schedule: train.schedule_steps, or all of the run's.
std::uint64_t schedule_steps(const RunSpec& run);

// Linear warm-up over `warmup_steps`, then a cosine from learning_rate down to final_learning_rate × learning_rate
// at step `schedule_steps` and after it. Every worker computes it for itself; `step` counts from 1.
double learning_rate(const RunSpec& run, StepId step);

}  // namespace isthmus::spec
